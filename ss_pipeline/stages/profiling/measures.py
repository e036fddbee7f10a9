"""The statistics of a typed column: extremes, moments, quantiles, histogram, frequent values. Finite numbers only."""

import math
from typing import Any, Final

import numpy as np

from ss_pipeline.jobs.profiles import ColumnProfile, Histogram, ValueCount
from ss_pipeline.stages.profiling.columns import TypedColumn
from ss_pipeline.stages.profiling.dates import as_iso
from ss_pipeline.stages.profiling.tables import Array

MAX_BINS: Final = 20
MAX_TOP_VALUES: Final = 10
MAX_VALUE_CHARS: Final = 80
MAX_VALUE_LABELS: Final = 50
_COUNTED_NUMBERS: Final = 50
"""Numbers with more distinct values than this have a histogram instead of frequent values."""


def describe(column: TypedColumn, *, normalized_name: str) -> ColumnProfile:
    """The profile of a column; statistics are of its non-missing values."""
    raw = column.raw
    labels = list(raw.value_labels.items())[:MAX_VALUE_LABELS]
    return ColumnProfile(
        name=raw.name,
        original_name=raw.original_name,
        normalized_name=normalized_name,
        label=raw.label[:1_000],
        inferred_type=column.kind,
        count=column.count,
        missing=column.rows - column.count,
        value_labels={shortened(code): shortened(text) for code, text in labels},
        **_statistics(column),
    )


def _statistics(column: TypedColumn) -> dict[str, Any]:
    if not column.count:
        return {"distinct": 0}
    if column.kind == "datetime":
        return _moment_statistics(column, column.present)
    if column.kind == "string":
        return _text_statistics(column)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes infinite and is left out
        return _number_statistics(np.sort(column.present), is_boolean=column.kind == "boolean")


def _number_statistics(ordered: Array, *, is_boolean: bool) -> dict[str, Any]:
    starts = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)
    quarters = [finite(float(value)) for value in np.quantile(ordered, (0.25, 0.5, 0.75))]
    found: dict[str, Any] = {
        "distinct": len(starts),
        "min": finite(float(ordered[0])),
        "max": finite(float(ordered[-1])),
        "mean": finite(float(ordered.mean())),
        "std": finite(float(ordered.std(ddof=1))) if ordered.size > 1 else None,
        **dict(zip(("p25", "p50", "p75"), quarters, strict=True)),
    }
    if len(starts) <= _COUNTED_NUMBERS:
        counts = np.diff(starts, append=ordered.size)
        texts = [as_number_text(value, is_boolean=is_boolean) for value in ordered[starts]]
        found["top_values"] = _most_frequent(texts, counts)
    if not is_boolean:
        found["histogram"] = _histogram(ordered, distinct=len(starts))
    return found


def _histogram(ordered: Array, *, distinct: int) -> Histogram | None:
    span = ordered[-1] - ordered[0]
    bins = max(1, min(MAX_BINS, distinct))
    if not math.isfinite(span) or (span and ordered[0] + span / bins == ordered[0]):  # bins finer than the numbers
        return None
    edges = np.linspace(ordered[0], ordered[-1], bins + 1)
    if not np.isfinite(edges).all():
        return None
    below = np.searchsorted(ordered, edges[1:-1], side="left")
    counts = np.diff(below, prepend=0, append=ordered.size)
    return Histogram(edges=edges.tolist(), counts=counts.tolist())


def _moment_statistics(column: TypedColumn, present: Array) -> dict[str, Any]:
    distinct, counts = np.unique(present, return_counts=True)
    with_time = has_time(present)
    offsets = column.dates is not None and column.dates.offsets
    ends = [as_iso(moment, with_time=with_time, offsets=offsets) for moment in (distinct[0], distinct[-1])]
    found: dict[str, Any] = {"distinct": len(distinct), "min": ends[0], "max": ends[1]}
    if len(distinct) <= _COUNTED_NUMBERS:
        texts = [as_iso(moment, with_time=with_time, offsets=offsets) for moment in distinct]
        found["top_values"] = _most_frequent(texts, counts)
    return found


def _text_statistics(column: TypedColumn) -> dict[str, Any]:
    counts = np.bincount(column.present, minlength=len(column.texts))
    return {"distinct": len(column.texts), "top_values": _most_frequent(column.texts, counts)}


def _most_frequent(texts: "list[str] | tuple[str, ...]", counts: Array) -> list[ValueCount]:
    """The most frequent values; of equally frequent ones those that come first."""
    order = np.argsort(-counts, kind="stable")[:MAX_TOP_VALUES]
    return [ValueCount(value=shortened(texts[index]), count=int(counts[index])) for index in order]


def has_time(present: Array) -> bool:
    """Whether any moment has a time of day."""
    return bool((present != present.astype("datetime64[D]")).any())


def as_number_text(value: float, *, is_boolean: bool = False) -> str:
    """A number as people write it: `3`, not `3.0`."""
    if is_boolean:
        return "true" if value else "false"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def shortened(text: str) -> str:
    """A text of at most 80 characters, cut with an ellipsis."""
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def finite(value: float | None) -> float | None:
    """The number, or None where it is none or infinite."""
    return value if value is not None and math.isfinite(value) else None
