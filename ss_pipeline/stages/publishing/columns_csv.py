"""columns.csv: the data dictionary of every data file, for spreadsheets — and safe in them (guarantee L4)."""

import csv
import io
import re
from collections.abc import Mapping
from typing import Final

from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, JobProfile
from ss_pipeline.stages.publishing.formats import REPLACEMENT

HEADER: Final = (
    "dataset", "position", "column", "original_name", "normalized_name", "label", "type", "role", "count", "missing",
    "distinct", "mean", "std", "min", "p25", "p50", "p75", "max", "top_values", "value_labels",
)  # fmt: skip

_STARTS_FORMULA: Final = tuple("=+-@\t\r\n\x00＝＋－＠")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def columns_csv(profile: JobProfile, *, roles: Mapping[str, str]) -> bytes:
    """The data dictionary: UTF-8 with byte-order mark, RFC 4180, one line a column, formula-safe.

    Args:
        roles: Column of the primary data set → its role in the analysis.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(HEADER)
    for dataset in profile.datasets:
        of_dataset = roles if dataset is profile.primary else {}
        for position, column in enumerate(dataset.columns, start=1):
            cells = _cells(dataset, position, column, of_dataset.get(column.name, ""))
            writer.writerow([safe_cell(cell) for cell in cells])
    return b"\xef\xbb\xbf" + text.getvalue().encode("utf-8")


def safe_cell(value: object) -> str:
    """The cell's text, which no spreadsheet takes for a formula: prefixed with ' unless it is a plain number."""
    text = "" if value is None else str(value)
    if text.startswith(_STARTS_FORMULA) and not _PLAIN_NUMBER.fullmatch(text):
        text = f"'{text}"
    return _LONE_SURROGATE.sub(REPLACEMENT, text.replace("\x00", REPLACEMENT))


def _cells(dataset: DatasetProfile, position: int, column: ColumnProfile, role: str) -> list[object]:
    common = "; ".join(f"{top.value} ({top.count})" for top in column.top_values)
    labels = "; ".join(f"{code} = {label}" for code, label in column.value_labels.items())
    return [
        dataset.original_name, position, column.name, column.original_name, column.normalized_name, column.label,
        column.inferred_type, role, column.count, column.missing, column.distinct, column.mean, column.std, column.min,
        column.p25, column.p50, column.p75, column.max, common, labels,
    ]  # fmt: skip
