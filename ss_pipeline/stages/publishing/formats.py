"""How values become text for people: cleaned user text, numbers, shares, times. No markup (templates, markdown.py)."""

import math
import re
import unicodedata
from datetime import UTC, datetime
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

_UNSHOWABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, lone surrogates, and controls that reorder text so that it reads as something else."""


def clean(text: str) -> str:
    """The text with every character that cannot be shown, or that hides others, replaced visibly."""
    return _UNSHOWABLE.sub(REPLACEMENT, text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """The cleaned text on one line, runs of white space as one space."""
    return " ".join(clean(text).split())


def number(value: float | str | None) -> str:
    """A number with four significant digits, whole ones in full; text as it is; a dash where there is none."""
    if isinstance(value, str):
        return one_line(value)
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size and (size >= 1e15 or size < 1e-4):
        return f"{value:.3e}"
    if value == int(value) or size >= 10_000:
        return f"{value:,.0f}" if size >= 10_000 else f"{value:.0f}"
    return f"{value:.1f}" if size >= 1_000 else f"{value:.4g}"


def share(part: int, whole: int) -> str:
    """A percentage, never rounded to 0 % or 100 % where it is not."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent % 1 else f"{percent:.0f} %"


def size(count: int) -> str:
    """A number of bytes in the unit people use."""
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1_000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def moment(timestamp: str | None) -> str:
    """An ISO time as `2026-01-06 12:00 UTC`; text that is no time as it is."""
    if not timestamp:
        return "–"
    try:
        parsed = datetime.fromisoformat(timestamp)
    except ValueError:
        return one_line(timestamp)
    if parsed.tzinfo is None:
        return parsed.strftime("%Y-%m-%d %H:%M")
    return parsed.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def display_width(text: str) -> int:
    """How wide a text is, in narrow characters: East Asian wide ones count twice."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def shortened(text: str, *, width: int) -> str:
    """The text on one line, cut with an ellipsis where it is wider than `width` narrow characters."""
    line = one_line(text)
    if display_width(line) <= width:
        return line
    while line and display_width(line) > width - 1:
        line = line[:-1]
    return line.rstrip() + "…"
