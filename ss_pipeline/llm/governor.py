"""The governor: calls and tokens a minute, kept by all processes together.

One document a limit says when the next call may begin. A call takes its place in the queue by one compare-and-set and
then waits for its moment, so that places are given in order and nobody polls. In no minute are there more calls, or
more tokens, than the limit: a sixth of it may come at once, the rest evenly (the generic cell rate algorithm; a single
call that is larger than that sixth waits until nothing else counts, and may exceed it by its own excess). A call takes
its most tokens when it begins, and the difference to what it took is given back after it.

Where one process is told to come back later (Retry-After), all wait. Retries are retrying.py's business.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from pydantic import BaseModel, ConfigDict

from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    LLMUnavailableError,
    StoreError,
)
from ss_pipeline.llm.limits import Rate
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question
from ss_pipeline.llm.prices import most_tokens
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.telemetry.events import emit

RATES: Final = "rates"

_TENANT: Final = "all"
_BURST: Final = 6
"""The part of a limit that may be used at once: one sixth."""

_SET_BACK_SECONDS: Final = 60.0

_TOLD_SECONDS: Final = 1.0
"""Waits at least so long are told as an event."""


class Queue(BaseModel):
    """The state of a limit; times are epoch seconds.

    Args:
        last: When the last call that has a place begins; later ones begin no sooner.
        requests: When the calls so far are evened out (the theoretical arrival time of the algorithm).
        tokens: The same for their tokens.
        paused_until: No call begins before this.
        written_at: When this was written, to notice a clock that was set back.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: int = 1
    name: str = ""
    last: float = 0.0
    requests: float = 0.0
    tokens: float = 0.0
    paused_until: float = 0.0
    written_at: float = 0.0

    def shifted(self, now: float) -> "Queue":
        """The same as seen from a clock that was set back since; two machines may differ by less."""
        if (back := self.written_at - now) < _SET_BACK_SECONDS:
            return self
        times = ("last", "requests", "tokens", "paused_until")
        return self.model_copy(update={name: getattr(self, name) - back for name in times})

    def entered(self, rate: Rate, *, tokens: int, now: float) -> "Queue":
        """With one more call in the queue, which begins at `last`."""
        calls, words = _Bucket.of(rate.requests_per_minute), _Bucket.of(rate.tokens_per_minute)
        at = max(now, self.last, self.paused_until)
        at = max(at, calls.opens(self.requests, 1), words.opens(self.tokens, tokens))
        update = {
            "last": at,
            "requests": calls.after(self.requests, 1, at=at),
            "tokens": words.after(self.tokens, tokens, at=at),
        }
        return self.model_copy(update=update)

    def given_back(self, rate: Rate, *, tokens: int) -> "Queue":
        """With tokens that a call did not take; a negative number takes more."""
        return self.model_copy(update={"tokens": self.tokens - tokens * _Bucket.of(rate.tokens_per_minute).interval})

    def paused(self, until: float) -> "Queue":
        """With no call before a time."""
        return self if until <= self.paused_until else self.model_copy(update={"paused_until": until})


class _Bucket:
    """One limit in the algorithm's terms: seconds that a unit takes, and seconds that may be ahead of it."""

    def __init__(self, *, interval: float, burst: float) -> None:
        self.interval = interval
        self._burst = burst

    @classmethod
    def of(cls, per_minute: int | None) -> "_Bucket":
        """Of a limit a minute: at once plus evenly in any minute is the limit."""
        if per_minute is None:
            return cls(interval=0.0, burst=0.0)
        at_once = max(1, per_minute // _BURST)
        interval = 60.0 / max(1, per_minute - at_once)
        return cls(interval=interval, burst=at_once * interval)

    def opens(self, even: float, units: int) -> float:
        """When so many units fit; more than may come at once fit when nothing else counts."""
        return even + min(units * self.interval, self._burst) - self._burst

    def after(self, even: float, units: int, *, at: float) -> float:
        """When all is evened out, with so many units at this time."""
        return max(even, at) + units * self.interval


class GovernedModel(LanguageModel):
    """Asks the model it wraps when its turn has come.

    Args:
        rates: Limits by `<provider>/<model>`, or by `<provider>` for all of its models that are not named, together.
        documents: Where the queues are.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        rates: Mapping[str, Rate],
        documents: Backend,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner = inner
        self._rates = rates
        self._documents = documents
        self._clock = clock
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self._inner.name

    async def complete(self, question: Question) -> Completion:
        """The answer, asked for when it was the call's turn; the time that took is not in its `seconds`.

        Raises:
            LLMUnavailableError: as the inner model raises it; where it says when to come back, all calls wait for that.
        """
        limited = self._limit_of(question)
        if limited is None:
            return await self._inner.complete(question)
        name, rate = limited
        usage = most_tokens(question)
        most = usage.input_tokens + usage.output_tokens
        await self._turn(name, rate, tokens=most)
        try:
            completion = await self._inner.complete(question)
        except LLMUnavailableError as error:
            if error.retry_after:
                until = self._now() + error.retry_after
                self._enter(name, question, lambda queue: queue.paused(until))
            raise
        taken = completion.usage.input_tokens + completion.usage.output_tokens or most
        if taken != most and rate.tokens_per_minute is not None:
            self._enter(name, question, lambda queue: queue.given_back(rate, tokens=most - taken))
        return completion

    def _limit_of(self, question: Question) -> tuple[str, Rate] | None:
        for name in (f"{question.provider}/{question.model}", question.provider):
            if name in self._rates:
                return name, self._rates[name]
        return None

    async def _turn(self, name: str, rate: Rate, *, tokens: int) -> None:
        """Waits for the call's place in the queue; takes another one where all were told to wait meanwhile."""
        begun = self._now()
        try:
            while True:
                queue = self._change(name, lambda found: found.entered(rate, tokens=tokens, now=self._now()))
                await self._sleep(max(0.0, queue.last - self._now()))
                if self._read(name).paused_until <= queue.last:
                    break
        except asyncio.CancelledError:
            raise asyncio.CancelledError(NOT_SENT) from None
        if (waited := self._now() - begun) >= _TOLD_SECONDS:
            emit("SS_LLM_RATE_WAITED", limit=name, seconds=round(waited, 1))

    def _enter(self, name: str, question: Question, change: Callable[[Queue], Queue]) -> None:
        """Enters what a call came to. Where the store refuses, its answer or error is worth more."""
        try:
            self._change(name, change)
        except StoreError as error:
            emit(
                "SS_LLM_SPENDING_NOT_ENTERED",
                level=logging.WARNING,
                job_id=question.job_id,
                place=_key_of(name).name,
                code=error.error_code,
            )

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _read(self, name: str) -> Queue:
        return self._stored(_key_of(name))[1]

    def _stored(self, key: DocumentKey) -> tuple[bytes | None, Queue]:
        try:
            body = self._documents.read(key)
        except DocumentNotFoundError:
            return None, Queue()
        return body, Queue.model_validate(json.loads(body)).shifted(self._now())

    def _change(self, name: str, change: Callable[[Queue], Queue]) -> Queue:
        key = _key_of(name)
        while True:
            body, queue = self._stored(key)
            changed = change(queue).model_copy(update={"name": name, "written_at": self._now()})
            document = (changed.model_dump_json(indent=1) + "\n").encode()
            try:
                if body is None:
                    self._documents.create(key, document, Facets())
                else:
                    self._documents.replace(key, document, Facets(), expected=body)
            except (DocumentChangedError, DocumentExistsError):
                continue
            return changed


def _key_of(name: str) -> DocumentKey:
    """Where the queue of a limit is; a model's name may hold characters that a document's id may not."""
    return DocumentKey(RATES, _TENANT, hashlib.sha256(name.encode()).hexdigest()[:32])
