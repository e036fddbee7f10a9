"""The call ledger: a model that answers from the record where an answer is on record, and records every call it makes.

Of one question at most one is asked at a time: whoever holds the lease on its record. The intent is written before the
call and the answer before anyone parses it, so that an answer is paid for once, whatever is run again: a step, a run, a
materialization, another job of the same tenant. Where an asker vanished in between, nobody knows whether the provider
answered; what then is the unknown policy's.

Records are call_records.py's business, traces are traces.py's, budgets and rates are those of the models it wraps.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    LLMError,
    LLMOutcomeUnknownError,
    LLMRefusedError,
    StaleFenceError,
    StoreError,
)
from ss_pipeline.llm.call_records import Answer, CallRecord, TokensAndCost, key_of, read_record
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question, Usage
from ss_pipeline.llm.prices import PriceTable, most_tokens
from ss_pipeline.llm.traces import Ending, TraceWriter, new_call_id
from ss_pipeline.store.base import Backend, DocumentKey, Facets, Lease
from ss_pipeline.telemetry.events import emit

UnknownPolicy: TypeAlias = Literal["ask_again", "fail"]

_LOOK_SECONDS: Final = 0.25
"""Between two looks at what another asks."""


@dataclass(frozen=True)
class LedgerRules:
    """How the ledger is kept.

    Args:
        unknown_policy: Whether a question whose outcome nobody knows is asked again.
        max_unknowns: How many unknown outcomes of a question are borne before it fails all the same.
        lease_seconds: How long an asker that vanished keeps others waiting.
        heartbeat_seconds: Between two signs of life of an asker.
    """

    unknown_policy: UnknownPolicy = "ask_again"
    max_unknowns: int = 3
    lease_seconds: float = 60.0
    heartbeat_seconds: float = 10.0


@dataclass(frozen=True)
class _Asking:
    """The right to ask a question, and the record of the intent to."""

    key: DocumentKey
    lease: Lease
    record: CallRecord


class LedgeredModel(LanguageModel):
    """Answers from the ledger, else asks the model it wraps and records what came of it.

    Args:
        inner: Who is asked; whatever it raises is recorded and raised.
        documents: Where the records are.
        traces: Who writes the traces of calls; an answer from the record has none.
        prices: What is recorded as the cost.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        documents: Backend,
        traces: TraceWriter,
        prices: PriceTable,
        clock: Clock,
        rules: LedgerRules,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner = inner
        self._documents = documents
        self._traces = traces
        self._prices = prices
        self._clock = clock
        self._rules = rules
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self._inner.name

    async def complete(self, question: Question) -> Completion:
        """The answer on record, with `calls` 0, or a new one; waits while another process asks the same.

        Raises:
            LLMRefusedError: LLM_OUTCOME_UNKNOWN, where the unknown policy lets the question be asked no more.
            LLMError: as the inner model raises it.
        """
        key = key_of(question)
        while True:
            stored = read_record(self._documents, key)
            if stored and (answer := stored[1].answer):
                return _on_record(answer, question)
            if stored is None and not self._created(key, self._intent(question)):
                continue
            if (asking := self._begun(key, question)) is None:
                await self._sleep(_LOOK_SECONDS)
                continue
            with _kept_alive(asking.lease, self._documents, self._rules):
                return await self._ask(question, asking)

    # --- before the call ---------------------------------------------------------------------------------------------

    def _intent(self, question: Question, *, unknowns: int = 0) -> CallRecord:
        now = self._clock.now()
        return CallRecord(
            key=question.key,
            tenant_id=question.tenant_id,
            job_id=question.job_id,
            operation=question.operation,
            provider=question.provider,
            model=question.model,
            prompt_version=question.prompt.version,
            state="intent",
            asked_at=now.isoformat(timespec="microseconds"),
            call_id=new_call_id(question, at=now),
            expected=self._priced(most_tokens(question), question),
            unknowns=unknowns,
        )

    def _created(self, key: DocumentKey, intent: CallRecord) -> bool:
        """False where another has just created the record."""
        try:
            self._documents.create(key, intent.as_bytes(), Facets())
        except DocumentExistsError:
            return False
        return True

    def _begun(self, key: DocumentKey, question: Question) -> _Asking | None:
        """The right to ask, with the intent on record; None while another has it, or has just answered."""
        lease = self._documents.lease(
            [key], claim_id=secrets.token_hex(8), owner=f"job:{question.job_id}", ttl=self._rules.lease_seconds
        )
        stored = read_record(self._documents, key) if key in lease.fences else None
        if stored is None:
            return None
        body, record = stored
        if record.answer is not None:
            self._ended(key, lease)
            return None
        is_first = record.state == "intent" and lease.attempts[key] == 1
        intent = (
            record if is_first and record.job_id == question.job_id else self._intent_after(record, question, lease)
        )
        self._refuse_unknown(key, intent, lease)
        if intent is not record:
            try:
                self._documents.replace(key, intent.as_bytes(), Facets(), expected=body, fence=lease.fences[key])
            except (DocumentChangedError, StaleFenceError):  # the lease ran out before anything was sent
                return None
        return _Asking(key, lease, intent)

    def _intent_after(self, record: CallRecord, question: Question, lease: Lease) -> CallRecord:
        """A new intent; an earlier one that somebody leased and left as it was is an unknown outcome."""
        vanished = record.state == "intent" and lease.attempts[key_of(question)] > 1
        return self._intent(question, unknowns=record.unknowns + vanished)

    def _refuse_unknown(self, key: DocumentKey, intent: CallRecord, lease: Lease) -> None:
        """Raises where the question may not be asked once more; its record says "unknown" then."""
        rules = self._rules
        if intent.unknowns == 0 or (rules.unknown_policy == "ask_again" and intent.unknowns <= rules.max_unknowns):
            return
        self._change(key, lambda record: record.changed(state="unknown", unknowns=intent.unknowns))
        self._given_back(key, lease)
        times = "once" if intent.unknowns == 1 else f"{intent.unknowns} times"
        raise LLMRefusedError(
            f"the question was asked {times} and no answer came; it is not asked again",
            code="LLM_OUTCOME_UNKNOWN",
            todo="See what the provider billed; SS_LLM_UNKNOWN_POLICY and SS_LLM_UNKNOWN_MAX say when to ask again.",
        )

    # --- the call ----------------------------------------------------------------------------------------------------

    async def _ask(self, question: Question, asking: _Asking) -> Completion:
        self._traces.begin(question, call_id=asking.record.call_id)
        try:
            completion = await self._inner.complete(question)
        except LLMOutcomeUnknownError as error:
            self._record_unknown(asking, code=error.error_code, message=error.message, calls=error.calls)
            self._trace(question, asking, Ending(None, error.error_code, error.message))
            raise
        except LLMError as error:
            self._record_failure(asking, error)
            self._trace(question, asking, Ending(None, error.error_code, error.message))
            raise
        except asyncio.CancelledError as stop:
            self._record_stop(asking, sent=stop.args != (NOT_SENT,))
            self._trace(question, asking, Ending(None, "cancelled", "the run was stopped"))
            raise
        try:
            self._record_answer(question, asking, completion)
        finally:
            self._trace(question, asking, Ending(completion))
        return completion

    def _record_answer(self, question: Question, asking: _Asking, completion: Completion) -> None:
        usage = self._priced(completion.usage, question)
        answer = Answer(
            text=completion.text,
            finish_reason=completion.finish_reason,
            model=completion.model,
            usage=usage,
            request_id=completion.request_id,
            seconds=round(completion.seconds, 3),
            calls=completion.calls,
        )
        unknowns = asking.record.unknowns + completion.unknowns
        self._settle(asking, state="settled", answer=answer, unknowns=unknowns)
        self._ended(asking.key, asking.lease)
        emit(
            "SS_LLM_ANSWERED",
            job_id=question.job_id,
            tenant_id=question.tenant_id,
            ledger_key=question.key,
            model=self.name,
            tokens=usage.tokens,
            cost=None if usage.cost is None else str(usage.cost),
            calls=completion.calls,
        )

    def _record_failure(self, asking: _Asking, error: LLMError) -> None:
        self._settle(asking, state="failed", code=error.error_code, message=error.message)
        self._ended(asking.key, asking.lease)
        self._emit_failure("SS_LLM_FAILED", asking, error.error_code)

    def _record_unknown(self, asking: _Asking, *, code: str, message: str, calls: int = 1) -> None:
        unknowns = asking.record.unknowns + calls
        self._settle(asking, state="unknown", unknowns=unknowns, code=code, message=message)
        self._given_back(asking.key, asking.lease)
        self._emit_failure("SS_LLM_OUTCOME_UNKNOWN", asking, code)

    def _record_stop(self, asking: _Asking, *, sent: bool) -> None:
        if sent:
            self._record_unknown(asking, code="LLM_STOPPED", message="the run was stopped while it waited")
            return
        self._settle(asking, state="failed", code="LLM_STOPPED", message="the run was stopped before anything was sent")
        self._ended(asking.key, asking.lease)

    def _settle(self, asking: _Asking, **outcome: object) -> None:
        """Records an outcome. An answer that is on record by now stays: the lease ran out, and another asked, too."""
        ended_at = self._clock.timestamp()

        def settled(record: CallRecord) -> CallRecord:
            is_mine = record.call_id == asking.record.call_id and record.state == "intent"
            if record.answer is not None or not (is_mine or "answer" in outcome):
                return record
            return record.changed(ended_at=ended_at, **outcome)

        self._change(asking.key, settled)

    # --- how ---------------------------------------------------------------------------------------------------------

    def _change(self, key: DocumentKey, change: Callable[[CallRecord], CallRecord]) -> None:
        while (stored := read_record(self._documents, key)) is not None:
            body, record = stored
            changed = change(record)
            if changed is record:
                return
            with suppress(DocumentChangedError):
                self._documents.replace(key, changed.as_bytes(), Facets(), expected=body)
                return

    def _ended(self, key: DocumentKey, lease: Lease) -> None:
        with suppress(StaleFenceError):
            self._documents.complete(key, lease.fences[key])

    def _given_back(self, key: DocumentKey, lease: Lease) -> None:
        with suppress(StaleFenceError):
            self._documents.release(key, lease.fences[key], refund=False)

    def _priced(self, usage: Usage, question: Question) -> TokensAndCost:
        cost = self._prices.cost(usage, provider=question.provider, model=question.model)
        return TokensAndCost(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost=cost)

    def _trace(self, question: Question, asking: _Asking, ending: Ending) -> None:
        record = asking.record
        self._traces.end(question, call_id=record.call_id, started_at=record.asked_at, ending=ending)

    def _emit_failure(self, event: str, asking: _Asking, code: str) -> None:
        record = asking.record
        emit(
            event,
            level=logging.WARNING,
            job_id=record.job_id,
            tenant_id=record.tenant_id,
            ledger_key=record.key,
            model=self.name,
            code=code,
        )


class RecordedModel(LanguageModel):
    """Answers from the ledger alone and never asks: drafts are made again from it without any call."""

    def __init__(self, documents: Backend, *, name: str) -> None:
        self._documents = documents
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def complete(self, question: Question) -> Completion:
        """The answer on record.

        Raises:
            LLMRefusedError: LLM_NOT_ON_RECORD.
        """
        stored = read_record(self._documents, key_of(question))
        if stored is None or stored[1].answer is None:
            raise LLMRefusedError(
                f"no answer to question {question.key[:12]} is on record",
                code="LLM_NOT_ON_RECORD",
                todo="The prompt, the model or its parameters are others than when it was asked.",
            )
        return _on_record(stored[1].answer, question)


def _on_record(answer: Answer, question: Question) -> Completion:
    emit("SS_LLM_ANSWER_ON_RECORD", job_id=question.job_id, tenant_id=question.tenant_id, ledger_key=question.key)
    return answer.completion()


@contextmanager
def _kept_alive(lease: Lease, documents: Backend, rules: LedgerRules) -> Iterator[None]:
    """Prolongs the lease while the block runs. In a thread: the event loop may be busy for longer than a lease."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(rules.heartbeat_seconds):
            try:
                documents.heartbeat(lease, ttl=rules.lease_seconds)
            except StoreError as error:
                emit("SS_LLM_HEARTBEAT_FAILED", level=logging.WARNING, code=error.error_code)

    thread = threading.Thread(target=beat, name="llm-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
