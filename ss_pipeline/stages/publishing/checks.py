"""What must hold before a draft is published; shown to people as asset checks, enforced by prepare_publication."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.stages.publishing.analysis import METHODS, columns_named

DECISION_CHECK = "decision_matches_draft"


@dataclass(frozen=True)
class Check:
    """One condition, whether it holds, whether publication depends on it, and what was found."""

    name: str
    passed: bool
    blocking: bool
    message: str


def checks_before_publishing(job: Job, profile: JobProfile) -> list[Check]:
    """All conditions of publishing this job's draft, held or not."""
    return [
        _draft_names_real_columns(job.draft, profile),
        _draft_matches_schema(job.draft),
        _profile_has_rows(profile),
        _decision_matches_draft(job),
    ]


def _draft_names_real_columns(draft: Draft | None, profile: JobProfile) -> Check:
    if draft is None:
        return _check("draft_names_real_columns", "there is no draft")
    columns = {column.name for data in profile.datasets if data.role == "primary_dataset" for column in data.columns}
    unreal = [name for name in columns_named(draft) if name not in columns]
    named = ", ".join(repr(name[:80]) for name in unreal[:10])
    return _check("draft_names_real_columns", f"no column of the data: {named}" if unreal else "", "all are columns")


def _draft_matches_schema(draft: Draft | None) -> Check:
    """A draft is validated when it is loaded, but an answer put into it by a copy is not."""
    if draft is None:
        return _check("draft_matches_schema", "there is no draft")
    return _check("draft_matches_schema", _schema_problem(draft.model_dump(warnings=False)), "the draft is valid")


def _schema_problem(payload: dict[str, Any]) -> str:
    try:
        draft = Draft.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if not draft.text.strip():
        return "text: says nothing"
    if draft.method is not None and draft.method not in METHODS:
        return f"method: {draft.method[:40]!r} is unknown"
    if draft.outcome_var and draft.outcome_var == draft.treatment_var:
        return "treatment_var: the same column as outcome_var"
    return ""


def _profile_has_rows(profile: JobProfile) -> Check:
    primary = next((data for data in profile.datasets if data.role == "primary_dataset"), None)
    if primary is None:
        return _check("profile_has_rows", "there is no primary data set")
    problem = "" if primary.rows > 0 and primary.columns else f"{primary.rows} rows, {len(primary.columns)} columns"
    return _check("profile_has_rows", problem, f"{primary.rows} rows")


def _decision_matches_draft(job: Job) -> Check:
    if job.draft is None:
        return _check(DECISION_CHECK, "there is no draft")
    if job.decision is None:
        return _check(DECISION_CHECK, "nobody has decided on the draft")
    if job.decision.action == "send_back":
        return _check(DECISION_CHECK, "the draft was sent back")
    changed = job.decision.draft_sha256 != job.draft.sha256
    return _check(DECISION_CHECK, "the draft was changed after the decision" if changed else "", job.decision.action)


def _check(name: str, problem: str, found: str = "") -> Check:
    return Check(name, passed=not problem, blocking=True, message=problem or found)
