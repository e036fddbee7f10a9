"""The port for language models: one question, one completion.

Providers (llm/providers/) implement it over their SDKs; wrappers (retry, limits, ledger, fallback) implement it around
another one, so that they can be put together in any order. What is asked and how an answer becomes a draft is
llm/drafter.py's business; no wrapper looks into a prompt or an answer.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

NOT_SENT: Final = "nothing was sent"
"""The argument of a CancelledError that stopped a wrapper while it waited: no call was made for the question, or none
that may have been billed. Whoever has sent it raises CancelledError without."""

FinishReason: TypeAlias = Literal["stop", "length", "refusal", "other"]


@dataclass(frozen=True)
class Prompt:
    """What a model is told.

    Args:
        system: The instructions, the same for all jobs of one version.
        user: Requirement and profile, as fenced data.
        version: Of the template, such as `draft/1`.
    """

    system: str
    user: str
    version: str


@dataclass(frozen=True)
class Question:
    """All that decides an answer, and who asks.

    Args:
        operation: What the answer is for: `draft`, `repair`.
        schema: JSON schema that the answer must fit, as far as the model can be told.
        max_output_tokens: Most tokens of the answer.
        temperature: None where the model's own is used, or where it takes none.
        fingerprint: The prompt without its fence: what makes two questions the same.
    """

    tenant_id: str
    job_id: str
    operation: str
    provider: str
    model: str
    prompt: Prompt
    fingerprint: str
    schema: dict[str, Any] = field(default_factory=dict)
    max_output_tokens: int = 2_000
    temperature: float | None = None

    @property
    def key(self) -> str:
        """The ledger's key: sha256 of all that decides the answer, the tenant included, the job not (DESIGN §7)."""
        decides = asdict(self) | {"prompt": self.prompt.version}
        del decides["job_id"]
        return hashlib.sha256(json.dumps(decides, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Completion:
    """What a model answered.

    Args:
        finish_reason: Why it stopped; only after "stop" is the text whole.
        model: The model as the provider names it, which may be more exact than what was asked for.
        request_id: The provider's id of the call, for its support; None where it gives none.
        seconds: How long the call took.
        calls: Calls that were made for it; 0 where the answer was on record.
        unknowns: Of these, calls that were sent and never answered: each may have been billed, too.
    """

    text: str
    finish_reason: FinishReason
    model: str
    usage: Usage
    request_id: str | None = None
    seconds: float = 0.0
    calls: int = 1
    unknowns: int = 0


class LanguageModel(ABC):
    """Answers questions."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Who answers: `<provider>/<model>`."""

    @abstractmethod
    async def complete(self, question: Question) -> Completion:
        """The answer to a question.

        Raises:
            LLMUnavailableError: no answer now; the same question may be asked again (after `retry_after` seconds).
            LLMOutcomeUnknownError: sent, and no answer came: it may have been billed.
            LLMRefusedError: this question, or this key, will never be answered.
            LLMBudgetError: no budget is left until `resets_at`; nothing was sent.
        """
