"""The profile stage: reads every data file of a job in a limited child process and stores what it is.

The parent only looks at names and sizes; the bytes of strangers are interpreted in the child (child.py). What a
profile says is in jobs/profiles.py.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import ArtifactNotFoundError, InputRefusedError
from ss_pipeline.jobs.inputs import PRIMARY_ROLE, InputDataset, InputsManifest
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import PROFILE_PATH, SAMPLE_PATH, DatasetProfile, JobProfile
from ss_pipeline.stages.profiling.child import run_limited
from ss_pipeline.stages.profiling.columns import TypedColumn, type_column
from ss_pipeline.stages.profiling.delimited import read_delimited
from ss_pipeline.stages.profiling.headers import normalize_names
from ss_pipeline.stages.profiling.measures import describe
from ss_pipeline.stages.profiling.quality import judge
from ss_pipeline.stages.profiling.reading import python_strings, read_table
from ss_pipeline.stages.profiling.sampling import sample_of
from ss_pipeline.stages.profiling.tables import ProfileLimits, Table
from ss_pipeline.telemetry.events import emit

__all__ = ["ProfileLimits", "profile_job"]


def profile_job(job: Job, *, artifacts: ArtifactStore, limits: ProfileLimits) -> JobProfile:
    """Profiles the job's data files and writes the profile and the sample; the same files give the same bytes.

    Raises:
        InputRefusedError: naming the file as its submitter called it, with one of the codes INPUT_MISSING,
            INPUT_EMPTY, INPUT_TOO_LARGE, INPUT_TOO_SLOW, INPUT_TOO_MUCH_MEMORY, INPUT_TOO_MANY_ROWS,
            INPUT_CELL_TOO_LARGE, INPUT_COMPRESSION_BOMB, INPUT_UNSAFE_WORKBOOK, INPUT_BINARY, INPUT_NO_TABLE,
            INPUT_FORMAT_NOT_INSTALLED, INPUT_UNREADABLE.
        ArtifactError: the medium failed.
    """
    try:
        datasets = _datasets(job, artifacts)
        profiles = [_profile_dataset(job, dataset, artifacts=artifacts, limits=limits) for dataset in datasets]
    except InputRefusedError as error:
        emit("SS_PROFILE_REFUSED", level=logging.WARNING, job_id=job.job_id, code=error.error_code)
        raise
    profile = JobProfile(job_id=job.job_id, datasets=profiles)
    artifacts.write_model(job.tenant_id, job.job_id, PROFILE_PATH, profile)
    emit(
        "SS_PROFILE_CREATED",
        job_id=job.job_id,
        datasets=len(profiles),
        rows=profile.primary.rows,
        columns=profile.primary.columns_total,
        warnings=sum(len(dataset.warnings) for dataset in profiles),
    )
    return profile


def profile_file(path: Path, dataset: InputDataset, *, limits: ProfileLimits) -> tuple[DatasetProfile, bytes]:
    """Profiles one file in this process: the part of the stage that runs in the child.

    Returns:
        The profile, and the sample as JSON: empty but for the primary data set.

    Raises:
        InputRefusedError: its message is a predicate (`holds …`, `is …`) without the file's name.
    """
    return _profile_table(read_table(path, dataset, limits=limits), dataset)


def _profile_table(table: Table, dataset: InputDataset) -> tuple[DatasetProfile, bytes]:
    columns = _typed(table)
    normalized = normalize_names([column.raw.name for column in columns])
    described = [describe(column, normalized_name=name) for column, name in zip(columns, normalized, strict=True)]
    profile = DatasetProfile(
        dataset_key=dataset.dataset_key,
        role=dataset.role,
        original_name=dataset.original_name,
        format=dataset.format,
        encoding=table.encoding,
        delimiter=table.delimiter,
        decimal=table.decimal,
        sheet=table.sheet,
        header_line=table.header_line,
        rows=table.rows,
        columns_total=table.columns_total,
        columns_profiled=len(columns),
        columns=described,
        warnings=[*table.warnings, *judge(columns, rows=table.rows)],
    )
    if dataset.role != PRIMARY_ROLE:
        return profile, b""
    return profile, sample_of(columns, dataset_key=dataset.dataset_key, rows=table.rows)


def _typed(table: Table) -> list[TypedColumn]:
    """The typed columns; the raw ones are let go one by one, because both together may not fit into memory."""
    raw = table.columns[::-1]
    table.columns.clear()
    columns = []
    while raw:
        columns.append(type_column(raw.pop(), markers=table.markers, decimal=table.decimal or "."))
    return columns


def _datasets(job: Job, artifacts: ArtifactStore) -> list[InputDataset]:
    path = job.inputs.manifest_rel_path if job.inputs else None
    if path is None:
        raise InputRefusedError("the job has no data file", code="INPUT_MISSING", todo="Submit it with a data file.")
    try:
        manifest = InputsManifest.model_validate_json(artifacts.read(job.tenant_id, job.job_id, path))
    except ArtifactNotFoundError as error:
        raise InputRefusedError(
            "the list of the job's data files is gone", code="INPUT_MISSING", todo="Submit the job again."
        ) from error
    except ValidationError as error:
        raise InputRefusedError(
            "the list of the job's data files is damaged", code="INPUT_UNREADABLE", todo="Submit the job again."
        ) from error
    if not any(dataset.role == PRIMARY_ROLE for dataset in manifest.datasets):
        raise InputRefusedError(
            "no data file is the primary one", code="INPUT_MISSING", todo="Submit the job with a primary data set."
        )
    return manifest.datasets


def _profile_dataset(
    job: Job, dataset: InputDataset, *, artifacts: ArtifactStore, limits: ProfileLimits
) -> DatasetProfile:
    name = dataset.original_name
    try:
        with _as_local_file(job, dataset, artifacts=artifacts, limits=limits) as path:
            answer = run_limited(lambda: _profile_bytes(path, dataset, limits=limits), limits=limits)
    except ArtifactNotFoundError as error:
        raise InputRefusedError(
            f"{name!r} is not there", code="INPUT_MISSING", todo="Submit the job again with this file."
        ) from error
    except InputRefusedError as error:
        raise InputRefusedError(f"{name!r} {error.message}", code=error.error_code, todo=error.todo) from error
    profile, _, sample = answer.partition(b"\n")
    if dataset.role == PRIMARY_ROLE:
        artifacts.write(job.tenant_id, job.job_id, SAMPLE_PATH, sample + b"\n")
    return DatasetProfile.model_validate_json(profile)


def _profile_bytes(path: Path, dataset: InputDataset, *, limits: ProfileLimits) -> bytes:
    profile, sample = profile_file(path, dataset, limits=limits)
    return profile.model_dump_json().encode() + b"\n" + sample


@contextlib.contextmanager
def _as_local_file(
    job: Job, dataset: InputDataset, *, artifacts: ArtifactStore, limits: ProfileLimits
) -> Iterator[Path]:
    """The data file as a file of this machine, fetched first where the store is elsewhere; checked for its size."""
    path = artifacts.local_path(job.tenant_id, job.job_id, dataset.rel_path)
    if path is not None:
        if not path.is_file():
            raise ArtifactNotFoundError(f"there is no file {dataset.rel_path!r}")
        _check_size(path.stat().st_size, limits=limits)
        yield path
        return
    _check_size(dataset.size_bytes, limits=limits)
    with tempfile.NamedTemporaryFile(prefix="ss-input-") as copy:
        size = copy.write(artifacts.read(job.tenant_id, job.job_id, dataset.rel_path))
        copy.flush()
        _check_size(size, limits=limits)
        yield Path(copy.name)


def _check_size(size: int, *, limits: ProfileLimits) -> None:
    if size == 0:
        raise InputRefusedError("is empty", code="INPUT_EMPTY", todo="Hand in a file with column names and rows.")
    if size > limits.max_bytes:
        raise InputRefusedError(
            f"has {size:,} bytes; at most {limits.max_bytes:,} are read",
            code="INPUT_TOO_LARGE",
            todo="Hand in a part or an aggregate of the data, or raise SS_INPUT_MAX_BYTES.",
        )


def _warm_up() -> None:
    """Profiles three rows in memory: children inherit the caches that fills, which halves the cost of a small file."""
    limits = ProfileLimits(max_bytes=100, max_columns=9, max_rows=9, cpu_seconds=1, wall_seconds=1.0, memory_mb=64)
    dataset = InputDataset(
        dataset_key="ds_warm",
        role=PRIMARY_ROLE,
        rel_path="inputs/ds_warm.csv",
        original_name="warm.csv",
        size_bytes=0,
        sha256="",
        fingerprint="",
        format="csv",
        uploaded_at="",
    )
    rows = b"id,name,day,value\n007,a,2020-01-01,0.5\n2,b,2020-01-02,\n3,b,2020-01-03,1.5\n"
    with python_strings():
        table = read_delimited(rows, suffix=".csv", limits=limits)
    profile, _ = _profile_table(table, dataset)
    DatasetProfile.model_validate_json(profile.model_dump_json())


_warm_up()
