"""A model's answer: the schema it is given, and the one way from its text to a draft's fields.

A model cannot set anything else: what it may say is this schema. Whether the columns it names are there is
stages/drafting's business, whether its numbers are those of the profile is grounding.py's.
"""

import json
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ss_pipeline.errors import DraftError
from ss_pipeline.jobs.drafts import DraftAnswer, Method, OpenUnknown

MAX_ANSWER_CHARACTERS: Final = 100_000
_DROPPED: Final = frozenset({"title", "description", "default", "maxLength", "minLength", "maxItems"})
"""Words of JSON schema that strict modes do not take (pydantic holds answers to them), or that are for our readers."""

ColumnName = str


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Unknown(_Strict):
    """What the model could not settle."""

    field: str = Field(max_length=64)
    description: str = Field(min_length=1, max_length=1_000)
    impact: Literal["low", "medium", "high", "critical"]
    candidates: list[ColumnName] = Field(max_length=20)


class ModelAnswer(_Strict):
    """What a model may answer. All members are asked for; what it leaves out counts as empty."""

    draft_text: str = Field(min_length=1, max_length=4_000)
    outcome_var: ColumnName | None = None
    treatment_var: ColumnName | None = None
    controls: list[ColumnName] = Field(default=[], max_length=50)
    method: Method = "unknown"
    time_var: ColumnName | None = None
    entity_var: ColumnName | None = None
    cluster_var: ColumnName | None = None
    instrument_var: ColumnName | None = None
    fixed_effects: list[ColumnName] = Field(default=[], max_length=10)
    interaction_terms: list[str] = Field(default=[], max_length=10)
    analysis_hints: list[str] = Field(default=[], max_length=20)
    open_unknowns: list[Unknown] = Field(default=[], max_length=20)

    def as_draft(self, restored: Callable[[str], str]) -> DraftAnswer:
        """The draft's fields.

        Args:
            restored: Puts the real name of a column in the place of a placeholder. Prose keeps its placeholders: it is
                shown in more places than the requirement is.
        """
        fields = self.model_dump(exclude={"open_unknowns"})
        for role in ("outcome_var", "treatment_var", "time_var", "entity_var", "cluster_var", "instrument_var"):
            fields[role] = restored(fields[role]) if fields[role] else None
        for several in ("controls", "fixed_effects", "interaction_terms"):
            fields[several] = [restored(name) for name in fields[several]]
        unknowns = [
            OpenUnknown(
                field=unknown.field,
                description=unknown.description,
                impact=unknown.impact,
                candidates=[restored(name) for name in unknown.candidates],
            )
            for unknown in self.open_unknowns
        ]
        return DraftAnswer(**fields, open_unknowns=unknowns)


def answer_schema() -> dict[str, Any]:
    """The JSON schema of an answer, in the form that strict modes take: every member required, none other allowed."""
    schema: dict[str, Any] = _strict(ModelAnswer.model_json_schema())
    return schema


def parse_answer(text: str) -> ModelAnswer:
    """The answer in a model's text: one JSON object, at most with a Markdown fence around it.

    Raises:
        DraftError: DRAFT_INVALID, naming every fault in words that a model can be told.
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise _unusable(f"it has more than {MAX_ANSWER_CHARACTERS} characters")
    try:
        value = json.loads(_unfenced(text), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise _unusable("it is nested too deeply") from None
    except ValueError as error:
        raise _unusable(f"it is not one JSON object: {error}") from None
    try:
        return ModelAnswer.model_validate(value)
    except ValidationError as error:
        raise _unusable(*_faults(error)) from None


def _unusable(*faults: str) -> DraftError:
    return DraftError(f"the model's answer cannot be used: {'; '.join(faults)}", code="DRAFT_INVALID")


def _faults(error: ValidationError) -> list[str]:
    listed = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{'.'.join(map(str, fault['loc']))[:80] or 'it'}: {fault['msg'][:200]}" for fault in listed[:10]]


def _unfenced(text: str) -> str:
    lines = text.strip().splitlines()
    if len(lines) > 2 and lines[0].startswith("```") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands in it twice")
    return members


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _strict(node: Any) -> Any:
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _strict(value) for key, value in node.items() if key not in _DROPPED or isinstance(value, dict)}
    if kept.get("type") == "object":
        kept |= {"required": list(kept.get("properties", {})), "additionalProperties": False}
    return kept
