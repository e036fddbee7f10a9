"""Reads .csv, .tsv and .txt files: finds the table, repairs it where rows disagree, and has it parsed.

Rows are counted by census.py and cells parsed by parsing.py. Encoding and delimiter come from sniffing.py, header and
names from headers.py, types from columns.py.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from ss_pipeline.jobs.profiles import DataQualityWarning
from ss_pipeline.stages.profiling import sniffing
from ss_pipeline.stages.profiling.census import Census, is_blank_row, is_comment, numbered_rows, take_census
from ss_pipeline.stages.profiling.headers import HeaderPlace, find_header, name_columns, numbered_columns
from ss_pipeline.stages.profiling.parsing import Cells, parse_cells
from ss_pipeline.stages.profiling.tables import (
    TEXT_MARKERS,
    ProfileLimits,
    RawColumn,
    Table,
    cut_warning,
    no_table,
    refuse_too_many_rows,
    warning,
)

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Layout:
    """Where the table is in the records, what stands over its columns, and how a row is cut to them."""

    place: HeaderPlace
    cells_above: list[str] | None
    """The header's cells; None where there is none."""
    header_line: int | None
    width: int

    @property
    def first_record(self) -> int:
        """The index of the first record that is data."""
        return self.place.first + self.place.depth


def read_delimited(raw: bytes, *, suffix: str, limits: ProfileLimits) -> Table:
    """Reads a delimited text file.

    Args:
        raw: The file's bytes.
        suffix: `.csv`, `.tsv`, `.tab` or `.txt`, which breaks ties between delimiters.
        limits: Columns beyond `max_columns` are cut, more rows than `max_rows` are refused.

    Raises:
        InputRefusedError: INPUT_BINARY, INPUT_NO_TABLE, INPUT_CELL_TOO_LARGE, INPUT_TOO_MANY_ROWS, INPUT_UNREADABLE.
    """
    text = sniffing.as_utf8(raw)
    preferred = "\t" if suffix in {".tsv", ".tab"} else ","
    delimiter = sniffing.sniff_delimiter(text.body, preferred=preferred, spaces=suffix == ".txt")
    census = take_census(text.body, delimiter=delimiter)
    layout = _lay_out(census)
    refuse_too_many_rows(census.records - layout.first_record, limits=limits)
    width = min(layout.width, limits.max_columns)
    decimal = sniffing.sniff_decimal(census.head[layout.place.first :], delimiter=delimiter)
    cells, repairs = _prepared(text.body, census, layout, cut=Cells(b"", 0, delimiter, width, decimal))
    above = layout.cells_above
    naming = numbered_columns(width) if above is None else name_columns(above[:width])
    values = parse_cells(cells)
    return Table(
        columns=[RawColumn(*names) for names in zip(naming.names, naming.originals, values, strict=True)],
        rows=len(values[0]),
        columns_total=layout.width,
        markers=TEXT_MARKERS,
        encoding=text.encoding,
        delimiter=delimiter,
        decimal=decimal,
        header_line=layout.header_line,
        warnings=[*text.warnings, *repairs, *naming.warnings, *cut_warning(layout.width, limits=limits)],
    )


def _lay_out(census: Census) -> Layout:
    place = find_header(census.head)
    width = census.width
    if place.depth:
        header = census.head[place.first]
        if len(header) == width - 1:
            last = [row[-1] for row in census.head[place.first + 1 :] if len(row) == width]
            if is_blank_row(last):
                width -= 1  # every row ends with a delimiter
            else:
                header = ["", *header]  # R writes the row names without a name above them
        width = max(width, len(header))
        header = [*header, *[""] * (width - len(header))]
        layout = Layout(place, header, census.head_lines[place.first], width)
    elif len(census.comment_above) == width:
        layout = Layout(place, census.comment_above, census.head_lines[0] - 1, width)
    else:
        layout = Layout(place, None, None, width)
    if census.records <= layout.first_record:
        raise no_table("holds a line of column names but no rows")
    return layout


@dataclass
class Repairs:
    """What was left out or filled in so that all rows have one width."""

    long_rows: int = 0
    short_rows: int = 0
    dropped: list[str] = field(default_factory=list)
    """The line of each row of which cells were left out; the first five."""


def _prepared(body: bytes, census: Census, layout: Layout, *, cut: Cells) -> tuple[Cells, list[DataQualityWarning]]:
    """The table's cells for the parser: the file itself from the first row on, or a repaired copy."""
    notes = _head_notes(census, layout)
    regular = len(census.widths) == 1 and not census.blank and not census.comments and cut.delimiter != " "
    if regular and layout.width == cut.width and layout.first_record < len(census.head):
        return replace(cut, body=body, offset=_line_offset(body, census.head_lines[layout.first_record])), notes
    repairs = Repairs()
    clean = io.BytesIO()
    text = io.TextIOWrapper(clean, encoding="utf-8", newline="", write_through=True)
    csv.writer(text).writerows(_repaired_rows(body, layout, repairs, cut=cut))
    return replace(cut, body=clean.getvalue(), delimiter=","), [*notes, *_repair_notes(repairs)]


def _repaired_rows(body: bytes, layout: Layout, repairs: Repairs, *, cut: Cells) -> Iterator[list[str]]:
    record = 0
    for line, row in numbered_rows(body, cut.delimiter):
        if is_blank_row(row) or is_comment(row):
            continue
        record += 1
        if record <= layout.first_record:
            continue
        if len(row) < layout.width:
            repairs.short_rows += 1
        elif any(row[layout.width :]):
            repairs.long_rows += 1
            repairs.dropped += [f"line {line:,}"] if len(repairs.dropped) < 5 else []
        yield (row + [""] * (layout.width - len(row)))[: cut.width]


def _line_offset(body: bytes, line: int) -> int:
    """Where a 1-based line starts."""
    if line == 1:
        return 0
    ends = islice(_LINE_END.finditer(body), line - 2, None)
    return next(ends).end()


def _head_notes(census: Census, layout: Layout) -> list[DataQualityWarning]:
    notes = []
    if layout.place.first:
        message = f"{layout.place.first} line(s) above the column names were taken for a title and left out."
        notes.append(warning("title_rows", message, "Start the file with the line of column names."))
    if census.comments:
        message = f"{census.comments:,} comment line(s) starting with # were left out."
        notes.append(warning("comment_lines", message, "Keep remarks out of the data file."))
    if census.blank:
        message = f"{census.blank:,} row(s) without any value were left out."
        notes.append(warning("blank_rows", message, "Remove the empty rows."))
    return notes


def _repair_notes(repairs: Repairs) -> list[DataQualityWarning]:
    notes = []
    if repairs.long_rows:
        where = ", ".join(repairs.dropped)
        message = (
            f"{repairs.long_rows:,} row(s) have more cells than there are columns; the surplus was left out: {where}."
        )
        notes.append(warning("ragged_rows", message, "Put cells that hold the delimiter into quotation marks."))
    if repairs.short_rows:
        message = f"{repairs.short_rows:,} row(s) have fewer cells than there are columns and were filled with blanks."
        notes.append(warning("ragged_rows", message, "Check that no cell of these rows is lost or shifted."))
    return notes
