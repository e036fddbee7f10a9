"""The plots of a report, and the overview the UI shows. matplotlib is imported here and in svg.py, by publishing only.

Drawn with the object interface (no pyplot, no global state); the same profile and sample give the same bytes.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle

from ss_pipeline.jobs.profiles import ColumnProfile, DataSample, Histogram, JobProfile
from ss_pipeline.stages.publishing.analysis import Analysis
from ss_pipeline.stages.publishing.formats import number, one_line, share, shortened
from ss_pipeline.stages.publishing.grouping import (
    Group,
    binned_means,
    date_marks,
    groups_by,
    is_category,
    level,
    measure,
    numbered_pairs,
    quantile,
)
from ss_pipeline.stages.publishing.svg import (
    INK,
    NEUTRAL,
    OUTCOME,
    SURFACE,
    TREATMENT,
    Drawing,
    margin_for,
    widened,
)
from ss_pipeline.stages.publishing.wording import Words

MAX_BARS: Final = 8
MAX_DOTS: Final = 1_000
NAME_WIDTH: Final = 22
OVERVIEW_COLUMNS: Final = 8
SAMPLED_BINS: Final = 12


@dataclass(frozen=True)
class Plot:
    """A plot, its heading and what a reader must know to read it."""

    key: str
    title: str
    svg: Markup
    caption: str


def draw_plots(analysis: Analysis, sample: DataSample | None, words: Words) -> list[Plot]:
    """Outcome, outcome against treatment, missing values: those that can be drawn."""
    plots = [_outcome_plot(analysis, words), _relation_plot(analysis, sample, words), _missing_plot(analysis, words)]
    return [plot for plot in plots if plot is not None]


def overview_png(profile: JobProfile, sample: DataSample | None) -> bytes:
    """Small histograms of the first columns side by side, as PNG; for the UI, which shows no inline SVG.

    A column of which the profile has no counts (dates) is counted in the sample.
    """
    counted = [(column, _counts(column, sample)) for column in profile.primary.columns]
    columns = [(column, counts) for column, counts in counted if counts][:OVERVIEW_COLUMNS]
    rows = max(1, -(-len(columns) // 4))
    figure = Figure(figsize=(8, 1.4 * rows), dpi=110, facecolor="white")
    for place, (column, counts) in enumerate(columns):
        x, y = (place % 4) / 4, 1 - (place // 4 + 1) / rows
        bars = [
            (x + (0.06 + 0.88 * a) / 4, y + 0.22 / rows, 0.88 * w / 4, 0.68 * h / rows) for a, w, h in _bars(counts)
        ]
        for left, bottom, width, height in bars:
            color = "#3b6ea5" if column.histogram else "#8a97a6"
            figure.add_artist(Rectangle((left, bottom), width, height, color=color))
        figure.text(x + 0.015, y + 0.07 / rows, _drawable(column), fontsize=9, color="#333333", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _outcome_plot(analysis: Analysis, words: Words) -> Plot | None:
    if analysis.outcome is None:
        return None
    column = analysis.column(analysis.outcome)
    title = words["plot_outcome"].format(outcome=one_line(column.name))
    if column.histogram and column.histogram.counts and not is_category(column):
        return _histogram_plot(column, column.histogram, title, words)
    return _counts_plot(column, analysis.data.rows - column.missing, title, words) if column.top_values else None


def _histogram_plot(column: ColumnProfile, histogram: Histogram, title: str, words: Words) -> Plot:
    edges, counts = histogram.edges, histogram.counts
    top = max([1, *counts]) * 1.06
    drawing = Drawing("outcome")
    panel = drawing.panel((edges[0], edges[-1]), (0, top))
    panel.y_scale(name=words["count"])
    gap = 0.05 * (edges[1] - edges[0])
    boxes = [(a + gap, 0, b - gap, n) for (a, b), n in zip(pairwise(edges), counts, strict=False)]
    panel.bars(boxes, color=OUTCOME, alpha=0.75)
    if column.p50 is not None and column.mean is not None:
        panel.lines([(column.p50, 0, column.p50, top)], color=INK, width=1.6)
        panel.lines([(column.mean, 0, column.mean, top)], color=INK, width=1.4, dashed=True)
    panel.x_scale(name=_axis_name(column))
    caption = words["caption_median"].format(median=number(column.p50), mean=number(column.mean))
    return Plot("outcome", title, drawing.svg(title=title), caption)


def _counts_plot(column: ColumnProfile, rows: int, title: str, words: Words) -> Plot:
    top = column.top_values[:MAX_BARS]
    names = [shortened(level(value.value, column), width=NAME_WIDTH) for value in top]
    bars = [(value.count, share(value.count, rows)) for value in top]
    drawing = Drawing("outcome", height=_height(len(top)))
    _bar_rows(drawing, names, bars, colors=[OUTCOME] * len(top))
    key = "caption_counts" if column.distinct > len(top) else "caption_all_counts"
    caption = words[key].format(shown=len(top), distinct=column.distinct)
    return Plot("outcome", title, drawing.svg(title=title), caption)


def _relation_plot(analysis: Analysis, sample: DataSample | None, words: Words) -> Plot | None:
    if sample is None or analysis.outcome is None or analysis.treatment is None:
        return None
    outcome, treatment = analysis.column(analysis.outcome), analysis.column(analysis.treatment)
    ys, xs = sample.columns.get(outcome.name), sample.columns.get(treatment.name)
    if not ys or not xs or len(xs) != len(ys):
        return None
    sampled = words["sampled"].format(total=f"{sample.rows_total:,}") if len(xs) < sample.rows_total else ""
    facts = {"outcome": one_line(outcome.name), "treatment": one_line(treatment.name), "sampled": sampled}
    if is_category(outcome):
        return _share_plot(outcome, groups_by(xs, ys, treatment), facts, words)
    if is_category(treatment):
        return _box_plot(outcome, groups_by(xs, ys, treatment), facts, words)
    return _scatter_plot(outcome, treatment, numbered_pairs(xs, ys), facts, words)


def _scatter_plot(
    outcome: ColumnProfile,
    treatment: ColumnProfile,
    points: Sequence[tuple[float, float]],
    facts: dict[str, str],
    words: Words,
) -> Plot | None:
    if len(points) < 3:
        return None
    title = words["plot_relation"].format(**facts)
    drawing = Drawing("relation")
    panel = drawing.panel(widened([x for x, _ in points]), widened([y for _, y in points]), left=54)
    panel.y_scale(name=_axis_name(outcome))
    panel.dots(points[:MAX_DOTS], color=NEUTRAL, size=4.4, alpha=0.45)
    means = binned_means(points)
    panel.lines([(*start, *end) for start, end in pairwise(means)], color=TREATMENT, width=2.2)
    panel.dots(means, color=TREATMENT, size=7)
    marks = date_marks(panel.x) if treatment.inferred_type == "datetime" else None
    panel.x_scale(name=_axis_name(treatment), marks=marks)
    caption = words["caption_scatter"].format(n=f"{len(points):,}", **facts)
    return Plot("relation", title, drawing.svg(title=title), caption)


def _box_plot(outcome: ColumnProfile, groups: Sequence[Group], facts: dict[str, str], words: Words) -> Plot | None:
    measured = [(g.name, sorted(v for cell in g.values if (v := measure(cell)) is not None)) for g in groups]
    measured = [(name, values) for name, values in measured if values]
    if not measured:
        return None
    title = words["plot_relation"].format(**facts)
    names = [shortened(name, width=NAME_WIDTH) for name, _ in measured]
    cuts = [[quantile(values, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)] for _, values in measured]
    drawing = Drawing("relation", height=_height(len(names)))
    across = widened([cut for group in cuts for cut in group])
    panel = drawing.panel(across, (-len(names) + 0.4, 0.6), left=margin_for(names), top=8)
    panel.x_lines()
    panel.lines([(c[0], -i, c[4], -i) for i, c in enumerate(cuts)], color=TREATMENT, width=1.4)
    boxes = [(c[1], -i - 0.26, c[3], -i + 0.26) for i, c in enumerate(cuts)]
    panel.bars(boxes, color=SURFACE)
    panel.bars(boxes, color=TREATMENT, alpha=0.45)
    panel.lines([(c[2], -i - 0.26, c[2], -i + 0.26) for i, c in enumerate(cuts)], color=INK, width=2.2)
    panel.names(names)
    panel.x_scale(name=_axis_name(outcome))
    rows = sum(len(values) for _, values in measured)
    return Plot("relation", title, drawing.svg(title=title), words["caption_box"].format(n=f"{rows:,}", **facts))


def _share_plot(outcome: ColumnProfile, groups: Sequence[Group], facts: dict[str, str], words: Words) -> Plot | None:
    """How often the outcome takes one level (the higher of two, else the most common), group by group."""
    if not groups:
        return None
    levelled = [(group.name, [level(cell, outcome) for cell in group.values]) for group in groups]
    every = [name for _, names in levelled for name in names]
    found = sorted(set(every))
    chosen = found[-1] if len(found) <= 2 else max(found, key=every.count)
    title = words["plot_share"].format(level=shortened(chosen, width=NAME_WIDTH), **facts)
    names = [shortened(name, width=NAME_WIDTH) for name, _ in levelled]
    bars = [(v.count(chosen) / len(v), share(v.count(chosen), len(v))) for _, v in levelled]
    drawing = Drawing("relation", height=_height(len(names)))
    _bar_rows(drawing, names, bars, colors=[TREATMENT] * len(names))
    return Plot(
        "relation", title, drawing.svg(title=title), words["caption_share"].format(n=f"{len(every):,}", **facts)
    )


def _missing_plot(analysis: Analysis, words: Words) -> Plot | None:
    gaps = sorted((c for c in analysis.data.columns if c.missing), key=lambda c: -c.missing)[:MAX_BARS]
    if not gaps:
        return None
    used = analysis.roles
    names = [shortened(column.name, width=NAME_WIDTH) for column in gaps]
    rows = max(analysis.data.rows, 1)
    bars = [(column.missing / rows, share(column.missing, rows)) for column in gaps]
    drawing = Drawing("missing", height=_height(len(gaps)))
    _bar_rows(drawing, names, bars, colors=[OUTCOME if column.name in used else NEUTRAL for column in gaps])
    title = words["plot_missing"]
    return Plot("missing", title, drawing.svg(title=title), words["caption_missing"])


def _bar_rows(
    drawing: Drawing, names: Sequence[str], bars: Sequence[tuple[float, str]], *, colors: Sequence[str]
) -> None:
    """Horizontal bars with their names on the left and their values behind them."""
    widest = max([1e-12, *(length for length, _ in bars)])
    limits = (-len(names) + 0.4, 0.6)
    panel = drawing.panel((0, widest), limits, left=margin_for(names), right=64, top=6, bottom=6)
    for color in dict.fromkeys(colors):
        mine = [(i, bar) for i, (bar, c) in enumerate(zip(bars, colors, strict=True)) if c == color]
        panel.bars([(0, -i - 0.3, length, -i + 0.3) for i, (length, _) in mine], color=color, alpha=0.8)
    for i, (length, text) in enumerate(bars):
        x, y = panel.at(length, -i)
        drawing.text(x + 7, y - 4, text)
    panel.names(names)


def _height(rows: int) -> int:
    return 56 + 28 * max(rows, 2)


def _counts(column: ColumnProfile, sample: DataSample | None) -> list[int]:
    if column.histogram:
        return column.histogram.counts
    if column.top_values:
        return [value.count for value in column.top_values[:MAX_BARS]]
    cells = sample.columns.get(column.name, []) if sample else []
    values = [value for cell in cells if (value := measure(cell)) is not None]
    if not values:
        return []
    low, high = min(values), max(values)
    places = [
        min(int((value - low) / (high - low) * SAMPLED_BINS), SAMPLED_BINS - 1) if high > low else 0 for value in values
    ]
    return [places.count(place) for place in range(SAMPLED_BINS)]


def _bars(counts: Sequence[int]) -> list[tuple[float, float, float]]:
    """The shape in the unit square: (left, width, height) of each bar."""
    highest = max([1, *counts])
    step = 1 / max(len(counts), 1)
    return [(i * step + 0.1 * step, 0.8 * step, n / highest) for i, n in enumerate(counts)]


def _axis_name(column: ColumnProfile) -> str:
    return shortened(column.label or column.name, width=50)


def _drawable(column: ColumnProfile) -> str:
    """The column's name where matplotlib's font has its characters, else its name as an identifier."""
    font = get_font(findfont("DejaVu Sans"))
    name = shortened(column.name, width=NAME_WIDTH)
    return name if all(font.get_char_index(ord(char)) for char in name) else column.normalized_name
