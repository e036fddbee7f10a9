"""A job whose budget is used up is parked until it resets: no failure, no attempt, and it goes on by itself."""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ss_pipeline.errors import DecisionError, LLMBudgetError
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.llm.budgets import next_day
from ss_pipeline.llm.call_records import records
from ss_pipeline.stages import decision
from ss_pipeline.store.jobs import job_key
from ss_pipeline_tests.fake_llm.process import fake_llm
from ss_pipeline_tests.pipeline import Pipeline, ScriptedDrafter, a_pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


def parked(pipeline: Pipeline, *, seconds: float) -> str:
    """The id of a job that was just parked for so many seconds."""
    job_id = pipeline.a_job()
    until = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    over = ScriptedDrafter(LLMBudgetError("the tenant has spent its budget of the day", resets_at=until))
    _, ended = pipeline.with_client(over).run(job_id)
    assert (ended[job_id].ending, ended[job_id].code) == ("parked", "LLM_BUDGET_EXHAUSTED")
    return job_id


@pytest.mark.guarantee("L2")
def test_a_job_over_budget_is_parked_and_no_claim_takes_it(pipeline: Pipeline) -> None:
    job_id = parked(pipeline, seconds=3_600)
    job = pipeline.job(job_id)
    assert (job.status, job.failure) == ("created", None)
    shown = phase(job)
    assert (shown.phase, shown.reason) == ("parked", "LLM_BUDGET_EXHAUSTED")
    assert "goes on by itself" in shown.next_step
    assert pipeline.claims(room=5) == []
    key, backend = job_key(job_id), pipeline.parts.jobs.backend
    assert (backend.claim_of(key), backend.attempts_of(key)) == (None, 0)


@pytest.mark.guarantee("L2")
def test_a_parked_job_is_claimed_and_published_once_its_budget_resets(pipeline: Pipeline) -> None:
    job_id = parked(pipeline, seconds=0.5)
    time.sleep(0.6)
    claim = pipeline.claims(room=5)[0]
    assert claim.job_ids == (job_id,)
    _, ended = pipeline.run(job_id, claim_id=claim.claim_id)
    assert ended[job_id].ending == "published"
    assert pipeline.job(job_id).parked is None


def test_a_parked_job_may_be_parked_any_number_of_times(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    over = pipeline.with_client(ScriptedDrafter(LLMBudgetError("spent", resets_at=until)))
    for number in range(pipeline.work.max_attempts + 2):
        _, ended = over.run(job_id, claim_id=f"claim_{number}")
        assert ended[job_id].ending == "parked"


def test_a_person_lets_a_parked_job_go_on_at_once(pipeline: Pipeline) -> None:
    job_id = parked(pipeline, seconds=3_600)
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.retry(job, by="ann", at=at))
    assert pipeline.job(job_id).parked is None
    assert [claim.job_ids for claim in pipeline.claims(room=5)] == [(job_id,)]
    with pytest.raises(DecisionError):
        decision.retry(pipeline.job(job_id), by="ann", at=at)


@pytest.mark.guarantee("L2")
def test_of_five_jobs_a_budget_for_two_publishes_two_and_parks_three_until_midnight(tmp_path: Path) -> None:
    with fake_llm() as server:
        server.does(answer=json.dumps({"draft_text": "Wages.", "outcome_var": "wage", "treatment_var": "educ"}))
        model = {"llm_provider": "openai", "llm_model": "gpt-4o-mini", "llm_base_url": server.openai_url}
        learning = a_pipeline(tmp_path / "learning", **model, llm_api_keys={"openai": "k"})
        learning.run(learning.a_job("s0", requirement="Does educ raise wage in 1990?"))
        (record,) = records(learning.parts.jobs.backend)
        assert record.answer
        budget = 2 * record.answer.usage.tokens + record.expected.tokens - 1
        file = tmp_path / "tenants.toml"
        file.write_text(f"[default]\nbudget = {{ tokens_per_day = {budget} }}\n")
        pipeline = a_pipeline(tmp_path / "data", **model, llm_api_keys={"openai": "k"}, tenants_file=file)
        jobs = [pipeline.a_job(f"s{n}", requirement=f"Does educ raise wage in 199{n}?") for n in range(5)]
        _, ended = pipeline.run(*jobs)
        assert sorted(end.ending for end in ended.values()) == ["parked"] * 3 + ["published"] * 2
        midnight = next_day(pipeline.parts.clock.now())
        waiting = [job for job in map(pipeline.job, jobs) if job.parked]
        assert {job.parked.until for job in waiting if job.parked} == {midnight}
        assert server.seen().calls == 1 + 2
        file.unlink()
        richer = a_pipeline(tmp_path / "data", **model, llm_api_keys={"openai": "k"})
        _, ended = richer.run(*(job.job_id for job in waiting), claim_id="claim_2")
        assert {end.ending for end in ended.values()} == {"published"}
