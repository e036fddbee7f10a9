"""Reads .xlsx and .xls workbooks with calamine, after looking into the zip container without unpacking it.

A small container can hold gigabytes: sizes, ratios, members and document types are checked before a sheet is opened.
Header and names come from headers.py, types from columns.py.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.profiles import DataQualityWarning
from ss_pipeline.stages.profiling.containers import ZIP_MAGIC, check_container, damaged
from ss_pipeline.stages.profiling.headers import (
    HEAD_ROWS,
    HeaderPlace,
    filled,
    find_header,
    is_blank,
    listed,
    name_columns,
    numbered_columns,
)
from ss_pipeline.stages.profiling.tables import (
    TEXT_MARKERS,
    ProfileLimits,
    RawColumn,
    Table,
    cut_warning,
    no_table,
    object_array,
    refuse_too_many_rows,
    warning,
)

_ALL_SHEETS_BELOW: Final = 20_000_000
"""Bytes of a workbook up to which the other sheets are opened, too, to say whether they hold something."""

_ERROR_CELLS: Final = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"})

Merge = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class SheetTable:
    """The rows of a sheet from its first line on, the merged cells, and where the table is in them."""

    name: str
    rows: list[list[object]]
    merges: list[Merge]
    place: HeaderPlace


def read_workbook(path: Path, *, limits: ProfileLimits) -> Table:
    """Reads the first sheet that holds something.

    Raises:
        InputRefusedError: INPUT_COMPRESSION_BOMB, INPUT_UNSAFE_WORKBOOK, INPUT_UNREADABLE, INPUT_NO_TABLE,
            INPUT_TOO_MANY_ROWS.
    """
    body = path.read_bytes()
    size = check_container(body) if body.startswith(ZIP_MAGIC) else len(body)
    workbook = _open(body)
    names = _sheet_names(workbook)
    opened = ((name, _sheet(workbook, name)) for name in names)
    chosen = next(((name, sheet) for name, sheet in opened if sheet.start is not None), None)
    if chosen is None:
        raise no_table("holds no sheet with cells in it")
    name, sheet = chosen
    table = _table_of(sheet, name=name, limits=limits)
    later = names[names.index(name) + 1 :]
    others = [other for other in later if size > _ALL_SHEETS_BELOW or _sheet(workbook, other).start is not None]
    return _as_table(table, notes=_sheet_notes(name, skipped=names[: names.index(name)], others=others), limits=limits)


def _open(body: bytes) -> CalamineWorkbook:
    try:
        return CalamineWorkbook.from_filelike(io.BytesIO(body))
    except PasswordError as error:
        raise InputRefusedError(
            "is protected by a password",
            code="INPUT_UNREADABLE",
            todo="Save the workbook without a password.",
        ) from error
    except (CalamineError, OSError) as error:
        raise damaged() from error


def _sheet_names(workbook: CalamineWorkbook) -> list[str]:
    """The worksheets in the workbook's order, hidden ones last."""
    sheets = [sheet for sheet in workbook.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    return [sheet.name for sheet in sorted(sheets, key=lambda sheet: sheet.visible != SheetVisibleEnum.Visible)]


def _sheet(workbook: CalamineWorkbook, name: str) -> CalamineSheet:
    try:
        return workbook.get_sheet_by_name(name)
    except (CalamineError, OSError) as error:
        raise damaged() from error


def _table_of(sheet: CalamineSheet, *, name: str, limits: ProfileLimits) -> SheetTable:
    if sheet.end is not None:
        refuse_too_many_rows(sheet.height - HEAD_ROWS, limits=limits)
    iterator = sheet.iter_rows()
    rows: list[list[object]] = [list(row) for row in islice(iterator, HEAD_ROWS)]
    merges = sheet.merged_cell_ranges or []
    place = _with_merges(find_header(rows), merges)
    rows += map(list, iterator)
    return SheetTable(name=name, rows=rows, merges=merges, place=place)


def _with_merges(place: HeaderPlace, merges: Sequence[Merge]) -> HeaderPlace:
    """A header whose cells are merged downwards is as deep as they are."""
    if not place.depth:
        return place
    depths = [end[0] - place.first + 1 for start, end in merges if start[0] == place.first]
    return HeaderPlace(first=place.first, depth=max([1, *depths]))


def _as_table(table: SheetTable, *, notes: list[DataQualityWarning], limits: ProfileLimits) -> Table:
    place = table.place
    left = _first_column(table.rows)
    data = [row[left:] for row in table.rows[place.first + place.depth :]]
    kept = [row for row in data if filled(row)]
    refuse_too_many_rows(len(kept), limits=limits)
    total = max(len(row) for row in table.rows) - left
    width = min(total, limits.max_columns)
    naming = name_columns(_header_cells(table)[left : left + width]) if place.depth else numbered_columns(width)
    notes = [*notes, *_row_notes(table, blank=_inner_blank_rows(data)), *_emptiness(table, kept)]
    return Table(
        columns=[
            RawColumn(name=name, original_name=original, values=object_array([_cell(row[index]) for row in kept]))
            for index, (name, original) in enumerate(zip(naming.names, naming.originals, strict=True))
        ],
        rows=len(kept),
        columns_total=total,
        markers=TEXT_MARKERS | _ERROR_CELLS,
        decimal=".",
        sheet=table.name,
        header_line=place.first + 1 if place.depth else None,
        warnings=[*notes, *naming.warnings, *cut_warning(total, limits=limits)],
    )


def _first_column(rows: list[list[object]]) -> int:
    """Columns left of the table are empty in every row."""
    return min(next((index for index, cell in enumerate(row) if not is_blank(cell)), len(row)) for row in rows if row)


def _cell(value: object) -> object:
    return None if value == "" else value


def _header_cells(table: SheetTable) -> list[str]:
    """One text per column: the parts of a header of several rows joined, merged cells counted for all they cover."""
    place = table.place
    header = [list(row) for row in table.rows[place.first : place.first + place.depth]]
    for (top, left), (bottom, right) in table.merges:
        if place.first <= top < place.first + place.depth:
            value = header[top - place.first][left]
            for row in header[top - place.first : bottom - place.first + 1]:
                row[left : right + 1] = [value] * (right + 1 - left)
    columns = zip(*header, strict=True)
    return [" ".join(dict.fromkeys(_header_text(cell) for cell in cells if not is_blank(cell))) for cells in columns]


def _header_text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _inner_blank_rows(data: list[list[object]]) -> int:
    """Rows without any value that stand above a row with one."""
    marks = [filled(row) > 0 for row in data]
    last = max((index for index, mark in enumerate(marks) if mark), default=-1)
    return marks[: last + 1].count(False)


def _sheet_notes(name: str, *, skipped: list[str], others: list[str]) -> list[DataQualityWarning]:
    notes = []
    if skipped:
        message = f"The sheet {name!r} was read; the sheets before it hold nothing: {listed(skipped)}."
        notes.append(warning("sheet_chosen", message, "Hand in a workbook with one sheet."))
    if others:
        message = f"Only the sheet {name!r} was read; there are others: {listed(others)}."
        notes.append(warning("other_sheets", message, "Hand in the sheets that are meant as files of their own."))
    return notes


def _row_notes(table: SheetTable, *, blank: int) -> list[DataQualityWarning]:
    notes = []
    above = sum(1 for row in table.rows[: table.place.first] if filled(row))
    if above:
        message = f"{above} line(s) above the column names were taken for a title and left out."
        notes.append(warning("title_rows", message, "Start the sheet with the line of column names."))
    if table.place.depth > 1:
        message = f"The column names stand in {table.place.depth} lines with merged cells; they were joined."
        notes.append(warning("merged_headers", message, "Use one line of column names without merged cells."))
    if blank:
        message = f"{blank:,} row(s) without any value were left out."
        notes.append(warning("blank_rows", message, "Remove the empty rows."))
    return notes


def _emptiness(table: SheetTable, kept: list[list[object]]) -> list[DataQualityWarning]:
    """A sheet of one cell is shown as it is; a header without rows is refused."""
    if kept:
        return []
    if sum(map(filled, table.rows)) > 1:
        raise no_table(f"has column names but no rows on the sheet {table.name!r}")
    message = f"The sheet {table.name!r} holds a single cell and no table."
    return [warning("no_table", message, "Hand in a sheet with column names and rows.", severity="error")]
