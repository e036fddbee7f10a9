"""The job: one document per analysis request, at the current schema (V3).

Fields above the line in `Job` are the original system's (CONTRACT 3.3), those below are this pipeline's additions, all
optional, so that documents travel both ways. Unknown fields are kept. Only jobs/lifecycle.py changes `status`.
"""

import re
from datetime import datetime
from typing import Any, Final, Literal, Self, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ss_pipeline.errors import JobDataCorruptedError
from ss_pipeline.jobs.documents import JsonObject, is_safe_rel_path, is_safe_segment
from ss_pipeline.jobs.drafts import Draft

JOB_SCHEMA_VERSION_V1: Final = 1
JOB_SCHEMA_VERSION_V2: Final = 2
JOB_SCHEMA_VERSION_V3: Final = 3
JOB_SCHEMA_VERSION_CURRENT: Final = JOB_SCHEMA_VERSION_V3
SUPPORTED_JOB_SCHEMA_VERSIONS: Final = (JOB_SCHEMA_VERSION_V1, JOB_SCHEMA_VERSION_V2, JOB_SCHEMA_VERSION_V3)

DEFAULT_TENANT: Final = "default"
JOB_ID_PATTERN: Final = re.compile(r"^job_[a-z0-9]{16,32}$")
"""Ids made here; imported jobs may have any safe segment."""

JobStatus: TypeAlias = Literal[
    "created", "draft_ready", "confirmed", "queued", "running", "succeeded", "failed", "cancelled"
]
JOB_STATUSES: Final[tuple[JobStatus, ...]] = get_args(JobStatus)
TERMINAL_STATUSES: Final = frozenset({"succeeded", "cancelled"})

PriorityClass: TypeAlias = Literal["high", "normal", "low"]


def class_of(priority: float) -> PriorityClass:
    """low < 0 ≤ normal < 10 ≤ high (DESIGN §10.7)."""
    return "low" if priority < 0 else "high" if priority >= 10 else "normal"


ArtifactKind: TypeAlias = Literal[
    "inputs.manifest", "inputs.dataset", "llm.prompt", "llm.response", "llm.meta", "plan.json",
    "composition.summary.json", "composition.product.dataset", "composition.product.table",
    "do_template.source", "do_template.meta", "do_template.params", "do_template.run.meta.json",
    "do_template.selection.stage1", "do_template.selection.candidates", "do_template.selection.stage2",
    "stata.do", "stata.log", "stata.result.log", "run.stdout", "run.stderr", "run.meta.json", "run.error.json",
    "stata.export.table", "stata.export.figure", "stata.export.dataset", "stata.export.report",
    "stata.export.manifest", "stata.export.other", "stata.report.interpretation",
    "profile.json", "profile.sample", "draft.json",
    "publish.html", "publish.markdown", "publish.draft", "publish.columns", "publish.manifest",
]  # fmt: skip
"""The original's 30 kinds (CONTRACT 3.8), then this pipeline's own."""

OutputFormat: TypeAlias = Literal["csv", "xlsx", "dta", "docx", "pdf", "log", "do"]


class _Part(BaseModel):
    """A part of the job: immutable, strictly typed, keeping fields it does not know."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class ArtifactRef(_Part):
    """A file of the job, relative to its folder."""

    kind: ArtifactKind
    rel_path: str
    created_at: str | None = None
    meta: dict[str, Any] = {}

    @field_validator("rel_path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        return _safe_rel_path(value)


class RunRecord(_Part):
    """One attempt of the original's worker."""

    run_id: str
    attempt: int
    status: str
    started_at: str | None = None
    ended_at: str | None = None
    artifacts: list[ArtifactRef] = []


class InputsRef(_Part):
    """Where the manifest of the job's data files is, and the fingerprint of their content."""

    manifest_rel_path: str | None = None
    fingerprint: str | None = None

    @field_validator("manifest_rel_path")
    @classmethod
    def _stays_inside(cls, value: str | None) -> str | None:
        return None if value is None else _safe_rel_path(value)


class Confirmation(_Part):
    """What the original recorded when a person confirmed; decisions made here are in `Job.decision`."""

    requirement: str | None = None
    notes: str | None = None
    variable_corrections: dict[str, str] = {}
    answers: dict[str, Any] = {}
    default_overrides: dict[str, Any] = {}
    expert_suggestions_feedback: dict[str, Any] = {}


class Decision(_Part):
    """A decision on a draft, bound to that draft's sha256."""

    action: Literal["approve", "edit", "send_back"]
    by: str
    """`policy:auto`, or who decided."""
    at: str
    draft_sha256: str
    note: str | None = None
    answers: dict[str, Any] = {}


class Publication(_Part):
    """One immutable version of the result. Its folder is `publications/v<version>-f<fence>`."""

    version: int = Field(ge=1)
    manifest_sha256: str
    at: str
    fence: int
    draft_sha256: str

    @property
    def folder(self) -> str:
        """The folder of this version, relative to the job's folder."""
        return publication_folder(version=self.version, fence=self.fence)


class Parked(_Part):
    """A job set aside until a time (ISO, UTC), with the reason code."""

    until: str
    reason: str

    @field_validator("until")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value


class FailureRecord(_Part):
    """Why the job failed last: code, one sentence, what to do."""

    code: str
    message: str
    at: str
    todo: str | None = None


class HistoryEntry(_Part):
    """One change of status. `hash` chains it to the entry before (jobs/lifecycle.py)."""

    at: str
    by: str
    from_status: str
    to_status: str
    reason: str | None = None
    prev: str
    hash: str


class Job(BaseModel):
    """A job at schema V3. Immutable: changes make a copy, saves return the stored one."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    schema_version: Literal[3] = 3
    version: int = Field(default=1, ge=1, lt=2**63)
    tenant_id: str = DEFAULT_TENANT
    job_id: str
    trace_id: str
    status: JobStatus
    requirement: str | None = None
    created_at: str
    scheduled_at: str | None = None
    confirmation: Confirmation | None = None
    inputs: InputsRef | None = None
    draft: Draft | None = None
    llm_plan: dict[str, Any] | None = None
    selected_template_id: str | None = None
    output_formats: list[OutputFormat] | None = None
    runs: list[RunRecord] = []
    artifacts_index: list[ArtifactRef] = []
    redeem_task_code: str | None = None
    auth_token: str | None = None
    auth_expires_at: str | None = None
    # --- this pipeline's own -------------------------------------------------------------------------------------
    priority: int = Field(default=0, ge=-100, le=100)
    callback_url: str | None = None
    client_ref: str | None = None
    language: str | None = None
    decision: Decision | None = None
    publications: list[Publication] = []
    deliveries: list[dict[str, Any]] = []
    parked: Parked | None = None
    failure: FailureRecord | None = None
    attempts: int = Field(default=0, ge=0)
    history: list[HistoryEntry] = []
    updated_at: str | None = None
    held: str | None = None
    """Why the job is not to be worked on until `ss-pipeline adopt` (imported while it was queued or running)."""

    @field_validator("job_id", "tenant_id")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        if not is_safe_segment(value):
            raise ValueError("not a safe name for a folder")
        return value

    @field_validator("created_at")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _trace_is_there(self) -> Self:
        if not self.trace_id.strip():
            raise ValueError("trace_id is blank")
        return self

    @property
    def priority_class(self) -> PriorityClass:
        """The class of the job's own priority, not aged."""
        return class_of(self.priority)

    @property
    def published(self) -> Publication | None:
        """The newest published version, or None."""
        return self.publications[-1] if self.publications else None

    def changed(self, **fields: Any) -> "Job":
        """A copy with other field values. `status` is refused: lifecycle.transition is its only writer."""
        if "status" in fields:
            raise TypeError("status is changed by lifecycle.transition only")
        return self.model_copy(update=fields)

    def as_payload(self) -> JsonObject:
        """The document as JSON values, unknown fields included."""
        return self.model_dump(mode="json")


def job_from_payload(payload: JsonObject) -> Job:
    """The job of a document at the current schema.

    Raises:
        JobDataCorruptedError: naming the first field that does not fit.
    """
    try:
        return Job.model_validate(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise JobDataCorruptedError(f"{where}: {first['msg']}") from error


def publication_folder(*, version: int, fence: int) -> str:
    """The folder of one published version, relative to the job's folder; the fence keeps rival writers apart."""
    return f"publications/v{version}-f{fence}"


def _safe_rel_path(value: str) -> str:
    if not is_safe_rel_path(value):
        raise ValueError("not a relative path inside the job's folder")
    return value
