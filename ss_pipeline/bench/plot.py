"""The plot of a measurement: jobs a minute of each way as bars on a logarithmic scale, in SVG written by hand.

The publishing stage has matplotlib to itself; bars and labels need none.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from ss_pipeline.bench.figures import Figures
from ss_pipeline.bench.ways import STORAGES

_LEFT, _WIDTH, _RIGHT = 250, 460, 90
"""Pixels of the names, of the scale, and of the numbers behind the bars."""
_BAR, _HEAD = 22, 34
"""Pixels of a bar with its gap, and of a group's title."""
_COLOURS: Final = {"bare": "#9aa5b1", "usual": "#c2410c", "default": "#c2410c", "warm": "#1d4ed8", "claims": "#1d4ed8"}
_STYLE: Final = "text{font:12px sans-serif;fill:#1f2933}.t{font-weight:bold}.n{fill:#52606d}"


def speed_plot(figures: Sequence[Figures]) -> str:
    """The plot as one SVG document; groups from top to bottom as measured."""
    fastest = max((each.per_minute for each in figures), default=1.0)
    top = 10 ** math.ceil(math.log10(max(10.0, fastest)))
    body, y = [], 8
    for (storage, stages), group in groupby(figures, key=lambda each: (each.way.storage, each.way.stages)):
        y += _HEAD
        body.append(_text(8, y - 10, f"{STORAGES[storage]}, {stages} stages", kind="t"))
        for each in group:
            body.extend(_bar(each, y, top))
            y += _BAR
    grid = list(_grid(top, y + 4))
    size = f'width="{_LEFT + _WIDTH + _RIGHT}" height="{y + 30}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Jobs a minute by way">'
    lines = [head, f"<style>{_STYLE}</style>", '<rect width="100%" height="100%" fill="#fff"/>', *grid, *body, "</svg>"]
    return "\n".join(lines) + "\n"


def _bar(each: Figures, y: int, top: float) -> Iterator[str]:
    length = _place(each.per_minute, top) - _LEFT
    colour = _COLOURS[each.way.how.partition("-")[0]]
    yield _text(_LEFT - 8, y + 13, each.way.description, anchor="end")
    yield f'<rect x="{_LEFT}" y="{y + 2}" width="{length:.1f}" height="{_BAR - 6}" fill="{colour}"/>'
    yield _text(_LEFT + length + 6, y + 13, f"{each.per_minute:,.0f}", kind="n")


def _grid(top: float, bottom: int) -> Iterator[str]:
    """A line at each power of ten, and what the scale is."""
    for power in range(round(math.log10(top)) + 1):
        x = _place(10**power, top)
        yield f'<path d="M{x:.1f} 20V{bottom}" stroke="#e4e7eb"/>'
        yield _text(x, bottom + 14, f"{10**power:,}", anchor="middle", kind="n")
    yield _text(8, bottom + 14, "jobs a minute", kind="n")


def _place(value: float, top: float) -> float:
    """Where a number of jobs a minute lies; 1 and less at the left edge."""
    return _LEFT + _WIDTH * max(0.0, math.log10(max(value, 1.0))) / math.log10(top)


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'
