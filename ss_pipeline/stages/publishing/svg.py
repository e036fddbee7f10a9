"""A matplotlib drawing as inline SVG that belongs to the page: its fonts, its colours (light and dark), its own ids.

No text of the user ever goes through matplotlib: a drawing holds numbered marks, replaced by the escaped texts at the
end. So no glyph can be missing (Chinese), no `$` starts a formula, and nothing can leave its `<text>`.
Figures are without matplotlib's axes, whose ticks alone would cost 30 ms a plot. What is drawn is plots.py's business.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform

from ss_pipeline.stages.publishing.formats import clean, display_width, number

Point: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]

INK: Final = "#0a0a01"
MUTED: Final = "#0a0a02"
GRID: Final = "#0a0a03"
OUTCOME: Final = "#0a0a04"
TREATMENT: Final = "#0a0a05"
NEUTRAL: Final = "#0a0a06"
SURFACE: Final = "#0a0a07"

_CSS_OF: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    OUTCOME: "var(--outcome)",
    TREATMENT: "var(--treatment)",
    NEUTRAL: "var(--neutral)",
    SURFACE: "var(--card)",
}
_NO_METADATA: Final = dict.fromkeys(["Creator", "Date", "Format", "Type"])
_FONT_SIZE: Final = 11

_PREAMBLE: Final = re.compile(r"^.*?<svg[^>]*>", re.DOTALL)
_DROPPED: Final = re.compile(
    r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>|(?<=<g) id=\"[^\"]*\"", re.DOTALL
)
_FONT_FAMILY: Final = re.compile(r"; font-family: [^;\"]*")
_COLOUR: Final = re.compile(r"#0a0a0[1-7]")
_MARK: Final = re.compile(r"@T(\d+)@")


class Drawing:
    """One figure of `width` × `height` units (CSS pixels at scale 1); `key` keeps its ids apart from other figures'."""

    def __init__(self, key: str, *, width: int = 400, height: int = 270) -> None:
        self.width = width
        self.height = height
        self._key = key
        self._texts: list[str] = []
        self._figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")

    def panel(self, x: Point, y: Point, *, left: int = 46, right: int = 14, top: int = 28, bottom: int = 44) -> "Panel":
        """A place to draw data in: these ranges of x and y between these margins, in units."""
        return Panel(self, (left, bottom, self.width - right, self.height - top), x, y)

    def text(self, x: float, y: float, text: str, *, align: Literal["left", "center", "right"] = "left") -> None:
        """Writes a text with its baseline at (x, y), in units from the lower left corner."""
        self._texts.append(text)
        mark = f"@T{len(self._texts) - 1}@"
        written = self._figure.text(x, y, mark, color=MUTED, fontsize=_FONT_SIZE, ha=align, va="baseline")
        written.set_transform(IdentityTransform())

    def path(self, vertices: Sequence[Point], codes: Sequence[Any], **style: Any) -> None:
        """Draws a path given in units, with all its points; matplotlib would drop those it takes for invisible."""
        if vertices:
            path = Path(vertices, codes)
            path.should_simplify = False
            self._figure.add_artist(PathPatch(path, transform=IdentityTransform(), **style))

    def svg(self, *, title: str) -> Markup:
        """The finished figure as an inline element, named for those who do not see it."""
        buffer = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": self._key}):
            self._figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
        body = _PREAMBLE.sub("", buffer.getvalue(), count=1)
        body = _FONT_FAMILY.sub("", _DROPPED.sub("", body)).replace("xlink:href", "href")
        body = _COLOUR.sub(lambda found: _CSS_OF[found.group()], body)
        body = _MARK.sub(lambda found: str(escape(clean(self._texts[int(found.group(1))]))), body)
        start = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-labelledby="plot-{self._key}">'
        named = f'<title id="plot-{self._key}">{escape(clean(title))}</title>'
        return Markup(start + named + re.sub(r"\n\s*", "\n", body).strip())  # noqa: S704 - texts are escaped above


@dataclass(frozen=True)
class Panel:
    """The part of a drawing that shows data: `box` (left, bottom, right, top) in units holds the ranges `x` and `y`."""

    drawing: Drawing
    box: Box
    x: Point
    y: Point

    def at(self, x: float, y: float) -> Point:
        """Where a data point lies, in units."""
        left, bottom, right, top = self.box
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return left + across * (right - left), bottom + up * (top - bottom)

    def bars(self, boxes: Iterable[Box], *, color: str, alpha: float = 1.0) -> None:
        """Filled rectangles (left, bottom, right, top), in data, as one path."""
        corners = [((a, b), (a, d), (c, d), (c, b), (a, b)) for a, b, c, d in boxes]
        vertices = [self.at(*corner) for box in corners for corner in box]
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
        self.drawing.path(vertices, codes, facecolor=color, edgecolor="none", alpha=alpha)

    def lines(self, lines: Iterable[Box], *, color: str, width: float, dashed: bool = False) -> None:
        """Straight lines (x0, y0, x1, y1), in data, as one path."""
        vertices = [self.at(*point) for x0, y0, x1, y1 in lines for point in ((x0, y0), (x1, y1))]
        style = (0, (3.0, 2.0)) if dashed else "solid"
        codes = [Path.MOVETO, Path.LINETO] * (len(vertices) // 2)
        self.drawing.path(vertices, codes, fill=False, edgecolor=color, linewidth=width, linestyle=style)

    def dots(self, points: Sequence[Point], *, color: str, size: float, alpha: float = 1.0) -> None:
        """Round dots, in layers so that they darken where they lie on each other; shorter than an element for each."""
        layers = 6 if alpha < 1 else 1
        for layer in range(layers):
            vertices = [self.at(*point) for point in points[layer::layers] for _ in range(2)]
            codes = [Path.MOVETO, Path.LINETO] * (len(vertices) // 2)
            dot = {"fill": False, "edgecolor": color, "linewidth": size, "alpha": alpha, "capstyle": "round"}
            self.drawing.path(vertices, codes, **dot)

    def x_scale(self, *, name: str, marks: Sequence[tuple[float, str]] | None = None) -> None:
        """Marks below the panel (round numbers, if none are given) and what they are."""
        written = [(value, number(value)) for value in _round_values(self.x, at_most=6)] if marks is None else marks
        left, bottom, right, _ = self.box
        self.drawing.path([(left, bottom), (right, bottom)], [Path.MOVETO, Path.LINETO], fill=False, edgecolor=GRID)
        for value, text in written:
            self.drawing.text(self.at(value, 0)[0], bottom - 16, text, align="center")
        self.drawing.text((left + right) / 2, bottom - 35, name, align="center")

    def y_scale(self, *, name: str) -> None:
        """Round numbers left of the panel, each with a line across, and on top what they are."""
        values = _round_values(self.y, at_most=4)
        self.lines([(self.x[0], value, self.x[1], value) for value in values], color=GRID, width=0.8)
        for value in values:
            x, y = self.at(self.x[0], value)
            self.drawing.text(x - 7, y - 4, number(value), align="right")
        self.drawing.text(4, self.box[3] + 14, name)

    def x_lines(self) -> None:
        """A line up from each of the round numbers below the panel."""
        values = _round_values(self.x, at_most=6)
        self.lines([(value, self.y[0], value, self.y[1]) for value in values], color=GRID, width=0.8)

    def names(self, names: Sequence[str]) -> None:
        """Names left of the panel at y = 0, -1, -2, …"""
        for i, name in enumerate(names):
            x, y = self.at(self.x[0], -i)
            self.drawing.text(x - 8, y - 4, name, align="right")


def margin_for(names: Iterable[str]) -> int:
    """Units that the widest of these names needs left of a panel."""
    return 16 + round(6.3 * max((display_width(name) for name in names), default=0))


def widened(values: Sequence[float], *, by: float = 0.04) -> Point:
    """The range of the values and a little more on both sides."""
    low, high = min(values), max(values)
    more = (high - low) * by or abs(high) * by or 1.0
    return low - more, high + more


def _round_values(limits: Point, *, at_most: int) -> list[float]:
    ticks = MaxNLocator(nbins=at_most, steps=[1, 2, 2.5, 5, 10]).tick_values(*limits)
    return [float(f"{tick:.12g}") for tick in ticks if limits[0] <= tick <= limits[1]]
