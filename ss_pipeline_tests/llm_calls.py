"""For tests of what stands around a model: questions, a model that does as told, and the wrappers put together."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.llm.budgets import BudgetedModel
from ss_pipeline.llm.governor import GovernedModel
from ss_pipeline.llm.ledger import LedgeredModel, LedgerRules
from ss_pipeline.llm.limits import Budget, Rate
from ss_pipeline.llm.model import Completion, LanguageModel, Prompt, Question, Usage
from ss_pipeline.llm.prices import Price, PriceTable
from ss_pipeline.llm.traces import TraceWriter
from ss_pipeline.store.base import Backend

PRICES = PriceTable({"openai/small": Price(input=Decimal("0.15"), output=Decimal("0.60"))})
JOB = "job_abcdefghijklmnop"


def a_question(text: str = "Does education raise wages?", *, job_id: str = JOB, **fields: Any) -> Question:
    """A question about this text; the same text makes the same question, whichever job asks."""
    values: dict[str, Any] = {
        "tenant_id": "default",
        "operation": "draft",
        "provider": "openai",
        "model": "small",
        **fields,
    }
    prompt = Prompt(system="You draft.", user=text, version="draft/1")
    return Question(job_id=job_id, prompt=prompt, fingerprint=text, max_output_tokens=100, **values)


def a_completion(text: str = '{"draft_text": "…"}', *, tokens: int = 30) -> Completion:
    """A whole answer of so many tokens, two thirds of them the prompt's."""
    usage = Usage(input_tokens=tokens * 2 // 3, output_tokens=tokens - tokens * 2 // 3)
    return Completion(text=text, finish_reason="stop", model="small-2026", usage=usage, request_id="req_1", seconds=0.5)


class ToldModel(LanguageModel):
    """Answers after `seconds`, or raises the next of its faults; counts its calls and how many were at once."""

    def __init__(self, *faults: BaseException, seconds: float = 0.0, completion: Completion | None = None) -> None:
        self._faults = list(faults)
        self._seconds = seconds
        self._completion = completion or a_completion()
        self.asked: list[str] = []
        self.now = 0
        self.most_at_once = 0

    @property
    def name(self) -> str:
        return "openai/small"

    async def complete(self, question: Question) -> Completion:
        self.asked.append(question.key)
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            await asyncio.sleep(self._seconds)
            if self._faults:
                raise self._faults.pop(0)
            return self._completion
        finally:
            self.now -= 1


@dataclass(frozen=True)
class Desk:
    """Where wrappers keep what they keep."""

    documents: Backend
    artifacts: ArtifactStore
    clock: Clock
    rules: LedgerRules = field(default_factory=LedgerRules)

    @classmethod
    def at(cls, folder: Path, documents: Backend, clock: Clock, **rules: object) -> "Desk":
        """With its artifacts below a folder."""
        return cls(documents, ArtifactStore(str(folder / "artifacts")), clock, LedgerRules(**rules))  # type: ignore[arg-type]

    def ledgered(self, inner: LanguageModel) -> LedgeredModel:
        """A model whose calls are on record."""
        return LedgeredModel(
            inner,
            documents=self.documents,
            traces=TraceWriter(self.artifacts, clock=self.clock),
            prices=PRICES,
            clock=self.clock,
            rules=self.rules,
        )

    def budgeted(self, inner: LanguageModel, budget: Budget) -> LedgeredModel:
        """A model whose calls are on record and paid from this budget, whoever asks."""
        paid = BudgetedModel(
            inner, budget_of=lambda _: budget, documents=self.documents, prices=PRICES, clock=self.clock
        )
        return self.ledgered(paid)

    def governed(
        self,
        inner: LanguageModel,
        rates: Mapping[str, Rate],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> GovernedModel:
        """A model that is asked in turn."""
        return GovernedModel(inner, rates=rates, documents=self.documents, clock=self.clock, sleep=sleep)
