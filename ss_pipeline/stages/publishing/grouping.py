"""Sampled rows put into groups for the plots: levels of a category, bins of a number. Pure; drawing is plots.py's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Final, TypeAlias

from ss_pipeline.jobs.profiles import ColumnProfile
from ss_pipeline.stages.publishing.formats import number

Cell: TypeAlias = float | int | str | bool | None

MAX_GROUPS: Final = 8
MAX_BINS: Final = 8
MAX_CODED_LEVELS: Final = 10
"""A number with value labels and at most so many values is a category."""


@dataclass(frozen=True)
class Group:
    """The outcomes of the rows of one group."""

    name: str
    values: tuple[Cell, ...]


def is_category(column: ColumnProfile) -> bool:
    """Whether a column is drawn as categories: text, yes/no, two values, or a few labelled codes."""
    if column.inferred_type in {"string", "boolean", "unknown"} or column.distinct <= 2:
        return True
    return bool(column.value_labels) and column.distinct <= MAX_CODED_LEVELS


def level(cell: Cell, column: ColumnProfile) -> str:
    """A category's name: its value label where it has one."""
    text = number(cell) if isinstance(cell, float | int) and not isinstance(cell, bool) else str(cell)
    return column.value_labels.get(text) or text


def measure(cell: Cell) -> float | None:
    """A cell as a number; a date as days since the year 1; None where it is neither."""
    if isinstance(cell, str):
        return _days(cell)
    return None if cell is None or not math.isfinite(cell) else float(cell)


def numbered_pairs(xs: Sequence[Cell], ys: Sequence[Cell]) -> list[tuple[float, float]]:
    """The rows in which both are numbers, sorted by x."""
    pairs = ((measure(x), measure(y)) for x, y in zip(xs, ys, strict=True))
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def binned_means(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean x and mean y of each bin: each value where there are few, else bins of equally many rows."""
    by_value = [list(rows) for _, rows in groupby(points, key=lambda point: point[0])]
    bins = by_value if len(by_value) <= 2 * MAX_BINS else _equal_parts(points)
    return [_centre(rows) for rows in bins if len(rows) >= 2]


def groups_by(keys: Sequence[Cell], values: Sequence[Cell], column: ColumnProfile) -> list[Group]:
    """The outcomes by level of a category (the 8 largest; numbered levels in their order), or by bin of a number."""
    rows = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None and value is not None]
    if is_category(column):
        return _by_level(rows, column)
    numbered = sorted(((x, value) for key, value in rows if (x := measure(key)) is not None), key=lambda row: row[0])
    parts = _equal_parts(numbered, parts=5)
    return [Group(f"{number(part[0][0])} – {number(part[-1][0])}", tuple(v for _, v in part)) for part in parts]


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of sorted numbers, by linear interpolation."""
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def date_marks(limits: tuple[float, float]) -> list[tuple[float, str]]:
    """Dates to write on an axis of days: the first of January of some years, or four days of a short span."""
    first, last = (date.fromordinal(min(max(1, int(day)), date.max.toordinal())) for day in limits)
    years = range(first.year + 1, last.year + 1)
    if len(years) > 2:
        step = -(-len(years) // 6)
        return [(date(year, 1, 1).toordinal(), str(year)) for year in years if year % step == 0]
    quarter = (last - first).days / 4
    days = [first.toordinal() + quarter * (i + 0.5) for i in range(4)]
    return [(int(day), date.fromordinal(int(day)).isoformat()) for day in days]


def _by_level(rows: Sequence[tuple[Cell, Cell]], column: ColumnProfile) -> list[Group]:
    levels: dict[str, list[Cell]] = {}
    codes: dict[str, float] = {}
    for key, value in rows:
        name = level(key, column)
        levels.setdefault(name, []).append(value)
        if isinstance(key, float | int):
            codes.setdefault(name, float(key))
    largest = sorted(levels, key=lambda name: (-len(levels[name]), name))[:MAX_GROUPS]
    shown = sorted(largest, key=codes.__getitem__) if codes.keys() >= set(largest) else largest
    return [Group(name, tuple(levels[name])) for name in shown]


def _equal_parts(rows: Sequence[tuple[float, Cell]], *, parts: int = MAX_BINS) -> list[list[tuple[float, Cell]]]:
    """The sorted rows in parts of about the same size; equal x stay together."""
    result: list[list[tuple[float, Cell]]] = []
    wanted = max(1, round(len(rows) / parts))
    for _, same in groupby(rows, key=lambda row: row[0]):
        if result and len(result[-1]) < wanted:
            result[-1].extend(same)
        else:
            result.append(list(same))
    if len(result) > 1 and 2 * len(result[-1]) < wanted:
        last = result.pop()
        result[-1].extend(last)
    return result


def _centre(rows: Sequence[tuple[float, Cell]]) -> tuple[float, float]:
    ys = [float(y) for _, y in rows if isinstance(y, float | int)]
    return sum(x for x, _ in rows) / len(rows), sum(ys) / len(ys)


def _days(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    start = datetime(1, 1, 1, tzinfo=UTC)
    return (moment.replace(tzinfo=UTC) - start).total_seconds() / 86_400 + 1
