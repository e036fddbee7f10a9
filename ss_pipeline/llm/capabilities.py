"""What a model takes: how its answer can be bound to a schema, how the limit of its answer is called, a temperature.

Providers change this without notice, so the table can be added to in the tenants' file (`[models."provider/model"]`),
and a form of answer that a server turns down is lowered at run time (providers/forms.py).
"""

from fnmatch import fnmatchcase
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

AnswerForm: TypeAlias = Literal["json_schema", "json_object", "plain"]
"""Bound to the schema; bound to be JSON; bound by the prompt alone. Each is what the one before is lowered to."""


class Capabilities(BaseModel):
    """What one model, or a family of them, takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    form: AnswerForm = "json_schema"
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True


_REASONING: Final = Capabilities(limit_parameter="max_completion_tokens", temperature=False)
_BY_JSON_OBJECT: Final = Capabilities(form="json_object")

KNOWN: Final[tuple[tuple[str, Capabilities], ...]] = (
    ("openai/o[0-9]*", _REASONING),
    ("openai/gpt-5*", _REASONING),
    ("openai/gpt-4o-2024-05-13", Capabilities(form="json_object", limit_parameter="max_completion_tokens")),
    ("openai/gpt-4o*", Capabilities(limit_parameter="max_completion_tokens")),
    ("openai/gpt-4.1*", Capabilities(limit_parameter="max_completion_tokens")),
    ("openai/gpt-4-turbo*", _BY_JSON_OBJECT),
    ("openai/gpt-4*", Capabilities(form="plain")),
    ("openai/gpt-3.5-turbo*", _BY_JSON_OBJECT),
    ("openai/*", Capabilities(limit_parameter="max_completion_tokens")),
    ("claude/claude-3*", Capabilities(form="plain")),
    ("claude/claude-*-4-20250514", Capabilities(form="plain")),
    ("claude/*", Capabilities(temperature=False)),
    ("qwen/*", _BY_JSON_OBJECT),
)
"""`provider/model` patterns, the first that fits counts; a server of one's own (`local/…`) is tried with all of it."""


def capabilities_of(name: str, *, added: dict[str, Capabilities] | None = None) -> Capabilities:
    """What the model `provider/model` takes; what was added comes before what is known."""
    table = [*(added or {}).items(), *KNOWN]
    return next((known for pattern, known in table if fnmatchcase(name, pattern)), Capabilities())


def lowered(form: AnswerForm) -> AnswerForm | None:
    """The next form that asks less of the server; None below the last."""
    forms: tuple[AnswerForm, ...] = ("json_schema", "json_object", "plain")
    at = forms.index(form) + 1
    return forms[at] if at < len(forms) else None
