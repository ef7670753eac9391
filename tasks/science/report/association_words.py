"""How variables and terms of clinical models are written for readers: abbreviations of the field, units in words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .notation import is_missing, p_value

# As clinicians write them; whatever is not listed is written as the column says, underscores as spaces.
ABBREVIATIONS: Mapping[str, str] = {
    "edss": "EDSS",
    "mmse": "MMSE",
    "moca": "MoCA",
    "cdr": "CDR",
    "cdr_sb": "CDR-SB",
    "cdrsb": "CDR-SB",
    "updrs": "UPDRS",
    "updrs_iii": "UPDRS III",
    "updrs3": "UPDRS III",
    "mds_updrs_iii": "MDS-UPDRS III",
    "hy": "Hoehn and Yahr stage",
    "h_y": "Hoehn and Yahr stage",
    "hoehn_yahr": "Hoehn and Yahr stage",
    "hoehn_and_yahr": "Hoehn and Yahr stage",
    "bdi": "BDI",
    "madrs": "MADRS",
    "sdmt": "SDMT",
    "apoe": "APOE",
    "bmi": "BMI",
    "icv": "ICV",
    "etiv": "eTIV",
    "brain_pad": "brain-PAD",
    "corrected_brain_pad": "bias-corrected brain-PAD",
    "brain_age": "brain age",
    "participant_id": "participant",
    "subject_id": "subject",
}
UNITS = ("years", "months", "weeks", "days", "hours", "mm", "ml", "mg", "kg")
PER = {"years": "year", "months": "month", "weeks": "week", "days": "day", "hours": "hour"}
FUNCTIONS = {
    "log": "log {}",
    "sqrt": "square root of {}",
    "center": "{}, centred",
    "scale": "{}, per SD",
}
BASELINE = "_baseline"


def variable(name: str) -> str:
    """Write a column's name as a reader would, its unit apart.

    >>> variable("disease_duration_years"), variable("edss"), variable("brain_pad_years"), variable("log(edss)")
    ('disease duration', 'EDSS', 'brain-PAD', 'log EDSS')
    >>> variable("age_years_baseline"), variable("years_since_baseline"), variable("HADS-anx"), variable("Days")
    ('age at baseline', 'years since baseline', 'HADS-anx', 'Days')
    """
    wrapped = re.fullmatch(r"(\w+)\((.+)\)", name)
    if wrapped and wrapped[1] in FUNCTIONS:
        return FUNCTIONS[wrapped[1]].format(variable(wrapped[2]))
    if name.endswith(BASELINE) and name != f"years_since{BASELINE}" and not name.endswith(f"_since{BASELINE}"):
        return f"{variable(name.removesuffix(BASELINE))} at baseline"
    stem, _ = _unit_apart(name)
    return ABBREVIATIONS.get(stem.casefold(), stem.replace("_", " ").strip() or name)


def unit(name: str) -> str:
    """Name the unit that a column's name holds, or nothing.

    >>> unit("disease_duration_years"), unit("edss"), unit("age_years_baseline"), unit("log(duration_years)")
    ('years', '', 'years', '')
    """
    if name.endswith(BASELINE) and not name.endswith(f"_since{BASELINE}"):
        name = name.removesuffix(BASELINE)
    if name.startswith("center("):
        name = name.removeprefix("center(").rstrip(")")
    return "" if "(" in name else _unit_apart(name)[1]


def per(name: str) -> str:
    """Name what one step of a numeric predictor is: a year, a point's worth of its own scale.

    >>> per("disease_duration_years"), per("years_since_baseline"), per("Days"), per("edss"), per("log(edss)")
    ('year', 'year', 'day', 'unit of EDSS', 'unit of log EDSS')
    """
    of = unit(name)
    if not of and "(" not in name:
        of = next((u for u in UNITS if name.casefold() == u or name.casefold().startswith(f"{u}_")), "")
    return PER.get(of, of) or f"unit of {variable(name)}"


def variable_with_unit(name: str) -> str:
    """Write a column's name with its unit in brackets, the first letter large, as an axis does.

    >>> variable_with_unit("brain_pad_years"), variable_with_unit("edss"), variable_with_unit("disease_duration_months")
    ('Brain-PAD (years)', 'EDSS', 'Disease duration (months)')
    """
    return capital(in_text(name))


def in_text(name: str) -> str:
    """Write a column's name with its unit in brackets within a sentence.

    >>> in_text("brain_pad_years"), in_text("edss"), in_text("Reaction")
    ('brain-PAD (years)', 'EDSS', 'Reaction')
    """
    of = unit(name)
    return f"{variable(name)} ({of})" if of else variable(name)


def capital(text: str) -> str:
    """Write the first letter large and leave the others.

    >>> capital("mean EDSS"), capital("")
    ('Mean EDSS', '')
    """
    return text[:1].upper() + text[1:]


def term(name: str, references: Mapping[str, Sequence[str]] | None = None) -> str:
    """Write a model's parameter in the field's words: what is compared with what, or per which unit.

    Args:
        name: As a design's column is named, such as `diagnosis[MS]:years_since_baseline`.
        references: Categorical factor → its levels, the reference first.

    >>> levels = {"diagnosis": ("HC", "MS"), "sex": ("F", "M")}
    >>> term("diagnosis[MS]", levels), term("edss", levels), term("age_years", levels)
    ('Diagnosis: MS vs HC', 'EDSS', 'Age, per year')
    >>> term("diagnosis[MS]:years_since_baseline", levels), term("Intercept"), term("C(group)[T.AD]")
    ('Diagnosis: MS vs HC × years since baseline', 'Intercept', 'Group: AD')
    """
    plain = re.sub(r"C\(([^,()]+)[^()]*(?:\([^()]*\))?\)", r"\1", name)
    factors = [_factor(part, references or {}) for part in re.split(r":(?![^\[]*\])", plain)]
    if len(factors) == 1:
        step = PER.get(unit(plain), unit(plain)) if "[" not in plain else ""
        return capital(f"{factors[0]}, per {step}" if step else factors[0])
    return capital(" × ".join(factors))


def _factor(part: str, references: Mapping[str, Sequence[str]]) -> str:
    level = re.fullmatch(r"(.*?)\[(?:T\.)?(.+)\]", part)
    if not level:
        return variable(part)
    levels = references.get(level[1], ())
    against = f" vs {levels[0]}" if levels and levels[0] != level[2] else ""
    return f"{variable(level[1])}: {level[2]}{against}"


def _unit_apart(name: str) -> tuple[str, str]:
    for of in UNITS:
        if name.casefold().endswith(f"_{of}"):
            return name[: -len(of) - 1], of
    return name, ""


def slug(text: str) -> str:
    """Make a name fit for a file: lower-case letters, digits and hyphens, never empty.

    >>> slug("EDSS, MS only"), slug("../大"), slug("diagnosis[MS]:years")
    ('edss-ms-only', 'unnamed', 'diagnosis-ms-years')
    """
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:60] or "unnamed"


def p_equals(value: object, letter: str = "p") -> str:
    """Write a p value for a sentence.

    >>> p_equals(0.00001), p_equals(0.042, "q"), p_equals(None)
    ('p < 0.001', 'q = 0.042', 'p not estimable')
    """
    text = p_value(value)
    if is_missing(value):
        return f"{letter} {text}"
    return f"{letter} {text}" if text.startswith("<") else f"{letter} = {text}"
