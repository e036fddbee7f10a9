"""The governor: in no minute more than the limit, in order, for all processes together."""

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ss_pipeline.errors import LLMUnavailableError
from ss_pipeline.llm.governor import RATES, Queue
from ss_pipeline.llm.limits import Rate
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.flaky_store import FlakyBackend
from ss_pipeline_tests.llm_calls import Desk, ToldModel, a_completion, a_question
from ss_pipeline_tests.store_contract import STANDS, Stand

pytestmark = pytest.mark.anyio


class SleepingClock(StandingClock):
    """A clock that whoever sleeps moves on."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.advance(seconds)


class NotingModel(ToldModel):
    """Notes when it was asked."""

    def __init__(self, clock: StandingClock, *faults: BaseException, completion: Completion | None = None) -> None:
        super().__init__(*faults, completion=completion)
        self._clock = clock
        self.times: list[float] = []

    async def complete(self, question: Question) -> Completion:
        self.times.append(self._clock.now().timestamp())
        return await super().complete(question)


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path) as stand:
        yield stand


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Stand]:
    with STANDS["memory"](tmp_path) as stand:
        yield stand


def most_in_a_minute(times: list[float], weights: list[int] | None = None) -> int:
    """The most of any minute that begins with a call."""
    counted = list(zip(times, weights or [1] * len(times), strict=True))
    return max(sum(weight for at, weight in counted if begin <= at < begin + 60 - 1e-6) for begin, _ in counted)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 60, 500])
def test_in_no_minute_are_there_more_calls_than_the_limit_whenever_they_come(limit: int) -> None:
    dice, queue, now, times = random.Random(limit), Queue(), 1_000.0, []
    for _ in range(4 * limit):
        now += dice.choice([0.0, 0.0, 0.0, 1.0, 90.0 / limit])
        queue = queue.entered(Rate(requests_per_minute=limit), tokens=1, now=now)
        times.append(queue.last)
    assert most_in_a_minute(times) <= limit
    assert times == sorted(times)
    assert times[-1] - now < 4 * limit * 60 / max(1, limit * 2 / 3) + 120  # and not far fewer, either


def test_in_no_minute_are_there_more_tokens_than_the_limit() -> None:
    dice, queue, now, times, sizes = random.Random(1), Queue(), 1_000.0, [], []
    rate = Rate(requests_per_minute=1_000, tokens_per_minute=60_000)
    for _ in range(300):
        now += dice.choice([0.0, 0.0, 2.0])
        sizes.append(dice.randint(100, 10_000))
        queue = queue.entered(rate, tokens=sizes[-1], now=now)
        times.append(queue.last)
    assert most_in_a_minute(times, sizes) <= 60_000


def test_a_call_that_is_larger_than_what_may_come_at_once_is_not_kept_out_for_ever() -> None:
    rate = Rate(tokens_per_minute=6_000)
    first = Queue().entered(rate, tokens=50_000, now=1_000.0)
    second = first.entered(rate, tokens=100, now=1_000.0)
    assert first.last == 1_000.0
    assert 500 < second.last - 1_000.0 < 620


def test_tokens_that_a_call_did_not_take_are_there_for_the_next() -> None:
    rate = Rate(tokens_per_minute=6_000)
    full = Queue().entered(rate, tokens=5_000, now=1_000.0)
    given_back = full.given_back(rate, tokens=4_900)
    assert full.entered(rate, tokens=1_000, now=1_000.0).last > 1_040
    assert given_back.entered(rate, tokens=900, now=1_000.0).last == 1_000.0


def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_that_long() -> None:
    rate, queue = Rate(requests_per_minute=60), Queue()
    for _ in range(30):
        queue = queue.entered(rate, tokens=1, now=90_000.0)
    queue = queue.model_copy(update={"written_at": 90_000.0})
    assert queue.shifted(10_000.0).entered(rate, tokens=1, now=10_000.0).last - 10_000.0 < 30
    assert queue.shifted(89_999.0) == queue  # two machines may differ by a little


async def test_calls_begin_in_their_turn_on_every_back_end(stand: Stand, tmp_path: Path) -> None:
    clock = SleepingClock()
    desk = Desk.at(tmp_path, stand.backend, clock)
    model = NotingModel(clock)
    governed = desk.governed(model, {"openai": Rate(requests_per_minute=12)}, sleep=clock.sleep)
    for number in range(14):
        await governed.complete(a_question(str(number)))
    assert most_in_a_minute(model.times) <= 12
    assert max(later - sooner for sooner, later in pairwise(model.times)) <= 6.1
    assert stand.backend.counts(RATES) == {("all", ""): 1}


async def test_where_one_is_told_to_come_back_later_all_wait(memory: Stand, tmp_path: Path) -> None:
    clock = SleepingClock()
    desk = Desk.at(tmp_path, memory.backend, clock)
    rates = {"openai/small": Rate(requests_per_minute=600)}
    limited = NotingModel(clock, LLMUnavailableError("429", retry_after=20.0))
    with pytest.raises(LLMUnavailableError):
        await desk.governed(limited, rates, sleep=clock.sleep).complete(a_question())
    other = NotingModel(clock)
    await desk.governed(other, rates, sleep=clock.sleep).complete(a_question("another"))
    assert other.times[0] - limited.times[0] >= 20.0


async def test_who_was_waiting_when_all_were_told_to_wait_takes_a_new_place(memory: Stand, tmp_path: Path) -> None:
    clock = StandingClock()
    desk = Desk.at(tmp_path, memory.backend, clock)
    model = NotingModel(clock)
    waking = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if seconds:
            await waking.wait()
            clock.advance(seconds)

    governed = desk.governed(model, {"openai": Rate(requests_per_minute=6)}, sleep=sleep)
    await governed.complete(a_question("first"))
    waiting = asyncio.create_task(governed.complete(a_question("second")))
    await asyncio.sleep(0)
    until = clock.now().timestamp() + 100.0
    governed._change("openai", lambda queue: queue.paused(until))
    waking.set()
    await waiting
    assert model.times[1] - model.times[0] >= 100.0


async def test_models_without_a_limit_do_not_wait(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, StandingClock())
    governed: LanguageModel = desk.governed(ToldModel(), {"claude": Rate(requests_per_minute=1)})
    for number in range(5):
        await governed.complete(a_question(str(number)))
    assert memory.backend.collections() == []


async def test_what_a_call_took_is_what_counts_in_the_end(memory: Stand, tmp_path: Path) -> None:
    clock = SleepingClock()
    desk = Desk.at(tmp_path, memory.backend, clock)
    model = NotingModel(clock, completion=a_completion(tokens=30))
    governed = desk.governed(model, {"openai": Rate(tokens_per_minute=1_200)}, sleep=clock.sleep)
    for number in range(30):
        await governed.complete(a_question(f"{number:02d}"))
    assert model.times[-1] - model.times[0] < 60  # 900 tokens; 30 times the most a call can take would be 5,000


async def test_who_is_stopped_while_waiting_has_sent_nothing(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, StandingClock())
    model = ToldModel()
    governed = desk.governed(model, {"openai": Rate(requests_per_minute=1)})
    await governed.complete(a_question())
    waiting = asyncio.create_task(governed.complete(a_question("another")))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError, match=NOT_SENT):
        await waiting
    assert len(model.asked) == 1


async def test_an_answer_is_not_lost_where_what_it_took_cannot_be_entered(memory: Stand, tmp_path: Path) -> None:
    documents = FlakyBackend(memory.backend, ["no", "no", "no", "before"])
    desk = Desk.at(tmp_path, documents, StandingClock())
    governed = desk.governed(ToldModel(), {"openai": Rate(tokens_per_minute=6_000)})
    assert (await governed.complete(a_question())).calls == 1
    assert documents.calls == ["read", "create", "read", "read"]
