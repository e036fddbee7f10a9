"""A claim worked off, from submission to publication, on the real stages and the file back end."""

from dataclasses import replace
from pathlib import Path

import pytest

from ss_pipeline.claim_run import work_off
from ss_pipeline.errors import DraftError, StoreUnavailableError
from ss_pipeline.job_run import JobEnded, Stage, StageDone
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.lifecycle import history_is_intact, phase
from ss_pipeline.jobs.model import Job
from ss_pipeline.stages import decision
from ss_pipeline.stages.publishing.stage import REPORT_FILES, verify_publication
from ss_pipeline.store.base import Fence
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline, ScriptedDrafter, a_pipeline

ANSWER = DraftAnswer(draft_text="Wage on education.", outcome_var="wage", treatment_var="educ", controls=["exper"])


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


def test_a_good_submission_ends_as_a_published_report(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    done, ended = pipeline.run(job_id)
    assert [event.stage for event in done] == list(Stage)
    assert ended[job_id].ending == "published"
    job = pipeline.job(job_id)
    assert job.status == "succeeded"
    assert job.draft is not None
    assert (job.draft.outcome_var, job.draft.treatment_var, job.draft.controls) == ("wage", "educ", ["exper"])
    assert job.published is not None
    assert verify_publication(job, job.published, artifacts=pipeline.parts.artifacts) == []
    names = pipeline.parts.artifacts.names("default", job_id, job.published.folder)
    assert sorted(REPORT_FILES) == names
    assert history_is_intact(job)
    assert [entry.to_status for entry in job.history] == [
        "created", "draft_ready", "confirmed", "queued", "running", "succeeded",
    ]  # fmt: skip


def test_two_broken_jobs_of_twenty_do_not_touch_the_others(pipeline: Pipeline) -> None:
    job_ids = [
        pipeline.a_job(f"good{i}", requirement=f"Effect of educ on wage controlling for exper, part {i}")
        for i in range(18)
    ]
    broken = [pipeline.a_job(f"bad{i}", csv=header) for i, header in enumerate(["wage,educ\n", "wage,educ,exper\n"])]
    _, ended = pipeline.run(*job_ids[:9], broken[0], *job_ids[9:], broken[1])
    assert [ended[job_id].ending for job_id in job_ids] == ["published"] * 18
    for job_id in broken:
        assert ended[job_id].ending == "failed"
        job = pipeline.job(job_id)
        assert job.status == "failed"
        assert job.failure is not None
        assert job.failure.code == ended[job_id].code
        assert job.failure.message
        assert job.failure.todo


def test_an_ambiguous_requirement_waits_for_a_person_and_goes_on_after_the_answer(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    done, ended = pipeline.run(job_id)
    assert ended[job_id].ending == "in review"
    assert Stage.PUBLICATION not in {event.stage for event in done}
    job = pipeline.job(job_id)
    assert job.draft is not None
    assert phase(job).phase == "in review"
    answers = dict.fromkeys(decision.open_questions(job.draft), "")
    assert "outcome_var" in answers
    answers = {"outcome_var": "wage", "treatment_var": "educ"} | {
        name: "exper" for name in answers if name not in {"outcome_var", "treatment_var"}
    }
    confirmed = decision.confirm(job, by="ann", at=pipeline.parts.clock.timestamp(), answers=answers)
    pipeline.parts.jobs.save(confirmed)
    _, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"
    published = pipeline.job(job_id)
    assert published.decision is not None
    assert published.decision.by == "ann"


@pytest.mark.seed("S1.2.9")
def test_a_job_that_another_claim_holds_is_skipped_and_not_touched(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    before = pipeline.job(job_id)
    pipeline.parts.jobs.backend.lease([job_key(job_id)], claim_id="other", owner="run:other", ttl=60)
    done, ended = pipeline.run(job_id)
    assert done == []
    assert (ended[job_id].ending, ended[job_id].code) == ("skipped", "CLAIM_ELSEWHERE")
    assert pipeline.job(job_id) == before


def test_running_a_published_job_again_repeats_nothing(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    before = pipeline.job(job_id)
    drafter = ScriptedDrafter(ANSWER)
    done, ended = pipeline.with_client(drafter).run(job_id, claim_id="claim_2")
    assert (ended[job_id].ending, drafter.calls) == ("published", 0)
    assert [event.reused for event in done] == [True] * 5
    assert pipeline.job(job_id) == before


def test_one_asset_can_be_made_again_alone(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    before = pipeline.job(job_id)
    done, ended = pipeline.run(job_id, claim_id="claim_2", stages=frozenset({Stage.INPUT_PROFILE}))
    assert [(event.stage, event.reused) for event in done] == [(Stage.INPUT_PROFILE, False)]
    assert ended[job_id].ending == "published"
    assert pipeline.job(job_id) == before


def test_drafting_a_published_job_again_makes_a_revision_and_leaves_the_published_version(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    first = pipeline.job(job_id)
    assert first.published is not None
    report = f"{first.published.folder}/report.html"
    before = pipeline.parts.artifacts.read("default", job_id, report)
    pipeline.run(job_id, claim_id="claim_2", stages=frozenset({Stage.ANALYSIS_DRAFT}))
    redrafted = pipeline.job(job_id)
    assert redrafted.draft is not None
    assert (redrafted.status, redrafted.draft.revision, len(redrafted.publications)) == ("succeeded", 2, 1)
    pipeline.run(job_id, claim_id="claim_3", stages=frozenset({Stage.PUBLICATION}))
    second = pipeline.job(job_id)
    assert [p.version for p in second.publications] == [1, 2]
    assert pipeline.parts.artifacts.read("default", job_id, report) == before


def test_a_new_revision_that_nobody_decided_on_is_not_published(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    job_id = pipeline.a_job()
    pipeline.run(job_id)
    job = pipeline.job(job_id)
    pipeline.parts.jobs.save(decision.confirm(job, by="ann", at=pipeline.parts.clock.timestamp()))
    pipeline.run(job_id, claim_id="claim_2")
    pipeline.run(job_id, claim_id="claim_3", stages=frozenset({Stage.ANALYSIS_DRAFT}))
    _, ended = pipeline.run(job_id, claim_id="claim_4", stages=frozenset({Stage.PUBLICATION}))
    assert (ended[job_id].ending, ended[job_id].code) == ("failed", "PUBLICATION_DECISION_MISSING")
    after = pipeline.job(job_id)
    assert (after.status, len(after.publications)) == ("succeeded", 1)


@pytest.mark.guarantee("R7")
def test_a_run_that_lost_its_lease_writes_nothing_more(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    key = job_key(job_id)
    backend = pipeline.parts.jobs.backend
    events = work_off([job_id], tenant_id="default", claim_id="zombie", owner="run:zombie", parts=pipeline.work)
    first = next(events)
    assert isinstance(first, StageDone)
    view = backend.claim_of(key)
    assert view is not None
    backend.release(key, Fence("zombie", view.fence), refund=False)
    lease = backend.lease([key], claim_id="rescuer", owner="run:rescuer", ttl=60)
    assert lease.attempts[key] == 2
    rest = list(events)
    assert isinstance(rest[-1], JobEnded)
    assert (rest[-1].ending, rest[-1].code) == ("skipped", "CLAIM_STALE_FENCE")
    assert pipeline.job(job_id).status == "created"
    view = backend.claim_of(key)
    assert view is not None
    assert view.claim_id == "rescuer"


@pytest.mark.guarantee("R8")
def test_a_job_that_no_run_could_finish_is_failed_with_its_reason(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    key = job_key(job_id)
    backend = pipeline.parts.jobs.backend
    for attempt in range(pipeline.work.max_attempts):
        lease = backend.lease([key], claim_id=f"killed_{attempt}", owner="run:killed", ttl=60)
        backend.release(key, lease.fences[key], refund=False)
    _, ended = pipeline.run(job_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("failed", "CLAIM_ATTEMPTS_EXHAUSTED")
    retried = decision.retry(pipeline.job(job_id), by="ann", at=pipeline.parts.clock.timestamp())
    pipeline.parts.jobs.save(retried)
    _, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"


def test_an_unforeseen_fault_counts_for_its_job_only_and_gives_the_others_back(pipeline: Pipeline) -> None:
    job_ids = [pipeline.a_job(f"s{i}", requirement=f"Effect of educ on wage {i}") for i in range(3)]
    buggy = pipeline.with_client(ScriptedDrafter(ANSWER, ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        buggy.run(*job_ids)
    backend = pipeline.parts.jobs.backend
    assert [pipeline.job(job_id).status for job_id in job_ids] == ["succeeded", "created", "created"]
    assert [backend.attempts_of(job_key(job_id)) for job_id in job_ids] == [0, 1, 0]
    assert [backend.claim_of(job_key(job_id)) for job_id in job_ids] == [None, None, None]


def test_a_draft_that_names_no_column_fails_the_job(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    invented = ANSWER.model_copy(update={"treatment_var": "horoscope"})
    _, ended = pipeline.with_client(ScriptedDrafter(invented)).run(job_id)
    assert ended[job_id].code == "DRAFT_UNKNOWN_COLUMN"
    assert "horoscope" in ended[job_id].message


def test_a_failed_job_that_is_run_again_starts_anew(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    drafter = ScriptedDrafter(DraftError("no idea", code="DRAFT_INVALID"), ANSWER)
    scripted = pipeline.with_client(drafter)
    _, ended = scripted.run(job_id)
    assert ended[job_id].ending == "failed"
    _, ended = scripted.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"
    assert pipeline.job(job_id).failure is None


@pytest.mark.guarantee("R6")
def test_a_run_killed_before_its_commit_is_repeated_and_publishes_one_version(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    events = work_off([job_id], tenant_id="default", claim_id="killed", owner="run:killed", parts=pipeline.work)
    for event in events:
        if isinstance(event, StageDone) and event.stage is Stage.ANALYSIS_DRAFT:
            break
    events.close()  # type: ignore[attr-defined]
    assert pipeline.job(job_id).status == "running"
    _, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"
    job = pipeline.job(job_id)
    assert [p.version for p in job.publications] == [1]


class _FullDisk(JobStore):
    """Saves fail as on a full disk."""

    def save(self, job: Job, *, fence: Fence | None = None) -> Job:
        raise StoreUnavailableError("no space left on device")


def test_a_passing_fault_of_the_medium_gives_the_job_back(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    full = replace(pipeline, work=replace(pipeline.work, jobs=_FullDisk(pipeline.parts.jobs.backend)))
    _, ended = full.run(job_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("released", "STORE_UNAVAILABLE")
    assert pipeline.job(job_id).status == "created"
    _, ended = pipeline.run(job_id, claim_id="claim_2")
    assert ended[job_id].ending == "published"


@pytest.mark.parametrize("status", ["cancelled", "held"])
def test_a_cancelled_or_held_job_is_left_alone(pipeline: Pipeline, status: str) -> None:
    job_id = pipeline.a_job()
    job = pipeline.job(job_id)
    at = pipeline.parts.clock.timestamp()
    changed = decision.cancel(job, by="ann", at=at) if status == "cancelled" else job.changed(held="on request")
    pipeline.parts.jobs.save(changed)
    done, ended = pipeline.run(job_id)
    assert done == []
    assert ended[job_id].ending == "skipped"
    assert pipeline.parts.jobs.backend.claim_of(job_key(job_id)) is None
