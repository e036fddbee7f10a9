"""The profile stage as the pipeline calls it: what it stores, says and refuses."""

import dataclasses
import io
import logging
from pathlib import Path

import pytest

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.inputs import MANIFEST_PATH, InputsManifest
from ss_pipeline.jobs.profiles import PROFILE_PATH, SAMPLE_PATH, DataSample, JobProfile
from ss_pipeline.stages.profiling.stage import profile_job
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.profiling_inputs import LIMITS, a_dataset, a_job_with, a_workbook

WAGES = b"wage,educ\n" + b"".join(b"%d,%d\n" % (10 + i % 7, 8 + i % 9) for i in range(50))


@pytest.fixture(params=["file", "memory"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """A store of plain files, and one that is not of this machine."""
    return ArtifactStore(str(tmp_path) if request.param == "file" else f"memory://{tmp_path.name}-profile-stage")


def test_profile_and_sample_are_stored_and_returned(artifacts: ArtifactStore) -> None:
    job = a_job_with(artifacts, {"wages.csv": WAGES, "codes.xlsx": a_workbook({"S": [["code", "name"], [1, "a"]]})})
    profile = profile_job(job, artifacts=artifacts, limits=LIMITS)
    assert artifacts.read_model(job.tenant_id, job.job_id, PROFILE_PATH, JobProfile) == profile
    sample = artifacts.read_model(job.tenant_id, job.job_id, SAMPLE_PATH, DataSample)
    assert [dataset.original_name for dataset in profile.datasets] == ["wages.csv", "codes.xlsx"]
    assert (profile.primary.rows, profile.primary.columns_total) == (50, 2)
    assert (sample.dataset_key, list(sample.columns), sample.rows_total) == (
        profile.primary.dataset_key,
        ["wage", "educ"],
        50,
    )


def test_profiling_twice_gives_the_same_bytes(artifacts: ArtifactStore) -> None:
    job = a_job_with(artifacts, {"wages.csv": WAGES})
    stored = []
    for _ in range(2):
        profile_job(job, artifacts=artifacts, limits=LIMITS)
        stored.append([artifacts.read(job.tenant_id, job.job_id, path) for path in (PROFILE_PATH, SAMPLE_PATH)])
    assert stored[0] == stored[1]


@pytest.mark.parametrize(
    ("files", "code", "named"),
    [
        ({"empty.csv": b""}, "INPUT_EMPTY", "empty.csv"),
        ({"big.csv": b"a,b\n" * 30_000}, "INPUT_TOO_LARGE", "big.csv"),
        ({"wages.csv": WAGES, "second.csv": b"a\x00b"}, "INPUT_BINARY", "second.csv"),
        ({"wages.dta": b"no Stata file"}, "INPUT_UNREADABLE", "wages.dta"),
        ({"工资.xlsx": b"PK\x03\x04"}, "INPUT_UNREADABLE", "工资.xlsx"),
    ],
)
def test_a_refusal_names_the_file_as_its_submitter_called_it(
    artifacts: ArtifactStore, files: dict[str, bytes], code: str, named: str
) -> None:
    job = a_job_with(artifacts, files)
    with pytest.raises(InputRefusedError) as refusal:
        profile_job(job, artifacts=artifacts, limits=dataclasses.replace(LIMITS, max_bytes=100_000))
    assert refusal.value.error_code == code
    assert refusal.value.message.startswith(f"{named!r} ")
    assert refusal.value.todo
    assert not artifacts.exists(job.tenant_id, job.job_id, PROFILE_PATH)


def test_a_data_file_that_is_gone_is_missing(artifacts: ArtifactStore) -> None:
    job = a_job_with(artifacts, {"wages.csv": WAGES})
    gone = InputsManifest(datasets=[a_dataset("other-name.csv", WAGES)])
    artifacts.write_model(job.tenant_id, job.job_id, MANIFEST_PATH, gone)
    with pytest.raises(InputRefusedError) as refusal:
        profile_job(job, artifacts=artifacts, limits=LIMITS)
    assert (refusal.value.error_code, "other-name.csv" in refusal.value.message) == ("INPUT_MISSING", True)


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (None, "INPUT_MISSING"),
        (b"no JSON", "INPUT_UNREADABLE"),
        (b'{"datasets": []}', "INPUT_MISSING"),
    ],
)
def test_a_job_without_a_usable_manifest_is_refused(
    artifacts: ArtifactStore, manifest: bytes | None, code: str
) -> None:
    job = a_job(inputs={"manifest_rel_path": MANIFEST_PATH})
    if manifest is not None:
        artifacts.write(job.tenant_id, job.job_id, MANIFEST_PATH, manifest)
    with pytest.raises(InputRefusedError) as refusal:
        profile_job(job, artifacts=artifacts, limits=LIMITS)
    assert refusal.value.error_code == code


def test_a_job_without_inputs_is_refused(artifacts: ArtifactStore) -> None:
    with pytest.raises(InputRefusedError) as refusal:
        profile_job(a_job(), artifacts=artifacts, limits=LIMITS)
    assert refusal.value.error_code == "INPUT_MISSING"


def test_events_say_what_happened_and_quote_no_data(artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ss_pipeline")
    job = a_job_with(artifacts, {"wages.csv": b"who,wage\n" + b"sk-canary,1\n" * 40})
    profile_job(job, artifacts=artifacts, limits=LIMITS)
    refused = a_job_with(artifacts, {"wages.csv": b"sk-canary\x00"})
    with pytest.raises(InputRefusedError):
        profile_job(refused, artifacts=artifacts, limits=LIMITS)
    fields = {record.message: record.__dict__["fields"] for record in caplog.records}
    assert list(fields) == ["SS_PROFILE_CREATED", "SS_PROFILE_REFUSED"]
    assert (fields["SS_PROFILE_CREATED"]["rows"], fields["SS_PROFILE_CREATED"]["columns"]) == (40, 2)
    assert fields["SS_PROFILE_REFUSED"]["code"] == "INPUT_BINARY"
    assert "canary" not in str(fields)


def test_reading_prints_nothing(artifacts: ArtifactStore, capfd: pytest.CaptureFixture[str]) -> None:
    job = a_job_with(artifacts, {"wages.xls": io.BytesIO(b"\xd0\xcf\x11\xe0" + b"\xff" * 4_000).getvalue()})
    with pytest.raises(InputRefusedError):
        profile_job(job, artifacts=artifacts, limits=LIMITS)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
