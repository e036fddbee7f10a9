"""The draft of an analysis: what a drafter answers, what the job document keeps, and the hash a decision is bound to.

`DraftAnswer` is the schema every drafter (rules or model) must meet; `Draft` is what the original system stored
(CONTRACT 3.5), so it keeps fields it does not know.
"""

import hashlib
import json
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ss_pipeline.jobs.profiles import DataQualityWarning

Impact: TypeAlias = Literal["low", "medium", "high", "critical"]
Method: TypeAlias = Literal[
    "ols", "ols_log", "logit", "poisson", "panel_fe", "did", "iv_2sls", "rdd", "survival", "descriptive", "unknown"
]

BLOCKING_IMPACTS = frozenset({"high", "critical"})


class OpenUnknown(BaseModel):
    """Something the drafter could not settle. It blocks confirmation if `blocking`, or if its impact is high."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    field: str
    description: str
    impact: str
    blocking: bool | None = None
    candidates: list[str] = Field(default=[], max_length=20)

    @property
    def blocks(self) -> bool:
        """Whether a person must settle this before the draft may be confirmed (CONTRACT 3.5, last line)."""
        return bool(self.blocking) or self.impact in BLOCKING_IMPACTS


class QuestionOption(BaseModel):
    """One answer offered to a question."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    option_id: str
    label: str
    value: Any = None


class Stage1Question(BaseModel):
    """A question to the person who confirms; every one must be answered before confirmation."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    question_id: str
    question_text: str
    question_type: str
    options: list[QuestionOption] = []
    priority: int = 0


class DraftAnswer(BaseModel):
    """What a drafter answers; nothing else is accepted. Column names must be names of the profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    draft_text: str = Field(min_length=1, max_length=4_000)
    """What will be analysed and how, in the requirement's language; a few sentences."""
    outcome_var: str | None = None
    treatment_var: str | None = None
    controls: list[str] = Field(default=[], max_length=50)
    method: Method = "unknown"
    time_var: str | None = None
    entity_var: str | None = None
    cluster_var: str | None = None
    fixed_effects: list[str] = Field(default=[], max_length=10)
    interaction_terms: list[str] = Field(default=[], max_length=10)
    instrument_var: str | None = None
    analysis_hints: list[str] = Field(default=[], max_length=20)
    open_unknowns: list[OpenUnknown] = Field(default=[], max_length=20)
    stage1_questions: list[Stage1Question] = Field(default=[], max_length=20)

    def columns_named(self) -> list[str]:
        """Every column the answer refers to, each once, in order of first mention (interactions `a#b` are split)."""
        single = [self.outcome_var, self.treatment_var, self.time_var, self.entity_var, self.cluster_var]
        terms = [part for term in self.interaction_terms for part in term.split("#")]
        named = [*single, self.instrument_var, *self.controls, *self.fixed_effects, *terms]
        return list(dict.fromkeys(name for name in named if name))


class DraftOrigin(BaseModel):
    """How a draft came about where language models were asked; none of it differs when the same answers are read again.

    Args:
        asked: Who was asked, in turn: `openai/<model>`.
        ledger_keys: The questions' keys in the ledger, in the order asked.
        fallback_code: Why none of their answers was taken and rules drafted instead; None where one was.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    asked: list[str]
    prompt_versions: list[str] = []
    ledger_keys: list[str] = []
    input_tokens: int = 0
    output_tokens: int = 0
    columns_shown: int = 0
    fallback_code: str | None = None
    fallback_reason: str | None = None


class Draft(BaseModel):
    """The draft as the job document keeps it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    text: str
    created_at: str
    outcome_var: str | None = None
    treatment_var: str | None = None
    controls: list[str] = []
    default_overrides: dict[str, Any] = {}
    draft_id: str | None = None
    decision: str = "require_confirm"
    risk_score: float = 0.0
    status: str = "ready"
    time_var: str | None = None
    entity_var: str | None = None
    cluster_var: str | None = None
    fixed_effects: list[str] = []
    interaction_terms: list[str] = []
    instrument_var: str | None = None
    analysis_hints: list[str] = []
    draft_preview_schema_version: int | None = None
    column_candidates: list[str] = Field(default=[], max_length=300)
    column_candidates_v2: list[dict[str, Any]] = []
    column_name_normalizations: list[dict[str, Any]] = []
    variable_types: list[dict[str, Any]] = []
    data_sources: list[dict[str, Any]] = []
    stage1_questions: list[Stage1Question] = []
    open_unknowns: list[OpenUnknown] = []
    data_quality_warnings: list[DataQualityWarning] = []
    method: str | None = None
    revision: int = Field(default=1, ge=1)
    drafter: str | None = None
    """Who drafted it: `rules/1`, `openai/<model>`; None for imported drafts."""
    origin: DraftOrigin | None = Field(default=None, exclude_if=lambda origin: origin is None)
    """Which models were asked. Left out where none was: the hash of drafts made before there were models stays."""

    @property
    def sha256(self) -> str:
        """The hash a decision is bound to: of the draft's canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def blocking_unknowns(self) -> list[OpenUnknown]:
        """The open unknowns that keep the draft from being confirmed."""
        return [unknown for unknown in self.open_unknowns if unknown.blocks]

    def needs_answers(self) -> bool:
        """Whether a person must answer something first."""
        return bool(self.stage1_questions or self.blocking_unknowns())


def draft_id(created_at: str, text: str) -> str:
    """The draft's id as the original made it: `draft_` + sha256("created_at:text")[:16] (CONTRACT 3.5)."""
    return "draft_" + hashlib.sha256(f"{created_at}:{text}".encode()).hexdigest()[:16]
