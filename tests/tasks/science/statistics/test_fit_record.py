from __future__ import annotations

import json

import pandas as pd

from tasks.science.statistics.adjusted_means import adjusted_means
from tasks.science.statistics.association import fit_association
from tasks.science.statistics.fit_record import TABLES, from_record, to_record

from .made_up_clinic import FORMULA, cohort, spec


def test_a_fit_survives_json() -> None:
    for formula, sessions in ((FORMULA, "baseline"), ("edss ~ center(age_years) + sex", "all"), ("edss ~ site", "all")):
        table = cohort(30, sessions=2).assign(site="x")
        fit = fit_association(spec(formula, sessions=sessions), table)
        again = from_record(json.loads(json.dumps(to_record(fit), allow_nan=False)))
        for name in TABLES:
            pd.testing.assert_frame_equal(
                getattr(again, name), getattr(fit, name), check_index_type=False, check_column_type=False
            )
        assert (again.problems, again.n_dropped, again.kind) == (fit.problems, fit.n_dropped, fit.kind)
        assert adjusted_means(again).equals(adjusted_means(fit))
