"""The jobs of one claim beside each other: while one waits for its answer, the next is begun."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ss_pipeline.claim_run import work_off
from ss_pipeline.job_run import JobEnded, Stage, StageDone
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.store.jobs import job_key
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline

ANSWER = DraftAnswer(draft_text="Wage on education.", outcome_var="wage", treatment_var="educ", controls=["exper"])


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


class _Remote(LLMClient):
    """Answers once `together` have asked, and those named in `held_back` only when they are let go."""

    def __init__(self, *, together: int, held_back: Sequence[str] = ()) -> None:
        self._together = together
        self._asked = 0
        self._all_asked = asyncio.Event()
        self.let_go = {job_id: asyncio.Event() for job_id in held_back}

    @property
    def name(self) -> str:
        return "remote/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        self._asked += 1
        if self._asked == self._together:
            self._all_asked.set()
        async with asyncio.timeout(20):
            await self._all_asked.wait()
            if request.job_id in self.let_go:
                await self.let_go[request.job_id].wait()
        return ANSWER


class _Silent(LLMClient):
    """Answers nobody; `stop` is raised into the run once `after` have asked."""

    def __init__(self, *, after: int, stop: BaseException) -> None:
        self._after = after
        self._stop = stop
        self.asked: list[str] = []

    @property
    def name(self) -> str:
        return "silent/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        self.asked.append(request.job_id)
        if len(self.asked) == self._after:
            raise self._stop
        await asyncio.Event().wait()
        raise AssertionError("nobody answers")


def some_jobs(pipeline: Pipeline, number: int) -> list[str]:
    return [pipeline.a_job(f"wages{i}", requirement=f"Effect of educ on wage, part {i}") for i in range(number)]


def attempts(pipeline: Pipeline, job_ids: list[str]) -> list[int]:
    return [pipeline.parts.jobs.backend.attempts_of(job_key(job_id)) for job_id in job_ids]


def test_the_calls_of_a_claim_are_on_their_way_together(pipeline: Pipeline) -> None:
    job_ids = some_jobs(pipeline, 10)
    _, ended = pipeline.with_client(_Remote(together=10)).run(*job_ids)
    assert [ended[job_id].ending for job_id in job_ids] == ["published"] * 10


def test_whose_answer_comes_first_is_published_first(pipeline: Pipeline) -> None:
    job_ids = some_jobs(pipeline, 4)
    order = [job_ids[2], job_ids[0], job_ids[3], job_ids[1]]
    drafter = _Remote(together=4, held_back=order[1:])
    work = pipeline.with_client(drafter).work
    ended: list[str] = []
    for event in work_off(job_ids, tenant_id="default", claim_id="claim_1", owner="run:test", parts=work):
        if isinstance(event, JobEnded):
            ended.append(event.job_id)
            if len(ended) < len(order):
                drafter.let_go[order[len(ended)]].set()
    assert ended == order


def test_with_a_drafter_that_waits_for_nobody_a_job_is_finished_before_the_next_is_begun(pipeline: Pipeline) -> None:
    job_ids = some_jobs(pipeline, 3)
    events = work_off(job_ids, tenant_id="default", claim_id="claim_1", owner="run:test", parts=pipeline.work)
    seen = [(e.job.job_id, str(e.stage)) if isinstance(e, StageDone) else (e.job_id, "ended") for e in events]
    assert seen == [(job_id, part) for job_id in job_ids for part in [*map(str, Stage), "ended"]]


@pytest.mark.parametrize("stop", [RuntimeError("a bug"), KeyboardInterrupt()], ids=["fault", "interrupt"])
def test_a_run_that_ends_in_one_job_gives_back_those_that_only_waited(pipeline: Pipeline, stop: BaseException) -> None:
    job_ids = some_jobs(pipeline, 5)
    drafter = _Silent(after=3, stop=stop)
    with pytest.raises(type(stop)):
        pipeline.with_client(drafter).run(*job_ids)
    assert drafter.asked == job_ids[:3]
    assert attempts(pipeline, job_ids) == [0, 0, 1, 0, 0]
    assert len(pipeline.parts.jobs.waiting(per_group=10)) == 5


def test_a_run_that_is_stopped_while_a_stage_is_recorded_counts_for_that_job_and_not_for_one_that_waits(
    pipeline: Pipeline,
) -> None:
    job_ids = some_jobs(pipeline, 2)
    remote = pipeline.with_client(_Silent(after=99, stop=RuntimeError()))
    events = work_off(job_ids, tenant_id="default", claim_id="claim_1", owner="run:test", parts=remote.work)
    stages = [next(events) for _ in range(6)]
    assert [event.stage for event in stages if isinstance(event, StageDone)] == list(Stage)[:3] * 2
    events.close()  # type: ignore[attr-defined]
    assert attempts(pipeline, job_ids) == [0, 1]
    _, ended = pipeline.run(*job_ids, claim_id="claim_2")
    assert [ended[job_id].ending for job_id in job_ids] == ["published"] * 2


def test_a_job_with_a_fault_of_its_own_ends_no_neighbour_that_waits(pipeline: Pipeline) -> None:
    good, last = some_jobs(pipeline, 2)
    bad = pipeline.a_job("bad", csv="wage,educ\n")
    _, ended = pipeline.with_client(_Remote(together=2)).run(good, bad, last)
    assert {job_id: event.ending for job_id, event in ended.items()} == {
        good: "published",
        bad: "failed",
        last: "published",
    }
