"""Budgets: never overrun, whoever asks at once; what is over waits for the next day, what is not made is given back."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from ss_pipeline.clock import SystemClock
from ss_pipeline.errors import (
    LLMBudgetError,
    LLMError,
    LLMOutcomeUnknownError,
    LLMRefusedError,
    LLMUnavailableError,
    SettingsError,
)
from ss_pipeline.llm.budgets import BUDGETS, Account, Accounts, Amount, day_account, job_account, next_day
from ss_pipeline.llm.call_records import key_of
from ss_pipeline.llm.limits import Budget
from ss_pipeline.llm.model import NOT_SENT, Completion, Question, Usage
from ss_pipeline.llm.policies import LLMConfig, Policies, TenantPolicy, check_prices
from ss_pipeline.llm.prices import Price, PriceTable, most_tokens
from ss_pipeline.store.base import DocumentKey
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.flaky_store import FlakyBackend
from ss_pipeline_tests.llm_calls import JOB, PRICES, Desk, ToldModel, a_completion, a_question
from ss_pipeline_tests.store_contract import STANDS, Stand

pytestmark = pytest.mark.anyio

MOST = sum(vars(most_tokens(a_question("call 00"))).values())
"""Tokens that a call of these tests reserves; it takes 30."""


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path) as stand:
        yield stand


@pytest.fixture
def desk(stand: Stand, tmp_path: Path) -> Desk:
    return Desk.at(tmp_path, stand.backend, SystemClock())


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Stand]:
    with STANDS["memory"](tmp_path) as stand:
        yield stand


def account(desk: Desk, document_id: str | None = None) -> Account:
    key = DocumentKey(BUDGETS, "default", document_id or day_account(desk.clock.now()))
    return Accounts(desk.documents).read(key)


def numbered(number: int) -> Question:
    return a_question(f"call {number:02d}", job_id=f"job_{number:016d}")


async def outcome(asking: "asyncio.Future[Completion] | asyncio.Task[Completion]") -> str:
    try:
        await asking
    except LLMError as error:
        return error.error_code
    return "answered"


@pytest.mark.guarantee("L2")
async def test_of_a_hundred_calls_at_once_a_budget_for_forty_pays_for_forty(memory: Stand, tmp_path: Path) -> None:
    await a_budget_pays_for(40, of=100, desk=Desk.at(tmp_path, memory.backend, SystemClock()))


@pytest.mark.guarantee("L2")
async def test_of_twenty_calls_at_once_a_budget_for_eight_pays_for_eight_on_every_back_end(desk: Desk) -> None:
    await a_budget_pays_for(8, of=20, desk=desk)


async def a_budget_pays_for(number: int, *, of: int, desk: Desk) -> None:
    """Asserts that of so many calls at once exactly those are made that there is budget for."""
    budget = Budget(tokens_per_day=number * 30 + MOST - 1)  # nobody may begin what might not fit
    model = ToldModel(seconds=0.01)
    paid = desk.budgeted(model, budget)
    tasks = [asyncio.create_task(paid.complete(numbered(call))) for call in range(of)]
    outcomes = [await outcome(task) for task in tasks]
    assert outcomes.count("answered") == len(model.asked) == number
    assert outcomes.count("LLM_BUDGET_EXHAUSTED") == of - number
    left = account(desk)
    assert (left.spent.tokens, left.reserved) == (number * 30, {})


async def test_who_is_over_the_budget_of_the_day_is_told_when_it_resets(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, StandingClock(datetime(2026, 1, 6, 23, 59, 30, tzinfo=UTC)))
    paid = desk.budgeted(ToldModel(), Budget(tokens_per_day=MOST))
    await paid.complete(numbered(1))
    with pytest.raises(LLMBudgetError, match="of the day") as over:
        await paid.complete(numbered(2))
    assert over.value.resets_at == "2026-01-07T00:00:00+00:00"
    assert isinstance(desk.clock, StandingClock)
    desk.clock.advance(31)
    assert (await paid.complete(numbered(2))).calls == 1


async def test_money_is_counted_to_the_last_digit(desk: Desk) -> None:
    paid = desk.budgeted(ToldModel(completion=a_completion(tokens=30)), Budget(money_per_day=Decimal("1")))
    for number in range(3):
        await paid.complete(numbered(number))
    assert account(desk).spent.money == 3 * (20 * Decimal("0.15") + 10 * Decimal("0.60")) / 1_000_000


async def test_a_job_over_its_own_budget_is_refused_for_good(desk: Desk) -> None:
    paid = desk.budgeted(ToldModel(), Budget(tokens_per_job=MOST + 10, tokens_per_day=10 * MOST))
    await paid.complete(a_question("call 01"))
    with pytest.raises(LLMRefusedError) as refused:
        await paid.complete(a_question("call 02"))
    assert refused.value.error_code == "LLM_JOB_BUDGET_EXHAUSTED"
    assert account(desk, job_account(JOB)).spent.tokens == 30
    assert account(desk).reserved == {}


async def test_a_call_that_a_whole_day_has_no_room_for_is_refused_for_good(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    with pytest.raises(LLMRefusedError) as refused:
        await desk.budgeted(ToldModel(), Budget(tokens_per_day=MOST - 1)).complete(numbered(1))
    assert refused.value.error_code == "LLM_DAY_BUDGET_TOO_SMALL"


async def test_money_cannot_be_counted_for_a_model_without_a_price(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    with pytest.raises(LLMRefusedError, match="no price"):
        await desk.budgeted(ToldModel(), Budget(money_per_day=Decimal(1))).complete(a_question(model="unheard-of"))


@pytest.mark.parametrize(
    ("fault", "spent"),
    [
        (LLMUnavailableError("503"), 0),
        (LLMRefusedError("400"), 0),
        (LLMOutcomeUnknownError("timed out"), MOST),
        (LLMOutcomeUnknownError("timed out twice", calls=2), 2 * MOST),
        (asyncio.CancelledError(NOT_SENT), 0),
        (asyncio.CancelledError(), MOST),
    ],
)
async def test_what_was_not_billed_is_given_back_and_what_may_have_been_is_spent(
    memory: Stand, tmp_path: Path, fault: BaseException, spent: int
) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    with pytest.raises(type(fault)):
        await desk.budgeted(ToldModel(fault), Budget(tokens_per_day=10 * MOST)).complete(numbered(1))
    assert (account(desk).spent.tokens, account(desk).reserved) == (spent, {})


@pytest.mark.parametrize(
    ("completion", "spent"),
    [
        (Completion("yes", "stop", "m", Usage(20, 10), calls=3, unknowns=2), 2 * MOST + 30),
        (Completion("yes", "stop", "m", Usage()), MOST),
    ],
    ids=["calls that nobody answered", "a provider that counts nothing"],
)
async def test_what_nobody_counted_is_taken_for_the_most_it_can_be(
    memory: Stand, tmp_path: Path, completion: Completion, spent: int
) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    await desk.budgeted(ToldModel(completion=completion), Budget(tokens_per_day=10 * MOST)).complete(numbered(1))
    assert account(desk).spent.tokens == spent


async def test_a_reservation_of_a_process_that_is_gone_is_spent_once_its_lease_is_over(
    stand: Stand, tmp_path: Path
) -> None:
    desk = Desk.at(tmp_path, stand.backend, SystemClock())
    budget, gone = Budget(tokens_per_day=2 * MOST), numbered(1)
    ledgered = desk.ledgered(ToldModel())
    ledgered._created(key_of(gone), ledgered._intent(gone))
    stand.backend.lease([key_of(gone)], claim_id="gone", owner="gone", ttl=60)
    day = DocumentKey(BUDGETS, "default", day_account(desk.clock.now()))
    Accounts(stand.backend)._change(day, lambda found: found.reserving(gone.key, Amount(tokens=MOST + 1)))
    waiting = asyncio.create_task(desk.budgeted(ToldModel(), budget).complete(numbered(2)))
    await asyncio.sleep(0.4)
    assert not waiting.done()  # the other may still be asking, and take less
    stand.clock.advance(61)
    assert await outcome(waiting) == "LLM_BUDGET_EXHAUSTED"
    assert (account(desk).spent.tokens, account(desk).reserved) == (MOST + 1, {})


async def test_asking_again_after_an_unknown_outcome_spends_the_earlier_reservation(
    memory: Stand, tmp_path: Path
) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    question = numbered(1)
    day = DocumentKey(BUDGETS, "default", day_account(desk.clock.now()))
    Accounts(memory.backend)._change(day, lambda found: found.reserving(question.key, Amount(tokens=MOST)))
    await desk.budgeted(ToldModel(), Budget(tokens_per_day=2 * MOST)).complete(question)
    assert (account(desk).spent.tokens, account(desk).reserved) == (MOST + 30, {})


async def test_what_could_not_be_entered_is_settled_by_the_ledger_when_it_matters(
    memory: Stand, tmp_path: Path
) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    budget = Budget(tokens_per_day=MOST + 30)
    flaky = FlakyBackend(memory.backend)
    paid = Desk.at(tmp_path, flaky, SystemClock()).budgeted(_Failing(flaky), budget)
    assert (await paid.complete(numbered(1))).calls == 1
    assert account(desk).reserved != {}
    assert (await desk.budgeted(ToldModel(), budget).complete(numbered(2))).calls == 1
    assert (account(desk).spent.tokens, account(desk).reserved) == (60, {})


class _Failing(ToldModel):
    """Answers, and then the store fails once."""

    def __init__(self, documents: FlakyBackend) -> None:
        super().__init__()
        self._documents = documents

    async def complete(self, question: Question) -> Completion:
        completion = await super().complete(question)
        self._documents.fail_next("before")
        return completion


async def test_without_a_budget_nothing_is_kept(memory: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, memory.backend, SystemClock())
    await desk.budgeted(ToldModel(), Budget()).complete(numbered(1))
    assert memory.backend.collections() == ["ledger"]


async def test_a_day_ends_at_midnight_in_utc() -> None:
    assert next_day(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)) == "2027-01-01T00:00:00+00:00"
    assert day_account(datetime.fromisoformat("2026-01-07T01:00:00+02:00")) == "day-2026-01-06"


def test_a_price_is_of_a_model_or_of_all_of_a_provider() -> None:
    prices = PriceTable(
        {
            "openai/small": Price(input=Decimal(1), output=Decimal(2)),
            "local": Price(input=Decimal(0), output=Decimal(0)),
        }
    )
    assert prices.cost(Usage(1_000_000, 500_000), provider="openai", model="small") == 2
    assert prices.cost(Usage(9, 9), provider="local", model="anything") == 0
    assert prices.cost(Usage(9, 9), provider="openai", model="large") is None


def test_no_prompt_has_more_tokens_than_bytes() -> None:
    assert most_tokens(a_question("工资")).input_tokens >= len("工资".encode())


def test_a_budget_in_money_for_a_model_without_a_price_is_refused_at_start() -> None:
    policy = TenantPolicy(llm=LLMConfig(provider="openai", model="small"), budget=Budget(money_per_day=Decimal(5)))
    check_prices(Policies(default=policy), PRICES)
    with pytest.raises(SettingsError, match="openai/small has no price") as refused:
        check_prices(Policies(tenants={"acme": policy}), PriceTable({}))
    assert refused.value.error_code == "LLM_PRICE_MISSING"
    check_prices(Policies(default=policy.model_copy(update={"budget": Budget(tokens_per_day=5)})), PriceTable({}))
