"""The rows of the report's tables of columns, everything in them as text."""

from dataclasses import dataclass
from typing import Final

from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile
from ss_pipeline.stages.publishing.analysis import Analysis, Role
from ss_pipeline.stages.publishing.formats import number, one_line, share, shortened
from ss_pipeline.stages.publishing.sparkline import sparkline
from ss_pipeline.stages.publishing.wording import Words

MAX_COLUMNS_SHOWN: Final = 300


@dataclass(frozen=True)
class ColumnRow:
    """A column in a table, everything as text."""

    name: str
    label: str
    role: str
    role_word: str
    kind: str
    n: str
    missing: str
    missing_share: str
    distinct: str
    mean: str
    sd: str
    low: str
    p25: str
    p50: str
    p75: str
    high: str
    shape: str
    numeric: bool
    common: str


def column_row(column: ColumnProfile, role: Role | None, data: DatasetProfile, words: Words) -> ColumnRow:
    """The column with its role in the analysis, if it has one."""
    kind = "unknown_type" if column.inferred_type == "unknown" else column.inferred_type
    common = ", ".join(f"{shortened(top.value, width=24)} ({top.count:,})" for top in column.top_values[:3])
    return ColumnRow(
        name=one_line(column.name),
        label=one_line(column.label),
        role=role or "",
        role_word=words[role] if role else "",
        kind=words[kind],
        n=f"{max(data.rows - column.missing, 0):,}",
        missing=f"{column.missing:,}",
        missing_share=share(column.missing, data.rows),
        distinct=f"{column.distinct:,}",
        mean=number(column.mean),
        sd=number(column.std),
        low=shortened(number(column.min), width=24),
        p25=number(column.p25),
        p50=number(column.p50),
        p75=number(column.p75),
        high=shortened(number(column.max), width=24),
        shape=sparkline(column),
        numeric=column.histogram is not None,
        common="" if column.histogram else common,
    )


def dictionary(analysis: Analysis, words: Words) -> tuple[ColumnRow, ...]:
    """The columns of the primary data set, at most `MAX_COLUMNS_SHOWN`."""
    roles = analysis.roles
    shown = analysis.data.columns[:MAX_COLUMNS_SHOWN]
    return tuple(column_row(column, roles.get(column.name), analysis.data, words) for column in shown)


def dictionary_note(data: DatasetProfile, words: Words) -> str:
    """Where the columns that are not shown are described."""
    shown = min(len(data.columns), MAX_COLUMNS_SHOWN)
    if shown >= data.columns_total:
        return words["all_shown"]
    return words["shown"].format(shown=f"{shown:,}", total=f"{data.columns_total:,}")
