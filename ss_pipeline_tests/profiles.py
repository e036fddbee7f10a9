"""Builders of profiles: columns by name, label and type, without the statistics a test does not care about."""

from ss_pipeline.jobs.profiles import ColumnProfile, DataQualityWarning, DatasetProfile, InferredType, JobProfile

WAGES = (
    "wage: average hourly earnings; educ: years of education; exper: years potential experience; "
    "tenure: years with current employer; female: =1 if female; married: =1 if married; lwage: log(wage)"
)
"""Columns as `name: label`, divided by `;`, in the manner of a textbook's data set."""


def a_column(name: str, *, label: str = "", inferred_type: InferredType = "number", distinct: int = 9) -> ColumnProfile:
    """A column of a hundred values."""
    return ColumnProfile(
        name=name,
        original_name=name,
        normalized_name="c",
        label=label,
        inferred_type=inferred_type,
        count=100,
        missing=0,
        distinct=distinct,
    )


def columns_of(listed: str) -> list[ColumnProfile]:
    """Columns of a list `name: label; name; name$`, where `$` marks text."""
    columns = []
    for entry in listed.split(";"):
        name, _, label = entry.strip().partition(":")
        kind: InferredType = "string" if name.endswith("$") else "number"
        columns.append(a_column(name.removesuffix("$"), label=label.strip(), inferred_type=kind))
    return columns


def a_dataset(
    columns: list[ColumnProfile],
    *,
    key: str = "ds_0000000000000001",
    role: str = "primary_dataset",
    warnings: list[DataQualityWarning] | None = None,
) -> DatasetProfile:
    """A data set with these columns."""
    return DatasetProfile(
        dataset_key=key,
        role=role,
        original_name="data.csv",
        format="csv",
        rows=100,
        columns_total=len(columns),
        columns_profiled=len(columns),
        columns=columns,
        warnings=warnings or [],
    )


def a_profile(listed: str = WAGES) -> JobProfile:
    """A profile with one data set of the columns listed."""
    return JobProfile(job_id="job_abcdefghijklmnop", datasets=[a_dataset(columns_of(listed))])
