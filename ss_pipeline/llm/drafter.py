"""The drafter that asks language models: prompt, answer, one repair, then the next model, then the rules or failure.

What is shown and asked is prompts/', what an answer may say is answers.py's, whether its numbers hold is grounding.py's
business. Retries, budgets, rates and the ledger are the wrappers' around each model.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ss_pipeline.errors import DraftError, LLMBudgetError, LLMError, LLMRefusedError
from ss_pipeline.jobs.drafts import DraftAnswer, DraftOrigin
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.llm.answers import parse_answer
from ss_pipeline.llm.base import Drafted, DraftRequest, LLMClient
from ss_pipeline.llm.grounding import ungrounded
from ss_pipeline.llm.model import Completion, LanguageModel, Question
from ss_pipeline.llm.prompts.material import MAX_COLUMNS_SHOWN, Material, is_in_language, material_of
from ss_pipeline.llm.prompts.writing import Asking, QuestionWriter
from ss_pipeline.llm.redaction import Redactor
from ss_pipeline.telemetry.events import emit


@dataclass(frozen=True)
class Candidate:
    """A model that may answer, and how it is asked."""

    model: LanguageModel
    asking: Asking


@dataclass(frozen=True)
class Drafting:
    """What all drafters of an installation share.

    Args:
        writer: Writes the questions.
        rules: Drafts where no model does; also says which columns of wide data are shown first.
        check: Raises a DraftError for an answer that does not fit the profile (stages/drafting).
        max_prompt_bytes: Of the data in a prompt.
    """

    writer: QuestionWriter
    rules: LLMClient
    check: Callable[[DraftAnswer, JobProfile], None]
    max_prompt_bytes: int = 80_000


@dataclass
class _Sitting:
    """One request, as it is shown to all models that are asked for it, and what was asked so far."""

    request: DraftRequest
    material: Material
    redactor: Redactor
    asked: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0

    async def ask(self, model: LanguageModel, question: Question) -> Completion:
        self.questions.append(question)
        completion = await model.complete(question)
        self.input_tokens += completion.usage.input_tokens
        self.output_tokens += completion.usage.output_tokens
        if completion.finish_reason == "refusal":
            raise LLMRefusedError(f"{model.name} declines to answer", code="LLM_ANSWER_REFUSED")
        return completion

    def origin(self, *, fault: DraftError | LLMError | None = None) -> DraftOrigin:
        return DraftOrigin(
            asked=self.asked,
            prompt_versions=[question.prompt.version for question in self.questions],
            ledger_keys=[question.key for question in self.questions],
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            columns_shown=self.material.columns,
            fallback_code=fault.error_code if fault else None,
            fallback_reason=self.redactor.redact(fault.message) if fault else None,
        )


class ModelDrafter(LLMClient):
    """Asks its candidates in turn until one gives a draft that can be used."""

    def __init__(
        self, candidates: Sequence[Candidate], *, drafting: Drafting, on_failure: Literal["rules", "fail"]
    ) -> None:
        """
        Args:
            on_failure: `rules` lets the rules draft, and says so in the draft; `fail` raises what the last one raised.
        """
        self._candidates = tuple(candidates)
        self._drafting = drafting
        self._on_failure = on_failure

    @property
    def name(self) -> str:
        return self._candidates[0].model.name

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        """As `draft`, without whose it is."""
        return (await self.draft(request)).answer

    async def draft(self, request: DraftRequest) -> Drafted:
        """The first usable answer, or the rules' one, marked as such.

        Raises:
            LLMBudgetError: the job waits; nobody stands in for a model that there is no budget for.
            LLMError, DraftError: of the last candidate, where failure is the tenant's policy.
        """
        sitting = await self._sitting(request)
        for candidate in self._candidates[:-1]:
            try:
                return await self._drafted(candidate, sitting)
            except LLMBudgetError:
                raise
            except (LLMError, DraftError) as error:
                self._emit_next(request, candidate, error)
        try:
            return await self._drafted(self._candidates[-1], sitting)
        except LLMBudgetError:
            raise
        except (LLMError, DraftError) as error:
            if self._on_failure == "fail":
                raise
            return await self._by_rules(request, sitting.origin(fault=error))

    async def _sitting(self, request: DraftRequest) -> _Sitting:
        first: frozenset[str] = frozenset()
        if sum(len(dataset.columns) for dataset in request.profile.datasets) > MAX_COLUMNS_SHOWN:
            first = frozenset((await self._drafting.rules.draft_preview(request)).columns_named())
        redactor = Redactor()
        limit = self._drafting.max_prompt_bytes
        return _Sitting(request, material_of(request, redactor=redactor, max_bytes=limit, first=first), redactor)

    async def _drafted(self, candidate: Candidate, sitting: _Sitting) -> Drafted:
        """The candidate's answer, asked for once more where the first cannot be used."""
        writer, asking, model = self._drafting.writer, candidate.asking, candidate.model
        request, material = sitting.request, sitting.material
        sitting.asked.append(model.name)
        said = await sitting.ask(model, writer.draft(request, material, asking=asking))
        try:
            answer = self._usable(said, sitting)
        except DraftError as fault:
            self._emit_repair(request, candidate, fault)
            faults = [sitting.redactor.redact(fault.message)]
            repair = writer.repair(request, material, asking=asking, answer=said.text, faults=faults)
            answer = self._usable(await sitting.ask(model, repair), sitting)
        return Drafted(answer, drafter=model.name, origin=sitting.origin())

    def _usable(self, said: Completion, sitting: _Sitting) -> DraftAnswer:
        """The answer as a draft's fields, if nothing speaks against it."""
        if said.finish_reason == "length":
            raise DraftError("the model's answer was cut off: it must be shorter", code="DRAFT_INVALID")
        answer = parse_answer(said.text).as_draft(sitting.redactor.restore)
        self._drafting.check(answer, sitting.request.profile)
        if not is_in_language(answer.draft_text, sitting.request):
            raise DraftError("draft_text is not in the language that was asked for", code="DRAFT_INVALID")
        if numbers := ungrounded(answer, sitting.request):
            raise DraftError(
                f"draft_text quotes {', '.join(numbers[:5])}: not in the description or the requirement",
                code="DRAFT_UNGROUNDED",
            )
        return answer

    async def _by_rules(self, request: DraftRequest, origin: DraftOrigin) -> Drafted:
        emit(
            "SS_LLM_FALLBACK_USED",
            level=logging.WARNING,
            job_id=request.job_id,
            tenant_id=request.tenant_id,
            asked=origin.asked,
            drafter=self._drafting.rules.name,
            code=origin.fallback_code,
        )
        answer = await self._drafting.rules.draft_preview(request)
        return Drafted(answer, drafter=self._drafting.rules.name, origin=origin)

    def _emit_next(self, request: DraftRequest, candidate: Candidate, error: DraftError | LLMError) -> None:
        emit(
            "SS_LLM_NEXT_MODEL_ASKED",
            level=logging.WARNING,
            job_id=request.job_id,
            model=candidate.model.name,
            code=error.error_code,
        )

    def _emit_repair(self, request: DraftRequest, candidate: Candidate, fault: DraftError) -> None:
        emit("SS_LLM_REPAIR_ASKED", job_id=request.job_id, model=candidate.model.name, code=fault.error_code)


class DrafterByTenant(LLMClient):
    """Lets each tenant's own drafter draft."""

    def __init__(self, drafters: dict[str, LLMClient], *, default: LLMClient) -> None:
        """
        Args:
            default: For tenants that have none of their own.
        """
        self._drafters = drafters
        self._default = default

    @property
    def name(self) -> str:
        return self._default.name

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        """As the tenant's drafter."""
        return (await self.draft(request)).answer

    async def draft(self, request: DraftRequest) -> Drafted:
        """As the tenant's drafter."""
        return await self._drafters.get(request.tenant_id, self._default).draft(request)
