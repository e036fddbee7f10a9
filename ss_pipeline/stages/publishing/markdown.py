"""Markdown from text nobody vouches for: everything in it stays text, wherever the template puts it (guarantee L4)."""

import re
from typing import Final

from ss_pipeline.stages.publishing.formats import clean, one_line

_SPECIALS: Final = re.compile(
    r"[\\`*_{}\[\]<>()#!|~&$@^]|(?<=[A-Za-z]):(?=\S)|(?<=www)\.|^[-+=]", re.IGNORECASE | re.ASCII
)
"""What begins markup anywhere in a line or at its start; `:` and `www.` because bare addresses become links."""

_ORDINAL: Final = re.compile(r"^(\d{1,9})\.(?=\s|$)", re.ASCII)


class MarkdownText(str):
    """Text that is Markdown already; the template engine puts it in as it is, everything else is escaped."""

    __slots__ = ()


def escape(value: object) -> str:
    """One line of Markdown that shows the value as it is: no link, image, HTML, list, heading or table cell in it."""
    if isinstance(value, MarkdownText):
        return value
    line = _SPECIALS.sub(lambda found: "\\" + found.group(), one_line(str(value)))
    return _ORDINAL.sub(r"\1\.", line)


def quoted(text: str) -> MarkdownText:
    """The text as a block quote, line by line."""
    return MarkdownText("\n".join(f"> {escape(line)}".rstrip() + "  " for line in clean(text).splitlines()) or "> ")


def paragraphs(text: str) -> MarkdownText:
    """The text as paragraphs, one for each of its lines."""
    return MarkdownText("\n\n".join(escape(line) for line in clean(text).splitlines() if line.strip()))


def fenced(code: str, *, language: str) -> MarkdownText:
    """The code in a block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return MarkdownText(f"{fence}{language}\n{clean(code)}\n{fence}")
