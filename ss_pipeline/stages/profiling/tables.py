"""What the readers hand over: raw columns, how the file was read, and the limits every reader keeps.

No reading (reading.py, delimited.py, workbooks.py) and no types or statistics (columns.py, measures.py).
"""

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.profiles import DataQualityWarning

Array: TypeAlias = npt.NDArray[Any]

MAX_CELL_CHARS: Final = 32 * 1024
"""No cell may be longer (guarantee A8); Excel's own limit is one less."""

MAX_HEADER_CHARS: Final = 128

TEXT_MARKERS: Final = frozenset({"", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", ".", "-", "#N/A"})
"""Cells that mean "missing" in formats whose cells are typed by people. `None` is left alone: it is an answer."""

EMPTY_MARKER: Final = frozenset({""})
"""What means "missing" in .dta, .sav and .parquet texts, which have their own marks for numbers."""


@dataclass(frozen=True)
class ProfileLimits:
    """What reading one data file may cost."""

    max_bytes: int
    max_columns: int
    """More columns are cut off, with a warning."""
    max_rows: int
    """More rows are refused."""
    cpu_seconds: int
    wall_seconds: float
    memory_mb: int
    """Memory of the reading process beyond what its parent has."""


@dataclass(frozen=True)
class RawColumn:
    """A column as read: numbers, times or objects (texts, with None or NaN where missing), one per row."""

    name: str
    original_name: str
    values: Array
    label: str = ""
    value_labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A data file as read. `columns` holds at most `max_columns` of the file's `columns_total`."""

    columns: list[RawColumn]
    rows: int
    columns_total: int
    markers: frozenset[str] = EMPTY_MARKER
    encoding: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    sheet: str | None = None
    header_line: int | None = None
    warnings: list[DataQualityWarning] = field(default_factory=list)


def warning(kind: str, message: str, suggestion: str, *, severity: str = "warning") -> DataQualityWarning:
    """One thing a reader of the report must know about the data."""
    return DataQualityWarning(type=kind, severity=severity, message=message, suggestion=suggestion)


def refuse_too_many_rows(rows: int, *, limits: ProfileLimits) -> None:
    """Raises INPUT_TOO_MANY_ROWS where a file has more rows than allowed."""
    if rows > limits.max_rows:
        raise InputRefusedError(
            f"has more than {limits.max_rows:,} rows",
            code="INPUT_TOO_MANY_ROWS",
            todo="Hand in a part or an aggregate of the data, or raise SS_PROFILE_MAX_ROWS.",
        )


def refuse_long_cell(where: str) -> InputRefusedError:
    """The refusal of a cell over the limit."""
    return InputRefusedError(
        f"holds a cell of more than {MAX_CELL_CHARS:,} characters {where}",
        code="INPUT_CELL_TOO_LARGE",
        todo="Look for a quotation mark that is never closed; else shorten or drop the column of long texts.",
    )


def no_table(reason: str) -> InputRefusedError:
    """The refusal of a file in which there is nothing to analyse."""
    return InputRefusedError(
        reason,
        code="INPUT_NO_TABLE",
        todo="Hand in a table: one line of column names, then one line for each observation.",
    )


def cut_warning(total: int, *, limits: ProfileLimits) -> list[DataQualityWarning]:
    """Says that a file has more columns than are profiled, where it has."""
    if total <= limits.max_columns:
        return []
    message = f"The file has {total:,} columns; only the first {limits.max_columns:,} were profiled."
    return [warning("columns_cut", message, "Keep the columns of the analysis only, or raise SS_PROFILE_MAX_COLUMNS.")]


def object_array(values: list[Any]) -> Array:
    """A list as a one-dimensional array of objects, whatever the objects are."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
