"""Tables as users bring them: what an empty cell is, and what is not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from infra.tables import read_table


def test_none_is_missing_among_numbers_and_names_and_a_level_among_words(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("participant_id,treatment,edss,nfl\na,None,1.5,None\nNone,IFN,None,none\nc,n/a,2,NULL\n")
    rows = read_table(str(path)).rows
    assert rows.participant_id.isna().tolist() == [False, True, False]
    assert rows.treatment.fillna("").tolist() == ["None", "IFN", ""]
    assert rows.edss.fillna(-1).tolist() == [1.5, -1, 2]
    assert pd.api.types.is_numeric_dtype(rows.nfl)
    assert rows.nfl.isna().all()
