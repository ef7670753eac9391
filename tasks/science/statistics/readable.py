"""The columns that models read, given their types: what was odd about them is said, and nothing is guessed."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..cohort.clinical_table import SEXES
from ..cohort.problems import examples, quoted
from ..cohort.tsv import ZERO_PADDED
from ..cohort.tsv import is_missing as says_missing
from .design import NOMINAL_COLUMNS, as_levels, is_missing
from .formula import BASELINE
from .input_traps import AGES, DURATIONS, SCALES
from .missing_codes import (
    DOUBTFUL_LEVELS,
    codes_among_levels,
    codes_of_missing,
    marks_of_nothing,
    may_be_nine,
    wild_values,
)
from .survival import YEARS
from .written_numbers import (
    HANDFUL,
    LARGEST_LEVEL,
    Numbers,
    disguised_numbers,
    merged_wholes,
    numbers_of,
    sentences_of_words,
)

SEX_COLUMNS = ("sex", "gender")
# Nobody measures these in words.
AMOUNTS = frozenset({*SCALES, *AGES, *DURATIONS, YEARS, "brain_pad_years"})
# Two spellings of one of these may be two people.
PEOPLE = ("participant_id", "session_id", "scan_id")
# Any other column is one of numbers if so many of its values are, and more than a handful of them differ: a group may
# be coded 1, 2 and unknown.
SHARE_OF_NUMBERS = 0.5
# Nobody's follow-up is so long, unless the ages say so too; and no brain is off by so much in so many.
LONGEST_FOLLOW_UP_YEARS, WIDEST_PAD_SD_YEARS = 30.0, 40.0


class Remark(NamedTuple):
    """A sentence about a column, the rows that it is about (None: all of them), and whether it is not to be fitted."""

    sentence: str
    rows: NDArray[np.bool_] | None = None
    refuses: bool = False


def readable(
    table: pd.DataFrame,
    columns: Iterable[str],
    categories: Collection[str] = (),
    amounts: Collection[str] = (),
    events: Collection[str] = (),
) -> tuple[pd.DataFrame, dict[str, list[Remark]]]:
    """Give the columns that models read their types, and say what was odd about them.

    Decimal commas become numbers; words among numbers, codes of missing values such as -999 and infinite values become
    missing; levels that differ only by blanks or case are one; sexes are written F and M. Nothing is guessed: codes of
    sex whose meaning no one says stay codes.

    Args:
        table: Any table.
        columns: Those that models read; others are left as they are.
        categories: Those among them that are read as levels, whatever they hold.
        amounts: Those that must be numbers, beside the ones whose name says so.
        events: Those that say whether something happened: true is 1 and false 0.

    Returns:
        The table, and remarks by column.
    """
    said: dict[str, list[Remark]] = {}
    clean = {}
    columns = list(dict.fromkeys(columns))
    for name in columns:
        if name not in table or not isinstance(table[name], pd.Series):
            continue
        remarks: list[Remark] = []
        column = _as_events(table[name]) if name in events else table[name]
        column = _read(name, column, name in categories, name in amounts, remarks)
        if remarks:
            said[name] = [remark._replace(sentence=f"{name}: {remark.sentence}") for remark in remarks]
        if column is not table[name]:
            clean[name] = column
    read = table.assign(**clean)
    for name, remark in ((YEARS, _long_times(read)), ("brain_pad_years", _wide_brain_pad(read))):
        if remark and name in columns:
            said.setdefault(name, []).append(Remark(f"{name}: {remark}"))
    return read, said


def _long_times(table: pd.DataFrame) -> str:
    if YEARS not in table or not pd.api.types.is_numeric_dtype(table[YEARS]):
        return ""
    longest = float(table[YEARS].max())
    age = next((n for n in AGES if n in table and pd.api.types.is_numeric_dtype(table[n])), None)
    if not longest > LONGEST_FOLLOW_UP_YEARS:
        return ""
    if age is not None and "participant_id" in table:
        ages = table[age].groupby(table["participant_id"].astype(str))
        if float((ages.max() - ages.min()).max()) > longest / 2:
            return ""
    return f"reaches {longest:g}, expected years; is it in months? Kept; divide it by 12 if so."


def _wide_brain_pad(table: pd.DataFrame) -> str:
    if "brain_pad_years" not in table or not pd.api.types.is_numeric_dtype(table["brain_pad_years"]):
        return ""
    # Between the quartiles of a normal distribution lie 1.35 standard deviations; a few slips do not move them.
    low, high = table["brain_pad_years"].quantile([0.25, 0.75])
    spread = float(high - low) / 1.349
    if not spread > WIDEST_PAD_SD_YEARS:
        return ""
    return f"its standard deviation is about {spread:.0f}, expected at most 20 years; is it in months? Kept."


def _read(name: str, column: pd.Series, is_category: bool, is_amount: bool, remarks: list[Remark]) -> pd.Series:
    if name.casefold() in SEX_COLUMNS:
        return _sexes(column, remarks)
    if isinstance(column.dtype, pd.CategoricalDtype):
        is_category = _say_type(column, is_category, remarks)
        categories = column.cat.categories
        is_number = pd.api.types.is_numeric_dtype(categories) and not pd.api.types.is_bool_dtype(categories)
        column = pd.to_numeric(column.astype(object)) if is_number else column.astype(object)
    if pd.api.types.is_bool_dtype(column):
        return column
    if not pd.api.types.is_numeric_dtype(column):
        column = _typed(name, column, is_category, is_amount, remarks)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column
    is_name = is_category or name.casefold() in NOMINAL_COLUMNS or name in PEOPLE
    if pd.api.types.is_integer_dtype(column):
        column = _large_wholes(name, column, is_name, remarks)
    if name.casefold() in NOMINAL_COLUMNS or name in PEOPLE or not pd.api.types.is_numeric_dtype(column):
        return column
    return _within_reach(name, _finite(column, remarks), is_category, remarks)


def _as_events(column: pd.Series) -> pd.Series:
    """Read true and false as 1 and 0, since beside a missing value they are no column of truth values any more."""
    present = column[~is_missing(column)].astype(str).str.strip().str.casefold()
    present = present[~present.map(says_missing)]
    if present.empty or not present.isin(["true", "false"]).all():
        return column
    return (present == "true").astype("float64").reindex(column.index)


def _as_seen(text: str) -> str:
    """Write what looks alike alike: blanks as one, nothing without width, an accent and its letter as one character."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", "".join(sign for sign in text if unicodedata.category(sign) != "Cf"))
    return " ".join(text.split())


def _say_type(column: pd.Series, is_category: bool, remarks: list[Remark]) -> bool:
    """Say what a categorical type of the table is taken for, and whether its values are levels."""
    categories = column.cat.categories
    is_number = pd.api.types.is_numeric_dtype(categories)
    if is_number and not is_category:
        remarks.append(Remark("its type in the table is a category of numbers; here they are read as numbers."))
    elif column.cat.ordered:
        shown = examples([quoted(str(level)) for level in categories])
        taken = "the first in use is the reference, or of an outcome the lowest, unless the model declares otherwise"
        remarks.append(Remark(f"its type in the table orders {shown}; {taken}."))
    elif is_number:
        remarks.append(Remark("its type in the table is a category, so its numbers are levels."))
    return is_category or not is_number


def _typed(name: str, column: pd.Series, is_category: bool, is_amount: bool, remarks: list[Remark]) -> pd.Series:
    absent = is_missing(column)
    texts = [None if gone else _as_seen(str(v)) for v, gone in zip(column, absent, strict=True)]
    cells = [None if text is None or says_missing(text) else text for text in texts]
    nothing = marks_of_nothing(cells)
    texts = [None if gone else text for text, gone in zip(cells, nothing, strict=True)]
    if name in PEOPLE:
        remarks += _nothings(cells, nothing)
        return pd.Series(texts, index=column.index, dtype=object)
    folded = name.casefold()
    is_known = not is_category and not AMOUNTS.isdisjoint({folded, folded.removesuffix(BASELINE)})
    must = is_amount or is_known
    may = not is_category and folded not in NOMINAL_COLUMNS
    numbers = numbers_of(texts)
    n_words, n_present = int(numbers.words.sum()), sum(text is not None for text in texts)
    n_numbers = n_present - n_words
    if not must and any(text and ZERO_PADDED.fullmatch(text) and text.isdigit() for text in texts):
        remarks += _nothings(cells, nothing)
        return _levels(column, texts, remarks)
    mostly = n_numbers >= SHARE_OF_NUMBERS * n_present and len(np.unique(numbers.values)) - 1 > HANDFUL
    if not n_words or (n_numbers and not numbers.doubtful.any() and (must or (may and mostly))):
        large = np.abs(numbers.values) >= LARGEST_LEVEL
        if large.any() and not (must or may):
            return _levels(column, texts, remarks)
        remarks += _merged(name, texts, numbers.values)
        remarks += [Remark(numbers.remark)] if numbers.remark else []
        remarks += [Remark(*said) for said in sentences_of_words(cells, numbers.words | nothing)]
        return pd.Series(numbers.values, index=column.index)
    remarks += _nothings(cells, nothing)
    levels = _levels(column, texts, remarks)
    hidden = _hidden_numbers(name, texts, numbers, must, is_known) if must or may else None
    if hidden:
        remarks.append(hidden)
        return levels
    words = sorted({quoted(str(level)) for level in levels[numbers.words] if level is not None})
    if may and n_numbers and words and levels[~numbers.words].notna().any():
        remarks.append(
            Remark(
                f"{n_words} rows hold words ({examples(words)}) and {n_numbers} numbers: read as "
                "levels of a category. Empty the words to have numbers.",
                numbers.words,
            )
        )
    return levels


def _hidden_numbers(
    name: str, texts: Sequence[str | None], numbers: Numbers, must: bool, is_known: bool
) -> Remark | None:
    """Refuse to take for levels what are, or should be, numbers: a model of ages in words tells nothing of age."""
    if numbers.doubtful.any():
        return _points_in_doubt(texts, numbers.doubtful)
    as_levels_instead = f"On the right of ~, C({name}) takes the cells for levels."
    found = disguised_numbers(texts, numbers.words)
    if found and (must or found.certain):
        return Remark(f"{found.sentence} {as_levels_instead}", found.rows, True)
    if found:
        return Remark(f"{found.sentence} Until then they are levels of a category.", found.rows)
    if not is_known:
        # What is an amount by the formula alone is refused where it is used, in that place's words.
        return None
    shown = examples([quoted(text) for text in dict.fromkeys(text for text in texts if text is not None)])
    sentence = f"no cell is a number ({shown}), and expected are numbers. Write numbers. {as_levels_instead}"
    return Remark(sentence, numbers.words, True)


def _points_in_doubt(texts: Sequence[str | None], doubtful: NDArray[np.bool_]) -> Remark:
    """Refuse to guess what would be wrong by 1,000."""
    present = dict.fromkeys(text for text in texts if text is not None)
    points = examples([quoted(text) for text in dict.fromkeys(np.array(texts, dtype=object)[doubtful])])
    commas = examples([quoted(text) for text in present if "," in text])
    rows = f"{int(doubtful.sum())} row{'s hold' if doubtful.sum() > 1 else ' holds'}"
    what = f"a point that could be decimal or group thousands ({points}), beside decimal commas ({commas})"
    return Remark(f"{rows} {what}. Write decimal points in all cells, and thousands without gaps.", doubtful, True)


def _large_wholes(name: str, column: pd.Series, is_name: bool, remarks: list[Remark]) -> pd.Series:
    """Keep long numbers that are names apart by their digits, and refuse amounts that no calculation tells apart."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if not (np.abs(values) >= LARGEST_LEVEL).any():
        return column
    texts = column.astype(str).astype(object).where(column.notna(), None)
    if is_name:
        return texts
    remarks += _merged(name, list(texts), values)
    return column


def _merged(name: str, texts: Sequence[str | None], values: NDArray[np.float64]) -> list[Remark]:
    merged = merged_wholes(texts, values)
    if not merged.any():
        return []
    shown = examples([quoted(str(text)) for text in dict.fromkeys(np.array(texts, dtype=object)[merged])])
    what = f"whole numbers beyond 2^53 ({shown}), of which different ones are calculated with as one"
    remedy = f"Subtract what all have in common; C({name}) takes them for levels."
    return [Remark(f"{_counted(int(merged.sum()))} of {what}. {remedy}", merged, True)]


def _nothings(cells: Sequence[str | None], nothing: NDArray[np.bool_]) -> list[Remark]:
    if not nothing.any():
        return []
    marks = [str(cell) for cell, is_mark in zip(cells, nothing, strict=True) if is_mark]
    shown = examples([quoted(mark) for mark in dict.fromkeys(marks)])
    return [Remark(f"{_counted(len(marks))} without a value ({shown}): taken as missing.", nothing)]


def _levels(column: pd.Series, texts: Sequence[str | None], remarks: list[Remark]) -> pd.Series:
    """Read one level from each of its spellings; codes of a missing value beside words are missing."""
    counts = Counter(text for text in texts if text is not None)
    spelt: dict[str, list[str]] = {}
    for text, _ in counts.most_common():
        spelt.setdefault(text.casefold(), []).append(text)
    if len(spelt) == 1 < len(counts):
        # All levels are one word: a genotype of AA, Aa and aa is three.
        shown = examples([quoted(text) for text in counts])
        remarks.append(Remark(f"{shown} differ only by capitals; they are kept apart, since nothing else differs."))
        spelt = {text: [text] for text in counts}
    read = {text: ways[0] for ways in spelt.values() for text in ways}
    codes = codes_among_levels(read.values())
    for code in codes:
        rows = np.array([text == code for text in texts])
        remarks.append(Remark(f"{_rows(rows)} {code}, a usual code of a missing value: taken as missing.", rows))
    for ways in (ways for ways in spelt.values() if len(ways) > 1):
        others = examples([f"{quoted(way)} ({_counted(counts[way])})" for way in ways[1:]])
        remarks.append(Remark(f"{others} is read as {quoted(ways[0])}, from which only capitals differ."))
    _say_blanks(column, texts, remarks)
    doubtful = np.array([text is not None and text.casefold() in DOUBTFUL_LEVELS for text in texts])
    if doubtful.any():
        words = dict.fromkeys(text for text, is_doubtful in zip(texts, doubtful, strict=True) if text and is_doubtful)
        shown = examples([quoted(word) for word in words])
        what = "read as a level; is it a missing value? Empty these cells if so"
        remarks.append(Remark(f"{_counted(int(doubtful.sum()))} of {shown}, {what}.", doubtful))
    none = np.array([text is not None and text.casefold() == "none" for text in texts])
    if none.any() and len(spelt) - len(codes) == 1:
        codes += list(counts)
    elif none.any():
        what = "which is read as a level of its own; empty these cells if it means that the value is missing"
        remarks.append(Remark(f"{_rows(none)} None, {what}.", none))
    values = [None if text is None or text in codes else read[text] for text in texts]
    changed = any(new != old for new, old in zip(values, column.where(~is_missing(column), None), strict=True))
    return pd.Series(values, index=column.index, dtype=object) if changed else column


def _say_blanks(column: pd.Series, texts: Sequence[str | None], remarks: list[Remark]) -> None:
    written: dict[str, set[str]] = {}
    for text, value in zip(texts, column, strict=True):
        if text is not None:
            written.setdefault(text, set()).add(str(value))
    merged = [text for text, ways in written.items() if len(ways) > 1]
    if merged:
        shown = examples([quoted(text) for text in merged])
        what = f"blanks, invisible characters or the encoding of accents in {shown} differ between rows"
        remarks.append(Remark(f"{what}; each is read as one level."))


def _within_reach(name: str, column: pd.Series, is_category: bool, remarks: list[Remark]) -> pd.Series:
    """Take codes of missing values out, and point at values so far out that they may be slips."""
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    stem = name.casefold().removesuffix(BASELINE)
    limits = SCALES[stem][:2] if stem in SCALES else None
    where = "outside its scale" if limits else "far from all others"
    for code in codes_of_missing(values, limits):
        rows = values == code
        remarks.append(
            Remark(
                f"{_rows(rows)} {code:g}, a usual code of a missing value and {where}: not used, taken as missing. "
                "Correct or empty them.",
                rows,
            )
        )
        column = column.astype("float64").mask(rows)
    # Clinical scales, ages and durations have limits of their own, by `impossible_values`.
    if stem in (*SCALES, *AGES, *DURATIONS):
        return column
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    if may_be_nine(values):
        others = values[np.isfinite(values) & (values != 9)]
        said = f"and all others lie within {others.min():g}–{others.max():g}; kept. Is it a code of a missing value?"
        remarks.append(Remark(f"{_rows(values == 9)} 9, {said}", values == 9))
    if is_category:
        return column
    wild = wild_values(values)
    if wild.any():
        shown = examples([f"{value:g}" for value in np.unique(values[wild])])
        middle = float(np.nanmedian(values))
        remarks.append(
            Remark(
                f"{_counted(int(wild.sum()))} beyond 20 robust standard deviations from the median {middle:g} "
                f"({shown}); kept. Are they right?",
                wild,
            )
        )
    return column


def _rows(rows: NDArray[np.bool_]) -> str:
    return f"{_counted(int(rows.sum()))} equal to"


def _counted(n: int) -> str:
    return f"{n} rows" if n > 1 else "1 row"


def _finite(column: pd.Series, remarks: list[Remark]) -> pd.Series:
    if not pd.api.types.is_float_dtype(column):
        return column
    infinite = np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan))
    if not infinite.any():
        return column
    remarks.append(Remark(f"{int(infinite.sum())} infinite values: taken as missing.", infinite))
    return column.mask(infinite)


def _sexes(column: pd.Series, remarks: list[Remark]) -> pd.Series:
    texts = as_levels(column)
    known = texts.map(lambda text: SEXES.get(str(text).strip().casefold()) if text is not None else None)
    present = texts.notna()
    spelt = sorted(set(texts[present & known.notna()]))
    unknown = sorted(set(texts[present & known.isna()]))
    if unknown and spelt:
        n = int((present & known.isna()).sum())
        remarks.append(
            Remark(
                f"{n} rows hold {examples(unknown)} beside {examples(spelt)}, and nothing says what they mean: taken "
                "as missing. Write F or M.",
                (present & known.isna()).to_numpy(),
            )
        )
    elif unknown:
        if len(unknown) > 1:
            remarks.append(
                Remark(
                    f"the codes {examples(unknown)} do not say which is female; their difference is named by code. "
                    "Write F and M to know its direction."
                )
            )
        return texts
    if len(spelt) > len(set(known.dropna())):
        remarks.append(Remark(f"coded as {examples(spelt)}: read as F and M."))
    return known.astype(object).where(known.notna(), None)
