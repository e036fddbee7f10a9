"""What a column holds: its type, its missing cells, its values as numbers, times or coded texts.

Works on the distinct values, so that a column of a million repeated texts costs little. Statistics are measures.py's
business, remarks about quality quality.py's.
"""

import re
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

import numpy as np
import pandas as pd

from ss_pipeline.jobs.profiles import InferredType
from ss_pipeline.stages.profiling.dates import DateReading, read_dates
from ss_pipeline.stages.profiling.parsing import EXACT_LIMIT, LEADING_ZERO
from ss_pipeline.stages.profiling.tables import MAX_CELL_CHARS, Array, RawColumn, object_array, refuse_long_cell

_MAX_CODE_DIGITS: Final = 15
_GROUPED: Final = {
    ".": re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?"),
    ",": re.compile(r"[+-]?\d{1,3}(?:\.\d{3})+(?:,\d+)?"),
}
"""Numbers with thousands separators, by decimal mark."""
_PLAIN: Final = {
    ".": re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"),
    ",": re.compile(r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d+)?"),
}
_SHARE_FROM: Final = 10_000
"""Distinct texts looked at to say how many of a column's values are numbers."""


@dataclass(frozen=True)
class TypedColumn:
    """A column with its type."""

    raw: RawColumn
    kind: InferredType
    values: Array
    """One per row: floats (boolean, integer, number), datetime64[us] in UTC where the file has offsets (datetime), or
    positions in `texts` (string). NaN, NaT or -1 where missing."""
    missing: Array
    """Booleans, one per row."""
    texts: tuple[str, ...] = ()
    infinite: int = 0
    """How many infinite numbers were taken for missing."""
    numeric_share: float = 0.0
    """Of a string column: the share of distinct texts that read as numbers."""
    dates: DateReading | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.missing)

    @property
    def count(self) -> int:
        """The number of cells that are not missing."""
        return self.rows - int(self.missing.sum())

    @property
    def present(self) -> Array:
        """The values that are not missing."""
        return self.values[~self.missing]

    def row_keys(self) -> Array:
        """One 64-bit integer per row, equal where the cells are equal."""
        values = self.values
        if values.dtype.kind == "f":
            values = np.where(self.missing, np.nan, values) + 0.0  # one NaN, one zero
        return values.astype(np.int64) if values.dtype.kind == "i" else values.view(np.int64)


def type_column(raw: RawColumn, *, markers: frozenset[str], decimal: str) -> TypedColumn:
    """Finds the type of a column.

    `007`, integers of more than 15 digits and mixtures of numbers and texts stay texts.

    Raises:
        InputRefusedError: INPUT_CELL_TOO_LARGE.
    """
    values = raw.values
    raw = replace(raw, values=np.empty(0))  # the values as read can go: the column keeps the typed ones
    if values.dtype.kind == "M":
        return _moment_column(raw, values.astype("datetime64[us]"), dates=None)
    if values.dtype.kind == "b":
        return _number_column(raw, values.astype(np.float64), kind="boolean")
    if values.dtype.kind in "iuf":
        return _from_numbers(raw, values)
    return _from_objects(raw, values, markers=markers, decimal=decimal)


def _from_numbers(raw: RawColumn, values: Array) -> TypedColumn:
    if values.dtype.kind in "iu" and values.size and (int(values.max()) >= EXACT_LIMIT or values.min() <= -EXACT_LIMIT):
        return _from_objects(raw, values.astype(str).astype(object), markers=frozenset(), decimal=".")
    return _number_column(raw, values.astype(np.float64))


def _number_column(raw: RawColumn, numbers: Array, *, kind: InferredType | None = None) -> TypedColumn:
    infinite = int(np.isinf(numbers).sum())
    if infinite:
        numbers = np.where(np.isinf(numbers), np.nan, numbers)
    missing = np.isnan(numbers)
    present = numbers[~missing]
    whole: InferredType = "integer" if bool((present == np.floor(present)).all()) else "number"
    return TypedColumn(
        raw=raw,
        kind=kind or (whole if present.size else "unknown"),
        missing=missing,
        values=numbers,
        infinite=infinite,
    )


def _moment_column(raw: RawColumn, moments: Array, *, dates: DateReading | None) -> TypedColumn:
    missing = np.isnat(moments)
    kind: InferredType = "unknown" if missing.all() else "datetime"
    return TypedColumn(raw=raw, kind=kind, missing=missing, values=moments, dates=dates)


def _from_objects(raw: RawColumn, values: Array, *, markers: frozenset[str], decimal: str) -> TypedColumn:
    codes, distinct = pd.factorize(values, use_na_sentinel=True)
    content = pd.api.types.infer_dtype(distinct, skipna=True)
    if content == "boolean":
        return _number_column(raw, _spread(distinct.astype(np.float64), codes), kind="boolean")
    if content in {"integer", "floating", "mixed-integer-float", "decimal"} and not _has_long_integer(distinct):
        return _number_column(raw, _spread(distinct.astype(np.float64), codes))
    if content in {"date", "datetime", "datetime64"} and (moments := _as_moments(distinct)) is not None:
        return _moment_column(raw, _spread(moments, codes), dates=None)
    texts = distinct.tolist() if content == "string" else [_as_text(value) for value in distinct]
    return _from_texts(raw, codes, texts, markers=markers, decimal=decimal)


def _has_long_integer(distinct: Array) -> bool:
    return any(isinstance(value, int) and abs(value) >= EXACT_LIMIT for value in distinct)


def _as_moments(distinct: Array) -> Array | None:
    """Dates and times as datetime64[us], in UTC where they have an offset; None where pandas cannot hold them."""
    try:
        moments = pd.to_datetime(distinct, utc=True, errors="raise")
    except (ValueError, OverflowError):  # includes OutOfBoundsDatetime
        return None
    return moments.tz_localize(None).to_numpy().astype("datetime64[us]")


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_LIMIT:
        return str(int(value))
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    return str(value)


def _from_texts(
    raw: RawColumn, codes: Array, distinct: list[str], *, markers: frozenset[str], decimal: str
) -> TypedColumn:
    if max(map(len, distinct), default=0) > MAX_CELL_CHARS:
        raise refuse_long_cell(f"in the column {raw.name[:60]!r}")
    codes, texts = _without_markers(codes, distinct, markers=markers)
    if not texts:
        return TypedColumn(raw=raw, kind="unknown", missing=codes < 0, values=codes)
    if _all_boolean(texts):
        truths = np.array([text.lower() == "true" for text in texts], dtype=np.float64)
        return _number_column(raw, _spread(truths, codes), kind="boolean")
    numbers = read_numbers(texts, decimal=decimal)
    if numbers is not None:
        return _number_column(raw, _spread(numbers, codes))
    dates = read_dates(texts)
    if dates is not None:
        return _moment_column(raw, _spread(dates.moments, codes), dates=dates)
    share = _numeric_share(texts, _PLAIN[decimal])
    return TypedColumn(raw=raw, kind="string", missing=codes < 0, values=codes, texts=texts, numeric_share=share)


def _numeric_share(texts: tuple[str, ...], pattern: re.Pattern[str]) -> float:
    """The share of numbers among the first texts; below 1 if any text at all is none."""
    some = texts[:_SHARE_FROM]
    share = sum(bool(pattern.fullmatch(text)) for text in some) / len(some)
    return share if share < 1 or all(map(pattern.fullmatch, texts)) else 1 - 1 / len(texts)


def _without_markers(codes: Array, distinct: list[str], *, markers: frozenset[str]) -> tuple[Array, tuple[str, ...]]:
    """The same column with trimmed texts, and -1 where a text means "missing"."""
    stripped = list(map(str.strip, distinct))
    if stripped == distinct and markers.isdisjoint(distinct):
        return codes, tuple(distinct)
    merged, unique = pd.factorize(object_array([None if text in markers else text for text in stripped]))
    return _spread(merged, codes, missing=-1), tuple(unique)


def _all_boolean(texts: tuple[str, ...]) -> bool:
    return all(text.lower() in {"true", "false"} for text in texts)


def read_numbers(texts: tuple[str, ...], *, decimal: str) -> Array | None:
    """The texts as floats if all of them are numbers and none is a code; also `1,234.56` where all fit that.

    A comma is the decimal mark of a whole column where its values fit nothing else (`3,14` in quotation marks).
    """
    for mark in (decimal, *({".", ","} - {decimal})):
        if all(_reads_as_number(text, mark) for text in texts):
            grouping = "," if mark == "." else "."
            return np.array([float(text.replace(grouping, "").replace(mark, ".")) for text in texts])
    return None


def _reads_as_number(text: str, mark: str) -> bool:
    if LEADING_ZERO.match(text) or (len(text) > _MAX_CODE_DIGITS and text.lstrip("+-").isdecimal()):
        return False
    return text.isascii() and bool(_PLAIN[mark].fullmatch(text) or _GROUPED[mark].fullmatch(text))


def _spread(values: Array, codes: Array, *, missing: int | None = None) -> Array:
    """One value per row out of one value per distinct value; NaN, NaT or `missing` where the code is -1."""
    if missing is None:
        gap: Any = np.datetime64("NaT") if values.dtype.kind == "M" else np.nan
    else:
        gap = missing
    if not len(values):
        return np.full(len(codes), gap)
    return np.where(codes < 0, gap, values[codes])
