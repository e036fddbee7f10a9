"""Data files for the profiling tests: stored as a job's inputs, or profiled directly in the test's own process."""

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import openpyxl

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.jobs.inputs import FORMAT_OF_SUFFIX, MANIFEST_PATH, InputDataset, InputsManifest, Role
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import ColumnProfile, DataSample, DatasetProfile
from ss_pipeline.stages.profiling.stage import ProfileLimits, profile_file
from ss_pipeline_tests.builders import CREATED_AT, a_job

LIMITS = ProfileLimits(
    max_bytes=100_000_000, max_columns=2_000, max_rows=5_000_000, cpu_seconds=20, wall_seconds=30.0, memory_mb=1_024
)


def a_dataset(name: str, body: bytes, *, role: Role = "primary_dataset") -> InputDataset:
    """A data file as the manifest lists it."""
    suffix = Path(name).suffix.lower()
    key = f"ds_{len(name):04d}{role[:3]}"
    return InputDataset(
        dataset_key=key,
        role=role,
        rel_path=f"inputs/{key}{suffix}",
        original_name=name,
        size_bytes=len(body),
        sha256="0" * 64,
        fingerprint="sha256:" + "0" * 64,
        format=FORMAT_OF_SUFFIX[suffix],
        uploaded_at=CREATED_AT,
    )


def a_job_with(artifacts: ArtifactStore, files: Mapping[str, bytes]) -> Job:
    """A job whose data files are stored; the first is the primary one."""
    job = a_job(inputs={"manifest_rel_path": MANIFEST_PATH, "fingerprint": None})
    datasets = []
    for index, (name, body) in enumerate(files.items()):
        dataset = a_dataset(name, body, role="secondary_dataset" if index else "primary_dataset")
        artifacts.write(job.tenant_id, job.job_id, dataset.rel_path, body)
        datasets.append(dataset)
    artifacts.write_model(job.tenant_id, job.job_id, MANIFEST_PATH, InputsManifest(datasets=datasets))
    return job


def profile_and_sample(
    body: bytes, name: str = "data.csv", *, limits: ProfileLimits = LIMITS
) -> tuple[DatasetProfile, DataSample]:
    """The profile and the sample of a file, made in this process."""
    with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
        file.write(body)
        file.flush()
        profile, sample = profile_file(Path(file.name), a_dataset(name, body), limits=limits)
    return profile, DataSample.model_validate_json(sample)


def profile_of(body: bytes | str, name: str = "data.csv", *, limits: ProfileLimits = LIMITS) -> DatasetProfile:
    """The profile of a file, made in this process; text is stored as UTF-8."""
    return profile_and_sample(body.encode() if isinstance(body, str) else body, name, limits=limits)[0]


def column_of(*cells: str, header: str = "x") -> ColumnProfile:
    """The profile of the column `x` beside a column of text that keeps blank cells from being blank rows."""
    rows = "".join(f"r,{cell}\n" for cell in cells)
    found = profile_of(f"row,{header}\n{rows}").column(header)
    assert found is not None
    return found


def warning_types(profile: DatasetProfile) -> set[str]:
    """The types of a profile's warnings."""
    return {warning.type for warning in profile.warnings}


def a_workbook(sheets: Mapping[str, list[list[object]]], *, merges: tuple[str, ...] = (), hidden: str = "") -> bytes:
    """An .xlsx file; `merges` are of the first sheet."""
    workbook = openpyxl.Workbook()
    workbook.remove(workbook.active)
    for title, rows in sheets.items():
        sheet = workbook.create_sheet(title)
        for row in rows:
            sheet.append(row)
        if title == hidden:
            sheet.sheet_state = "hidden"
    for merge in merges:
        workbook.worksheets[0].merge_cells(merge)
    body = io.BytesIO()
    workbook.save(body)
    workbook.close()
    return body.getvalue()
