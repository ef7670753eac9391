"""Estimates that sites share in place of rows, read from their tables and combined."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd

from ...records import AssociationSpec
from ..cohort.problems import examples, quoted
from ..cohort.tsv import as_number, typed_column
from .analysis import Analysis, gathered
from .association_fit import AssociationFit, unfitted
from .design import INTERCEPT, as_levels, is_missing
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

# A colon within brackets is of a level's name.
BETWEEN_FACTORS = re.compile(r"\s*:\s*(?![^\[]*\])")
INTERVAL = re.compile(r"(?i)(^|[^a-z])(ci|lower|upper|low|high)([^a-z]|$)")
WORDS = {"estimate": "estimate", "se": "standard error"}
YES = ("true", "t", "yes", "y", "1", "1.0", "ja", "j", "wahr", "oui", "sí", "si")
NO = ("false", "f", "no", "n", "0", "0.0", "nein", "falsch", "non")


def estimate_rows(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Bring one site's table into the columns that are combined.

    Args:
        table: `term, estimate, se`, and where they are there `site` (or `stratum`), `model`, `n` (or `n_used`), `df`,
            `of_interest`, `reference`, `formula`, `method`, `family`. A table without a site is that of one site, named
            by its file.
        source: Path or URL, which names the site where no column does.

    Returns:
        `COLUMNS_READ`, the `source`, and the `reason` why an estimate cannot be used, empty where it can.

    Raises:
        ValueError: A column is absent, `n` counts no people, or `of_interest` says neither yes nor no.
    """
    rows = _with_known_names(table).reset_index(drop=True)
    for name in NEEDED:
        if name not in rows:
            raise ValueError(f"{source}: no column {name!r} of estimates; {_what_to_give(name, table)}")
    reasons = pd.Series("", index=rows.index)
    for name in ("estimate", "se", "df", "n"):
        given = rows[name] if name in rows else pd.Series(np.nan, index=rows.index)
        rows[name], wrong = _numbers(given)
        if name in WORDS:
            wrong = wrong.mask(is_missing(given), "is missing").mask(np.isinf(rows[name]), "is infinite")
            wrong = wrong.mask(rows[name] <= 0, "is not above 0") if name == "se" else wrong
            reasons = reasons.mask((reasons == "") & (wrong != ""), f"{WORDS[name]} " + wrong)
        if name == "n":
            _refuse_counts(given, rows, wrong, source)
            rows[name] = rows[name].where(np.isfinite(rows[name]))
    site = _file_site(source)
    given = rows["stratum"] if "stratum" in rows else pd.Series(site, index=rows.index)
    rows["stratum"] = as_levels(given).map(lambda text: text.strip() if text else site)
    rows["term"] = as_levels(rows["term"]).map(lambda text: " ".join(text.split()) if text else None)
    rows["model"] = as_levels(rows["model"]) if "model" in rows else "model"
    for name in ("formula", "method", "kind", "family", "reference"):
        rows[name] = as_levels(rows[name]).map(lambda text: text or "") if name in rows else ""
    rows["of_interest"] = _of_interest(rows, source)
    return rows.assign(source=source, reason=reasons)[[*COLUMNS_READ, "source", "reason"]]


def _with_known_names(table: pd.DataFrame) -> pd.DataFrame:
    """Call columns as padflow does, whatever their capitals: Term, SE, n_used."""
    known = {name: name for name in COLUMNS_READ} | OTHER_NAMES
    renamed: dict[str, str] = {}
    # A column that has its name already goes before one that could have it.
    for column in sorted(map(str, table.columns), key=lambda column: (column not in COLUMNS_READ, column not in known)):
        name = known.get(column.strip().casefold())
        if name is not None and name not in renamed.values():
            renamed[column] = name
    return table.rename(columns=renamed)


def _what_to_give(name: str, table: pd.DataFrame) -> str:
    if name == "se" and any(INTERVAL.search(str(column)) for column in table.columns):
        return "of a 95% interval it is (high − low) / 3.92, for ratios of the logarithms of its ends."
    return nearest(name, table.columns)


def _refuse_counts(given: pd.Series, rows: pd.DataFrame, wrong: pd.Series, source: str) -> None:
    """Refuse an `n` that counts nobody; that of a model without an estimate is not used."""
    counts = rows["n"]
    odd = (wrong != "") | (counts.notna() & ~(np.isfinite(counts) & (counts >= 1) & (counts % 1 == 0)))
    odd &= rows["estimate"].notna()
    if odd.any():
        place = int(np.flatnonzero(odd)[0])
        raise ValueError(
            f"{source}: n is {given.iloc[place]} in row {place + 1} ({rows['term'].iloc[place]}); expected a count of "
            "people, 1 or more. Correct it, or empty it if it is not known."
        )


def _numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Read numbers, decimal commas where they are certain, and what is wrong with each cell that is none."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("float64"), pd.Series("", index=column.index)
    texts = [None if gone else str(value).strip() for value, gone in zip(column, is_missing(column), strict=True)]
    typed, _ = typed_column(texts)
    numbers = typed.to_numpy() if typed.dtype == "float64" else [as_number(text or "") for text in texts]
    values = pd.Series(numbers, index=column.index, dtype="float64")
    wrong = [
        f"is no number ({quoted(text)})" if text and np.isnan(value) else ""
        for text, value in zip(texts, values, strict=True)
    ]
    return values, pd.Series(wrong, index=column.index)


def _of_interest(rows: pd.DataFrame, source: str) -> pd.Series:
    by_name = rows["term"] != INTERCEPT
    if "of_interest" not in rows:
        return by_name
    texts = as_levels(rows["of_interest"])
    folded = texts.str.strip().str.casefold()
    unknown = sorted(set(texts[texts.notna() & ~folded.isin([*YES, *NO])]))
    if unknown:
        raise ValueError(f"{source}: of_interest is {examples(unknown)}; write true or false, or leave the column out.")
    return folded.isin(YES) | (texts.isna() & by_name)


def combined_estimates(rows: pd.DataFrame) -> Analysis:
    """Combine every model's terms over the sites that estimated them.

    Args:
        rows: `estimate_rows` of all sites.

    Returns:
        One combined fit per model; estimates that cannot be used are counted, with their reason, and said.

    Raises:
        ValueError: A site gives one term of a model twice, sites differ by their letters' case alone, or there is no
            estimate.
    """
    rows, said = _with_model_and_term(rows)
    rows = rows.assign(term=_spelt_alike(rows))
    _refuse_sites_given_twice(rows)
    fits = [_combined(str(name), part) for name, part in rows.groupby("model", sort=False)]
    return gathered(fits, said)


def _with_model_and_term(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Take the rows that say what they estimate, and say how many of which file do not."""
    said = []
    for lacking in ("model", "term"):
        for source, lost in rows[rows[lacking].isna()].groupby("source", sort=False):
            models = examples([str(name) for name in dict.fromkeys(lost["model"].dropna())])
            of = f" ({models})" if lacking == "term" and models else ""
            # padflow writes a model that it could not fit as a row without a term and without an estimate.
            unfitted_there = lacking == "term" and lost["estimate"].isna().all()
            why = "no model could be fitted there" if unfitted_there else f"they name no {lacking}"
            said.append(f"{source}: {len(lost)} row{'s' if len(lost) > 1 else ''} not used{of}: {why}.")
        rows = rows[rows[lacking].notna()]
    if rows.empty:
        raise ValueError(f"No row has an estimate of a term of a model. {' '.join(said)}")
    return rows, said


def _spelt_alike(rows: pd.DataFrame) -> list[str]:
    """Write each term as the first site does: `edss:sex[M]` and `sex[M]:edss` are one interaction."""
    first: dict[tuple[str, ...], str] = {}
    return [first.setdefault(tuple(sorted(BETWEEN_FACTORS.split(term))), term) for term in rows["term"]]


def _refuse_sites_given_twice(rows: pd.DataFrame) -> None:
    repeated = rows[rows.duplicated(["stratum", "model", "term"])]
    if len(repeated):
        first = repeated.iloc[0]
        raise ValueError(
            f"{first['stratum']} gives {first['term']} of {first['model']} twice. Give each file once, and a site "
            "column where several sites stand in one."
        )
    spelt: dict[str, str] = {}
    for site in dict.fromkeys(rows["stratum"]):
        other = spelt.setdefault(site.casefold(), site)
        if other != site:
            raise ValueError(f"Sites {other} and {site}: if they are one, give its estimates once; if two, rename one.")


def _combined(name: str, rows: pd.DataFrame) -> AssociationFit:
    said = []
    for reason, part in rows[rows["reason"] != ""].groupby("reason", sort=False):
        who = ", ".join(f"{row.stratum} ({row.term})" for row in part.itertuples())
        said.append(f"{len(part)} estimate{'s' if len(part) > 1 else ''} not used, since the {reason}: {who}.")
    other_references, sentences = _differing_references(rows)
    said += [*sentences, *_of_copies(rows)]
    formulas = [text for text in dict.fromkeys(rows["formula"]) if text]
    if len(formulas) > 1:
        said.append(f"The sites' formulas differ ({'; '.join(formulas)}): their estimates may not mean the same.")
    kinds = [text for text in dict.fromkeys(rows["kind"]) if text]
    if len(kinds) > 1:
        said.append(f"The sites' models differ ({', '.join(kinds)}): their estimates are not on one scale.")
    if not rows["of_interest"].any():
        said.append("No term is of interest: the column of_interest says so of none.")
    formula = formulas[0] if formulas else ""
    spec = AssociationSpec(name, formula, family=next((text for text in rows["family"] if text), ""))
    base = replace(unfitted(spec, formula.split("~")[0].strip(), tuple(said), {}), groups="site")
    usable = rows[(rows["reason"] == "") & ~rows["term"].isin(other_references)]
    within = "; ".join(text for text in dict.fromkeys(rows["method"]) if text) or "as each site fitted it"
    fit = _counted(combine(base, usable, "site", "REML", within), rows.groupby("stratum", sort=False)["n"].max())
    if kinds and set(kinds) <= {"logistic", "cox", "ordinal"} and len(fit.coefficients):
        ratios = {
            "ratio": np.exp(fit.coefficients["estimate"].astype(float)),
            "ratio_ci_low": np.exp(fit.coefficients["ci_low"].astype(float)),
            "ratio_ci_high": np.exp(fit.coefficients["ci_high"].astype(float)),
        }
        fit = replace(fit, coefficients=fit.coefficients.assign(**ratios))
    return fit


def _counted(fit: AssociationFit, sizes: pd.Series) -> AssociationFit:
    """Count the people of the sites that stand in the result, and those of the others as not used."""
    used = sizes.index.isin(fit.strata["stratum"])
    n = int(sizes[used].fillna(0).sum())
    others = {f"no estimate of {site} could be used": int(size) for site, size in sizes[~used].dropna().items()}
    silent = [str(site) for site in sizes.index[sizes.isna()]]
    said = [f"{examples(silent)}: n is not given, and not in the counts of rows and subjects."] if silent else []
    return replace(fit, n_used=n, n_subjects=n, n_dropped=others, problems=(*fit.problems, *said))


def _of_copies(rows: pd.DataFrame) -> list[str]:
    """Ask whether sites that give the same numbers are one."""
    seen: dict[tuple[object, ...], list[str]] = {}
    for site, part in rows[rows["reason"] == ""].groupby("stratum", sort=False):
        facts = part.sort_values("term")[["term", "estimate", "se", "n"]].fillna(-1.0)
        seen.setdefault(tuple(facts.itertuples(index=False, name=None)), []).append(str(site))
    return [f"{examples(sites)} give the same numbers: is it one site twice?" for sites in seen.values() if sites[1:]]


def _differing_references(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Find terms whose estimates are differences from different groups, and say of which that is not known.

    Returns:
        Terms that must not be combined, and plain sentences.
    """
    refused: dict[str, list[str]] = {}
    unknown: dict[tuple[str, ...], list[str]] = {}
    for term, part in rows.groupby("term", sort=False):
        levels = _levels_of(part["reference"])
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


def _levels_of(references: pd.Series) -> pd.Series:
    """The reference levels alone, since a table written by hand may give `CIS` where padflow writes `phenotype = CIS`.

    Where all are named, their order says nothing.
    """
    parts = references.map(lambda text: text.split("; "))
    if all(" = " in part for each in parts for part in each if part):
        parts = parts.map(sorted)
    return parts.map(lambda each: "; ".join(re.sub(r".* = ", "", part) for part in each))


def _file_site(source: str) -> str:
    """A site's name from its file's: the file without its ending, or its folder where the file is padflow's own."""
    parts = [part for part in source.rstrip("/").split("/") if part]
    stem = parts[-1].split(".")[0]
    return parts[-2] if stem == "effects" and len(parts) > 1 else stem
