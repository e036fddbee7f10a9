"""Where the table starts and what its columns are called: for delimited files and sheets alike.

Works on the first rows only. Reading them is delimited.py's and workbooks.py's business.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Final

from ss_pipeline.jobs.profiles import DataQualityWarning
from ss_pipeline.stages.profiling.tables import MAX_HEADER_CHARS, warning

HEAD_ROWS: Final = 100
"""Rows looked at to find the header."""

MAX_NORMALIZED_CHARS: Final = 32
MAX_ORIGINAL_CHARS: Final = 1_000

NUMBER: Final = re.compile(r"[+-]?(?:\d{1,3}(?:[,.]\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?|[.,]\d+)(?:[eE][+-]?\d+)?%?")
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T].*)?")
_NAMELESS: Final = re.compile(r"(?:unnamed(?:[: _]*\d+)?|nan)?", re.IGNORECASE)

Row = Sequence[object]


@dataclass(frozen=True)
class HeaderPlace:
    """The index of the first row of the table, and how many rows of it are header (0: none)."""

    first: int
    depth: int


def is_blank(cell: object) -> bool:
    """Whether a cell is empty."""
    return cell is None or cell == "" or (isinstance(cell, str) and cell.isspace())


def filled(row: Row) -> int:
    """How many cells of a row are not empty."""
    return sum(not is_blank(cell) for cell in row)


def find_header(rows: Sequence[Row]) -> HeaderPlace:
    """Where the table starts: at the first row with more than half of the cells rows usually have; above are titles.

    A first row that looks like data (numbers over numbers) means that the file has no header.
    """
    counts = [filled(row) for row in rows]
    usual = sorted(count for count in counts if count)
    if not usual:
        return HeaderPlace(first=0, depth=0)
    enough = min(usual[len(usual) // 2] // 2 + 1, usual[-1])
    first = next(index for index, count in enumerate(counts) if count >= enough)
    return HeaderPlace(first=first, depth=0 if _looks_like_data(rows[first], below=rows[first + 1 :]) else 1)


def _looks_like_data(row: Row, *, below: Sequence[Row]) -> bool:
    cells = [(index, cell) for index, cell in enumerate(row) if not is_blank(cell)]
    measured = [(index, cell) for index, cell in cells if is_measured(cell)]
    if len(measured) == len(cells):
        return True
    if len(measured) * 2 < len(cells) or _is_series([cell for _, cell in measured]):
        return False
    return all(_is_measured_column(index, below) for index, _ in measured)


def is_measured(cell: object) -> bool:
    """Whether a cell is a number or a date, or a text that reads as one."""
    if isinstance(cell, str):
        text = cell.strip()
        return bool(NUMBER.fullmatch(text) or _DATE.fullmatch(text))
    return isinstance(cell, (int, float, date))


def _is_measured_column(index: int, below: Sequence[Row]) -> bool:
    cells = [row[index] for row in below if index < len(row) and not is_blank(row[index])]
    return bool(cells) and sum(map(is_measured, cells)) >= 0.8 * len(cells)


def _is_series(cells: Iterable[object]) -> bool:
    """Whether cells are years or count up by a constant step, as in the header of a wide table."""
    texts = [str(cell).strip().removesuffix(".0") for cell in cells]
    if not all(text.isdecimal() and text.isascii() and len(text) < 10 for text in texts):
        return False
    numbers = [int(text) for text in texts]
    if all(1800 <= number <= 2100 for number in numbers):
        return True
    steps = {after - before for before, after in pairwise(numbers)}
    return len(numbers) > 2 and len(steps) == 1 and min(steps) > 0


@dataclass(frozen=True)
class Naming:
    """The names of a table's columns, as used and as the file has them, and what had to be changed."""

    names: list[str]
    originals: list[str]
    warnings: list[DataQualityWarning]


def name_columns(cells: Sequence[object]) -> Naming:
    """Unique names for the columns: trimmed, `col_N` where there is none, `_2` after a name's second appearance.

    Takes time proportional to the number of columns, also where all names are equal.
    """
    originals = [_as_header_text(cell) for cell in cells]
    cleaned = [_cleaned(text) for text in originals]
    nameless = [index for index, text in enumerate(cleaned, 1) if _NAMELESS.fullmatch(text)]
    long = [text[:40] for text in cleaned if len(text) > MAX_HEADER_CHARS]
    wanted = [
        f"col_{index}" if _NAMELESS.fullmatch(text) else text[:MAX_HEADER_CHARS].rstrip()
        for index, text in enumerate(cleaned, 1)
    ]
    names, repeated = _made_unique(wanted)
    return Naming(
        names=names,
        originals=[text[:MAX_ORIGINAL_CHARS] for text in originals],
        warnings=[*_nameless_warning(nameless), *_repeated_warning(repeated), *_long_warning(long)],
    )


def numbered_columns(width: int) -> Naming:
    """Names for a file without a header: `col_1` to `col_<width>`."""
    names = [f"col_{index}" for index in range(1, width + 1)]
    message = f"The first line holds values, not names: the columns are called {names[0]} to {names[-1]}."
    advice = "Put a line of column names first; without names no column can be matched to the question."
    return Naming(names=names, originals=[""] * width, warnings=[warning("no_header", message, advice)])


def normalize_names(names: Sequence[str]) -> list[str]:
    """The names as identifiers: `^[a-z][a-z0-9_]*$`, at most 32 characters, unique (CONTRACT 3.5).

    Accents are dropped; a name without Latin letters or digits becomes `c_<position>`.
    """
    wanted = [_identifier(name, position) for position, name in enumerate(names, 1)]
    unique, _ = _made_unique(wanted, longest=MAX_NORMALIZED_CHARS)
    return unique


def listed(items: Sequence[object], *, at_most: int = 5) -> str:
    """The first few of some things, for a sentence."""
    shown = ", ".join(str(item) for item in items[:at_most])
    return f"{shown} and {len(items) - at_most:,} more" if len(items) > at_most else shown


def _as_header_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _cleaned(text: str) -> str:
    kept = "".join(
        " " if kind == "Cc" else char for char in text if (kind := unicodedata.category(char)) not in {"Cf", "Cs"}
    )
    return " ".join(kept.split())


def _identifier(name: str, position: int) -> str:
    ascii_text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"[^a-z0-9]+", "_", ascii_text).strip("_")
    if not text:
        return f"c_{position}"
    text = text if text[0].isalpha() else f"n_{text}"
    return text[:MAX_NORMALIZED_CHARS].rstrip("_")


def _made_unique(wanted: Sequence[str], *, longest: int = MAX_HEADER_CHARS) -> tuple[list[str], list[str]]:
    """Unique names in the same order, and the names that came more than once. Names that are free keep theirs."""
    taken: set[str] = set()
    reserved = set(wanted)
    next_number: dict[str, int] = {}
    names = []
    for name in wanted:
        unique = name
        while unique in taken or (unique is not name and unique in reserved):
            number = next_number.get(name, 2)
            next_number[name] = number + 1
            suffix = f"_{number}"
            unique = name[: longest - len(suffix)] + suffix
        taken.add(unique)
        names.append(unique)
    return names, list(next_number)


def _nameless_warning(positions: list[int]) -> list[DataQualityWarning]:
    if not positions:
        return []
    message = f"Columns without a name were called col_<position>: position {listed(positions)}."
    return [warning("unnamed_columns", message, "Give every column a name.")]


def _repeated_warning(repeated: list[str]) -> list[DataQualityWarning]:
    if not repeated:
        return []
    message = f"Names that stand over several columns were numbered (_2, _3 …): {listed(repeated)}."
    return [warning("duplicate_headers", message, "Give every column its own name.")]


def _long_warning(long: list[str]) -> list[DataQualityWarning]:
    if not long:
        return []
    message = f"Names of more than {MAX_HEADER_CHARS} characters were cut: {listed([f'{text}…' for text in long])}."
    return [warning("long_headers", message, "Use short names and put the wording into a code book.")]
