"""A column's shape as one SVG path of 64 × 18 units, drawn by the template; too small to need matplotlib."""

from typing import Final

from ss_pipeline.jobs.profiles import ColumnProfile

WIDTH: Final = 64
HEIGHT: Final = 18
MAX_BARS: Final = 12


def sparkline(column: ColumnProfile) -> str:
    """The `d` of the path: a bar for each bin, or for each of the most common values; empty where there is none."""
    if column.histogram and column.histogram.counts:
        counts = column.histogram.counts
    else:
        counts = [value.count for value in column.top_values[:MAX_BARS]]
    highest = max(counts, default=0)
    if highest <= 0:
        return ""
    step = WIDTH / max(len(counts), 4)
    return "".join(_bar(i * step, step * 0.86, HEIGHT * count / highest) for i, count in enumerate(counts) if count > 0)


def _bar(left: float, width: float, height: float) -> str:
    height = max(height, 0.6)
    return f"M{left:.1f} {HEIGHT}v-{height:.1f}h{width:.1f}v{height:.1f}z"
