"""What a methods section says of each kind of model, with the papers that it rests on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ..statistics.association_fit import AssociationFit, Kind
from .association_words import variable
from .notation import plural

MOST_MODELS_SAID = 12
HC = re.compile(r"HC[0-3]")
WITH_BELL_MCCAFFREY = " with Bell and McCaffrey's degrees of freedom"
REFERENCES = {
    "hc": (
        "MacKinnon & White 1985, doi:10.1016/0304-4076(85)90158-7; "
        "Long & Ervin 2000, doi:10.1080/00031305.2000.10474549"
    ),
    "bell_mccaffrey": "Bell & McCaffrey 2002, Survey Methodology 28:169–181",
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


@dataclass
class Paragraph:
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


def _linear(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    named = _names(fits)
    for method in dict.fromkeys(fit.method for fit in fits):
        estimator = HC.search(method)
        of = "" if len({fit.method for fit in fits}) == 1 else f" ({_names([f for f in fits if f.method == method])})"
        start = f"{_several(fits, 'linear model')} ({named}) {_were(fits)}" if not of else f"Linear models{of} were"
        bell_mccaffrey = "Bell-McCaffrey" in method
        if estimator:
            paragraph.say(
                f"{start} fitted by ordinary least squares with {estimator[0]} standard errors, which do not ask the "
                f"groups to share a variance, and t intervals{WITH_BELL_MCCAFFREY if bell_mccaffrey else ''}",
                "hc",
                *(["bell_mccaffrey"] if bell_mccaffrey else []),
            )
        elif "cluster" in method:
            by = variable(method.rpartition(" by ")[2])
            paragraph.say(f"{start} fitted by ordinary least squares with standard errors clustered by {by}", "cluster")
        else:
            paragraph.say(f"{start} fitted by ordinary least squares ({method.removeprefix('OLS, ')})")


def _mixed(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    for is_ml, estimator in ((False, "restricted maximum likelihood (REML)"), (True, "maximum likelihood (ML)")):
        mine = [fit for fit in fits if bool(re.search(r"\bML\b", fit.method)) == is_ml]
        if mine:
            effects = listed(dict.fromkeys(_random_part(fit) for fit in mine))
            start = f"{_several(mine, 'linear mixed model')} ({_names(mine)}) {_were(mine)}"
            paragraph.say(f"{start} fitted by {estimator} with {effects}", "mixed")
    if all("satterthwaite" in fit.method.lower() for fit in fits):
        paragraph.say(
            "Fixed effects were referred to t distributions with Satterthwaite's degrees of freedom, at most those of "
            "subjects for what is constant within them and of sessions for the rest",
            "satterthwaite",
        )
    elif fits[0].coefficients["df"].map(pd.notna).any():
        paragraph.say("Fixed effects were referred to t distributions with the degrees of freedom given in the table")


def _random_part(fit: AssociationFit) -> str:
    found = re.search(r"random .*?(?=,|;|$)", fit.method)
    return (
        "a " + re.sub(r"\b(slope of|per) (\S+)", lambda part: f"{part[1]} {variable(part[2])}", found[0])
        if found
        else f"random effects by {variable(fit.groups)}"
    )


def _logistic(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    paragraph.say(
        f"Binary outcomes ({_names(fits)}) were analysed by logistic regression, fitted by maximum likelihood, with "
        "Wald intervals on the logarithm of odds; results are given as odds ratios, too"
    )
    clusters = {fit.name: found[1] for fit in fits if (found := re.search(r"cluster-robust by (\S+)", fit.method))}
    for column in dict.fromkeys(clusters.values()):
        mine = [fit for fit in fits if clusters.get(fit.name) == column]
        of = "Their standard errors" if len(mine) == len(fits) else f"Standard errors of {_names(mine)}"
        paragraph.say(f"{of} are cluster-robust by {variable(column)}", "cluster")


def _ordinal(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    paragraph.say(
        f"Ordinal outcomes ({_names(fits)}) were analysed by proportional-odds models, fitted by maximum likelihood",
        "ordinal",
    )


def _cox(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    events = dict.fromkeys(fit.method.rpartition(" events of ")[2] for fit in fits)
    paragraph.say(
        f"Times to an event ({_names(fits)}; {listed(map(variable, events))}) were analysed by Cox "
        "proportional-hazards regression with Efron's handling of ties",
        "cox",
    )


def _meta(paragraph: Paragraph, fits: Sequence[AssociationFit]) -> None:
    known = {"PM": "Paule and Mandel's estimator", "REML": "restricted maximum likelihood"}
    methods = listed(dict.fromkeys(known.get(str(m), str(m)) for fit in fits for m in fit.heterogeneity["method"]))
    k = sorted({int(k) for fit in fits for k in fit.heterogeneity["k"]})
    what = variable(fits[0].groups) if len({fit.groups for fit in fits}) == 1 and fits[0].groups else "site"
    sites = f"{k[0]} to {k[-1]} {what}s" if len(k) > 1 else plural(k[0], what) if k else f"the {what}s"
    of = f" (between-site variance: {methods})" if methods else ""
    paragraph.say(
        f"Estimates of {sites} ({_names(fits)}) were combined by random-effects meta-analysis{of} with Hartung-Knapp "
        "intervals; heterogeneity is given as τ², I² and Cochran's Q with a 95% prediction interval",
        "meta",
    )


def _names(fits: Sequence[AssociationFit]) -> str:
    quoted = [f"“{fit.name}”" for fit in fits[:MOST_MODELS_SAID]]
    more = [f"{len(fits) - MOST_MODELS_SAID:,} more"] if len(fits) > MOST_MODELS_SAID else []
    return listed([*quoted, *more])


def _several(fits: Sequence[AssociationFit], noun: str) -> str:
    return f"The {noun}" if len(fits) == 1 else f"{noun.capitalize()}s"


def _were(fits: Sequence[AssociationFit]) -> str:
    return "was" if len(fits) == 1 else "were"


def listed(items: Iterable[str]) -> str:
    """Write a list as prose.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', '')
    """
    texts = list(items)
    if len(texts) < 2:
        return "".join(texts)
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


SENTENCES: dict[Kind, Callable[[Paragraph, Sequence[AssociationFit]], None]] = {
    "linear": _linear,
    "mixed": _mixed,
    "logistic": _logistic,
    "ordinal": _ordinal,
    "cox": _cox,
    "meta": _meta,
}
"""Kind of model → what says how it was fitted."""
