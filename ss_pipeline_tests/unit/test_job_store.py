"""Jobs on any back end: versions, conflicts, listings, and what happens to documents that cannot be read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ss_pipeline.errors import (
    DocumentChangedError,
    JobDataCorruptedError,
    JobExistsError,
    JobNotFoundError,
    JobVersionConflictError,
    StaleFenceError,
)
from ss_pipeline.jobs.lifecycle import transition
from ss_pipeline.jobs.model import Job, Parked
from ss_pipeline.store.base import DocumentKey, Facets, Fence
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, facets_of_job, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import CREATED_AT, a_job
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.store_contract import STANDS, Stand

ID = "job_abcdefghijklmnop"


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path, facets_of=facets_of_body) as stand:
        yield stand


@pytest.fixture
def store(stand: Stand) -> JobStore:
    return JobStore(stand.backend)


@pytest.mark.seed("S1.1.5")
def test_a_created_job_is_stored_at_the_current_schema_and_loads_equal(store: JobStore) -> None:
    job = store.create(a_job(ID, x_unknown={"深": [1, None]}))
    assert b'"schema_version": 3' in store.backend.read(job_key(ID))
    assert store.load(ID) == job


@pytest.mark.seed("S1.2.8")
def test_a_second_create_is_refused_and_leaves_the_first(store: JobStore) -> None:
    first = store.create(a_job(ID))
    with pytest.raises(JobExistsError):
        store.create(a_job(ID, requirement="another"))
    assert store.load(ID) == first


@pytest.mark.seed("S1.2.3")
def test_a_save_counts_the_version_and_returns_the_stored_job(store: JobStore) -> None:
    job = store.create(a_job(ID))
    saved = store.save(job.changed(priority=5))
    assert (saved.version, saved.priority) == (2, 5)
    assert store.load(ID) == saved


@pytest.mark.seed("S1.2.4")
def test_a_stale_save_is_refused_with_both_versions(store: JobStore) -> None:
    job = store.create(a_job(ID))
    saved = store.save(store.save(job).changed(priority=1))
    with recorded_events() as tape, pytest.raises(JobVersionConflictError) as refused:
        store.save(job.changed(priority=9))
    assert (refused.value.expected_version, refused.value.actual_version) == (1, 3)
    assert tape.of("SS_JOB_JSON_VERSION_CONFLICT") == [{"job_id": ID, "expected_version": 1, "actual_version": 3}]
    assert store.load(ID) == saved


def test_a_save_that_meets_another_save_is_refused_with_the_new_version() -> None:
    class OvertakenBackend(MemoryBackend):
        """Another save comes in between the read and the replace, once."""

        overtaken = False

        def replace(
            self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
        ) -> None:
            if not self.overtaken:
                self.overtaken = True
                JobStore(self).save(JobStore(self).load(ID))
            super().replace(key, body, facets, expected=expected, fence=fence)

    store = JobStore(OvertakenBackend())
    job = store.create(a_job(ID))
    with pytest.raises(JobVersionConflictError) as refused:
        store.save(job.changed(priority=9))
    assert (refused.value.expected_version, refused.value.actual_version) == (1, 2)


def test_a_save_over_a_document_just_migrated_goes_through(store: JobStore) -> None:
    job = a_job(ID)
    older = {key: value for key, value in job.as_payload().items() if key != "version"} | {"schema_version": 2}
    _put(store, older)
    saved = store.save(job.changed(priority=7))
    assert store.load(ID) == saved


def test_a_document_that_changes_all_the_time_is_given_up_on() -> None:
    class RestlessBackend(MemoryBackend):
        """Every replace comes too late."""

        def replace(
            self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
        ) -> None:
            raise DocumentChangedError("again")

    store = JobStore(RestlessBackend())
    job = store.create(a_job(ID))
    with pytest.raises(DocumentChangedError, match="faster than it can be saved"):
        store.save(job)


def test_a_job_of_another_tenant_is_not_found(store: JobStore) -> None:
    store.create(a_job(ID, tenant_id="a"))
    assert store.load(ID, tenant_id="a").tenant_id == "a"
    for tenant in ("default", "b", "../a", "", "a/b", "\ud83d"):
        with pytest.raises(JobNotFoundError):
            store.load(ID, tenant_id=tenant)


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "~root", "x" * 300, "nul\x00", "\ud83d", "absent"])
def test_an_unsafe_or_unknown_id_is_not_found(store: JobStore, job_id: str) -> None:
    with pytest.raises(JobNotFoundError):
        store.load(job_id)


def test_saving_a_job_that_is_not_there_is_refused(store: JobStore) -> None:
    with pytest.raises(JobNotFoundError):
        store.save(a_job(ID))


@pytest.mark.guarantee("R7")
def test_a_save_under_a_lost_fence_is_refused(store: JobStore, stand: Stand) -> None:
    job = store.create(a_job(ID))
    lost = stand.backend.lease([job_key(ID)], claim_id="a", owner="run a", ttl=60)
    stand.clock.advance(61)
    held = stand.backend.lease([job_key(ID)], claim_id="b", owner="run b", ttl=60)
    with pytest.raises(StaleFenceError):
        store.save(job.changed(priority=1), fence=lost.fences[job_key(ID)])
    saved = store.save(job.changed(priority=2), fence=held.fences[job_key(ID)])
    assert store.load(ID) == saved


CORRUPTED: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"schema_version": 3,', "SS_JOB_JSON_CORRUPTED"),
    "empty": (b"", "SS_JOB_JSON_CORRUPTED"),
    "an array": (b"[]", "SS_JOB_JSON_CORRUPTED"),
    "not UTF-8": (b'{"schema_version": 3, "\xff": 1}', "SS_JOB_JSON_CORRUPTED"),
    "a newer schema": (b'{"schema_version": 4}', "SS_JOB_JSON_SCHEMA_VERSION_UNSUPPORTED"),
    "no schema": (b"{}", "SS_JOB_JSON_SCHEMA_VERSION_UNSUPPORTED"),
    "no fields": (b'{"schema_version": 3}', "SS_JOB_JSON_INVALID"),
    "of another job": (
        b'{"schema_version": 3, "job_id": "job_other", "status": "created", "trace_id": "t",'
        b' "created_at": "2026-01-06"}',
        "SS_JOB_JSON_INVALID",
    ),
    "parked for no time": (
        b'{"schema_version": 3, "job_id": "job_abcdefghijklmnop", "status": "created", "trace_id": "t",'
        b' "created_at": "2026-01-06", "parked": {"until": "soon", "reason": "r"}}',
        "SS_JOB_JSON_INVALID",
    ),
}


@pytest.mark.guarantee("F24")
@pytest.mark.guarantee("F25")
@pytest.mark.parametrize("kind", sorted(CORRUPTED))
def test_a_corrupted_document_is_refused_reported_and_left_as_it_is(store: JobStore, kind: str) -> None:
    body, event = CORRUPTED[kind]
    store.backend.create(job_key(ID), body, facets_of_body(job_key(ID), body))
    store.create(a_job("job_sound0000000000"))
    with recorded_events() as tape, pytest.raises(JobDataCorruptedError):
        store.load(ID)
    assert [code for code, _ in tape.events] == [event]
    with pytest.raises(JobDataCorruptedError):
        store.save(a_job(ID))
    assert store.backend.read(job_key(ID)) == body
    assert [(row.key.document_id, row.facets.status) for row in store.rows()] == [
        (ID, "corrupted"),
        ("job_sound0000000000", "created"),
    ]
    assert [row.key.document_id for row in store.waiting(per_group=9)] == ["job_sound0000000000"]


def test_rows_run_through_all_pages_and_stop_at_the_limit(store: JobStore) -> None:
    for number in range(7):
        store.create(a_job(f"job_{number:016d}", tenant_id=f"t{number % 2}"))
    assert len(list(store.rows())) == 7
    assert len(list(store.rows(limit=3))) == 3
    assert len(list(store.rows(tenant_id="t1"))) == 3


PARKED = {"until": "2026-01-06T13:00:00+00:00", "reason": "budget"}
AT_ONE = 1_767_704_400.0


@pytest.mark.parametrize(
    ("job", "waiting", "not_before"),
    [
        (a_job(ID), True, 0.0),
        (a_job(ID, status="draft_ready"), False, 0.0),
        (a_job(ID, held="imported"), False, 0.0),
        (a_job(ID).changed(parked=Parked.model_validate(PARKED)), True, AT_ONE),
        (a_job(ID).changed(parked=Parked.model_validate(PARKED | {"until": "2026-01-06T13:00"})), True, AT_ONE),
        (a_job(ID).changed(parked=Parked.model_validate(PARKED | {"until": "0001-01-01"})), True, -62_135_596_800.0),
    ],
)
def test_a_job_waits_unless_held_or_done_and_not_before_its_parking_ends(
    job: Job, waiting: bool, not_before: float
) -> None:
    facets = facets_of_job(job)
    assert (facets.waiting, facets.not_before, facets.created_at) == (waiting, not_before, CREATED_AT)


def test_a_change_of_status_is_reported_once_it_is_stored(store: JobStore) -> None:
    job = store.create(a_job(ID))
    with recorded_events() as tape:
        store.save(transition(job, "failed", at=CREATED_AT, by="run:1", reason="INPUT_UNREADABLE"))
    (change,) = tape.of("SS_JOB_STATUS_CHANGED")
    assert (change["from_status"], change["to_status"], change["reason"]) == ("created", "failed", "INPUT_UNREADABLE")


def _put(store: JobStore, payload: dict[str, object]) -> None:
    import json

    body = json.dumps(payload).encode()
    key = DocumentKey(JOBS, "default", str(payload["job_id"]))
    store.backend.create(key, body, facets_of_body(key, body))
