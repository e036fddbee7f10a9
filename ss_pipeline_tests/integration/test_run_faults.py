"""What goes wrong around a run: leases lost, disks full, jobs cancelled, documents damaged meanwhile."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ss_pipeline import wiring
from ss_pipeline.claim_run import work_off
from ss_pipeline.errors import ArtifactUnavailableError, DraftError, StoreUnavailableError
from ss_pipeline.job_run import JobEnded, Stage, StageDone
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import PROFILE_PATH, SAMPLE_PATH
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.stages import decision
from ss_pipeline.store.base import DocumentKey, Facets, Fence
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline, a_pipeline

ANSWER = DraftAnswer(draft_text="Wage on education.", outcome_var="wage", treatment_var="educ", controls=["exper"])
REFUSED = DraftError("no idea", code="DRAFT_INVALID")


class _Meanwhile(LLMClient):
    """Drafts the first job only after something else has happened; then answers, or raises."""

    def __init__(self, happens: Callable[[], object], answer: DraftAnswer | Exception = ANSWER) -> None:
        self._happens: Callable[[], object] | None = happens
        self._answer = answer

    @property
    def name(self) -> str:
        return "meanwhile/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        if self._happens is None:
            return ANSWER
        happens, self._happens = self._happens, None
        happens()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class _FullDisk(MemoryBackend):
    """A back end that can be filled up: then nothing more can be written."""

    full = False

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        self._refuse()
        super().replace(key, body, facets, expected=expected, fence=fence)

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._refuse()
        super().complete(key, fence)

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._refuse()
        super().release(key, fence, refund=refund)

    def fill(self) -> None:
        self.full = True

    def _refuse(self) -> None:
        if self.full:
            raise StoreUnavailableError("no space left on device")


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


@pytest.fixture
def disk() -> _FullDisk:
    return _FullDisk()


@pytest.fixture
def on_disk(tmp_path: Path, disk: _FullDisk) -> Pipeline:
    parts = replace(a_pipeline(tmp_path).parts, jobs=JobStore(disk))
    return Pipeline(parts, wiring.work_parts(parts))


def _two_jobs(pipeline: Pipeline) -> tuple[str, str]:
    return pipeline.a_job("s0"), pipeline.a_job("s1", requirement="Effect of educ on wage")


def _stolen(pipeline: Pipeline, job_id: str) -> None:
    """As if the lease had run out and another run had taken the job."""
    key, backend = job_key(job_id), pipeline.parts.jobs.backend
    view = backend.claim_of(key)
    assert view is not None
    backend.release(key, Fence(view.claim_id, view.fence), refund=False)
    backend.lease([key], claim_id="thief", owner="run:thief", ttl=60)


def _cancelled(pipeline: Pipeline, job_id: str) -> None:
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.cancel(job, by="ann", at=at))


@pytest.mark.guarantee("F22")
@pytest.mark.parametrize("answer", [ANSWER, REFUSED, ArtifactUnavailableError("the medium failed")])
def test_a_job_lost_in_the_middle_is_left_alone_and_the_next_one_is_published(
    pipeline: Pipeline, answer: DraftAnswer | Exception
) -> None:
    lost, other = _two_jobs(pipeline)
    client = _Meanwhile(lambda: _stolen(pipeline, lost), answer)
    _, ended = pipeline.with_client(client).run(lost, other)
    assert (ended[lost].ending, ended[lost].code) == ("skipped", "CLAIM_STALE_FENCE")
    assert ended[other].ending == "published"
    assert pipeline.job(lost).status == "created"
    view = pipeline.parts.jobs.backend.claim_of(job_key(lost))
    assert view is not None
    assert view.claim_id == "thief"


@pytest.mark.parametrize("answer", [ANSWER, REFUSED])
def test_a_job_cancelled_while_it_is_worked_on_stays_cancelled_and_fails_nothing(
    pipeline: Pipeline, answer: DraftAnswer | Exception
) -> None:
    cancelled, other = _two_jobs(pipeline)
    client = _Meanwhile(lambda: _cancelled(pipeline, cancelled), answer)
    _, ended = pipeline.with_client(client).run(cancelled, other)
    assert (ended[cancelled].ending, ended[cancelled].code) == ("skipped", "CLAIM_NOT_WANTED")
    assert ended[other].ending == "published"
    assert pipeline.job(cancelled).status == "cancelled"
    assert pipeline.parts.jobs.backend.claim_of(job_key(cancelled)) is None


def test_a_job_changed_while_it_is_worked_on_is_given_back_and_done_by_the_next_run(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    client = _Meanwhile(lambda: pipeline.parts.jobs.update(job_id, lambda job: job.changed(priority=7)), REFUSED)
    _, ended = pipeline.with_client(client).run(job_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("released", "JOB_VERSION_CONFLICT")
    _, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"


@pytest.mark.guarantee("F9")
def test_a_full_disk_ends_no_run_and_the_jobs_are_done_once_there_is_room(on_disk: Pipeline, disk: _FullDisk) -> None:
    job_ids = _two_jobs(on_disk)
    failing = _Meanwhile(disk.fill, ArtifactUnavailableError("no space left on device"))
    _, ended = on_disk.with_client(failing).run(*job_ids)
    assert [ended[job_id].ending for job_id in job_ids] == ["released", "released"]
    assert [on_disk.job(job_id).status for job_id in job_ids] == ["created", "created"]
    disk.full = False
    for job_id in job_ids:  # the leases run out
        view = disk.claim_of(job_key(job_id))
        assert view is not None
        disk.release(job_key(job_id), Fence(view.claim_id, view.fence))
    _, ended = on_disk.run(*job_ids, claim_id="claim_2")
    assert [ended[job_id].ending for job_id in job_ids] == ["published", "published"]


def test_a_published_job_whose_lease_cannot_be_given_back_is_published_and_said_so_once(
    on_disk: Pipeline, disk: _FullDisk
) -> None:
    job_id = on_disk.a_job()
    ended: list[JobEnded] = []
    events = work_off([job_id], tenant_id="default", claim_id="c", owner="run:1", parts=on_disk.work)
    for event in events:
        if isinstance(event, StageDone) and event.stage is Stage.PUBLICATION:
            disk.fill()
        if isinstance(event, JobEnded):
            ended.append(event)
    assert [event.ending for event in ended] == ["published"]
    assert on_disk.job(job_id).status == "succeeded"


def test_a_job_that_the_heartbeat_found_lost_is_not_begun(pipeline: Pipeline) -> None:
    first, second = _two_jobs(pipeline)

    def lose_the_second() -> None:
        _stolen(pipeline, second)
        time.sleep(0.5)

    quick = replace(pipeline, work=replace(pipeline.work, heartbeat_seconds=0.05))
    done, ended = quick.with_client(_Meanwhile(lose_the_second)).run(first, second)
    assert ended[first].ending == "published"
    assert (ended[second].ending, ended[second].code) == ("skipped", "CLAIM_LOST")
    assert {event.job.job_id for event in done} == {first}


def test_a_heartbeat_that_fails_once_is_beaten_again(on_disk: Pipeline, disk: _FullDisk) -> None:
    job_id = on_disk.a_job()
    beats: list[str] = []

    def heartbeat_fails_once(*_: object, **__: object) -> list[DocumentKey]:
        beats.append("beat")
        if len(beats) == 1:
            raise StoreUnavailableError("no space left on device")
        return [job_key(job_id)]

    disk.heartbeat = heartbeat_fails_once  # type: ignore[method-assign]
    quick = replace(on_disk, work=replace(on_disk.work, heartbeat_seconds=0.02))
    _, ended = quick.with_client(_Meanwhile(lambda: time.sleep(0.3))).run(job_id)
    assert ended[job_id].ending == "published"
    assert len(beats) > 1


def test_only_a_job_that_was_begun_has_its_attempt_counted_when_the_run_is_stopped(pipeline: Pipeline) -> None:
    elsewhere, not_begun = _two_jobs(pipeline)
    backend = pipeline.parts.jobs.backend
    backend.lease([job_key(elsewhere)], claim_id="other", owner="run:other", ttl=60)
    events = work_off([elsewhere, not_begun], tenant_id="default", claim_id="c", owner="run:1", parts=pipeline.work)
    assert isinstance(events, Iterator)
    assert isinstance(next(events), JobEnded)
    events.close()  # type: ignore[attr-defined]
    assert backend.attempts_of(job_key(not_begun)) == 0
    assert backend.claim_of(job_key(not_begun)) is None


@pytest.mark.guarantee("F24", "R8")
def test_a_job_whose_document_is_damaged_is_claimed_once_and_not_for_ever(pipeline: Pipeline) -> None:
    damaged, other = _two_jobs(pipeline)
    document = next(pipeline.parts.settings.jobs_path().rglob(f"{damaged}/job.json"))
    document.write_bytes(b"{")
    for _ in range(2):
        for claim in pipeline.claims(room=4, shareable=False):
            _, ended = pipeline.run(*claim.job_ids, claim_id=claim.claim_id)
            if damaged in ended:
                assert (ended[damaged].ending, ended[damaged].code) == ("failed", "JOB_DATA_CORRUPTED")
    assert not pipeline.claims(room=4, shareable=False)
    assert document.read_bytes() == b"{"
    assert pipeline.job(other).status == "succeeded"


def test_a_job_that_does_not_exist_is_named_and_not_called_claimed_elsewhere(pipeline: Pipeline) -> None:
    _, ended = pipeline.run("job_nowhere")
    assert (ended["job_nowhere"].ending, ended["job_nowhere"].code) == ("failed", "JOB_NOT_FOUND")


def test_a_held_job_that_failed_is_not_requeued_by_a_run(pipeline: Pipeline) -> None:
    failed = a_job("job_held", status="failed").changed(held="on request")
    pipeline.parts.jobs.create(failed)
    _, ended = pipeline.run("job_held")
    assert (ended["job_held"].ending, ended["job_held"].code) == ("skipped", "CLAIM_NOT_WANTED")
    assert pipeline.job("job_held") == failed


@pytest.mark.parametrize(("path", "damage"), [(PROFILE_PATH, b"{"), (SAMPLE_PATH, b"{"), (SAMPLE_PATH, None)])
def test_a_damaged_profile_or_sample_is_made_again_before_publication(
    tmp_path: Path, path: str, damage: bytes | None
) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    file = pipeline.parts.artifacts.local_path("default", job_id, path)
    assert file is not None
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.confirm(job, by="ann", at=at))
    done, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"
    assert [event.reused for event in done if event.stage is Stage.INPUT_PROFILE] == [False]


def test_a_review_and_a_failure_in_one_claim_do_not_touch_each_other(pipeline: Pipeline) -> None:
    asked = pipeline.a_job("asked", requirement=AMBIGUOUS_REQUIREMENT)
    bad = pipeline.a_job("bad", csv="wage,educ,exper\n")
    good = pipeline.a_job("good")
    _, ended = pipeline.run(asked, bad, good)
    assert [ended[job_id].ending for job_id in (asked, bad, good)] == ["in review", "failed", "published"]
    assert [phase(pipeline.job(job_id)).phase for job_id in (asked, bad, good)] == ["in review", "failed", "published"]
    assert [pipeline.parts.jobs.backend.claim_of(job_key(job_id)) for job_id in (asked, bad, good)] == [None] * 3


def test_a_stopped_run_that_cannot_give_its_job_back_leaves_it_to_the_lease(on_disk: Pipeline, disk: _FullDisk) -> None:
    job_id = on_disk.a_job()
    events = work_off([job_id], tenant_id="default", claim_id="c", owner="run:1", parts=on_disk.work)
    next(events)
    disk.fill()
    events.close()  # type: ignore[attr-defined]
    view = disk.claim_of(job_key(job_id))
    assert view is not None
    assert view.owner == "run:1"


def test_all_stages_but_the_last_are_made_again_when_asked_for(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    asked = frozenset(Stage) - {Stage.PUBLICATION}
    done, _ = pipeline.run(job_id, claim_id="claim_2", stages=asked)
    assert [event.stage for event in done] == [stage for stage in Stage if stage in asked]


@pytest.mark.parametrize(("inputs", "code"), [(False, "INPUT_MISSING"), (True, "DRAFT_MISSING")])
def test_a_job_without_data_or_without_the_draft_it_was_confirmed_for_fails_with_its_reason(
    pipeline: Pipeline, inputs: bool, code: str
) -> None:
    job_id = pipeline.a_job()

    def broken(job: Job) -> Job:
        status = job.model_copy(update={"status": "queued"})
        return status if inputs else status.changed(inputs=None)

    pipeline.parts.jobs.update(job_id, broken)
    _, ended = pipeline.run(job_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("failed", code)
    failure = pipeline.job(job_id).failure
    assert failure is not None
    assert failure.code == code


def _redrafted(pipeline: Pipeline) -> str:
    """A published job whose new revision waits for a person."""
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.confirm(job, by="ann", at=at))
    pipeline.run(job_id, claim_id="claim_2")
    pipeline.run(job_id, claim_id="claim_3", stages=frozenset({Stage.ANALYSIS_DRAFT}))
    return job_id


def test_a_new_revision_of_a_published_job_is_shown_as_waiting_for_its_decision(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    view = phase(pipeline.job(_redrafted(pipeline)))
    assert view.phase == "published"
    assert "version 1" in view.reason
    assert "new revision" in view.reason
    assert "ss-pipeline confirm" in view.next_step


def test_a_confirmed_new_revision_is_published_by_the_next_claim_and_only_once(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    job_id = _redrafted(pipeline)
    assert not pipeline.claims(room=1)
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.confirm(job, by="bob", at=at))
    assert "new revision" in phase(pipeline.job(job_id)).reason
    (claim,) = pipeline.claims(room=1)
    _, ended = pipeline.run(*claim.job_ids, claim_id=claim.claim_id)
    assert ended[job_id].ending == "published"
    job = pipeline.job(job_id)
    assert [p.version for p in job.publications] == [1, 2]
    assert phase(job).next_step == "nothing: it is done"
    assert not pipeline.claims(room=1)


def test_a_new_revision_that_cannot_be_published_goes_back_to_its_decision_and_is_not_claimed_for_ever(
    tmp_path: Path,
) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    job_id = _redrafted(pipeline)
    at = pipeline.parts.clock.timestamp()

    def confirmed_with_a_fault(stored: Job) -> Job:
        assert stored.draft is not None
        broken = stored.changed(draft=stored.draft.model_copy(update={"outcome_var": "horoscope"}))
        return decision.confirm(broken, by="bob", at=at)

    pipeline.parts.jobs.update(job_id, confirmed_with_a_fault)
    (claim,) = pipeline.claims(room=1)
    _, ended = pipeline.run(*claim.job_ids, claim_id=claim.claim_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("failed", "PUBLICATION_CHECK_FAILED")
    job = pipeline.job(job_id)
    assert (job.status, len(job.publications)) == ("succeeded", 1)
    assert job.failure is not None
    assert "horoscope" in phase(job).reason
    assert not pipeline.claims(room=1)
