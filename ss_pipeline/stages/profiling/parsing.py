"""Parses the cells of a clean delimited text with pandas' C engine, without turning codes into numbers.

pandas infers numbers fast and in little memory. Where that would lose something (`007`, integers of more than 15
digits, columns of mixed content) the column is parsed a second time as text. Repairs happen before, in delimited.py.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from pandas.errors import DtypeWarning, ParserError

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.stages.profiling.tables import TEXT_MARKERS, Array

EXACT_LIMIT: Final = 1e15
"""Integers from here on have more digits than a float keeps: they are codes."""

LEADING_ZERO: Final = re.compile(r"\s*[+-]?0\d")
_CHUNK_ROWS: Final = 100_000
_CHUNK_BYTES: Final = 1 << 22


@dataclass(frozen=True)
class Cells:
    """UTF-8 text from `offset` on: rows of exactly `width` cells, no header."""

    body: bytes
    offset: int
    delimiter: str
    width: int
    decimal: str


def parse_cells(cells: Cells) -> list[Array]:
    """The columns: integers, floats, booleans, or objects (text, NaN where missing).

    Raises:
        InputRefusedError: INPUT_UNREADABLE where the parser cannot follow the quotation marks.
    """
    frame = _parse(cells)
    as_text = {*_inexact_columns(frame), *_code_columns(cells, frame)}
    columns = {name: frame[name].to_numpy() for name in frame.columns if name not in as_text}
    if as_text:
        texts = _parse(cells, usecols=sorted(as_text), dtype=str)
        columns |= {name: texts[name].to_numpy(dtype=object) for name in as_text}
    return [columns[name] for name in _labels(cells)]


def _labels(cells: Cells) -> list[str]:
    """The columns' names while pandas has them: `0`, `1`, …"""
    return list(map(str, range(cells.width)))


def _parse(cells: Cells, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DtypeWarning)  # such columns are parsed again as text
        try:
            frame: pd.DataFrame = pd.read_csv(_source(cells), **_options(cells), **options)
        except ParserError as error:
            raise _unreadable(error) from error
    return frame


def _source(cells: Cells) -> io.BytesIO:
    source = io.BytesIO(cells.body)
    source.seek(cells.offset)
    return source


def _options(cells: Cells) -> dict[str, Any]:
    return {
        "sep": cells.delimiter,
        "header": None,
        "names": _labels(cells),
        "index_col": False,
        "decimal": cells.decimal,
        "na_values": sorted(TEXT_MARKERS),
        "keep_default_na": False,
        "skipinitialspace": True,
        "encoding": "utf-8",
        "engine": "c",
    }


def _unreadable(error: ParserError) -> InputRefusedError:
    if "EOF inside string" in str(error):
        return InputRefusedError(
            "has a quotation mark that is never closed",
            code="INPUT_UNREADABLE",
            todo='Close the quotation mark, or double it ("") where it belongs to the text.',
        )
    return InputRefusedError(
        "has rows that cannot be told apart",
        code="INPUT_UNREADABLE",
        todo="Open the file in a spreadsheet, check that it is one table, and export it again as CSV.",
    )


def _inexact_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if _is_inexact(frame[name])]


def _is_inexact(column: "pd.Series[Any]") -> bool:
    """Whether inference may have lost digits, or mixed numbers with texts."""
    if column.dtype.kind in "iu":
        return len(column) > 0 and (column.max() >= EXACT_LIMIT or column.min() <= -EXACT_LIMIT)
    if column.dtype.kind == "f":
        values = column.to_numpy()
        large = values[np.isfinite(values) & (np.abs(values) >= EXACT_LIMIT)]
        return bool(large.size) and bool((large == np.floor(large)).all())
    if column.dtype == object:
        return pd.api.types.infer_dtype(column, skipna=True) not in {"string", "boolean", "empty"}
    return False


def _code_columns(cells: Cells, frame: pd.DataFrame) -> set[str]:
    """The columns inferred as numbers in which a value starts with a zero and another digit."""
    numeric = [name for name in frame.columns if frame[name].dtype.kind in "iuf"]
    if not numeric or not _has_leading_zero(cells):
        return set()
    found: set[str] = set()
    options = {**_options(cells), "usecols": numeric, "dtype": str, "chunksize": _CHUNK_ROWS}
    for chunk in pd.read_csv(_source(cells), **options):
        found |= {name for name in numeric if name not in found and _has_code(chunk[name])}
    return found


def _has_code(column: "pd.Series[Any]") -> bool:
    return any(map(LEADING_ZERO.match, pd.unique(column.dropna().to_numpy(dtype=object))))


def _has_leading_zero(cells: Cells) -> bool:
    """Whether any cell of the file starts with a zero and another digit (a regular expression takes 50 ms a MB)."""
    opens = np.zeros(256, dtype=bool)
    opens[list(b'\r\n"' + cells.delimiter.encode())] = True
    opens[ord(" ")] = cells.delimiter.encode() + b" " in cells.body
    text = np.frombuffer(cells.body, dtype=np.uint8, offset=min(cells.offset, len(cells.body) - 1))
    if bytes(text[:2]).isdigit() and text[0] == ord("0"):
        return True
    for start in range(0, len(text), _CHUNK_BYTES):
        piece = text[start : start + _CHUNK_BYTES + 2]
        zero = opens[piece[:-2]] & (piece[1:-1] == ord("0"))
        if bool((zero & (piece[2:] - ord("0") < 10)).any()):
            return True
    return False
