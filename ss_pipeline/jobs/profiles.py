"""What the data is: the profile of a job's data files, as the drafter, the report and the UI read it.

Plain models, written as JSON to the artifact store. How they are computed is stages/profiling's business.
"""

from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

PROFILE_PATH: Final = "artifacts/profile.json"
SAMPLE_PATH: Final = "artifacts/sample.json"

InferredType: TypeAlias = Literal["boolean", "integer", "number", "datetime", "string", "unknown"]
Severity: TypeAlias = Literal["info", "warning", "error"]


class DataQualityWarning(BaseModel):
    """One thing about the data that a reader must know (CONTRACT 3.5)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    severity: str = "warning"
    message: str
    suggestion: str | None = None


class Histogram(BaseModel):
    """Counts of a numeric column in equal bins: `len(edges) == len(counts) + 1`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    edges: list[float]
    counts: list[int]


class ValueCount(BaseModel):
    """One value of a column, as text of at most 80 characters, and how often it stands there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: str
    count: int


class ColumnProfile(BaseModel):
    """One column: its names, type and statistics. Statistics are of the non-missing values; datetimes are ISO text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """The name as it is used everywhere after reading: unique, trimmed, `col_N` where the file had none."""
    original_name: str
    """The name as the file has it."""
    normalized_name: str = Field(max_length=32)
    """The name as an identifier: `^[a-z][a-z0-9_]*$`, at most 32 characters (CONTRACT 3.5)."""
    label: str = ""
    """The variable label of .dta and .sav files; empty elsewhere."""
    inferred_type: InferredType
    count: int
    missing: int
    distinct: int
    min: float | str | None = None
    max: float | str | None = None
    mean: float | None = None
    std: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    histogram: Histogram | None = None
    top_values: list[ValueCount] = []
    value_labels: dict[str, str] = {}
    """Code -> label, of .dta and .sav files; at most 50."""


class DatasetProfile(BaseModel):
    """One data file: how it was read and what its columns are. At most `columns_profiled` columns are described."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_key: str
    role: str
    original_name: str
    format: str
    encoding: str | None = None
    delimiter: str | None = None
    decimal: str | None = None
    sheet: str | None = None
    header_line: int | None = None
    """1-based line of the header in the file, where the format has lines."""
    rows: int
    columns_total: int
    columns_profiled: int
    columns: list[ColumnProfile]
    warnings: list[DataQualityWarning] = []

    def column(self, name: str) -> ColumnProfile | None:
        """The column of this exact name, or None."""
        return next((column for column in self.columns if column.name == name), None)


class JobProfile(BaseModel):
    """The profile of all data files of a job; exactly one has the role `primary_dataset`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile_schema_version: Literal[1] = 1
    job_id: str
    datasets: list[DatasetProfile]

    @property
    def primary(self) -> DatasetProfile:
        """The data set the analysis is about."""
        return next(d for d in self.datasets if d.role == "primary_dataset")


class DataSample(BaseModel):
    """At most 1,000 evenly spaced rows of the primary data set, column-wise, for plots and previews.

    `columns[name][i]` is the i-th sampled row's cell: number, text (at most 80 characters), or None where missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_key: str
    rows_total: int
    columns: dict[str, list[float | int | str | bool | None]]
