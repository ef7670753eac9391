"""The methods paragraph of a manuscript, said from what ran and from nothing else."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit, Kind
from .association_tables import covariates_of, dropped_reasons, effects_of, levels_of
from .association_words import in_text, variable
from .estimator_methods import MOST_MODELS_SAID, SENTENCES, Paragraph, listed
from .notation import plural
from .table_formats import markdown_text

LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "ordinal": ("statsmodels",),
    "cox": ("statsmodels",),
}


def methods_text(analysis: Analysis) -> str:
    """Write how the associations were estimated, to be pasted into a manuscript.

    Args:
        analysis: The models, fitted or not; a method that no fitted model used is not mentioned.

    Returns:
        A paragraph and its references, plain text.
    """
    paragraph = _paragraph(analysis)
    references = [f"[{place}] {reference}" for place, reference in enumerate(paragraph.cited, 1)]
    return "\n".join([" ".join(paragraph.sentences), "", *references, ""])


def methods_markdown(analysis: Analysis) -> str:
    """Write the same for Markdown, under a heading."""
    paragraph = _paragraph(analysis)
    references = [f"{place}. {markdown_text(reference)}" for place, reference in enumerate(paragraph.cited, 1)]
    body = markdown_text(" ".join(paragraph.sentences))
    return "\n".join(["## Statistical analysis", "", body, "", *references, ""])


def _paragraph(analysis: Analysis) -> Paragraph:
    paragraph = Paragraph()
    fitted = [fit for fit in analysis.fits if fit.kind]
    if not fitted:
        paragraph.say("None of the declared models could be fitted, so no association was estimated")
        return paragraph
    for kind, say in SENTENCES.items():
        of_kind = [fit for fit in fitted if fit.kind == kind]
        if of_kind:
            say(paragraph, of_kind)
    _models(paragraph, fitted)
    _means(paragraph, fitted)
    _sensitivity(paragraph, analysis)
    _corrections(paragraph, analysis, fitted)
    _missing(paragraph, analysis)
    _software(paragraph, fitted)
    return paragraph


def _models(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    for fit in fits[:MOST_MODELS_SAID]:
        if fit.coding is None:
            # What sites share of their estimates does not tell their covariates but by the formula.
            if fit.formula:
                paragraph.say(f"“{fit.name}” is the model {fit.formula}{_within(fit)}")
            continue
        names = [_with_reference(fit, name) for name in _effects_of_interest(fit)]
        adjusted = [variable(name) for name in covariates_of(fit)]
        explained = f" on {listed(names)}{_with_parts(fit)}" if names else ""
        beside = f", adjusted for {listed(adjusted)}" if adjusted else ", without covariates"
        paragraph.say(f"“{fit.name}” regressed {in_text(fit.response)}{explained}{beside}")
    if len(fits) > MOST_MODELS_SAID:
        n = len(fits) - MOST_MODELS_SAID
        which = "one other model stands" if n == 1 else f"other {n:,} models stand"
        paragraph.say(f"The formula{'s' if n > 1 else ''} of the {which} in the table of coefficients")


def _within(fit: AssociationFit) -> str:
    _, _, each = fit.method.partition("; each: ")
    return f", fitted at each {variable(fit.groups or 'site')} by {each}" if each else ""


def _effects_of_interest(fit: AssociationFit) -> list[str]:
    if fit.coding is None:
        return []
    flags = dict(zip(fit.coefficients["term"], fit.coefficients["of_interest"].astype(bool), strict=True))
    terms = [owner for name, owner in fit.coding.terms_of_columns().items() if owner is not None and flags.get(name)]
    return list(dict.fromkeys(owner.label for owner in terms))


def _with_parts(fit: AssociationFit) -> str:
    """Interactions stand beside their parts, of interest or not."""
    labels = _effects_of_interest(fit)
    parts = {name for label in labels if ":" in label for name in label.split(":")}
    return " (with their main effects)" if parts - set(labels) else ""


def _with_reference(fit: AssociationFit, label: str) -> str:
    parts = []
    for name in label.split(":"):
        levels = levels_of(fit).get(name)
        is_alone = ":" not in label
        parts.append(f"{variable(name)} (reference {levels[0]})" if levels and is_alone else variable(name))
    return " × ".join(parts)


def _means(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    wanted = [fit for fit in fits if len(fit.adjusted_means)]
    if wanted:
        paragraph.say(
            "Adjusted means hold numeric covariates at their mean and average other factors with equal weight", "means"
        )
    adjustments = dict.fromkeys(str(name) for fit in fits for name in fit.contrasts["adjustment"])
    for name, words, key in (("tukey", "Tukey's (Tukey-Kramer)", "tukey"), ("holm", "Holm's", "holm")):
        if name in adjustments:
            paragraph.say(f"Pairwise differences between groups were corrected by {words} method", key)


def _sensitivity(paragraph: Paragraph, analysis: Analysis) -> None:
    rows = effects_of(analysis)
    ran = {name for name in rows if rows[name].notna().any()}
    if "robust_estimate" in ran:
        paragraph.say("Linear effects were re-estimated by Huber's robust regression", "huber")
    if "spearman_rho" in ran:
        paragraph.say("Partial Spearman correlations, given the covariates, are reported beside")
    if "calibrated_estimate" in ran:
        paragraph.say(
            "Slopes on brain-PAD were corrected for its measurement error by regression calibration and are given "
            "beside the uncorrected ones",
            "calibration",
        )
    if "bootstrap_ci_low" in ran:
        paragraph.say("Percentile bootstrap intervals resampled subjects, whose sessions travel together")
    known = {"beta_standardised": "standardised β", "partial_r2": "partial R²", "f2": "Cohen's f²"}
    sizes = [words for name, words in known.items() if name in ran]
    if sizes:
        paragraph.say(f"Effect sizes are {listed(sizes)}")
    if "e_value" in ran:
        paragraph.say("Sensitivity to unmeasured confounding is given as E-values", "e_value")


def _corrections(paragraph: Paragraph, analysis: Analysis, fits: Sequence[AssociationFit]) -> None:
    n = int(effects_of(analysis)["q_value"].notna().sum())
    if not n:
        return
    families = dict.fromkeys(fit.family for fit in fits)
    over = f"over the {plural(n, 'effect')} of interest"
    if len(families) > 1:
        over = f"within each of {len(families)} declared families of effects of interest ({n:,} in all)"
    paragraph.say(
        f"The false discovery rate was controlled {over} (q, Benjamini-Hochberg); tests are two-sided and intervals "
        "95%",
        "fdr",
    )


def _missing(paragraph: Paragraph, analysis: Analysis) -> None:
    if any("missing" in reason or "undefined" in reason for fit in analysis.fits for reason in fit.n_dropped):
        paragraph.say(
            "Rows that lack a variable of a model were left out of that model (complete cases); nothing was imputed"
        )
    for fit in analysis.fits[:MOST_MODELS_SAID]:
        if not fit.kind:
            why = (fit.problems or ("no reason is recorded",))[0].removeprefix("Not fitted: ").rstrip(".")
            paragraph.say(f"“{fit.name}” could not be fitted: {why}")
            continue
        dropped = dropped_reasons(fit)
        lost = f" ({plural(sum(fit.n_dropped.values()), 'row')} not used: {', '.join(dropped)})" if dropped else ""
        used = (
            f"{plural(fit.n_used, 'row')} of {plural(fit.n_subjects, 'subject')}" if fit.n_used else "rows not counted"
        )
        paragraph.say(f"“{fit.name}” used {used}{lost}")


def _software(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    more = [name for fit in fits for name in LIBRARIES.get(fit.kind, ())]
    libraries = dict.fromkeys(["numpy", "scipy", "pandas", *more])
    used = ", ".join(f"{name} {_version(name)}" for name in libraries)
    paragraph.say(
        f"Analyses were run with padflow {_version('padflow')} on Python {platform.python_version()} ({used})"
    )


def _version(name: str) -> str:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "of unknown version"
