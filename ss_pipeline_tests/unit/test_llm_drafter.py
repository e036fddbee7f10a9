"""The drafter that asks models: repair, the next model, the rules marked as such; against models that do as told."""

import asyncio
import json
from typing import Any

import pytest

from ss_pipeline.errors import (
    DraftError,
    LLMBudgetError,
    LLMOutcomeUnknownError,
    LLMRefusedError,
    LLMUnavailableError,
    SSError,
)
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.llm.base import Drafted, DraftRequest
from ss_pipeline.llm.drafter import Candidate, Drafting, ModelDrafter
from ss_pipeline.llm.model import Completion, FinishReason, LanguageModel, Question, Usage
from ss_pipeline.llm.prompts.writing import Asking, QuestionWriter
from ss_pipeline.llm.rules.client import RuleDrafter
from ss_pipeline.stages.drafting.stage import check_answer
from ss_pipeline_tests.profiles import a_column, a_dataset, a_profile

GOOD = {"draft_text": "Wages on education.", "outcome_var": "wage", "treatment_var": "educ", "method": "ols"}
DOWN = LLMUnavailableError("down")


def said(text: str | None = None, *, reason: FinishReason = "stop", **fields: Any) -> Completion:
    body = json.dumps({**GOOD, **fields}) if text is None else text
    return Completion(text=body, finish_reason=reason, model="m", usage=Usage(100, 10))


class Told(LanguageModel):
    """Answers or raises what it is told, in turn."""

    def __init__(self, *endings: Completion | SSError, name: str = "openai/m") -> None:
        self._endings = list(endings)
        self._name = name
        self.questions: list[Question] = []

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, question: Question) -> Completion:
        self.questions.append(question)
        ending = self._endings.pop(0)
        if isinstance(ending, SSError):
            raise ending
        return ending


def a_drafter(*models: Told, on_failure: Any = "rules") -> ModelDrafter:
    asking = Asking(provider="openai", model="m", schema={})
    drafting = Drafting(writer=QuestionWriter(secret=b"s"), rules=RuleDrafter(), check=check_answer)
    return ModelDrafter([Candidate(model, asking) for model in models], drafting=drafting, on_failure=on_failure)


def drafted(
    *models: Told,
    requirement: str = "Does educ raise wage?",
    profile: JobProfile | None = None,
    on_failure: Any = "rules",
) -> Drafted:
    request = DraftRequest("job_a", "default", requirement, None, profile or a_profile())
    return asyncio.run(a_drafter(*models, on_failure=on_failure).draft(request))


def test_a_good_answer_is_the_models_draft() -> None:
    model = Told(said())

    done = drafted(model)

    assert (done.drafter, done.answer.outcome_var) == ("openai/m", "wage")
    assert done.origin
    assert (done.origin.asked, done.origin.prompt_versions) == (["openai/m"], ["draft/1"])
    assert done.origin.ledger_keys == [model.questions[0].key]
    assert (done.origin.input_tokens, done.origin.fallback_code) == (100, None)


@pytest.mark.guarantee("L1", "L3")
@pytest.mark.parametrize(
    ("first", "told"),
    [
        (said("Sure!"), "not one JSON object"),
        (said(outcome_var="salary"), "'salary', which is no column"),
        (said(outcome_var="educ"), "both outcome and treatment"),
        (said(status="succeeded"), "status"),
        (said(draft_text="The mean is 987.6."), "987.6"),
        (said(reason="length"), "cut off"),
    ],
)
def test_an_unusable_answer_is_asked_for_once_more_with_its_faults_named(first: Completion, told: str) -> None:
    model = Told(first, said())

    done = drafted(model)

    assert done.drafter == "openai/m"
    draft, repair = model.questions
    assert (draft.operation, repair.operation) == ("draft", "repair")
    assert told in repair.prompt.user
    assert done.origin
    assert (done.origin.ledger_keys, done.origin.input_tokens) == ([draft.key, repair.key], 200)


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize(
    ("endings", "code"),
    [
        ([said("no"), said("still no")], "DRAFT_INVALID"),
        ([said(outcome_var="x"), said(outcome_var="y")], "DRAFT_UNKNOWN_COLUMN"),
        ([said(draft_text="987.6"), said(draft_text="987.6")], "DRAFT_UNGROUNDED"),
        ([said("I will not.", reason="refusal")], "LLM_ANSWER_REFUSED"),
        ([DOWN], "LLM_UNAVAILABLE"),
        ([LLMOutcomeUnknownError("?")], "LLM_OUTCOME_UNKNOWN"),
        ([LLMRefusedError("401", code="LLM_KEY_REFUSED")], "LLM_KEY_REFUSED"),
    ],
)
def test_where_no_answer_can_be_used_the_rules_draft_and_it_says_so(
    endings: list[Completion | SSError], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ss_pipeline")
    done = drafted(Told(*endings))

    assert (done.drafter, done.answer.outcome_var) == ("rules/1", "wage")
    assert done.origin
    assert (done.origin.asked, done.origin.fallback_code) == (["openai/m"], code)
    assert done.origin.fallback_reason
    assert [record.message for record in caplog.records][-1] == "SS_LLM_FALLBACK_USED"


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize(
    ("endings", "error"), [([DOWN], LLMUnavailableError), ([said("no"), said("still no")], DraftError)]
)
def test_a_tenant_may_rather_have_the_job_fail(endings: list[Completion | SSError], error: type[SSError]) -> None:
    with pytest.raises(error):
        drafted(Told(*endings), on_failure="fail")


def test_the_next_model_is_asked_before_anyone_stands_in() -> None:
    first, second = Told(DOWN), Told(said(), name="qwen/plus")

    done = drafted(first, second)

    assert done.drafter == "qwen/plus"
    assert done.origin
    assert (done.origin.asked, done.origin.fallback_code) == (["openai/m", "qwen/plus"], None)


@pytest.mark.guarantee("L2")
def test_nobody_stands_in_for_a_model_that_there_is_no_budget_for() -> None:
    second = Told(said(), name="qwen/plus")

    with pytest.raises(LLMBudgetError):
        drafted(Told(LLMBudgetError("spent", resets_at="2026-01-07T00:00:00+00:00")), second)

    assert second.questions == []


@pytest.mark.guarantee("L5")
def test_secrets_leave_in_no_question_and_names_of_columns_come_back() -> None:
    columns = [a_column("jane@example.org"), a_column("educ"), a_column("exper")]
    profile = JobProfile(job_id="job_a", datasets=[a_dataset(columns)])
    model = Told(said("no"), said(outcome_var="[EMAIL_1]", draft_text="For [EMAIL_2]."))
    requirement = "Does educ raise jane@example.org? Ask bob@example.org; key sk-T3stAbCdEfGh12IjKlMnOp34."

    done = drafted(model, requirement=requirement, profile=profile)

    sent = "".join(question.prompt.user for question in model.questions)
    assert "example.org" not in sent
    assert "sk-T3st" not in sent
    assert done.answer.draft_text == "For [EMAIL_2]."
    assert done.answer.outcome_var == "jane@example.org"


@pytest.mark.guarantee("L5")
def test_a_fault_that_names_a_redacted_column_is_told_without_it() -> None:
    columns = [a_column("jane@example.org"), a_column("educ")]
    profile = JobProfile(job_id="job_a", datasets=[a_dataset(columns)])
    twice: dict[str, Any] = {"outcome_var": "[EMAIL_1]", "treatment_var": "[EMAIL_1]"}
    model = Told(said(**twice), said(**twice))

    done = drafted(model, profile=profile, requirement="Does educ matter?")

    assert "example.org" not in model.questions[1].prompt.user
    assert done.origin
    assert done.origin.fallback_reason
    assert "example.org" not in done.origin.fallback_reason


@pytest.mark.guarantee("L2")
def test_in_wide_data_the_columns_that_the_rules_would_name_are_shown() -> None:
    columns = [a_column(f"v{number}") for number in range(2_000)]
    profile = JobProfile(job_id="job_a", datasets=[a_dataset([*columns, a_column("wage"), a_column("educ")])])
    model = Told(said())

    done = drafted(model, profile=profile)

    assert '"name": "wage"' in model.questions[0].prompt.user
    assert done.origin
    assert done.origin.columns_shown == 300
