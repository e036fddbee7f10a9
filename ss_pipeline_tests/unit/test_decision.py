"""The decision stage: policy, a person's answers, sending back, retrying, cancelling."""

from typing import Any

import pytest

from ss_pipeline.errors import DecisionError, JobIllegalTransitionError
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.lifecycle import history_is_intact, is_decided, transition
from ss_pipeline.jobs.model import Job
from ss_pipeline.stages import decision
from ss_pipeline_tests.builders import CREATED_AT, a_job

AT = "2026-01-06T13:00:00+00:00"


def _draft(**fields: Any) -> Draft:
    return Draft.model_validate(
        {
            "text": "Wage on education.",
            "created_at": CREATED_AT,
            "outcome_var": "wage",
            "treatment_var": "educ",
            "controls": ["exper"],
            "column_candidates": ["wage", "educ", "exper", "age"],
            **fields,
        }
    )


def _asks_for_outcome() -> Draft:
    unknown = {"field": "outcome_var", "description": "Which is it?", "impact": "high", "candidates": ["wage", "age"]}
    return _draft(outcome_var=None, open_unknowns=[unknown])


def _in_review(draft: Draft) -> Job:
    return transition(a_job().changed(draft=draft), "draft_ready", at=AT, by="run:1")


def test_a_draft_in_which_nothing_blocks_is_confirmed_by_policy() -> None:
    job = decision.decide_by_policy(_in_review(_draft()), policy="auto", at=AT)
    assert (job.status, job.decision and job.decision.by) == ("confirmed", decision.AUTO_POLICY)
    assert is_decided(job)
    assert history_is_intact(job)


@pytest.mark.parametrize(
    ("draft", "policy"),
    [
        (_asks_for_outcome(), "auto"),
        (_draft(open_unknowns=[{"field": "x", "description": "?", "impact": "low", "blocking": True}]), "auto"),
        (_draft(stage1_questions=[{"question_id": "q", "question_text": "?", "question_type": "single"}]), "auto"),
        (_draft(), "always"),
    ],
)
def test_a_draft_with_something_to_settle_waits_for_a_person(draft: Draft, policy: Any) -> None:
    job = _in_review(draft)
    assert decision.decide_by_policy(job, policy=policy, at=AT) == job
    assert decision.awaits_decision(job)


def test_an_unknown_of_low_impact_does_not_block() -> None:
    draft = _draft(open_unknowns=[{"field": "cluster_var", "description": "?", "impact": "low"}])
    assert decision.decide_by_policy(_in_review(draft), policy="auto", at=AT).status == "confirmed"


def test_an_answer_is_put_into_the_draft_and_the_decision_is_bound_to_it() -> None:
    job = decision.confirm(_in_review(_asks_for_outcome()), by="ann", at=AT, answers={"outcome_var": "wage"}, note="ok")
    assert job.draft is not None
    assert job.decision is not None
    assert (job.status, job.draft.outcome_var, job.draft.open_unknowns) == ("confirmed", "wage", [])
    assert (job.decision.action, job.decision.by, job.decision.answers) == ("edit", "ann", {"outcome_var": "wage"})
    assert job.decision.draft_sha256 == job.draft.sha256


def test_a_control_that_becomes_the_outcome_is_no_control_any_more() -> None:
    unknown = {"field": "outcome_var", "description": "?", "impact": "high"}
    draft = _draft(outcome_var=None, controls=["exper", "age"], open_unknowns=[unknown])
    job = decision.confirm(_in_review(draft), by="ann", at=AT, answers={"outcome_var": "age"})
    assert job.draft is not None
    assert job.draft.controls == ["exper"]


@pytest.mark.parametrize(
    ("answers", "code", "named"),
    [
        ({}, "DECISION_BLOCKED", "--answer outcome_var=…"),
        ({"outcome_var": "salary"}, "DECISION_ANSWER_INVALID", "salary"),
        ({"outcome_var": "educ"}, "DECISION_ANSWER_INVALID", "outcome and treatment"),
        ({"colour": "red"}, "DECISION_ANSWER_UNKNOWN", "colour"),
    ],
)
def test_a_missing_or_wrong_answer_is_refused_and_named(answers: dict[str, str], code: str, named: str) -> None:
    with pytest.raises(DecisionError) as caught:
        decision.confirm(_in_review(_asks_for_outcome()), by="ann", at=AT, answers=answers)
    assert caught.value.error_code == code
    assert named in caught.value.message + caught.value.todo


def test_a_question_with_options_takes_only_one_of_them() -> None:
    options = [{"option_id": "yes", "label": "Yes"}, {"option_id": "no", "label": "No"}]
    question = {"question_id": "q1", "question_text": "Log?", "question_type": "single", "options": options}
    job = _in_review(_draft(stage1_questions=[question]))
    with pytest.raises(DecisionError, match="no option"):
        decision.confirm(job, by="ann", at=AT, answers={"q1": "perhaps"})
    assert decision.confirm(job, by="ann", at=AT, answers={"q1": "yes"}).status == "confirmed"


def test_two_unknowns_without_candidates_are_asked_for_by_name_alone() -> None:
    unknowns = [{"field": name, "description": f"Which {name}?", "impact": "high"} for name in ("outcome_var", "x")]
    asked = decision.open_questions(_draft(open_unknowns=unknowns))
    assert asked == {"outcome_var": "Which outcome_var?", "x": "Which x?"}


def test_a_job_that_awaits_no_decision_cannot_be_confirmed() -> None:
    with pytest.raises(DecisionError, match="no draft yet"):
        decision.confirm(a_job(), by="ann", at=AT)
    confirmed = decision.confirm(_in_review(_draft()), by="ann", at=AT)
    with pytest.raises(DecisionError) as caught:
        decision.confirm(confirmed, by="bob", at=AT)
    assert caught.value.error_code == "DECISION_NOT_AWAITED"


def test_a_draft_changed_after_its_decision_is_undecided() -> None:
    job = decision.confirm(_in_review(_draft()), by="ann", at=AT)
    assert not is_decided(job.changed(draft=_draft(text="Another text.")))


def test_a_sent_back_draft_is_drafted_again() -> None:
    job = decision.send_back(_in_review(_draft()), by="ann", at=AT, note="use logs")
    assert job.status == "created"
    assert not is_decided(job)
    with pytest.raises(DecisionError):
        decision.send_back(job, by="ann", at=AT, note="again")


@pytest.mark.parametrize(("decided", "target"), [(True, "queued"), (False, "created")])
def test_a_failed_job_is_retried_from_where_it_was(decided: bool, target: str) -> None:
    job = a_job()
    if decided:
        job = decision.confirm(_in_review(_draft()), by="ann", at=AT)
        job = transition(transition(job, "queued", at=AT, by="run:1"), "running", at=AT, by="run:1")
    failed = transition(job, "failed", at=AT, by="run:1", reason="INPUT_EMPTY")
    assert decision.retry(failed, by="ann", at=AT).status == target
    with pytest.raises(DecisionError):
        decision.retry(a_job(), by="ann", at=AT)


def test_a_finished_job_cannot_be_cancelled() -> None:
    cancelled = decision.cancel(a_job(), by="ann", at=AT)
    assert cancelled.status == "cancelled"
    job = decision.confirm(_in_review(_draft()), by="ann", at=AT)
    for status in ("queued", "running", "succeeded"):
        job = transition(job, status, at=AT, by="run:1")
    with pytest.raises(JobIllegalTransitionError):
        decision.cancel(job, by="ann", at=AT)
