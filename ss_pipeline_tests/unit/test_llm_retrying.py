"""The one owner of retries, against a model that does as told and time that only pauses move."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from ss_pipeline.clock import SystemClock
from ss_pipeline.errors import LLMError, LLMOutcomeUnknownError, LLMRefusedError, LLMUnavailableError
from ss_pipeline.llm.breaker import Breaker
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question, Usage
from ss_pipeline.llm.retrying import FORM_REJECTED, RetryingModel, RetryRules, TimedModel
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.llm_calls import a_question

DOWN = LLMUnavailableError("down")
UNKNOWN = LLMOutcomeUnknownError("no answer")
REFUSED = LLMRefusedError("no")


class _Told(LanguageModel):
    """Fails as told, then answers; each call takes its seconds."""

    def __init__(self, *faults: LLMError, clock: StandingClock, seconds: float = 0.0) -> None:
        self._faults = list(faults)
        self._clock = clock
        self._seconds = seconds
        self.calls = 0

    @property
    def name(self) -> str:
        return "told/1"

    async def complete(self, question: Question) -> Completion:
        self.calls += 1
        self._clock.advance(self._seconds)
        if self._faults:
            raise self._faults.pop(0)
        return Completion(text="{}", finish_reason="stop", model="told", usage=Usage())


class _Bench:
    """A retrying model over a told one."""

    def __init__(self, *faults: LLMError, seconds: float = 0.0, breaker_faults: int = 99, **rules: float) -> None:
        self.clock = StandingClock()
        self.told = _Told(*faults, clock=self.clock, seconds=seconds)
        self.pauses: list[float] = []
        self.breaker = Breaker("told", clock=self.clock, faults=breaker_faults)
        self.model = RetryingModel(
            TimedModel(self.told, timeout=30.0, clock=self.clock),
            rules=RetryRules(**rules),  # type: ignore[arg-type]
            breaker=self.breaker,
            sleep=self._slept,
            chance=lambda: 0.5,
        )

    async def _slept(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    def ask(self) -> Completion:
        return asyncio.run(self.model.complete(a_question()))


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_there_are_never_more_calls_than_the_configured_number(limit: int) -> None:
    bench = _Bench(*[DOWN] * 20, max_calls=limit)

    with pytest.raises(LLMUnavailableError):
        bench.ask()

    assert bench.told.calls == limit


@pytest.mark.seed("S2.1.10")
def test_pauses_double_and_are_drawn_between_nothing_and_their_bound() -> None:
    bench = _Bench(*[DOWN] * 6, max_calls=7, pause_seconds=1.0, max_pause_seconds=6.0)

    assert bench.ask().calls == 7
    assert bench.pauses == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize(
    ("seconds", "pause", "calls"),
    [(30.0, 0.0, 2), (29.0, 0.0, 3), (10.0, 25.0, 2), (0.0, 70.0, 1), (0.0, 59.5, 1), (0.0, 58.0, 2)],
)
def test_no_call_is_begun_that_the_deadline_has_no_room_for(seconds: float, pause: float, calls: int) -> None:
    waits = LLMUnavailableError("later", retry_after=pause)
    bench = _Bench(*[waits] * 9, seconds=seconds, pause_seconds=0.0)

    with pytest.raises(LLMUnavailableError):
        bench.ask()

    assert bench.told.calls == calls


@pytest.mark.parametrize(
    ("faults", "again", "calls", "unknowns"),
    [((UNKNOWN,), True, 2, 1), ((UNKNOWN, DOWN), True, 3, 1), ((UNKNOWN, UNKNOWN), True, 3, 2), ((DOWN,), False, 2, 0)],
)
def test_calls_that_nobody_knows_the_outcome_of_are_counted(
    faults: Sequence[LLMError], again: bool, calls: int, unknowns: int
) -> None:
    completion = _Bench(*faults, asks_again_after_unknown=again).ask()

    assert (completion.calls, completion.unknowns) == (calls, unknowns)


def test_a_call_of_unknown_outcome_is_not_repeated_where_the_policy_forbids_it() -> None:
    bench = _Bench(UNKNOWN, asks_again_after_unknown=False)

    with pytest.raises(LLMOutcomeUnknownError):
        bench.ask()

    assert bench.told.calls == 1


@pytest.mark.parametrize(
    ("faults", "calls"), [((UNKNOWN, DOWN, DOWN), 1), ((UNKNOWN, REFUSED), 1), ((UNKNOWN, DOWN, UNKNOWN), 2)]
)
def test_an_unknown_outcome_is_not_forgotten_over_a_later_fault(faults: Sequence[LLMError], calls: int) -> None:
    with pytest.raises(LLMOutcomeUnknownError, match=f"{calls} of the calls") as caught:
        _Bench(*faults).ask()

    assert caught.value.calls == calls


class _Stopped(_Told):
    """Is stopped before it sends anything, once its faults are used up."""

    async def complete(self, question: Question) -> Completion:
        await super().complete(question)
        raise asyncio.CancelledError(NOT_SENT)


@pytest.mark.parametrize(("faults", "said"), [((), (NOT_SENT,)), ((DOWN,), (NOT_SENT,)), ((UNKNOWN,), ())])
def test_who_is_stopped_before_a_call_after_one_of_unknown_outcome_has_sent_something(
    faults: Sequence[LLMError], said: tuple[str, ...]
) -> None:
    bench = _Bench()
    model = RetryingModel(
        _Stopped(*faults, clock=bench.clock), rules=RetryRules(), breaker=bench.breaker, sleep=bench._slept
    )

    with pytest.raises(asyncio.CancelledError) as stop:
        asyncio.run(model.complete(a_question()))

    assert stop.value.args == said


def test_a_refusal_is_final() -> None:
    bench = _Bench(DOWN, REFUSED)

    with pytest.raises(LLMRefusedError):
        bench.ask()

    assert bench.told.calls == 2


def test_a_form_that_is_turned_down_costs_no_pause_and_does_not_open_the_breaker() -> None:
    bench = _Bench(*[LLMUnavailableError("no schema", code=FORM_REJECTED)] * 2, breaker_faults=1)

    assert bench.ask().calls == 3
    assert bench.pauses == [0.0, 0.0]


@pytest.mark.guarantee("L1")
def test_a_provider_that_keeps_failing_is_left_alone_and_then_tried_by_one() -> None:
    bench = _Bench(*[DOWN] * 7, breaker_faults=5)
    codes = []
    for _ in range(4):
        with pytest.raises(LLMUnavailableError) as failed:
            bench.ask()
        codes.append(failed.value.error_code)

    assert codes == ["LLM_UNAVAILABLE", "LLM_BREAKER_OPEN", "LLM_BREAKER_OPEN", "LLM_BREAKER_OPEN"]
    assert bench.told.calls == 5

    bench.clock.advance(31)
    assert bench.breaker.refuses_for() == 0.0
    assert bench.breaker.refuses_for() > 0, "only one tries"
    bench.breaker.succeeded()
    assert bench.breaker.refuses_for() == 0.0


def test_waiting_for_a_turn_is_no_part_of_the_deadline() -> None:
    """As the governor does, which stands between the retries and the time-out."""
    bench = _Bench(DOWN)

    class Queued(LanguageModel):
        name = "queued/1"

        async def complete(self, question: Question) -> Completion:
            bench.clock.advance(500.0)
            return await TimedModel(bench.told, timeout=30.0, clock=bench.clock).complete(question)

    model = RetryingModel(Queued(), rules=RetryRules(), breaker=bench.breaker, sleep=asyncio.sleep, chance=lambda: 0.0)

    assert asyncio.run(model.complete(a_question())).calls == 2


def test_a_call_without_an_end_is_ended_and_may_be_billed() -> None:
    class Endless(LanguageModel):
        name = "endless/1"

        async def complete(self, question: Question) -> Completion:
            await asyncio.sleep(3600)
            raise AssertionError

    model = TimedModel(Endless(), timeout=0.05, clock=StandingClock())

    with pytest.raises(LLMOutcomeUnknownError, match=r"within 0.05 s"):
        asyncio.run(model.complete(a_question()))


def test_an_answer_that_came_while_the_loop_was_busy_is_read_and_not_asked_for_again() -> None:
    """As when the next job of a claim is profiled, which holds the loop for longer than the time-out."""

    class Quick(LanguageModel):
        name = "quick/1"

        async def complete(self, question: Question) -> Completion:
            for _ in range(5):  # turns of the loop that reading an answer takes
                await asyncio.sleep(0.01)
            return Completion(text="{}", finish_reason="stop", model="quick", usage=Usage())

    async def busy() -> Completion:
        call = asyncio.create_task(TimedModel(Quick(), timeout=0.2, clock=SystemClock()).complete(a_question()))
        await asyncio.sleep(0)
        time.sleep(0.6)  # noqa: ASYNC251 - it is what is tested
        return await call

    assert asyncio.run(busy()).text == "{}"


def test_a_stop_ends_the_call_with_it() -> None:
    ended: list[str] = []

    class Stopped(LanguageModel):
        name = "stopped/1"

        async def complete(self, question: Question) -> Completion:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("call")
            raise AssertionError

    async def stopped() -> None:
        task = asyncio.create_task(TimedModel(Stopped(), timeout=30.0, clock=SystemClock()).complete(a_question()))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(stopped())
    assert ended == ["call"]


@pytest.mark.parametrize(("fault", "said"), [(DOWN, (NOT_SENT,)), (UNKNOWN, ())])
def test_a_stop_during_a_pause_says_whether_anything_may_be_billed(fault: LLMError, said: tuple[str, ...]) -> None:
    clock = StandingClock()
    model = RetryingModel(
        _Told(fault, clock=clock), rules=RetryRules(), breaker=Breaker("told", clock=clock), chance=lambda: 0.99
    )

    async def stopped() -> tuple[str, ...]:
        task = asyncio.create_task(model.complete(a_question()))
        await asyncio.sleep(0.05)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as stop:
            return stop.args
        raise AssertionError

    assert asyncio.run(stopped()) == said
