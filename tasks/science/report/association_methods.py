"""The methods paragraph of a manuscript, said from what ran and from nothing else."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import pandas as pd

from ..statistics.analysis import Analysis
from ..statistics.association_fit import AssociationFit, Kind
from .association_tables import covariates_of, dropped_reasons, effects_of, levels_of
from .association_words import in_text, variable
from .notation import plural
from .table_formats import markdown_text

MOST_MODELS_SAID = 12
HC = re.compile(r"HC[0-3]")
REFERENCES = {
    "hc": (
        "MacKinnon & White 1985, doi:10.1016/0304-4076(85)90158-7; "
        "Long & Ervin 2000, doi:10.1080/00031305.2000.10474549"
    ),
    "cluster": "Cameron & Miller 2015, doi:10.3368/jhr.50.2.317",
    "mixed": "Bates et al. 2015, doi:10.18637/jss.v067.i01",
    "satterthwaite": "Satterthwaite 1946, doi:10.2307/3002019",
    "means": "Searle et al. 1980, doi:10.1080/00031305.1980.10483031",
    "tukey": "Tukey 1949, doi:10.2307/3001913; Kramer 1956, doi:10.2307/3001469",
    "holm": "Holm 1979, Scandinavian Journal of Statistics 6:65–70",
    "fdr": "Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x",
    "ordinal": "McCullagh 1980, doi:10.1111/j.2517-6161.1980.tb01109.x",
    "cox": "Cox 1972, doi:10.1111/j.2517-6161.1972.tb00899.x; Efron 1977, doi:10.2307/2286217",
    "meta": "Viechtbauer 2005, doi:10.3102/10769986030003261; Hartung & Knapp 2001, doi:10.1002/sim.791",
    "huber": "Huber 1964, doi:10.1214/aoms/1177703732",
    "e_value": "VanderWeele & Ding 2017, doi:10.7326/M16-2607",
    "calibration": "Rosner et al. 1990, doi:10.1093/oxfordjournals.aje.a115715",
}
LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "ordinal": ("statsmodels",),
    "cox": ("statsmodels",),
}


@dataclass
class _Paragraph:
    """Sentences with the numbers of the references that they call, each listed once."""

    sentences: list[str] = field(default_factory=list)
    cited: list[str] = field(default_factory=list)

    def say(self, sentence: str, *keys: str) -> None:
        """Add a sentence; its references stand before the full stop."""
        marks = []
        for key in keys:
            if REFERENCES[key] not in self.cited:
                self.cited.append(REFERENCES[key])
            marks.append(str(self.cited.index(REFERENCES[key]) + 1))
        self.sentences.append(f"{sentence} [{', '.join(marks)}]." if marks else f"{sentence}.")


def methods_text(analysis: Analysis) -> str:
    """Write how the associations were estimated, to be pasted into a manuscript.

    Args:
        analysis: The models, fitted or not; a method that no fitted model used is not mentioned.

    Returns:
        A paragraph and its references, plain text.
    """
    paragraph = _paragraph(analysis)
    listed = [f"[{place}] {reference}" for place, reference in enumerate(paragraph.cited, 1)]
    return "\n".join([" ".join(paragraph.sentences), "", *listed, ""])


def methods_markdown(analysis: Analysis) -> str:
    """Write the same for Markdown, under a heading."""
    paragraph = _paragraph(analysis)
    listed = [f"{place}. {markdown_text(reference)}" for place, reference in enumerate(paragraph.cited, 1)]
    body = markdown_text(" ".join(paragraph.sentences))
    return "\n".join(["## Statistical analysis", "", body, "", *listed, ""])


def _paragraph(analysis: Analysis) -> _Paragraph:
    paragraph = _Paragraph()
    fitted = [fit for fit in analysis.fits if fit.kind]
    if not fitted:
        paragraph.say("None of the declared models could be fitted, so no association was estimated")
        return paragraph
    for kind, say in (
        *(("linear", _linear), ("mixed", _mixed), ("logistic", _logistic), ("ordinal", _ordinal)),
        *(("cox", _cox), ("meta", _meta)),
    ):
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


def _linear(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    named = _names(fits)
    for method in dict.fromkeys(fit.method for fit in fits):
        estimator = HC.search(method)
        of = "" if len({fit.method for fit in fits}) == 1 else f" ({_names([f for f in fits if f.method == method])})"
        start = f"{_several(fits, 'linear model')} ({named}) {_were(fits)}" if not of else f"Linear models{of} were"
        if estimator:
            paragraph.say(
                f"{start} fitted by ordinary least squares with {estimator[0]} standard errors, which do not ask the "
                "groups to share a variance, and t intervals",
                "hc",
            )
        elif "cluster" in method:
            paragraph.say(f"{start} fitted by ordinary least squares with cluster-robust standard errors", "cluster")
        else:
            paragraph.say(f"{start} fitted by ordinary least squares ({method.removeprefix('OLS, ')})")


def _mixed(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    for is_ml, estimator in ((False, "restricted maximum likelihood (REML)"), (True, "maximum likelihood (ML)")):
        mine = [fit for fit in fits if bool(re.search(r"\bML\b", fit.method)) == is_ml]
        if mine:
            effects = _and(dict.fromkeys(_random_part(fit) for fit in mine))
            start = f"{_several(mine, 'linear mixed model')} ({_names(mine)}) {_were(mine)}"
            paragraph.say(f"{start} fitted by {estimator} with {effects}", "mixed")
    if all("satterthwaite" in fit.method.lower() for fit in fits):
        paragraph.say(
            "Fixed effects were referred to t distributions with Satterthwaite's degrees of freedom", "satterthwaite"
        )
    elif fits[0].coefficients["df"].map(pd.notna).any():
        paragraph.say("Fixed effects were referred to t distributions with the degrees of freedom given in the table")


def _random_part(fit: AssociationFit) -> str:
    found = re.search(r"random .*?(?=,|;|$)", fit.method)
    return (
        f"a {found[0]}".replace("participant_id", "participant")
        if found
        else f"random effects by {variable(fit.groups)}"
    )


def _logistic(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    paragraph.say(
        f"Binary outcomes ({_names(fits)}) were analysed by logistic regression, fitted by maximum likelihood, with "
        "Wald intervals on the logarithm of odds; results are given as odds ratios, too"
    )
    clustered = dict.fromkeys(found[1] for fit in fits if (found := re.search(r"cluster-robust by (\S+)", fit.method)))
    if clustered:
        paragraph.say(f"Their standard errors are cluster-robust by {_and(map(variable, clustered))}", "cluster")


def _ordinal(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    paragraph.say(
        f"Ordinal outcomes ({_names(fits)}) were analysed by proportional-odds models, fitted by maximum likelihood",
        "ordinal",
    )


def _cox(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    paragraph.say(
        f"Times to an event ({_names(fits)}) were analysed by Cox proportional-hazards regression with Efron's "
        "handling of ties",
        "cox",
    )


def _meta(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    methods = _and(dict.fromkeys(str(m) for fit in fits for m in fit.heterogeneity["method"]))
    k = sorted({int(k) for fit in fits for k in fit.heterogeneity["k"]})
    sites = f"{k[0]} to {k[-1]} sites" if len(k) > 1 else plural(k[0], "site") if k else "the sites"
    of = f" (between-site variance: {methods})" if methods else ""
    paragraph.say(
        f"Estimates of {sites} ({_names(fits)}) were combined by random-effects meta-analysis{of} with Hartung-Knapp "
        "intervals; heterogeneity is given as τ², I² and Cochran's Q with a 95% prediction interval",
        "meta",
    )


def _models(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    for fit in fits[:MOST_MODELS_SAID]:
        if fit.coding is None:
            continue
        names = [_with_reference(fit, name) for name in _effects_of_interest(fit)]
        adjusted = [variable(name) for name in covariates_of(fit)]
        explained = f" on {_and(names)}" if names else ""
        beside = f", adjusted for {_and(adjusted)}" if adjusted else ", without covariates"
        paragraph.say(f"“{fit.name}” regressed {in_text(fit.response)}{explained}{beside}")
    if len(fits) > MOST_MODELS_SAID:
        n = len(fits) - MOST_MODELS_SAID
        paragraph.say(f"The formulas of the other {n:,} models stand in the table of coefficients")


def _effects_of_interest(fit: AssociationFit) -> list[str]:
    if fit.coding is None:
        return []
    flags = dict(zip(fit.coefficients["term"], fit.coefficients["of_interest"].astype(bool), strict=True))
    terms = [owner for name, owner in fit.coding.terms_of_columns().items() if owner is not None and flags.get(name)]
    return list(dict.fromkeys(owner.label for owner in terms))


def _with_reference(fit: AssociationFit, label: str) -> str:
    parts = []
    for name in label.split(":"):
        levels = levels_of(fit).get(name)
        is_alone = ":" not in label
        parts.append(f"{variable(name)} (reference {levels[0]})" if levels and is_alone else variable(name))
    return " × ".join(parts)


def _means(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
    wanted = [fit for fit in fits if len(fit.adjusted_means)]
    if wanted:
        paragraph.say(
            "Adjusted means hold numeric covariates at their mean and average other factors with equal weight", "means"
        )
    adjustments = dict.fromkeys(str(name) for fit in fits for name in fit.contrasts["adjustment"])
    for name, words, key in (("tukey", "Tukey's (Tukey-Kramer)", "tukey"), ("holm", "Holm's", "holm")):
        if name in adjustments:
            paragraph.say(f"Pairwise differences between groups were corrected by {words} method", key)


def _sensitivity(paragraph: _Paragraph, analysis: Analysis) -> None:
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
        paragraph.say(f"Effect sizes are {_and(sizes)}")
    if "e_value" in ran:
        paragraph.say("Sensitivity to unmeasured confounding is given as E-values", "e_value")


def _corrections(paragraph: _Paragraph, analysis: Analysis, fits: Sequence[AssociationFit]) -> None:
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


def _missing(paragraph: _Paragraph, analysis: Analysis) -> None:
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
        paragraph.say(f"“{fit.name}” used {plural(fit.n_used, 'row')} of {plural(fit.n_subjects, 'subject')}{lost}")


def _software(paragraph: _Paragraph, fits: Sequence[AssociationFit]) -> None:
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


def _names(fits: Sequence[AssociationFit]) -> str:
    quoted = [f"“{fit.name}”" for fit in fits[:MOST_MODELS_SAID]]
    more = [f"{len(fits) - MOST_MODELS_SAID:,} more"] if len(fits) > MOST_MODELS_SAID else []
    return _and([*quoted, *more])


def _several(fits: Sequence[AssociationFit], noun: str) -> str:
    return f"The {noun}" if len(fits) == 1 else f"{noun.capitalize()}s"


def _were(fits: Sequence[AssociationFit]) -> str:
    return "was" if len(fits) == 1 else "were"


def _and(items: Iterable[str]) -> str:
    listed = list(items)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}" if listed else ""
