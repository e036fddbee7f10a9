"""Counts the rows and cells of a delimited text before it is parsed: one pass, with a fast way for plain files.

What is made of the counts (header, repairs) is delimited.py's business.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat

from ss_pipeline.stages.profiling.headers import HEAD_ROWS
from ss_pipeline.stages.profiling.tables import MAX_CELL_CHARS, no_table, refuse_long_cell


@dataclass
class Census:
    """What counting found. Records are rows that are neither blank nor comments."""

    widths: Counter[int] = field(default_factory=Counter)
    head: list[list[str]] = field(default_factory=list)
    head_lines: list[int] = field(default_factory=list)
    """The 1-based line on which each row of the head starts."""
    blank: int = 0
    comments: int = 0
    comment_above: list[str] = field(default_factory=list)
    """The last comment before the first record, as cells without the `#`."""

    @property
    def records(self) -> int:
        """The number of records."""
        return self.widths.total()

    @property
    def width(self) -> int:
        """The number of cells most rows have; of equally frequent ones the larger."""
        return max(self.widths, key=lambda width: (self.widths[width], width))


def take_census(body: bytes, *, delimiter: str) -> Census:
    """Counts rows and cells.

    Raises:
        InputRefusedError: INPUT_CELL_TOO_LARGE (an unclosed quotation mark shows so, too), INPUT_NO_TABLE.
    """
    census = _plain_census(body, delimiter) or _full_census(body, delimiter)
    if not census.records:
        raise no_table("holds no rows")
    return census


def _plain_census(body: bytes, delimiter: str) -> Census | None:
    """The census of a file without quotes, comments, titles and ragged rows, ten times as fast; else None."""
    mark = delimiter.encode()
    body = body.rstrip(b"\r\n")
    if delimiter == " " or b'"' in body or b"#" in body or _has_blank_row(body, mark):
        return None
    lines = [line for line in body.splitlines() if line]
    marks = Counter(map(bytes.count, lines, repeat(mark)))
    if len(marks) != 1 or max(map(len, lines)) > MAX_CELL_CHARS:
        return None
    census = Census(widths=Counter({count + 1: rows for count, rows in marks.items()}))
    for number, row in numbered_rows(body, delimiter):
        if row and len(census.head) < HEAD_ROWS:
            census.head.append(row)
            census.head_lines.append(number)
        elif row:
            break
    return census


def _has_blank_row(body: bytes, mark: bytes) -> bool:
    """Whether a line holds nothing but blanks and delimiters. Empty lines do not count: the parser leaves them out."""
    begins = (mark, b" ", b"\t")
    if not body.startswith(begins) and not any(end + begin in body for end in (b"\n", b"\r") for begin in begins):
        return False
    return bool(re.search(rb"(?:^|[\r\n])[ \t" + re.escape(mark) + rb"]+(?:[\r\n]|$)", body))


def _full_census(body: bytes, delimiter: str) -> Census:
    census = Census()
    before = csv.field_size_limit(MAX_CELL_CHARS)
    rows = numbered_rows(body, delimiter)
    line = 1
    try:
        for line, row in rows:
            _count(census, row, line)
            if len(census.head) == HEAD_ROWS:
                break
        for line, row in rows:
            if row and row[0][:1].strip("# "):  # nearly every row: neither blank nor a comment
                census.widths[len(row)] += 1
            else:
                _count(census, row, line)
    except csv.Error as error:
        raise refuse_long_cell(f"after line {line:,}") from error
    finally:
        csv.field_size_limit(before)
    return census


def _count(census: Census, row: list[str], line: int) -> None:
    if is_blank_row(row):
        census.blank += bool(row)
    elif is_comment(row):
        census.comments += 1
        if not census.head:
            census.comment_above = [row[0].lstrip("# \t"), *row[1:]]
    else:
        census.widths[len(row)] += 1
        if len(census.head) < HEAD_ROWS:
            census.head.append(row)
            census.head_lines.append(line)


def is_blank_row(row: list[str]) -> bool:
    """Whether no cell of a row holds anything."""
    return not any(row) or not any(map(str.strip, row))


def is_comment(row: list[str]) -> bool:
    """Whether a row is a remark: `# text`. `#1` may be a value."""
    return row[0].startswith(("# ", "##", "#!", "#\t", "#%")) or row == ["#"]


def numbered_rows(body: bytes, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every row with the line it starts on."""
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8", newline="")
    reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
    start = 1
    for row in reader:
        yield start, row
        start = reader.line_num + 1
