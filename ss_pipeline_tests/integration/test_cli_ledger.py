"""The verbs `ss-pipeline ledger …` on what a pipeline with a language model left behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ss_pipeline.cli import app
from ss_pipeline.job_run import Stage
from ss_pipeline_tests.fake_llm.process import FakeLLM, fake_llm
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline

GOOD = {"draft_text": "Wages on education.", "outcome_var": "wage", "treatment_var": "educ", "method": "ols"}
PRICES = {"openai/gpt-4o-mini": {"input": 0.15, "output": 0.6}}


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    with fake_llm() as running:
        running.does(answer=json.dumps(GOOD))
        yield running


@pytest.fixture
def environment(tmp_path: Path, server: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = {
        "SS_DATA_DIR": str(tmp_path),
        "SS_LLM_PROVIDER": "openai",
        "SS_LLM_MODEL": "gpt-4o-mini",
        "SS_LLM_BASE_URL": server.openai_url,
        "SS_LLM_API_KEYS": '{"openai": "sk-test"}',
        "SS_LLM_PRICES": json.dumps(PRICES),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def pipeline(environment: dict[str, str], tmp_path: Path) -> Pipeline:
    del environment  # the settings read it
    return a_pipeline(tmp_path)


def ledger(*words: str, exit_code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["ledger", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def a_drafted_job(pipeline: Pipeline, name: str = "wages", **submission: object) -> str:
    job_id = pipeline.a_job(name, **submission)
    pipeline.run(job_id, claim_id=f"claim_{name}", tenant_id=str(submission.get("tenant_id", "default")))
    return job_id


def test_calls_are_listed_and_one_is_shown_with_its_answer(pipeline: Pipeline) -> None:
    job_id = a_drafted_job(pipeline)
    (call,) = ledger("list", "--job", job_id, "--state", "settled")
    assert (call["job_id"], call["state"], call["answer"]["calls"]) == (job_id, "settled", 1)
    shown = ledger("show", call["key"][:10])
    assert json.loads(shown["answer"]["text"]) == GOOD
    assert (Path(shown["trace"]) / "prompt.txt").is_file()
    assert ledger("list", "--since", "2999-01-01") == []


def test_a_key_that_no_call_has_is_an_error(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    del pipeline, capsys
    result = CliRunner().invoke(app, ["ledger", "show", "0000"])
    assert result.exit_code == 1
    assert "no call has a key" in str(result.exception)


def test_costs_are_added_up_by_what_is_asked_for(pipeline: Pipeline) -> None:
    a_drafted_job(pipeline)
    a_drafted_job(pipeline, "other", tenant_id="acme", requirement="Does exper raise wage?")
    (all_of_it,) = ledger("cost", "--by", "model")
    assert (all_of_it["model"], all_of_it["questions"], all_of_it["calls"]) == ("openai/gpt-4o-mini", 2, 2)
    assert all_of_it["unpriced"] == 0
    spent = (all_of_it["input_tokens"] * 0.15 + all_of_it["output_tokens"] * 0.6) / 1e6
    assert float(all_of_it["cost"]) == pytest.approx(spent)
    by_tenant = ledger("cost", "--by", "tenant", "--by", "day")
    assert [row["tenant"] for row in by_tenant] == ["acme", "default"]
    table = CliRunner().invoke(app, ["ledger", "cost"]).output
    assert "no price" in table
    assert CliRunner().invoke(app, ["ledger", "cost", "--by", "week"]).exit_code == 2


def test_a_draft_is_made_again_from_the_record_without_a_call(pipeline: Pipeline, server: FakeLLM) -> None:
    job_id = a_drafted_job(pipeline)
    before = server.seen().calls
    replayed = ledger("replay", job_id)
    assert (replayed["same"], replayed["draft"]["text"]) == (True, GOOD["draft_text"])
    assert server.seen().calls == before


def test_what_is_not_on_record_is_not_asked_for_and_the_difference_is_named(
    pipeline: Pipeline, server: FakeLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = a_drafted_job(pipeline)
    monkeypatch.setenv("SS_LLM_MODEL", "gpt-4o")
    before = server.seen().calls
    replayed = ledger("replay", job_id, exit_code=1)
    assert "drafter" in replayed["different"]
    assert replayed["draft"]["origin"]["fallback_code"] == "LLM_NOT_ON_RECORD"
    assert server.seen().calls == before


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize("number", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_jobs_that_are_all_drafted_again_cost_no_call(pipeline: Pipeline, server: FakeLLM, number: int) -> None:
    jobs = [pipeline.a_job(f"s{n}", requirement=f"Does educ raise wage in year {1900 + n}?") for n in range(number)]
    pipeline.run(*jobs)
    paid = server.seen().calls
    assert paid == number
    for again in range(2):
        done, _ = pipeline.run(*jobs, stages=frozenset({Stage.ANALYSIS_DRAFT}), claim_id=f"again_{again}")
        assert len(done) == number
    assert server.seen().calls == paid
