"""What a phantom cohort is made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from .phantom_contrasts import CONTRASTS
from .phantom_people import DURATION_YEARS_PER_YEAR

AGE_LIMITS_YEARS = {"adults": (16, 100), "infants": (0, 2)}
# What a population, or the clinic of a disease, is usually scanned with; `padflow phantom` starts from these.
CUSTOMARY: dict[str, dict[str, Any]] = {
    "adults": {},
    "infants": {"patients": 0.06, "age_range_years": (0.0, 2.0), "contrasts": ("T1w", "T2w"), "slices": "mixed"},
    "neurodegeneration": {"patients": 0.5, "age_range_years": (50.0, 85.0)},
}


@dataclass(frozen=True)
class PhantomSpec:
    """What a phantom cohort is made of. Equal specs give equal bytes.

    Attributes:
        subjects: How many participants; a larger cohort begins with the participants of a smaller one.
        sites: How many scanners.
        seed: Start of every random stream; cohorts of different seeds share neither people nor scanners.
        patients: Fraction with the disease, or of infants with abnormal myelination.
        sessions: Visits of each participant, about a year apart; three months for infants.
        variant: `head` with skull, scalp and face, or `stripped`: brain only on a background of zeros.
        age_range_years: Youngest and oldest age at baseline; filled evenly.
        spacing_mm: Nominal voxel size of 3D scans; each site's own varies about it and is anisotropic.
        site_offset: Number of the first site: a cohort of the same seed with other scanners.
        contrasts: What each session holds, of `T1w`, `T2w`, `FLAIR`; the first is the one that is never left out.
        population: `adults`, or `infants` of 0 to 24 months.
        slices: `3d`, `thick` axial slices with a gap, or `mixed`: either, by scan.
        in_plane_mm: Nominal in-plane voxel size of thick slices; each site's own is up to a tenth finer.
        missing: Fraction of the other contrasts that sessions lack.
        disease: Of adults: `ms`, multiple sclerosis; or `neurodegeneration`, Alzheimer's and Parkinson's in turns.
        duration_years_per_year: Of MS: brain-PAD that goes with each year of disease duration.
    """

    subjects: int
    sites: int = 2
    seed: int = 0
    patients: float = 0.4
    sessions: int = 1
    variant: Literal["head", "stripped"] = "head"
    age_range_years: tuple[float, float] = (20.0, 85.0)
    spacing_mm: float = 2.0
    site_offset: int = 0
    contrasts: tuple[str, ...] = ("T1w",)
    population: Literal["adults", "infants"] = "adults"
    slices: Literal["3d", "thick", "mixed"] = "3d"
    in_plane_mm: float = 1.0
    missing: float = 0.0
    disease: Literal["ms", "neurodegeneration"] = "ms"
    duration_years_per_year: float = DURATION_YEARS_PER_YEAR

    def __post_init__(self) -> None:
        (low, high), (youngest, oldest) = self.age_range_years, AGE_LIMITS_YEARS.get(self.population, (0, 100))
        known = 0 < len(self.contrasts) == len(set(self.contrasts)) and set(self.contrasts) <= set(CONTRASTS)
        limits: tuple[tuple[str, bool, str], ...] = (
            ("subjects", self.subjects >= 1, "at least 1"),
            ("sites", self.sites >= 1, "at least 1"),
            ("seed", self.seed >= 0, "0 or more"),
            ("patients", 0 <= self.patients <= 1, "a fraction from 0 to 1"),
            ("sessions", self.sessions >= 1, "at least 1"),
            ("variant", self.variant in ("head", "stripped"), "head or stripped"),
            ("population", self.population in AGE_LIMITS_YEARS, "adults or infants"),
            (
                "age_range_years",
                youngest <= low < high <= oldest,
                f"(youngest, oldest) within {youngest} to {oldest} for {self.population}",
            ),
            ("spacing_mm", 0.5 <= self.spacing_mm <= 8, "from 0.5 to 8"),
            ("site_offset", self.site_offset >= 0, "0 or more"),
            ("contrasts", known, f"some of {', '.join(CONTRASTS)}, each once"),
            ("slices", self.slices in ("3d", "thick", "mixed"), "3d, thick or mixed"),
            ("in_plane_mm", 0.5 <= self.in_plane_mm <= 8, "from 0.5 to 8"),
            ("missing", 0 <= self.missing <= 1, "a fraction from 0 to 1"),
            ("disease", self.disease in ("ms", "neurodegeneration"), "ms or neurodegeneration"),
            ("duration_years_per_year", -5 <= self.duration_years_per_year <= 5, "from -5 to 5"),
            ("disease", self.population == "adults" or self.disease == "ms", "to be left out for infants"),
        )
        for name, holds, expected in limits:
            if not holds:
                found = getattr(self, name)
                raise ValueError(f"{name} is {found!r}, expected {expected}; set PhantomSpec({name}=…) accordingly")

    @property
    def cast(self) -> Literal["ms", "neurodegeneration", "infants"]:
        """Whose tables the cohort has."""
        return "infants" if self.population == "infants" else self.disease

    def as_values(self) -> dict[str, Any]:
        """Plain values by field; of what phantoms got later only what is set, since older files must stay."""
        later = {"disease": "ms", "duration_years_per_year": DURATION_YEARS_PER_YEAR}
        return {name: value for name, value in asdict(self).items() if value != later.get(name, ...)}

    @property
    def plain(self) -> bool:
        """Whether heads are the bare ones of a T1w-only adult cohort, without lesions or reference tissues."""
        return self.population == "adults" and self.contrasts == ("T1w",)
