"""How a text file is written: its encoding, its delimiter, its decimal mark. Everything after works on UTF-8 bytes.

Reading the table is delimited.py's business.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import charset_normalizer
import clevercsv

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.profiles import DataQualityWarning
from ss_pipeline.stages.profiling.tables import warning

_BOMS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's, so it is looked for first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESSED_FROM: Final = 1_000_000
"""Bytes looked at to guess an encoding."""
_CHUNK: Final = 1 << 20
_CONTROLS: Final = bytes(set(range(32)) - set(b"\t\n\r"))
_HIGH_RUN: Final = re.compile(rb"[\x80-\xff]+")

_DELIMITERS: Final = (",", ";", "\t", "|")
_SNIFFED_LINES: Final = 200
_SNIFFED_CHARS: Final = 20_000
_CLEVER_CHARS: Final = 6_000
"""clevercsv takes 40 ms for so much of a doubtful file, and grows faster than the sample."""

_COMMA_DECIMAL: Final = re.compile(r"[+-]?\d{1,3}(?:\.\d{3})*,\d+|[+-]?\d*,\d+")
_POINT_DECIMAL: Final = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d*\.(?:\d{1,2}|\d{4,})")
_INTEGER: Final = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Utf8Text:
    """A file as UTF-8 without byte-order mark, and the encoding it came in."""

    body: bytes
    encoding: str
    warnings: list[DataQualityWarning]


def as_utf8(raw: bytes) -> Utf8Text:
    """The file's text as UTF-8.

    A byte-order mark decides; then valid UTF-8; then a guess between GB18030 and Western European, with a warning.

    Raises:
        InputRefusedError: INPUT_BINARY where it is no text.
    """
    encoding = next((name for mark, name in _BOMS if raw.startswith(mark)), None)
    if encoding is None and b"\x00" not in raw[:_CHUNK]:
        encoding = "utf-8" if _decodes(raw, "utf-8") else None
        if encoding is None:
            return _guessed(raw)
    elif encoding is None:
        raise _binary()
    text = raw.removeprefix(codecs.BOM_UTF8) if encoding == "utf-8-sig" else raw
    body, damaged = (text, 0) if encoding == "utf-8" else _transcoded(text, encoding)
    return Utf8Text(body=_checked(body), encoding=encoding, warnings=_damage_warning(damaged, encoding))


def sniff_delimiter(body: bytes, *, preferred: str, spaces: bool) -> str:
    """The character between the cells, judged by the first 200 lines.

    Args:
        body: UTF-8 text.
        preferred: Taken where the lines agree with it as well as with another.
        spaces: Whether runs of blanks may separate cells (.txt files).
    """
    lines = sample_lines(body)
    if _is_consistent(lines, preferred):
        return preferred
    others = [mark for mark in _DELIMITERS if mark != preferred]
    consistent = [mark for mark in others if _is_consistent(lines, mark)]
    if len(consistent) == 1:
        return consistent[0]
    present = [mark for mark in (preferred, *others) if any(mark in line for line in lines)]
    if not present:
        return " " if spaces and _is_consistent(lines, " ") else preferred
    return _clever_choice(lines, consistent or present)


def sample_lines(body: bytes) -> list[str]:
    """The first lines that are neither blank nor comments, at most 200 and at most 20,000 characters."""
    text = body[: 4 * _SNIFFED_CHARS].decode("utf-8", "ignore")[:_SNIFFED_CHARS]
    lines = io.StringIO(text, newline="").readlines()
    whole = lines[:-1] if len(lines) > 1 and len(text) == _SNIFFED_CHARS else lines
    return [line for line in whole if line.strip() and not line.startswith("#")][:_SNIFFED_LINES]


def sniff_decimal(rows: Sequence[Sequence[str]], *, delimiter: str) -> str:
    """The decimal mark: a comma only where cells are separated by something else and columns show it."""
    if delimiter == ",":
        return "."
    width = max(map(len, rows), default=0)
    columns = [
        [row[index].strip() for row in rows if index < len(row) and row[index].strip()] for index in range(width)
    ]
    commas = sum(_fits(cells, _COMMA_DECIMAL, mark=",") for cells in columns)
    points = sum(_fits(cells, _POINT_DECIMAL, mark=".") for cells in columns)
    return "," if commas > points else "."


def _fits(cells: list[str], pattern: re.Pattern[str], *, mark: str) -> bool:
    """Whether nine tenths of the cells below the first are numbers with this decimal mark, at least one of them."""
    values = cells[1:] if len(cells) > 1 else cells
    fitting = sum(bool(pattern.fullmatch(cell) or _INTEGER.fullmatch(cell)) for cell in values)
    return any(mark in cell for cell in values) and fitting >= 0.9 * len(values)


def _is_consistent(lines: list[str], delimiter: str) -> bool:
    """Whether every line has the same number of cells, two or more."""
    if not any(delimiter in line for line in lines):
        return False
    widths = {len(row) for row in _rows(lines, delimiter) if row}
    return len(widths) == 1 and min(widths) > 1


def _rows(lines: list[str], delimiter: str) -> Iterator[list[str]]:
    yield from csv.reader((line.rstrip("\r\n ") + "\n" for line in lines), delimiter=delimiter, skipinitialspace=True)


def _clever_choice(lines: list[str], candidates: list[str]) -> str:
    """clevercsv's choice on a short sample; where it has none, the mark with which most lines agree."""
    sample = "".join(lines)[:_CLEVER_CHARS]
    found = clevercsv.Detector().detect(sample, delimiters=candidates)
    if found is not None and found.delimiter in candidates:
        return str(found.delimiter)
    return max(candidates, key=lambda mark: _agreement(lines, mark))


def _agreement(lines: list[str], delimiter: str) -> int:
    widths = Counter(len(row) for row in _rows(lines, delimiter) if len(row) > 1)
    return max(widths.values(), default=0)


def _decodes(raw: bytes, encoding: str) -> bool:
    """Whether the bytes are valid, without holding the whole text at once."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for start in range(0, len(raw), _CHUNK):
            decoder.decode(raw[start : start + _CHUNK])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _guessed(raw: bytes) -> Utf8Text:
    encoding = guess_encoding(raw)
    body, damaged = _transcoded(raw, encoding)
    warnings = [assumed_encoding(encoding), *_damage_warning(damaged, encoding)]
    return Utf8Text(body=_checked(body), encoding=encoding, warnings=warnings)


def assumed_encoding(encoding: str) -> DataQualityWarning:
    """Says that an encoding was guessed."""
    message = f"The file does not say its encoding; it was read as {encoding}."
    advice = "Check names and texts for wrong characters; save the file as UTF-8 to be sure."
    return warning("encoding_assumed", message, advice)


def guess_encoding(raw: bytes) -> str:
    """The likely encoding of text that does not say it: utf-8, gb18030, cp1252 or iso-8859-1."""
    start = 0 if not raw[:_GUESSED_FROM].isascii() else _first_high_byte(raw)
    sample = raw[start : start + _GUESSED_FROM]
    if _is_damaged_utf8(sample):
        return "utf-8"
    if _comes_in_pairs(sample) and _best_guess(sample) == "gb18030":
        return "gb18030"
    return "cp1252" if re.search(rb"[\x80-\x9f]", raw) else "iso-8859-1"


def _best_guess(sample: bytes) -> str | None:
    found = charset_normalizer.from_bytes(sample, cp_isolation=["utf_8", "gb18030", "cp1252"]).best()
    return None if found is None else found.encoding


def _first_high_byte(raw: bytes) -> int:
    found = _HIGH_RUN.search(raw)
    return found.start() if found else 0


def _is_damaged_utf8(sample: bytes) -> bool:
    """Whether nearly all characters outside ASCII are valid UTF-8."""
    text = sample.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    valid = sum(len(run) for run in re.findall(r"[^\x00-\x7f\ufffd]+", text))
    return valid > 10 * damaged


def _comes_in_pairs(sample: bytes) -> bool:
    """Whether bytes outside ASCII mostly stand together, as in Chinese text, and not alone, as in `café`."""
    runs = [len(run) for run in _HIGH_RUN.findall(sample)]
    return sum(length for length in runs if length > 1) * 2 >= sum(runs)


def _transcoded(raw: bytes, encoding: str) -> tuple[bytes, int]:
    """The text as UTF-8 and how many characters could not be read, piece by piece to save memory."""
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    damaged = 0
    body = bytearray()
    for start in range(0, max(len(raw), 1), _CHUNK):
        text = decoder.decode(raw[start : start + _CHUNK], final=start + _CHUNK >= len(raw))
        damaged += text.count("\ufffd")
        body += text.encode("utf-8", "replace")
    return bytes(body), damaged


def _damage_warning(damaged: int, encoding: str) -> list[DataQualityWarning]:
    if not damaged:
        return []
    message = f"{damaged:,} characters are not valid {encoding} and were replaced by \ufffd."
    return [warning("encoding_damaged", message, "Export the file again as UTF-8.")]


def _checked(body: bytes) -> bytes:
    """The text, if it is text: no NUL bytes, and hardly any control characters."""
    start = body[:_CHUNK]
    if b"\x00" in body or len(start.translate(None, _CONTROLS)) < 0.95 * len(start):
        raise _binary()
    return body


def _binary() -> InputRefusedError:
    return InputRefusedError(
        "holds NUL bytes or control characters: it is no text file, or it was damaged",
        code="INPUT_BINARY",
        todo="Export the data again as UTF-8 text, or hand it in under the suffix of its real format.",
    )
