"""A made-up study with every kind of row that a report shows: no cohort, person or model of it exists."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tasks.science.report.cautions import find_cautions
from tasks.science.report.contents import CORRECTED, MEAN_AGE, MODEL, RAW, TISSUE_VOLUMES, ReportContents
from tasks.science.statistics.analysis import EFFECT_COLUMNS, Analysis
from tasks.science.statistics.association_fit import COLUMNS, AssociationFit
from tasks.science.statistics.bootstrap import metric_table
from tasks.science.statistics.comparison import paired_mae_table
from tasks.science.statistics.conformal import ConformalInterval, coverage_table

from .made_up_checks import made_up_checks

STUDY_TEXT = """name = "harbour"

[cohorts.harbour-train]
root = "s3://harbour/train"
role = "train"

[cohorts.northern-sites]
root = "s3://northern/bids"
role = "external"

[[associations]]
name = "diagnosis"
formula = "brain_pad_years ~ C(diagnosis) + age_years + C(sex)"
cohorts = ["clinic"]
"""


def made_up_predictions(n_subjects: int = 60, error_years: float = 5.0, seed: int = 3) -> pd.DataFrame:
    """External and clinical scans with a slope below 1, a patient effect and a few that failed a check."""
    generator = np.random.default_rng(seed)
    parts = []
    for cohort, role in (("northern-sites", "external"), ("clinic", "clinical")):
        age = generator.uniform(22, 78, n_subjects)
        diagnosis = generator.choice(["HC", "MS", "CIS"], n_subjects, p=[0.4, 0.4, 0.2]) if role == "clinical" else None
        effect = np.where(diagnosis == "MS", 6.0, np.where(diagnosis == "CIS", 2.0, 0.0)) if role == "clinical" else 0.0
        predicted = 50 + 0.78 * (age - 50) + generator.normal(0, error_years, n_subjects) + effect
        pad = predicted - age
        names = [f"sub-{cohort[:2]}{i:03d}" for i in range(n_subjects)]
        parts.append(
            pd.DataFrame(
                {
                    "cohort": cohort,
                    "role": role,
                    "scan_id": [f"{cohort}/{name}/ses-01" for name in names],
                    "participant_id": names,
                    "session_id": "ses-01",
                    "age_years": age,
                    "predicted_age_years": predicted,
                    "brain_pad_years": pad,
                    "corrected_brain_pad_years": pad + 0.22 * (age - 50),
                    "sex": generator.choice(["F", "M"], n_subjects),
                    "site": generator.choice(["Aarhus", "Bergen", "Göteborg"], n_subjects),
                    "status": "ok",
                    "reason": "",
                    "diagnosis": diagnosis,
                    "edss": generator.integers(0, 14, n_subjects) / 2 if role == "clinical" else np.nan,
                }
            )
        )
    predictions = pd.concat(parts, ignore_index=True)
    bad = predictions.index[[4, n_subjects + 7]]
    predictions.loc[bad, ["predicted_age_years", "brain_pad_years", "corrected_brain_pad_years"]] = np.nan
    predictions.loc[bad, "status"] = "out-of-range"
    predictions.loc[bad, "reason"] = "predicted age 104.2 years lies outside 10 to 100"
    return predictions


def made_up_metrics(predictions: pd.DataFrame, resamples: int = 200) -> pd.DataFrame:
    """Model and baselines, raw and corrected, by the project's own metric table."""
    tables = []
    for cohort, rows in predictions[predictions["status"] == "ok"].groupby("cohort", sort=False):
        rows = rows[["participant_id", "age_years", "predicted_age_years", "corrected_brain_pad_years", "site", "sex"]]
        corrected = rows["age_years"] + rows["corrected_brain_pad_years"]
        volume = 50 + 0.35 * (rows["age_years"] - 50) + 7 * np.sin(np.arange(len(rows)))
        for predictor, correction, ages, groups in (
            (MODEL, RAW, rows["predicted_age_years"], ("site", "sex", "age_band")),
            (TISSUE_VOLUMES, RAW, volume, ()),
            (MEAN_AGE, RAW, np.full(len(rows), 49.3), ()),
            (MODEL, CORRECTED, corrected, ()),
        ):
            table = metric_table(rows.assign(predicted_age_years=ages), groups, resamples=resamples)
            if predictor == TISSUE_VOLUMES:
                gain = paired_mae_table(rows, ages, ("site", "sex", "age_band"), resamples)
                table = pd.concat([table, gain.assign(metric="mae_difference")], ignore_index=True)
            tables.append(table.assign(cohort=cohort, predictor=predictor, correction=correction))
    return pd.concat(tables, ignore_index=True)


def made_up_coverage(predictions: pd.DataFrame) -> pd.DataFrame:
    """Coverage by the project's own table: raw intervals that hold, corrected ones that are infinite."""
    rows = predictions[(predictions["status"] == "ok") & (predictions["role"] == "external")]
    endless = ConformalInterval(math.inf, 0.05, 13, 12, note="12 are too few")
    intervals = ((RAW, ConformalInterval(9.8, 0.05, 49, 50)), (CORRECTED, endless))
    tables = [coverage_table(rows, interval).assign(correction=name) for name, interval in intervals]
    return pd.concat(tables, ignore_index=True).assign(cohort="northern-sites")


def made_up_associations() -> Analysis:
    """Two models that worked and one that could not be fitted, as bare figures."""
    nan = float("nan")
    adjusted = "brain_pad_years ~ C(diagnosis) + age_years + C(sex)"
    severity = "brain_pad_years ~ edss + age_years + C(sex)"
    slopes = "edss ~ brain_pad_years * years + age_years"
    ols, trouble = "OLS, HC3", "the fit did not converge; no number is given"
    rows = [
        ("diagnosis", adjusted, ols, "Intercept", 9.81, 3.02, 3.77, 15.85, 3.25, 0.002, nan, 59, 1, False, ""),
        ("diagnosis", adjusted, ols, "C(diagnosis)[T.MS]", 5.71, 1.34, 3.03, 8.39, 4.26, 8e-5, 2e-4, 59, 1, True, ""),
        ("diagnosis", adjusted, ols, "C(diagnosis)[T.CIS]", 1.92, 1.61, -1.3, 5.14, 1.19, 0.24, 0.36, 59, 1, True, ""),
        ("diagnosis", adjusted, ols, "age_years", -0.214, 0.04, -0.294, -0.134, -5.4, 1e-6, nan, 59, 1, False, ""),
        ("severity", severity, ols, "edss", 0.21, 0.4, -0.59, 1.01, 0.53, 0.6, 0.6, 52, 8, True, ""),
        ("severity", severity, ols, "age_years", -0.19, 0.05, -0.29, -0.09, -3.8, 4e-4, nan, 52, 8, False, ""),
        ("slopes", slopes, "mixed, REML", "brain_pad_years:years", *[nan] * 7, 9, 51, True, trouble),
    ]
    columns = "model formula method term estimate se ci_low ci_high statistic p_value q_value n_used n_dropped"
    effects = pd.DataFrame(rows, columns=[*columns.split(), "of_interest", "problems"])
    effects["problems"] = [[text] if text else [] for text in effects["problems"]]
    effects["response"] = effects["formula"].str.split(" ~ ").str[0]
    return Analysis(tuple(_bare_fit(terms) for _, terms in effects.groupby("model", sort=False)), with_all(effects))


def with_all(effects: pd.DataFrame) -> pd.DataFrame:
    """Give a table of effects the columns that it lacks."""
    numeric = [name for name in EFFECT_COLUMNS if name not in effects and name != "notes"]
    return effects.assign(**dict.fromkeys(numeric, math.nan), notes=[[]] * len(effects))[EFFECT_COLUMNS]


def _bare_fit(terms: pd.DataFrame) -> AssociationFit:
    first = terms.iloc[0]
    return AssociationFit(
        name=first["model"],
        formula=first["formula"],
        response=first["response"],
        method=first["method"],
        coefficients=terms.reindex(columns=COLUMNS),
        n_used=int(first["n_used"]),
        n_subjects=int(first["n_used"]),
        n_dropped={"missing edss": int(first["n_dropped"])},
        problems=tuple(first["problems"]),
        covariance=pd.DataFrame(),
        coding=None,
        centre={},
        kind="mixed" if "mixed" in first["method"] else "linear",
        groups="participant_id",
    )


def made_up_training(n_subjects: int = 412) -> dict[str, object]:
    """Facts as a fit reports them."""
    return {
        "n_subjects": {"train": n_subjects, "validation": 52, "calibration": 50},
        "n_scans": {"train": n_subjects + 31, "validation": 55, "calibration": 50},
        "best_epoch": 33,
        "epochs_run": 54,
        "stopped_early": True,
        "val_mae_years": 4.31,
        "duration_s": 8412.7,
        "hardware": "2 × A100",
        "network": {"name": "sfcn", "channels": (32, 64, 128, 256, 256, 64)},
        "seed": 20260101,
        "age_range_years": (18.0, 82.0),
    }


def made_up_curves(epochs: int = 54) -> pd.DataFrame:
    """Curves that fall and then over-fit a little."""
    generator, epoch = np.random.default_rng(5), np.arange(epochs)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 2.8 * np.exp(-epoch / 14) + 0.35 + generator.normal(0, 0.03, epochs),
            "val_loss": 2.7 * np.exp(-epoch / 12) + 0.62 + 0.004 * epoch + generator.normal(0, 0.05, epochs),
            "val_mae_years": 11 * np.exp(-epoch / 9) + 4.3 + 0.01 * epoch + generator.normal(0, 0.2, epochs),
        }
    )


def made_up_exclusions() -> pd.DataFrame:
    """Five scans with reasons that a user can act on."""
    rows = [
        ("harbour-train", "sub-tr017_T1w", "read", "the file ends after 3,211,264 of 7,340,032 voxels; fetch it again"),
        ("harbour-train", "sub-tr202_T1w", "registration", "normalised correlation with the template 0.11, below 0.25"),
        ("harbour-train", "sub-tr203_T1w", "registration", "normalised correlation with the template 0.11, below 0.25"),
        ("northern-sites", "sub-no044_T1w", "quality", "field of view cuts 14% of the brain mask"),
        ("clinic", "sub-cl009_T1w", "orientation", "qform and sform disagree by 90 degrees; check the conversion"),
    ]
    return pd.DataFrame(rows, columns=["cohort", "scan_id", "stage", "reason"])


def made_up_flow(n_subjects: int = 60) -> pd.DataFrame:
    """Counts that add up."""
    n = n_subjects
    rows = [
        ("harbour-train", "train", 560, 9, 548, 3, 0),
        ("northern-sites", "external", n + 1, 0, n, 1, 0),
        ("clinic", "clinical", n + 3, 2, n, 1, 0),
    ]
    return pd.DataFrame(rows, columns=["cohort", "role", "indexed", "unused", "prepared", "excluded", "missing"])


def made_up_montage(seed: int) -> bytes:
    """A PNG that could be a row of slices."""
    figure = Figure(figsize=(4, 1.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    grid = np.linspace(-1.2, 1.2, 90)
    noise = np.random.default_rng(seed).uniform(0.4, 1, (90, 90))
    head = (grid[:, None] ** 2 + (grid[None, :] * 1.25) ** 2 < 1) * noise
    axes.imshow(np.hstack([head] * 3), cmap="gray", aspect="auto")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def made_up_study(error_years: float = 5.0, n_subjects: int = 60) -> ReportContents:
    """Everything together, with the cautions that its own numbers call for."""
    predictions = made_up_predictions(n_subjects, error_years)
    tables = {
        "flow": made_up_flow(n_subjects),
        "exclusions": made_up_exclusions(),
        "metrics": made_up_metrics(predictions),
        "predictions": predictions,
        "analysis": made_up_associations(),
        "coverage": made_up_coverage(predictions),
        "validation": made_up_checks(predictions),
    }
    contents = ReportContents(
        study_name="Harbour: brain age across three sites",
        study_digest="9f2c4e7a" * 8,
        study_text=STUDY_TEXT,
        training=made_up_training(),
        curves=made_up_curves(),
        group_column="diagnosis",
        montages=tuple((f"sub-no{i:03d}_T1w", made_up_montage(i)) for i in range(3)),
        provenance={
            "date": "2026-03-02",
            "model": {"name": "harbour", "version": 4, "run": "3b1c5d0f9e", "digest": "77aa" * 16},
            "manifests": {"harbour-train": "ab12" * 16, "northern-sites": "cd34" * 16},
            "versions": {"padflow": "0.1.0", "torch": "2.13.0", "numpy": "2.3.1"},
            "store": "s3://harbour/store",
        },
        **tables,
    )
    return replace(contents, cautions=find_cautions(contents))
