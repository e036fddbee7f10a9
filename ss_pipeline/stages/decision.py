"""The decision stage: who lets a draft be published — policy where nothing blocks, else a person (DESIGN §10.3).

A decision is bound to the sha256 of the draft it was taken on. Pure functions from job to job; saving is the
caller's business. Also here: what a person may do to a job besides deciding (send back, retry, cancel).
"""

from collections.abc import Mapping
from typing import Literal

from ss_pipeline.errors import DecisionError
from ss_pipeline.jobs.drafts import Draft, OpenUnknown, Stage1Question
from ss_pipeline.jobs.lifecycle import is_decided, transition
from ss_pipeline.jobs.model import TERMINAL_STATUSES, Decision, Job

AUTO_POLICY = "policy:auto"
COLUMN_FIELDS = ("outcome_var", "treatment_var", "time_var", "entity_var", "cluster_var", "instrument_var")
MAX_CANDIDATES = 300
"""A draft lists at most so many columns; in wider data an answer is checked against the profile when publishing."""


def decide_by_policy(job: Job, *, policy: Literal["auto", "always"], at: str) -> Job:
    """The job confirmed by policy if nothing in its draft blocks; unchanged if a person must decide."""
    draft = _draft_of(job)
    if policy == "always" or draft.needs_answers():
        return job
    return _decided(job, draft, action="approve", by=AUTO_POLICY, at=at, note=None, answers={})


def confirm(job: Job, *, by: str, at: str, answers: Mapping[str, str] | None = None, note: str | None = None) -> Job:
    """The job confirmed by a person, with the answers put into its draft.

    Args:
        answers: Field of an open unknown (`outcome_var`) or question id → column name or option.

    Raises:
        DecisionError: DECISION_NOT_AWAITED, DECISION_BLOCKED (an answer is missing), DECISION_ANSWER_UNKNOWN
            (no such question), DECISION_ANSWER_INVALID (no such column or option).
    """
    draft = _draft_of(job)
    if not awaits_decision(job):
        raise DecisionError(
            f"job {job.job_id!r} is {job.status}: no decision is awaited",
            code="DECISION_NOT_AWAITED",
            todo=f"See where it stands: ss-pipeline why {job.job_id}",
        )
    given = dict(answers or {})
    edited = _with_answers(job, draft, given)
    _refuse_open_questions(job, edited, given)
    action: Literal["approve", "edit"] = "approve" if edited == draft else "edit"
    return _decided(job, edited, action=action, by=by, at=at, note=note, answers=given)


def send_back(job: Job, *, by: str, at: str, note: str) -> Job:
    """The job back to drafting, with what should be different."""
    draft = _draft_of(job)
    if job.status != "draft_ready":
        raise DecisionError(
            f"job {job.job_id!r} is {job.status}: only a draft in review can be sent back", code="DECISION_NOT_AWAITED"
        )
    decision = Decision(action="send_back", by=by, at=at, draft_sha256=draft.sha256, note=note)
    return transition(job.changed(decision=decision), "created", at=at, by=by, reason="sent_back")


def retry(job: Job, *, by: str, at: str) -> Job:
    """A failed job, requeued: publication if its draft was confirmed, else drafting. A parked one goes on at once."""
    if job.parked and job.status not in {"failed", *TERMINAL_STATUSES}:
        return job.changed(parked=None, updated_at=at)
    if job.status != "failed":
        raise DecisionError(
            f"job {job.job_id!r} is {job.status}: only a failed job can be retried", code="DECISION_NOT_AWAITED"
        )
    return transition(job.changed(parked=None), _status_after_retry(job), at=at, by=by, reason="retried")


def cancel(job: Job, *, by: str, at: str) -> Job:
    """The job cancelled for good; what was published stays.

    Raises:
        JobIllegalTransitionError: the job is finished.
    """
    return transition(job.changed(parked=None), "cancelled", at=at, by=by, reason="cancelled")


def awaits_decision(job: Job) -> bool:
    """Whether a person's decision would change something: a draft in review, or a new revision of a published job."""
    if job.status == "draft_ready":
        return True
    return job.status == "succeeded" and job.draft is not None and not is_decided(job)


def open_questions(draft: Draft) -> dict[str, str]:
    """What must be answered: the name to answer by → the question, with its candidates."""
    questions = {q.question_id: _question_line(q) for q in draft.stage1_questions}
    return questions | {u.field: _unknown_line(u) for u in draft.blocking_unknowns()}


def _decided(
    job: Job,
    draft: Draft,
    *,
    action: Literal["approve", "edit"],
    by: str,
    at: str,
    note: str | None,
    answers: dict[str, str],
) -> Job:
    decision = Decision(action=action, by=by, at=at, draft_sha256=draft.sha256, note=note, answers=answers)
    decided = job.changed(draft=draft, decision=decision, updated_at=at)
    if job.status != "draft_ready":
        return decided
    return transition(decided, "confirmed", at=at, by=by, reason=action)


def _with_answers(job: Job, draft: Draft, answers: Mapping[str, str]) -> Draft:
    questions = {q.question_id: q for q in draft.stage1_questions}
    unknown_fields = {u.field for u in draft.open_unknowns}
    changes: dict[str, object] = {}
    for name, value in answers.items():
        if name in questions:
            _check_option(questions[name], value)
        elif name in unknown_fields or name in COLUMN_FIELDS:
            _check_column(name, value, draft)
            changes[name] = value
        else:
            names = ", ".join(sorted(open_questions(draft))) or "none"
            raise DecisionError(
                f"job {job.job_id!r} has no question {name!r} (open: {names})", code="DECISION_ANSWER_UNKNOWN"
            )
    left = [u for u in draft.open_unknowns if u.field not in answers]
    asked = [q for q in draft.stage1_questions if q.question_id not in answers]
    if not answers:
        return draft
    return draft.model_copy(
        update={**_roles_kept_apart(draft, changes), "open_unknowns": left, "stage1_questions": asked}
    )


def _roles_kept_apart(draft: Draft, changes: dict[str, object]) -> dict[str, object]:
    """A column that an answer made outcome or treatment is no control any more."""
    fields = {name: value for name, value in changes.items() if name in type(draft).model_fields}
    taken = set(fields.values())
    return {**fields, "controls": [name for name in draft.controls if name not in taken]}


def _refuse_open_questions(job: Job, draft: Draft, given: Mapping[str, str]) -> None:
    missing = {name: line for name, line in open_questions(draft).items() if name not in given}
    if missing:
        flags = " ".join(f"--answer {name}=…" for name in missing)
        raise DecisionError(
            f"job {job.job_id!r} has open questions: " + "; ".join(missing.values()),
            code="DECISION_BLOCKED",
            todo=f"ss-pipeline confirm {job.job_id} {flags}",
        )
    if draft.outcome_var and draft.outcome_var == draft.treatment_var:
        raise DecisionError(
            f"{draft.outcome_var!r} cannot be outcome and treatment at once", code="DECISION_ANSWER_INVALID"
        )


def _check_column(name: str, value: str, draft: Draft) -> None:
    known = draft.column_candidates
    if name in COLUMN_FIELDS and value not in known and len(known) < MAX_CANDIDATES:
        shown = ", ".join(known[:20])
        raise DecisionError(
            f"{name}={value!r} is no column of the data (columns: {shown})", code="DECISION_ANSWER_INVALID"
        )


def _check_option(question: Stage1Question, value: str) -> None:
    allowed = [option.option_id for option in question.options]
    if allowed and value not in allowed:
        raise DecisionError(
            f"{question.question_id}={value!r} is no option (options: {', '.join(allowed)})",
            code="DECISION_ANSWER_INVALID",
        )


def _question_line(question: Stage1Question) -> str:
    options = ", ".join(option.option_id for option in question.options)
    return f"{question.question_text} ({options})" if options else question.question_text


def _unknown_line(unknown: OpenUnknown) -> str:
    candidates = ", ".join(unknown.candidates[:5])
    return f"{unknown.description} ({candidates})" if candidates else unknown.description


def _status_after_retry(job: Job) -> Literal["queued", "created"]:
    return "queued" if is_decided(job) else "created"


def _draft_of(job: Job) -> Draft:
    if job.draft is None:
        raise DecisionError(
            f"job {job.job_id!r} has no draft yet", code="DECISION_NOT_AWAITED", todo="Wait until it is drafted."
        )
    return job.draft
