"""The draft stage: from a job and its profile, by whichever drafter is given, to the draft the job document keeps.

Checks what the drafter answered against the profile. Storing the draft and moving the job on is the caller's business;
who may confirm it is the decision stage's.
"""

import logging
from dataclasses import replace
from typing import Any, Final, TypeAlias

from ss_pipeline.clock import Clock
from ss_pipeline.errors import DraftError, LLMError
from ss_pipeline.jobs.drafts import Draft, DraftAnswer, OpenUnknown, draft_id
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, JobProfile
from ss_pipeline.llm.base import Drafted, DraftRequest, LLMClient
from ss_pipeline.telemetry.events import emit

DRAFT_PREVIEW_SCHEMA_VERSION: Final = 2
MAX_COLUMNS_LISTED: Final = 300

_Column: TypeAlias = tuple[DatasetProfile, ColumnProfile]


async def draft_job(job: Job, *, profile: JobProfile, client: LLMClient, clock: Clock) -> Draft:
    """A checked draft for the job; its revision is one more than that of the draft the job has.

    Raises:
        DraftError: DRAFT_REQUIREMENT_MISSING; DRAFT_UNKNOWN_COLUMN or DRAFT_INVALID, naming the column;
            or what the drafter itself raises.
        LLMError: what the drafter itself raises.
    """
    try:
        drafted = await _checked(job, profile=profile, client=client)
    except (DraftError, LLMError) as error:
        emit(
            "SS_DRAFT_REFUSED",
            level=logging.WARNING,
            job_id=job.job_id,
            tenant_id=job.tenant_id,
            drafter=client.name,
            code=error.error_code,
        )
        raise
    draft = _draft(drafted, job=job, profile=profile, created_at=clock.timestamp())
    emit(
        "SS_DRAFT_CREATED",
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        draft_id=draft.draft_id,
        drafter=drafted.drafter,
        revision=draft.revision,
        decision=draft.decision,
    )
    return draft


async def _checked(job: Job, *, profile: JobProfile, client: LLMClient) -> Drafted:
    requirement = (job.requirement or "").strip()
    if not requirement:
        raise DraftError(
            f"job {job.job_id!r} has no requirement",
            code="DRAFT_REQUIREMENT_MISSING",
            todo="Submit the job again with a requirement that says what is to be analysed.",
        )
    request = DraftRequest(
        job_id=job.job_id, tenant_id=job.tenant_id, requirement=requirement, language=job.language, profile=profile
    )
    drafted = await client.draft(request)
    answer = _with_open_roles(drafted.answer)
    check_answer(answer, profile)
    return replace(drafted, answer=answer)


def check_answer(answer: DraftAnswer, profile: JobProfile) -> None:
    """Refuses an answer that names what is not there or gives one column two roles.

    Raises:
        DraftError: DRAFT_UNKNOWN_COLUMN or DRAFT_INVALID, naming the column.
    """
    known = {column.name for dataset in profile.datasets for column in dataset.columns}
    unknown = next((name for name in answer.columns_named() if name not in known), None)
    if unknown is not None:
        raise DraftError(f"the draft names {_shown(unknown)}, which is no column", code="DRAFT_UNKNOWN_COLUMN")
    if answer.outcome_var is not None and answer.outcome_var == answer.treatment_var:
        raise DraftError(f"{_shown(answer.outcome_var)} is both outcome and treatment", code="DRAFT_INVALID")
    seen: set[str] = {name for name in (answer.outcome_var, answer.treatment_var) if name}
    for control in answer.controls:
        if control in seen:
            raise DraftError(f"the control {_shown(control)} has another place in the draft", code="DRAFT_INVALID")
        seen.add(control)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:79] + "…")


def _with_open_roles(answer: DraftAnswer) -> DraftAnswer:
    """The answer with a blocking unknown for an outcome or treatment that is missing without one."""
    needed = {"outcome_var": answer.outcome_var}
    if answer.method != "descriptive":
        needed["treatment_var"] = answer.treatment_var
    asked = {unknown.field for unknown in answer.open_unknowns if unknown.blocks}
    added = [
        OpenUnknown(field=field, description=f"The drafter named no {field}.", impact="high", blocking=True)
        for field, value in needed.items()
        if value is None and field not in asked
    ]
    return answer.model_copy(update={"open_unknowns": [*answer.open_unknowns, *added]}) if added else answer


def _draft(drafted: Drafted, *, job: Job, profile: JobProfile, created_at: str) -> Draft:
    answer = drafted.answer
    draft = Draft(
        text=answer.draft_text,
        created_at=created_at,
        draft_id=draft_id(created_at, answer.draft_text),
        outcome_var=answer.outcome_var,
        treatment_var=answer.treatment_var,
        controls=answer.controls,
        time_var=answer.time_var,
        entity_var=answer.entity_var,
        cluster_var=answer.cluster_var,
        fixed_effects=answer.fixed_effects,
        interaction_terms=answer.interaction_terms,
        instrument_var=answer.instrument_var,
        analysis_hints=answer.analysis_hints,
        draft_preview_schema_version=DRAFT_PREVIEW_SCHEMA_VERSION,
        stage1_questions=answer.stage1_questions,
        open_unknowns=answer.open_unknowns,
        data_quality_warnings=[warning for dataset in profile.datasets for warning in dataset.warnings],
        method=answer.method,
        revision=job.draft.revision + 1 if job.draft else 1,
        drafter=drafted.drafter,
        origin=drafted.origin,
        **_columns_listed(answer, profile),
    )
    return draft if draft.needs_answers() else draft.model_copy(update={"decision": "auto_freeze"})


def _columns_listed(answer: DraftAnswer, profile: JobProfile) -> dict[str, Any]:
    """The draft's fields about columns and data sources, in the original's shapes (CONTRACT 3.5)."""
    columns = _most_telling(answer, profile)
    names = dict.fromkeys(column.name for _, column in columns)
    return {
        "column_candidates": list(names),
        "column_candidates_v2": [
            {"dataset_key": dataset.dataset_key, "role": dataset.role, "name": column.name}
            for dataset, column in columns
        ],
        "column_name_normalizations": [
            {
                "dataset_key": dataset.dataset_key,
                "role": dataset.role,
                "original_name": column.original_name,
                "normalized_name": column.normalized_name,
            }
            for dataset, column in columns
        ],
        "variable_types": [{"name": column.name, "inferred_type": column.inferred_type} for _, column in columns],
        "data_sources": [
            {
                "dataset_key": dataset.dataset_key,
                "role": dataset.role,
                "original_name": dataset.original_name,
                "format": dataset.format,
            }
            for dataset in profile.datasets
        ],
    }


def _most_telling(answer: DraftAnswer, profile: JobProfile) -> list[_Column]:
    """At most 300 columns, the primary data set's first; where there are more, those the draft names lead."""
    datasets = [profile.primary, *(dataset for dataset in profile.datasets if dataset is not profile.primary)]
    columns = [(dataset, column) for dataset in datasets for column in dataset.columns]
    if len(columns) > MAX_COLUMNS_LISTED:
        named = frozenset(answer.columns_named())
        columns.sort(key=lambda pair: pair[1].name not in named)
    return columns[:MAX_COLUMNS_LISTED]
