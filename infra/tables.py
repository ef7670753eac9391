"""Tables that a user brings: CSV, TSV or Parquet, from any store, as people and spreadsheets write them."""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
from pyarrow.parquet import ParquetFile

from infra.delimited_text import read_delimited
from infra.storage import open_filesystem
from infra.storage_faults import patiently
from tasks.science.cohort.problems import Problem, examples
from tasks.science.cohort.tsv import decoded

LARGEST_BYTES = 2 * 2**30
UNPACKED_BYTES = 2**22
GZIP_MARK = b"\x1f\x8b"
ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class ReadTable:
    """A table as a user brought it.

    Attributes:
        rows: Numbers are float or integer, everything else text; missing where a cell says so.
        problems: Plain sentences about how it was written.
    """

    rows: pd.DataFrame
    problems: tuple[str, ...]


def read_table(url: str) -> ReadTable:
    """Read a table whose format its name says.

    Args:
        url: Path or URL that ends in .csv, .tsv, .txt, .parquet, or in .gz behind the first three.

    Raises:
        ValueError: Another ending, an empty or ragged table, or more than 2 GiB of text.
        OSError: There is nothing, or it cannot be read.
    """
    name = url.lower()
    if not name.endswith(ENDINGS):
        raise ValueError(f"{url}: expected a table that ends in {', '.join(ENDINGS)}. Save it as one of these.")
    data = _bytes(url)
    if name.endswith(".parquet"):
        return _parquet(data, url)
    text = _inflated(data, url) if name.endswith(".gz") else data
    return _delimited(text, url)


def _bytes(url: str) -> bytes:
    filesystem, path = open_filesystem(url)
    try:
        return bytes(patiently(lambda: filesystem.cat_file(path), url))
    except FileNotFoundError:
        raise FileNotFoundError(f"no table at {url}; give the path or URL of a CSV, TSV or Parquet file") from None
    except IsADirectoryError:
        raise ValueError(f"{url} is a folder; give the path of a table in it") from None


def _parquet(data: bytes, url: str) -> ReadTable:
    """Read Parquet; a column of what no model can read, such as lists, is left out and said."""
    try:
        schema = ParquetFile(io.BytesIO(data)).schema_arrow
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        flat = [name for name in schema.names if name not in nested]
        repeated = [name for name, count in Counter(schema.names).items() if count > 1]
        rows = pd.DataFrame() if repeated else pd.read_parquet(io.BytesIO(data), columns=flat if nested else None)
    except (OSError, ValueError) as error:
        raise ValueError(f"{url} is no Parquet file that can be read: {error}") from error
    if repeated:
        raise ValueError(f"{url}: the columns {examples(repeated)} stand twice. Rename one of each.")
    if rows.index.names != [None]:
        rows.index.names = [f"{name}_index" if name in rows else name for name in rows.index.names]
        rows = rows.reset_index()
    said = [f"{url}: {name} holds lists or records, and is not read. Write a column for each value." for name in nested]
    for name in (field.name for field in schema if field.name in rows and _is_binary(field.type)):
        try:
            rows[name] = rows[name].map(bytes.decode, na_action="ignore")
        except UnicodeDecodeError:
            rows = rows.drop(columns=name)
            said.append(f"{url}: {name} holds bytes that are no UTF-8 text, and is not read. Write it as text.")
    return ReadTable(_checked(rows, url), tuple(said))


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _inflated(data: bytes, url: str) -> bytes:
    """Unpack gzip, of several members too: files that were joined, or that bgzip wrote."""
    text = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            while part := packed.read(UNPACKED_BYTES):
                text += part
                if len(text) > LARGEST_BYTES:
                    raise ValueError(f"{url} holds more than {LARGEST_BYTES // 2**30} GiB of text. Take columns out.")
    except EOFError as error:
        raise ValueError(f"{url} is cut off. Copy or download it again.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        if data.startswith(GZIP_MARK):
            raise ValueError(f"{url} holds what gzip did not write: {error}. Compress the table again.") from error
        raise ValueError(f"{url} ends in .gz and is not compressed by gzip: {error}") from error
    return bytes(text)


def _delimited(data: bytes, url: str) -> ReadTable:
    problems: list[Problem] = []
    text = decoded(data, url, problems)
    if "\0" in text:
        raise ValueError(f"{url} holds NUL bytes: is it UTF-16 or UTF-32 without a mark, or no text? Save it as UTF-8.")
    rows, said = read_delimited(text, url)
    return ReadTable(_checked(rows, url), (*(problem.message for problem in problems), *said))


def _checked(rows: pd.DataFrame, url: str) -> pd.DataFrame:
    if not len(rows) or not len(rows.columns):
        raise ValueError(f"{url} has {len(rows)} rows and {len(rows.columns)} columns; expected some of both.")
    rows.columns = [str(name) for name in rows.columns]
    return rows
