"""The publication stage: what it refuses, what it writes, that it never changes what is written."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import PublicationError
from ss_pipeline.jobs.model import Job, Publication
from ss_pipeline.jobs.profiles import DataSample, JobProfile
from ss_pipeline.stages.publishing.stage import (
    CURRENT_PATH,
    REPORT_FILES,
    checks_before_publishing,
    prepare_publication,
    verify_publication,
    write_current,
)
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.publishing_builders import (
    DECIDED_AT,
    a_decided_job,
    a_draft,
    a_profile,
    a_sample,
    an_inputs_manifest,
    chinese_case,
    english_case,
    wage_cells,
)


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path))


def publish(
    job: Job,
    artifacts: ArtifactStore,
    *,
    profile: JobProfile | None = None,
    sample: DataSample | None = None,
    fence: int = 1,
    clock: StandingClock | None = None,
) -> Publication:
    return prepare_publication(
        job,
        profile=profile or a_profile(wage_cells()),
        sample=sample or a_sample(wage_cells()),
        artifacts=artifacts,
        fence=fence,
        clock=clock or StandingClock(),
    )


def committed(job: Job, *publications: Publication) -> Job:
    return job.changed(publications=[*job.publications, *publications])


def files_of(job: Job, publication: Publication, artifacts: ArtifactStore) -> dict[str, bytes]:
    names = artifacts.names(job.tenant_id, job.job_id, publication.folder)
    return {name: artifacts.read(job.tenant_id, job.job_id, f"{publication.folder}/{name}") for name in names}


def test_a_version_is_five_files_in_a_folder_of_its_version_and_fence(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    publication = publish(job, artifacts, fence=7)
    assert publication.folder == "publications/v1-f7"
    assert set(files_of(job, publication, artifacts)) == set(REPORT_FILES)


def test_the_manifest_names_every_file_with_its_hash(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    artifacts.write_model(job.tenant_id, job.job_id, "inputs/manifest.json", an_inputs_manifest())
    publication = publish(job, artifacts)
    files = files_of(job, publication, artifacts)
    manifest = json.loads(files.pop("manifest.json"))
    found = {file["name"]: (file["sha256"], file["size_bytes"]) for file in manifest["files"]}
    assert found == {name: (hashlib.sha256(body).hexdigest(), len(body)) for name, body in files.items()}
    assert manifest["inputs"] == [{"original_name": "wages.csv", "sha256": "ab" * 32, "size_bytes": 12_345}]
    assert manifest["decision"] == {"by": "dana", "at": DECIDED_AT, "action": "approve"}


@pytest.mark.guarantee("R13")
def test_the_record_holds_the_hash_of_the_manifest(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    publication = publish(job, artifacts)
    body = files_of(job, publication, artifacts)["manifest.json"]
    assert publication.manifest_sha256 == hashlib.sha256(body).hexdigest()
    assert job.draft is not None
    assert publication.draft_sha256 == job.draft.sha256
    assert verify_publication(job, publication, artifacts=artifacts) == []


@pytest.mark.parametrize("case", [english_case, chinese_case], ids=["english", "chinese"])
def test_the_same_job_gives_the_same_bytes(case: Any, tmp_path: Path) -> None:
    job, profile, sample = case()
    stores = [ArtifactStore(str(tmp_path / name)) for name in ("one", "two")]
    clock = StandingClock()
    made = [publish(job, store, profile=profile, sample=sample, clock=clock) for store in stores]
    first, second = (files_of(job, made[0], store) for store in stores)
    assert first == second
    assert made[0] == made[1]


def test_publishing_again_under_the_same_fence_changes_nothing_even_later(artifacts: ArtifactStore) -> None:
    job, clock = a_decided_job(), StandingClock()
    publication = publish(job, artifacts, clock=clock)
    before = files_of(job, publication, artifacts)
    clock.advance(3600)
    assert publish(job, artifacts, clock=clock) == publication
    assert files_of(job, publication, artifacts) == before


def test_a_version_cut_short_before_its_manifest_is_finished(artifacts: ArtifactStore) -> None:
    job, clock = a_decided_job(), StandingClock()
    publication = publish(job, artifacts, clock=clock)
    before = files_of(job, publication, artifacts)
    folder = artifacts.local_path(job.tenant_id, job.job_id, publication.folder)
    assert folder is not None
    for name in ("manifest.json", "columns.csv"):
        (folder / name).unlink()
    clock.advance(3600)
    again = publish(job, artifacts, clock=clock)
    files = files_of(job, again, artifacts)
    assert verify_publication(job, again, artifacts=artifacts) == []
    assert {n: b for n, b in files.items() if n != "manifest.json"} == {
        n: b for n, b in before.items() if n != "manifest.json"
    }


@pytest.mark.guarantee("R13")
@pytest.mark.parametrize("name", REPORT_FILES)
def test_a_folder_with_other_content_is_never_overwritten(name: str, artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    path = f"publications/v1-f1/{name}"
    artifacts.write(job.tenant_id, job.job_id, path, b"other")
    with pytest.raises(PublicationError) as refused:
        publish(job, artifacts)
    assert refused.value.error_code == "PUBLICATION_FOLDER_TAKEN"
    assert artifacts.names(job.tenant_id, job.job_id, "publications/v1-f1") == [name]
    assert artifacts.read(job.tenant_id, job.job_id, path) == b"other"


def test_the_next_version_gets_the_next_number_and_leaves_the_first_alone(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    first = publish(job, artifacts)
    before = files_of(job, first, artifacts)
    redrafted = a_decided_job(a_draft(text="Another look.", revision=2), publications=[first.model_dump()])
    second = publish(redrafted, artifacts, fence=2)
    assert second.folder == "publications/v2-f2"
    assert files_of(job, first, artifacts) == before


def test_drafts_and_decisions_travel_in_draft_json(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    document = json.loads(files_of(job, publish(job, artifacts), artifacts)["draft.json"])
    assert job.draft is not None
    assert document["draft"] == job.draft.model_dump(mode="json")
    assert document["draft_sha256"] == job.draft.sha256
    assert document["decision"]["by"] == "dana"
    assert [column["name"] for column in document["profile"][0]["columns"]] == list(wage_cells())


SENT_BACK = {"action": "send_back"}
OTHER_HASH = {"draft_sha256": "0" * 64}


@pytest.mark.parametrize(
    ("job", "code", "says"),
    [
        (a_decided_job().changed(draft=None), "PUBLICATION_DRAFT_MISSING", "no draft"),
        (a_decided_job().changed(decision=None), "PUBLICATION_DECISION_MISSING", "needs a new decision"),
        (a_decided_job(decision=SENT_BACK), "PUBLICATION_DECISION_MISSING", "needs a new decision"),
        (a_decided_job(decision=OTHER_HASH), "PUBLICATION_DECISION_MISSING", "needs a new decision"),
        (a_decided_job(a_draft(outcome_var="pay")), "PUBLICATION_CHECK_FAILED", "'pay'"),
        (a_decided_job(a_draft(controls=["exper", "tenure"])), "PUBLICATION_CHECK_FAILED", "'tenure'"),
        (a_decided_job(a_draft(interaction_terms=["educ#sex"])), "PUBLICATION_CHECK_FAILED", "'sex'"),
        (a_decided_job(a_draft(text=" ")), "PUBLICATION_CHECK_FAILED", "draft_matches_schema"),
        (a_decided_job(a_draft(method="magic")), "PUBLICATION_CHECK_FAILED", "magic"),
        (a_decided_job(a_draft(treatment_var="wage")), "PUBLICATION_CHECK_FAILED", "treatment_var"),
    ],
    ids=["no draft", "undecided", "sent back", "changed since", "no such outcome", "no such control",
         "no such interaction", "says nothing", "no such method", "outcome is treatment"],
)  # fmt: skip
def test_what_must_not_be_published_is_refused_and_nothing_is_written(
    job: Job, code: str, says: str, artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ss_pipeline"), pytest.raises(PublicationError) as refused:
        publish(job, artifacts)
    assert refused.value.error_code == code
    assert says in refused.value.message
    assert [record.message for record in caplog.records] == ["SS_PUBLICATION_REFUSED"]
    assert artifacts.names(job.tenant_id, job.job_id, "publications") == []


def test_data_without_rows_is_refused_by_name(artifacts: ArtifactStore) -> None:
    empty = a_profile(wage_cells(), rows=0)
    with pytest.raises(PublicationError, match="profile_has_rows: 0 rows") as refused:
        publish(a_decided_job(), artifacts, profile=empty)
    assert refused.value.error_code == "PUBLICATION_CHECK_FAILED"


def test_a_copied_draft_with_a_wrong_field_fails_its_check() -> None:
    job = a_decided_job()
    assert job.draft is not None
    broken = job.changed(draft=job.draft.model_copy(update={"revision": 0}))
    checks = {check.name: check for check in checks_before_publishing(broken, a_profile(wage_cells()))}
    assert not checks["draft_matches_schema"].passed
    assert "revision" in checks["draft_matches_schema"].message


def test_all_checks_hold_for_a_job_that_may_be_published() -> None:
    checks = checks_before_publishing(a_decided_job(), a_profile(wage_cells()))
    assert [(check.name, check.passed, check.blocking) for check in checks] == [
        ("draft_names_real_columns", True, True),
        ("draft_matches_schema", True, True),
        ("profile_has_rows", True, True),
        ("decision_matches_draft", True, True),
    ]


def test_a_job_without_a_draft_fails_its_draft_checks_without_an_error() -> None:
    checks = checks_before_publishing(a_decided_job().changed(draft=None), a_profile(wage_cells()))
    assert [check.name for check in checks if check.passed] == ["profile_has_rows"]


@pytest.mark.guarantee("R13")
@pytest.mark.parametrize("name", REPORT_FILES)
def test_a_changed_or_missing_file_is_found_by_name(name: str, artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    publication = publish(job, artifacts)
    path = f"{publication.folder}/{name}"
    body = artifacts.read(job.tenant_id, job.job_id, path)
    artifacts.write(job.tenant_id, job.job_id, path, body[:-1] + bytes([body[-1] ^ 1]))
    assert name in " ".join(verify_publication(job, publication, artifacts=artifacts))
    artifacts.write(job.tenant_id, job.job_id, path, body + b"\n")
    assert name in " ".join(verify_publication(job, publication, artifacts=artifacts))
    local = artifacts.local_path(job.tenant_id, job.job_id, path)
    assert local is not None
    local.unlink()
    assert name in " ".join(verify_publication(job, publication, artifacts=artifacts))


def test_a_file_that_was_slipped_in_is_found(artifacts: ArtifactStore) -> None:
    job = a_decided_job()
    publication = publish(job, artifacts)
    artifacts.write(job.tenant_id, job.job_id, f"{publication.folder}/extra.js", b"")
    assert verify_publication(job, publication, artifacts=artifacts) == ["extra.js does not belong to the version"]


def current_of(job: Job, artifacts: ArtifactStore) -> dict[str, object]:
    return dict(json.loads(artifacts.read(job.tenant_id, job.job_id, CURRENT_PATH)))


def test_nothing_is_current_before_something_is_published(artifacts: ArtifactStore) -> None:
    assert not write_current(a_decided_job(), artifacts=artifacts)


def test_current_follows_the_job_document_without_being_called_a_repair(
    artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish(a_decided_job(), artifacts)
    job = committed(a_decided_job(), first)
    with caplog.at_level(logging.INFO, logger="ss_pipeline"):
        assert write_current(job, artifacts=artifacts)
        assert not write_current(job, artifacts=artifacts)
        second = first.model_copy(update={"version": 2, "fence": 2})
        assert write_current(committed(job, second), artifacts=artifacts)
    assert caplog.records == []
    assert current_of(job, artifacts) == {
        "version": 2,
        "folder": "publications/v2-f2",
        "manifest_sha256": first.manifest_sha256,
        "at": first.at,
    }


@pytest.mark.parametrize("wrong", [None, b"", b'{"version": 9}'], ids=["missing", "empty", "elsewhere"])
def test_a_wrong_pointer_is_repaired_and_reported(
    wrong: bytes | None, artifacts: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish(a_decided_job(), artifacts)
    job = committed(a_decided_job(), first, first.model_copy(update={"version": 2, "fence": 2}))
    if wrong is not None:
        artifacts.write(job.tenant_id, job.job_id, CURRENT_PATH, wrong)
    with caplog.at_level(logging.INFO, logger="ss_pipeline"):
        assert write_current(job, artifacts=artifacts)
    assert [record.message for record in caplog.records] == ["SS_PUBLICATION_CURRENT_REPAIRED"]
    assert current_of(job, artifacts)["version"] == 2


def test_publishing_works_on_a_store_that_is_no_folder() -> None:
    job, artifacts = a_decided_job(), ArtifactStore("memory://publishing")
    publication = publish(job, artifacts)
    assert verify_publication(job, publication, artifacts=artifacts) == []
