"""Estimates that sites share in place of rows, read from their tables and combined."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from ...records import AssociationSpec
from ..cohort.problems import examples
from .analysis import Analysis, gathered
from .association_fit import AssociationFit, unfitted
from .design import INTERCEPT, as_levels
from .formula import nearest
from .strata import combine

NEEDED = ("term", "estimate", "se")
COLUMNS_READ = (
    "stratum",
    "model",
    "term",
    "estimate",
    "se",
    "df",
    "n",
    "of_interest",
    "reference",
    "formula",
    "method",
    "kind",
    "family",
)
# What padflow writes, and what others call it.
OTHER_NAMES = {"site": "stratum", "n_used": "n", "std_error": "se", "beta": "estimate"}


def estimate_rows(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Bring one site's table into the columns that are combined.

    Args:
        table: `term, estimate, se`, and where they are there `site` (or `stratum`), `model`, `n` (or `n_used`), `df`,
            `of_interest`, `reference`, `formula`, `method`, `family`. A table without a site is that of one site, named
            by its file.
        source: Path or URL, which names the site where no column does.

    Returns:
        `COLUMNS_READ`.

    Raises:
        ValueError: A column is absent, or a value is no number.
    """
    renamed = {old: new for old, new in OTHER_NAMES.items() if old in table and new not in table}
    rows = table.rename(columns=renamed)
    for name in NEEDED:
        if name not in rows:
            raise ValueError(f"{source}: no column {name!r} of estimates; {nearest(name, rows.columns)}")
    rows = rows[as_levels(rows["term"]).notna()].reset_index(drop=True)
    for name in ("estimate", "se", "df", "n"):
        values = pd.to_numeric(rows[name], errors="coerce") if name in rows else pd.Series(np.nan, index=rows.index)
        rows[name] = values.astype("float64")
    site = _file_site(source)
    given = rows["stratum"] if "stratum" in rows else pd.Series(site, index=rows.index)
    rows["stratum"] = as_levels(given).map(lambda text: text or site)
    rows["model"] = as_levels(rows["model"]) if "model" in rows else "model"
    for name in ("formula", "method", "kind", "family", "reference"):
        rows[name] = as_levels(rows[name]).map(lambda text: text or "") if name in rows else ""
    if "of_interest" in rows:
        rows["of_interest"] = as_levels(rows["of_interest"]).str.casefold().isin(["true", "1", "1.0"])
    else:
        rows["of_interest"] = rows["term"] != "Intercept"
    return rows[list(COLUMNS_READ)]


def combined_estimates(rows: pd.DataFrame) -> Analysis:
    """Combine every model's terms over the sites that estimated them.

    Args:
        rows: `estimate_rows` of all sites.

    Returns:
        One combined fit per model; estimates that cannot be used are counted, with their reason, and said.

    Raises:
        ValueError: A site gives one term of a model twice.
    """
    keys = ["stratum", "model", "term"]
    repeated = rows[rows.duplicated(keys)]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(
            f"{first['stratum']} gives {first['term']} of {first['model']} twice. Give each file once, and a site "
            "column "
            "where several sites stand in one."
        )
    fits = [_combined(str(name), part) for name, part in rows.groupby("model", sort=False)]
    return gathered(fits)


def _combined(name: str, rows: pd.DataFrame) -> AssociationFit:
    unusable = {
        "estimate is missing": ~np.isfinite(rows["estimate"]),
        "standard error is not above 0": np.isfinite(rows["estimate"]) & ~(rows["se"] > 0),
        "standard error is infinite": np.isfinite(rows["estimate"]) & np.isinf(rows["se"]),
    }
    said = []
    for reason, mask in unusable.items():
        if mask.any():
            who = ", ".join(f"{row.stratum} ({row.term})" for row in rows[mask].itertuples())
            said.append(f"{int(mask.sum())} estimates not used, since their {reason}: {who}.")
    other_references, sentences = _differing_references(rows)
    said += sentences
    formulas = [text for text in dict.fromkeys(rows["formula"]) if text]
    if len(formulas) > 1:
        said.append(f"The sites' formulas differ ({'; '.join(formulas)}): their estimates may not mean the same.")
    kinds = [text for text in dict.fromkeys(rows["kind"]) if text]
    if len(kinds) > 1:
        said.append(f"The sites' models differ ({', '.join(kinds)}): their estimates are not on one scale.")
    formula = formulas[0] if formulas else ""
    sizes = rows.groupby("stratum")["n"].max()
    n_used = int(sizes.fillna(0).sum())
    spec = AssociationSpec(name, formula, family=next((text for text in rows["family"] if text), ""))
    empty = unfitted(spec, formula.split("~")[0].strip(), tuple(said), {})
    base = replace(empty, n_used=n_used, n_subjects=n_used, groups="site")
    usable = rows[~np.logical_or.reduce(list(unusable.values()))]
    usable = usable[~usable["term"].isin(other_references)]
    within = "; ".join(text for text in dict.fromkeys(rows["method"]) if text) or "as each site fitted it"
    fit = combine(base, usable.fillna({"n": 0}), "site", "REML", within)
    if kinds and set(kinds) <= {"logistic", "cox", "ordinal"} and len(fit.coefficients):
        ratios = {
            "ratio": np.exp(fit.coefficients["estimate"].astype(float)),
            "ratio_ci_low": np.exp(fit.coefficients["ci_low"].astype(float)),
            "ratio_ci_high": np.exp(fit.coefficients["ci_high"].astype(float)),
        }
        fit = replace(fit, coefficients=fit.coefficients.assign(**ratios))
    return fit


def _differing_references(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Find terms whose estimates are differences from different groups, and say of which that is not known.

    Returns:
        Terms that must not be combined, and plain sentences.
    """
    refused: dict[str, list[str]] = {}
    unknown: dict[tuple[str, ...], list[str]] = {}
    for term, part in rows.groupby("term", sort=False):
        # A table written by hand may give `CIS` where padflow writes `phenotype = CIS`.
        levels = part["reference"].map(lambda text: re.sub(r"[^;]* = ", "", text))
        given = part[levels != ""]
        if levels[given.index].nunique() > 1:
            shown = "; ".join(f"{site} {text}" for site, text in zip(given["stratum"], given["reference"], strict=True))
            refused.setdefault(shown, []).append(str(term))
        elif len(given) < len(part) and ("[" in str(term) or (len(given) and term != INTERCEPT)):
            sites = dict.fromkeys(map(str, part["stratum"][levels == ""]))
            unknown.setdefault(tuple(sites), []).append(str(term))
    said = [
        f"{', '.join(terms)}: not combined, since the sites' reference levels differ ({shown}); fit the sites with one "
        'reference, as in C(name, ref="level").'
        for shown, terms in refused.items()
    ]
    said += [
        f"{', '.join(terms)}: {examples(sites)} give{'s' if len(sites) == 1 else ''} no reference level, so whether it "
        "is the same in all sites is not known; it must be. Give it in a column reference."
        for sites, terms in unknown.items()
    ]
    return [term for terms in refused.values() for term in terms], said


def _file_site(source: str) -> str:
    """A site's name from its file's: the file without its ending, or its folder where the file is padflow's own."""
    parts = [part for part in source.rstrip("/").split("/") if part]
    stem = parts[-1].split(".")[0]
    return parts[-2] if stem == "effects" and len(parts) > 1 else stem
