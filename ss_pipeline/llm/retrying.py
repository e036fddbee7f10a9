"""The one owner of retries: how often a question is asked, when again, and how long all of it may take.

The SDKs are made with `max_retries=0`, and no other wrapper asks twice. Time spent waiting for a turn (governor.py,
which stands between this wrapper and the provider) is not counted: a full queue is no fault.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from ss_pipeline.clock import Clock
from ss_pipeline.errors import LLMError, LLMOutcomeUnknownError, LLMUnavailableError
from ss_pipeline.llm.breaker import Breaker
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question
from ss_pipeline.telemetry.events import emit

FORM_REJECTED: Final = "LLM_FORM_REJECTED"
"""Code of a call whose form of answer the server turned down: the next call asks for less, at once."""

_LEAST_SECONDS: Final = 1.0
"""With less time left no call is begun."""

_LATE_SECONDS: Final = 0.25
_GRACE_SECONDS: Final = 2.0
"""A time-out that is noticed late says that the loop was busy (another job of the claim was profiled): the answer may
be here and unread. It is given so much time to be read, since it is paid for."""

_RANDOM: Final = secrets.SystemRandom()


@dataclass(frozen=True)
class RetryRules:
    """How often and how long.

    Args:
        max_calls: Calls for a question, the first one included.
        deadline_seconds: For all calls and the pauses between them.
        pause_seconds: Mean bound of the first pause; it doubles, and each pause is drawn between 0 and its bound.
        asks_again_after_unknown: Whether a call that was sent and never answered is repeated; it may be billed twice.
    """

    max_calls: int = 3
    deadline_seconds: float = 60.0
    pause_seconds: float = 1.0
    max_pause_seconds: float = 30.0
    asks_again_after_unknown: bool = True


@dataclass
class _TimeLeft:
    """Seconds left of a question's deadline; calls and pauses take from it."""

    seconds: float


_TIME_LEFT: ContextVar[_TimeLeft | None] = ContextVar("_TIME_LEFT", default=None)


class TimedModel(LanguageModel):
    """Ends a call after its time-out, or when its question has no time left; stands right before the provider."""

    def __init__(self, inner: LanguageModel, *, timeout: float, clock: Clock) -> None:
        self._inner = inner
        self._timeout = timeout
        self._clock = clock

    @property
    def name(self) -> str:
        return self._inner.name

    async def complete(self, question: Question) -> Completion:
        """As the provider; a call that is ended here may be billed.

        Raises:
            LLMOutcomeUnknownError: no whole answer in time.
        """
        left = _TIME_LEFT.get()
        seconds = min(self._timeout, left.seconds) if left else self._timeout
        started = self._clock.monotonic()
        call = asyncio.ensure_future(self._inner.complete(question))
        try:
            await asyncio.wait({call}, timeout=seconds)
            if not call.done() and self._clock.monotonic() - started > seconds + _LATE_SECONDS:
                await asyncio.wait({call}, timeout=_GRACE_SECONDS)
            if call.done():
                return call.result()
            raise LLMOutcomeUnknownError(f"{self.name} gave no whole answer within {seconds:.3g} s")
        finally:
            if left:
                left.seconds -= min(self._clock.monotonic() - started, seconds)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)


class RetryingModel(LanguageModel):
    """Asks again after a fault that may pass."""

    def __init__(
        self,
        inner: LanguageModel,
        *,
        rules: RetryRules,
        breaker: Breaker,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = _RANDOM.random,
    ) -> None:
        """
        Args:
            chance: A number in [0, 1) for each pause.
        """
        self._inner = inner
        self._rules = rules
        self._breaker = breaker
        self._sleep = sleep
        self._chance = chance

    @property
    def name(self) -> str:
        return self._inner.name

    async def complete(self, question: Question) -> Completion:
        """The answer; `calls` counts all that were made for it."""
        left = _TimeLeft(self._rules.deadline_seconds)
        token = _TIME_LEFT.set(left)
        try:
            return await self._asked(question, left)
        finally:
            _TIME_LEFT.reset(token)

    async def _asked(self, question: Question, left: _TimeLeft) -> Completion:
        call = unknowns = 0
        while True:
            self._refuse_while_open()
            call += 1
            try:
                completion = await self._inner.complete(question)
            except asyncio.CancelledError:
                if unknowns:  # this call may not have been sent, an earlier one was
                    raise asyncio.CancelledError from None
                raise
            except LLMError as error:
                self._note(error)
                unknowns += isinstance(error, LLMOutcomeUnknownError)
                pause = self._pause_after(error, call, left)
                if pause is None:
                    self._refuse_to_forget(unknowns, error)
                    raise
                self._emit_retry(question, error, call=call, pause=pause)
                await self._wait(pause, left, was_sent=unknowns > 0)
            else:
                self._breaker.succeeded()
                return replace(completion, calls=call, unknowns=unknowns)

    async def _wait(self, pause: float, left: _TimeLeft, *, was_sent: bool) -> None:
        left.seconds -= pause
        try:
            await self._sleep(pause)
        except asyncio.CancelledError:
            raise asyncio.CancelledError(*([] if was_sent else [NOT_SENT])) from None

    def _refuse_to_forget(self, unknowns: int, error: LLMError) -> None:
        """Whoever keeps the books must hear of every call that may have been billed."""
        if unknowns > isinstance(error, LLMOutcomeUnknownError):
            message = f"{unknowns} of the calls had no answer; the last: {error.message}"
            raise LLMOutcomeUnknownError(message, calls=unknowns) from error

    def _pause_after(self, error: LLMError, call: int, left: _TimeLeft) -> float | None:
        """Seconds until the next call; None where there is none."""
        if call >= self._rules.max_calls or not self._may_pass(error):
            return None
        pause = self._pause(error, call)
        return pause if left.seconds - pause >= _LEAST_SECONDS else None

    def _may_pass(self, error: LLMError) -> bool:
        if isinstance(error, LLMOutcomeUnknownError):
            return self._rules.asks_again_after_unknown
        return isinstance(error, LLMUnavailableError)

    def _pause(self, error: LLMError, call: int) -> float:
        """What the provider asks for, else full jitter below a bound that doubles."""
        if error.error_code == FORM_REJECTED:
            return 0.0
        bound = min(self._rules.pause_seconds * 2.0 ** (call - 1), self._rules.max_pause_seconds)
        drawn = self._chance() * bound
        asked = error.retry_after if isinstance(error, LLMUnavailableError) else None
        return drawn if asked is None else asked + drawn

    def _note(self, error: LLMError) -> None:
        if isinstance(error, LLMUnavailableError | LLMOutcomeUnknownError) and error.error_code != FORM_REJECTED:
            self._breaker.failed()

    def _refuse_while_open(self) -> None:
        seconds = self._breaker.refuses_for()
        if seconds > 0:
            raise LLMUnavailableError(
                f"{self.name} is not asked for another {seconds:.0f} s: its provider failed several times in a row",
                code="LLM_BREAKER_OPEN",
                retry_after=seconds,
            )

    def _emit_retry(self, question: Question, error: LLMError, *, call: int, pause: float) -> None:
        emit(
            "SS_LLM_RETRIED",
            level=logging.WARNING,
            job_id=question.job_id,
            model=self.name,
            code=error.error_code,
            call=call,
            pause=round(pause, 3),
        )
