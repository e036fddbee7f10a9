"""What a reader must know about the data: empty and constant columns, gaps, codes, outliers, duplicates, mixtures.

Judges typed columns only; how the file was read is remarked where it is read.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from ss_pipeline.jobs.profiles import DataQualityWarning
from ss_pipeline.stages.profiling.columns import TypedColumn
from ss_pipeline.stages.profiling.headers import listed
from ss_pipeline.stages.profiling.measures import as_number_text
from ss_pipeline.stages.profiling.tables import Array, warning

FEW_ROWS: Final = 30
MANY_MISSING: Final = 0.2
FAR_STANDARD_DEVIATIONS: Final = 6.0
_MOSTLY: Final = 0.5
_PER_KIND: Final = 20
"""Columns named one by one for a kind of remark; the others are named together."""

_ID_NAME: Final = re.compile(
    r"(?:^|[_\W])(?:id|ids|uuid|key|index|no|nr|code)(?:$|[_\W\d])|[a-z]ID$|编号|序号|代码", re.I
)
_NEGATIVE_CODES: Final = frozenset({-9.0, -88.0, -77.0, -99.0, -999.0, -9999.0, -99999.0})
_POSITIVE_CODES: Final = frozenset({99.0, 999.0, 9999.0, 99999.0, 999999.0})


def judge(columns: list[TypedColumn], *, rows: int) -> list[DataQualityWarning]:
    """All remarks about a table, those about the whole first."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = [*_few_rows(rows), *_duplicate_rows(columns, rows=rows)]
        for check in _COLUMN_CHECKS:
            found += _bounded([remark for column in columns for remark in check(column)])
    return found


def _bounded(remarks: list[DataQualityWarning]) -> list[DataQualityWarning]:
    """The first remarks of a kind, and one that counts the others."""
    more = remarks[_PER_KIND:]
    if not more:
        return remarks
    first = more[0]
    message = f"The same is true of {len(more):,} more columns ({first.type})."
    return [*remarks[:_PER_KIND], warning(first.type, message, first.suggestion or "", severity=first.severity)]


def _few_rows(rows: int) -> list[DataQualityWarning]:
    if rows >= FEW_ROWS:
        return []
    message = f"The file has only {rows} row(s)."
    return [warning("few_rows", message, "Expect wide intervals; a regression needs more observations.")]


def _duplicate_rows(columns: list[TypedColumn], *, rows: int) -> list[DataQualityWarning]:
    if rows < 2 or len(columns) < 2:
        return []
    hashes = np.zeros(rows, dtype=np.uint64)
    for column in columns:
        hashes = _mixed(hashes, column.row_keys().view(np.uint64))
    duplicates = int(np.count_nonzero(np.diff(np.sort(hashes)) == 0))
    if not duplicates:
        return []
    message = f"{duplicates:,} of {rows:,} rows repeat another row exactly."
    return [warning("duplicate_rows", message, "Check whether observations were entered twice.", severity="info")]


def _mixed(hashes: Array, keys: Array) -> Array:
    """Adds a column to the rows' hashes (the finalizer of splitmix64, so that close numbers end far apart)."""
    mixed = (hashes * np.uint64(0x9E3779B97F4A7C15)) ^ keys
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _empty(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.rows and not column.count:
        yield warning("all_missing_column", f"Column {column.raw.name!r} holds no value.", "Drop the column.")


def _constant(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.count > 1 and bool((column.present == column.present[0]).all()):
        message = f"Column {column.raw.name!r} has the same value in every row that has one."
        yield warning("constant_column", message, "It cannot explain anything; leave it out of the analysis.")


def _gaps(column: TypedColumn) -> Iterable[DataQualityWarning]:
    share = 1 - column.count / column.rows if column.rows else 0.0
    if column.count and share > MANY_MISSING:
        message = f"Column {column.raw.name!r} is missing in {share:.0%} of the rows."
        yield warning("many_missing", message, "Rows without it drop out of a regression; check why it is missing.")


def _infinite(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.infinite:
        message = f"Column {column.raw.name!r} holds {column.infinite:,} infinite number(s), taken for missing."
        yield warning("infinite_values", message, "Check the formula that made them (division by zero, log of zero).")


def _identifier(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.kind not in {"integer", "string"} or column.count < 10 or column.missing.any():
        return
    if (len(column.texts) if column.kind == "string" else len(np.unique(column.values))) < column.count:
        return
    counts_up = column.kind == "integer" and bool((np.diff(column.values) == 1).all())
    short = column.kind == "string" and sum(map(len, column.texts)) <= 40 * len(column.texts)
    if counts_up or short or _ID_NAME.search(column.raw.name):
        message = f"Column {column.raw.name!r} has another value in every row: it identifies rows and measures nothing."
        yield warning("id_like_column", message, "Do not use it as a variable.", severity="info")


def _mixture(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.kind == "string" and _MOSTLY <= column.numeric_share < 1 and len(column.texts) > 2:
        message = f"Column {column.raw.name!r} mixes numbers ({column.numeric_share:.0%} of its values) with texts."
        yield warning("mixed_types", message, "Replace the texts by numbers, or by blanks where a value is missing.")


def _long_numbers(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.kind == "string" and column.texts and all(text.lstrip("+-").isdecimal() for text in column.texts):
        message = f"Column {column.raw.name!r} holds codes of digits (leading zeros or over 15 digits), kept as text."
        yield warning(
            "digit_codes", message, "If they are quantities, write them without leading zeros.", severity="info"
        )


def _ambiguous_dates(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.dates is not None and column.dates.ambiguous:
        message = f"Dates of column {column.raw.name!r} were read day first; month first would fit as well."
        yield warning("ambiguous_dates", message, "Write dates as year-month-day.")


def _outliers(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.kind not in {"integer", "number"} or column.count < FEW_ROWS:
        return
    values = column.present
    far = values[np.abs(values - values.mean()) > FAR_STANDARD_DEVIATIONS * values.std()]
    if far.size:
        extreme = as_number_text(float(far[np.argmax(np.abs(far - np.median(values)))]))
        message = f"Column {column.raw.name!r} has {far.size:,} value(s) very far from the others, such as {extreme}."
        yield warning("outliers", message, "Check them; consider a logarithm or a robust method.")


def _placeholders(column: TypedColumn) -> Iterable[DataQualityWarning]:
    if column.kind not in {"integer", "number"} or column.count < 3:
        return
    distinct = np.unique(column.present)
    if len(distinct) < 3:
        return
    codes = [float(code) for code in (distinct[0], distinct[-1]) if _is_placeholder(float(code), distinct)]
    if codes:
        shown = listed([as_number_text(code) for code in codes])
        message = f"Column {column.raw.name!r} may use {shown} as a code for missing or not applicable."
        yield warning("placeholder_codes", message, "Replace such codes by blanks before the analysis.")


def _is_placeholder(code: float, distinct: Array) -> bool:
    """A usual code, far outside the other values, or the only negative number."""
    others = distinct[distinct != code]
    if code in _NEGATIVE_CODES and code == distinct[0]:
        return bool(others[0] >= 0) or others[0] - code > others[-1] - others[0]
    return code in _POSITIVE_CODES and code == distinct[-1] and code - others[-1] > others[-1] - others[0]


_COLUMN_CHECKS: Final[tuple[Callable[[TypedColumn], Iterable[DataQualityWarning]], ...]] = (
    _empty,
    _constant,
    _gaps,
    _infinite,
    _mixture,
    _placeholders,
    _outliers,
    _identifier,
    _long_numbers,
    _ambiguous_dates,
)
