"""The sample: evenly spaced rows of a table, for plots and previews."""

from typing import Final, TypeAlias

import numpy as np

from ss_pipeline.jobs.profiles import DataSample
from ss_pipeline.stages.profiling.columns import TypedColumn
from ss_pipeline.stages.profiling.dates import as_iso
from ss_pipeline.stages.profiling.measures import has_time, shortened
from ss_pipeline.stages.profiling.tables import Array

MAX_SAMPLE_ROWS: Final = 1_000
MAX_SAMPLE_COLUMNS: Final = 200
MAX_SAMPLE_BYTES: Final = 8_000_000

Cell: TypeAlias = float | int | str | bool | None


def sample_of(columns: list[TypedColumn], *, dataset_key: str, rows: int) -> bytes:
    """A DataSample as JSON: of many long texts fewer rows, so that it stays below 8 MB."""
    wanted = min(rows, MAX_SAMPLE_ROWS)
    while True:
        chosen = np.linspace(0, max(rows - 1, 0), wanted).round().astype(np.int64)
        cells = {column.raw.name: _cells(column, chosen) for column in columns[:MAX_SAMPLE_COLUMNS]}
        sample = DataSample(dataset_key=dataset_key, rows_total=rows, columns=cells).model_dump_json().encode()
        if len(sample) <= MAX_SAMPLE_BYTES or wanted < 2:
            return sample
        wanted //= 2


def _cells(column: TypedColumn, chosen: Array) -> list[Cell]:
    values, missing = column.values[chosen], column.missing[chosen]
    if column.kind == "datetime":
        with_time = has_time(column.present)
        offsets = column.dates is not None and column.dates.offsets
        texts = [as_iso(value, with_time=with_time, offsets=offsets) for value in values]
    elif column.kind == "string":
        texts = [shortened(column.texts[code]) for code in values]
    else:
        return [None if gap else _number(float(value), column.kind) for value, gap in zip(values, missing, strict=True)]
    return [None if gap else text for text, gap in zip(texts, missing, strict=True)]


def _number(value: float, kind: str) -> Cell:
    if kind == "boolean":
        return bool(value)
    return int(value) if kind == "integer" else value
