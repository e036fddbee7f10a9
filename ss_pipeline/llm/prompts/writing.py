"""From material to a question: the templates, the fence around the data, the fingerprint without it.

A template is never changed, a new version is added: the version is part of a question's key, and answers on record
belong to it. The answer's schema is answers.py's business.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Final

from ss_pipeline.llm.base import DraftRequest
from ss_pipeline.llm.model import Prompt, Question
from ss_pipeline.llm.prompts.material import Material, encoded

DRAFT_VERSION: Final = "draft/1"
REPAIR_VERSION: Final = "repair/1"

_NO_FENCE: Final = "==== fence ===="
"""Stands for the fence in what is fingerprinted."""

_MAX_ANSWER_BYTES: Final = 12_000
"""Of an unusable answer that is shown with its faults."""


@dataclass(frozen=True)
class Asking:
    """Whom the questions of a tenant go to, and how much they may take.

    Args:
        schema: JSON schema of the answer.
    """

    provider: str
    model: str
    schema: Mapping[str, Any]
    max_output_tokens: int = 2_000
    temperature: float | None = None


class QuestionWriter:
    """Writes questions; the same request gives the same question, to the byte, in every process of an installation."""

    def __init__(self, *, secret: bytes) -> None:
        """
        Args:
            secret: Of the installation: who does not know it cannot guess a fence.
        """
        self._secret = secret

    def draft(self, request: DraftRequest, material: Material, *, asking: Asking) -> Question:
        """The question for a draft."""
        return self._question(request, asking, version=DRAFT_VERSION, data=material.text)

    def repair(
        self, request: DraftRequest, material: Material, *, asking: Asking, answer: str, faults: Sequence[str]
    ) -> Question:
        """The question for another answer, since one has faults."""
        listed = "\n".join(f"- {encoded(fault)[1:-1]}" for fault in faults)
        shown = encoded(_cut(answer))
        return self._question(request, asking, version=REPAIR_VERSION, data=material.text, answer=shown, faults=listed)

    def _question(self, request: DraftRequest, asking: Asking, *, version: str, **data: str) -> Question:
        operation = version.partition("/")[0]
        system, user = _template(f"{DRAFT_VERSION}.system"), Template(_template(f"{version}.user"))
        unfenced = f"{system}\n{user.substitute(data, fence=_NO_FENCE)}"
        question = Question(
            tenant_id=request.tenant_id,
            job_id=request.job_id,
            operation=operation,
            provider=asking.provider,
            model=asking.model,
            prompt=Prompt(system="", user="", version=version),
            fingerprint=hashlib.sha256(unfenced.encode()).hexdigest(),
            schema=dict(asking.schema),
            max_output_tokens=asking.max_output_tokens,
            temperature=asking.temperature,
        )
        fence = self._fence(question)
        return replace(question, prompt=Prompt(system=system, user=user.substitute(data, fence=fence), version=version))

    def _fence(self, question: Question) -> str:
        return f"==== {hmac.new(self._secret, question.key.encode(), hashlib.sha256).hexdigest()[:32]} ===="


def _cut(answer: str) -> str:
    """The beginning of an answer, short enough as it is encoded."""
    shown = answer[:_MAX_ANSWER_BYTES]
    while len(encoded(shown).encode()) > _MAX_ANSWER_BYTES:
        shown = shown[: len(shown) * 3 // 4]
    return shown


@cache
def _template(name: str) -> str:
    file = files("ss_pipeline.llm.prompts").joinpath(f"{name.replace('/', '-')}.txt")
    return file.read_text(encoding="utf-8")
