"""A study that runs in a minute on phantoms."""

STUDY = """
name = "tiny"
seeds = [1]
registered_model = "brain-age-tiny"
excluded_tolerance = 0.5

[[cohorts]]
name = "healthy"
role = "train"
root = "train"

[[cohorts]]
name = "external"
role = "external"
root = "external"

[[cohorts]]
name = "ms"
role = "clinical"
root = "clinical"

[recipe]
resolution_mm = 4.0
bias_correction = false

[network]
channels = [4, 8, 8, 8, 8, 8]
age_range_years = [0.0, 110.0]
bin_width_years = 5.0
label_sigma_years = 5.0

[training]
epochs = 3
batch_size = 4

[splits]
train = 0.6
validation = 0.2
calibration = 0.2

[validation]
resamples = 200

[[associations]]
name = "diagnosis"
formula = "brain_pad_years ~ diagnosis + age_years + sex"
cohorts = ["ms"]

[[associations]]
name = "course"
formula = "brain_pad_years ~ years_since_baseline + age_years"
cohorts = ["ms"]
sessions = "all"
"""
