"""Budgets for calls: of a job, and of a tenant and day (UTC), in tokens and in money; reserved before a call.

An account is a document: what was spent, and what is reserved by calls in progress, by their ledger keys. A call
reserves the most it can take, so that calls at once never spend more than there is, and gives back the rest when it is
known what it took. Where too much is reserved, but not spent, a call waits for the others to end. What is spent does
not come back: a tenant's day is over at midnight, a job's budget is for its life.

Which tenant has which budget is the settings' business; what became of a question is read in the ledger.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from pydantic import BaseModel, ConfigDict

from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    LLMBudgetError,
    LLMError,
    LLMOutcomeUnknownError,
    LLMRefusedError,
    StoreError,
)
from ss_pipeline.llm.call_records import ledger_key, read_record
from ss_pipeline.llm.limits import Budget
from ss_pipeline.llm.model import NOT_SENT, Completion, LanguageModel, Question
from ss_pipeline.llm.prices import PriceTable, most_tokens
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.telemetry.events import emit

BUDGETS: Final = "budgets"

_LOOK_SECONDS: Final = 0.25
_LONGEST_LOOK_SECONDS: Final = 2.0
"""Between two looks at what others have reserved: twice as long each time."""


class Amount(BaseModel):
    """Tokens and money."""

    model_config = ConfigDict(frozen=True)

    tokens: int = 0
    money: Decimal = Decimal(0)

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(tokens=self.tokens + other.tokens, money=self.money + other.money)

    def is_within(self, limit: "Limit") -> bool:
        """Whether it is no more than a limit allows."""
        return (limit.tokens is None or self.tokens <= limit.tokens) and (
            limit.money is None or self.money <= limit.money
        )


@dataclass(frozen=True)
class Limit:
    """The most of an account; None is no limit."""

    tokens: int | None
    money: Decimal | None

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to count."""
        return self.tokens is None and self.money is None


class Account(BaseModel):
    """What was spent of a budget, and what calls in progress have reserved."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: int = 1
    spent: Amount = Amount()
    reserved: dict[str, Amount] = {}

    def reserving(self, key: str, amount: Amount) -> "Account":
        """With a reservation."""
        return self._with(self.spent, {**self.reserved, key: amount})

    def settling(self, key: str, spent: Amount) -> "Account":
        """Without the reservation, and with what came of it."""
        return self._with(self.spent + spent, {name: amount for name, amount in self.reserved.items() if name != key})

    @property
    def committed(self) -> Amount:
        """Spent and reserved together."""
        return sum(self.reserved.values(), self.spent)

    def as_bytes(self) -> bytes:
        """The document."""
        return (json.dumps(self.model_dump(), default=str, indent=1, sort_keys=True) + "\n").encode()

    def _with(self, spent: Amount, reserved: Mapping[str, Amount]) -> "Account":
        return self.model_copy(update={"spent": spent, "reserved": dict(reserved)})


@dataclass(frozen=True)
class _Purse:
    """An account that a call is paid from, and its limit."""

    key: DocumentKey
    limit: Limit


class BudgetedModel(LanguageModel):
    """Asks the model it wraps only what the budgets of the job and of the tenant's day have room for.

    Works beneath a `LedgeredModel`, whose lease says that a reservation is that of a call in progress.

    Args:
        budget_of: The budget of a tenant.
        documents: Where the accounts are, and the ledger that says what became of calls of processes that are gone.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        inner: LanguageModel,
        *,
        budget_of: Callable[[str], Budget],
        documents: Backend,
        prices: PriceTable,
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inner = inner
        self._budget_of = budget_of
        self._accounts = Accounts(documents)
        self._prices = prices
        self._clock = clock
        self._sleep = sleep

    @property
    def name(self) -> str:
        return self._inner.name

    async def complete(self, question: Question) -> Completion:
        """The answer, paid for.

        Raises:
            LLMBudgetError: the tenant's day has no room for this call; nothing was sent.
            LLMRefusedError: LLM_JOB_BUDGET_EXHAUSTED; LLM_DAY_BUDGET_TOO_SMALL, where a whole day's budget has no room
                for it; LLM_PRICE_MISSING, where money is counted and the model has no price.
        """
        purses = await self._reserved(question)
        try:
            completion = await self._inner.complete(question)
        except LLMOutcomeUnknownError as error:
            self._settle(purses, question, self._most(question, calls=error.calls))
            raise
        except LLMError:  # nothing was billed
            self._settle(purses, question, Amount())
            raise
        except asyncio.CancelledError as stop:
            self._settle(purses, question, Amount() if stop.args == (NOT_SENT,) else self._most(question))
            raise
        self._settle(purses, question, self._taken(completion, question))
        return completion

    def _taken(self, completion: Completion, question: Question) -> Amount:
        """What the calls took: the most it can be for those that were not answered or not counted."""
        usage = completion.usage
        tokens = usage.input_tokens + usage.output_tokens
        if tokens == 0:
            return self._most(question, calls=completion.unknowns + 1)
        cost = self._prices.cost(usage, provider=question.provider, model=question.model)
        return self._most(question, calls=completion.unknowns) + Amount(tokens=tokens, money=cost or Decimal(0))

    async def _reserved(self, question: Question) -> list[_Purse]:
        """The accounts the call is paid from, each with the most it can take reserved."""
        most, pause = self._most(question), _LOOK_SECONDS
        try:
            while True:
                purses = self._purses(question)
                refusing = self._accounts.reserve(purses, key=question.key, amount=most)
                if refusing is None:
                    return purses
                if not self._accounts.may_come_free(refusing, tenant_id=question.tenant_id, amount=most):
                    raise self._refusal(refusing, question, most)
                await self._sleep(pause)
                pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        except asyncio.CancelledError:
            raise asyncio.CancelledError(NOT_SENT) from None

    def _purses(self, question: Question) -> list[_Purse]:
        budget = self._budget_of(question.tenant_id)
        day = DocumentKey(BUDGETS, question.tenant_id, day_account(self._clock.now()))
        job = DocumentKey(BUDGETS, question.tenant_id, job_account(question.job_id))
        purses = [
            _Purse(job, Limit(budget.tokens_per_job, budget.money_per_job)),
            _Purse(day, Limit(budget.tokens_per_day, budget.money_per_day)),
        ]
        return [purse for purse in purses if not purse.limit.is_none]

    def _most(self, question: Question, *, calls: int = 1) -> Amount:
        """The most that so many calls can take."""
        usage = most_tokens(question)
        cost = self._prices.cost(usage, provider=question.provider, model=question.model)
        if cost is None and self._budget_of(question.tenant_id).counts_money:
            raise LLMRefusedError(
                f"tenant {question.tenant_id!r} has a budget in money, and {self.name} has no price",
                code="LLM_PRICE_MISSING",
                todo="Give its price in SS_LLM_PRICES, or a budget in tokens.",
            )
        tokens = usage.input_tokens + usage.output_tokens
        return Amount(tokens=tokens * calls, money=(cost or Decimal(0)) * calls)

    def _settle(self, purses: list[_Purse], question: Question, spent: Amount) -> None:
        """Enters what a call took. Where the store refuses, the answer is worth more: the ledger settles it later."""
        for purse in purses:
            try:
                self._accounts.settle(purse.key, key=question.key, spent=spent)
            except StoreError as error:
                emit(
                    "SS_LLM_SPENDING_NOT_ENTERED",
                    level=logging.WARNING,
                    job_id=question.job_id,
                    place=purse.key.name,
                    code=error.error_code,
                )

    def _refusal(self, purse: _Purse, question: Question, most: Amount) -> LLMError:
        emit(
            "SS_LLM_BUDGET_EXHAUSTED",
            level=logging.WARNING,
            job_id=question.job_id,
            tenant_id=question.tenant_id,
            account=purse.key.document_id,
            needed_tokens=most.tokens,
        )
        if purse.key.document_id == job_account(question.job_id):
            return LLMRefusedError(
                f"the budget of job {question.job_id!r} has no room for a call of up to {most.tokens} tokens",
                code="LLM_JOB_BUDGET_EXHAUSTED",
                todo="Raise the tenant's budget for a job, or submit fewer columns; then: ss-pipeline retry JOB",
            )
        if not most.is_within(purse.limit):
            return LLMRefusedError(
                f"a call of up to {most.tokens} tokens is more than tenant {question.tenant_id!r} may spend in a day",
                code="LLM_DAY_BUDGET_TOO_SMALL",
                todo="Raise the tenant's budget for a day; then: ss-pipeline retry JOB",
            )
        resets_at = next_day(self._clock.now())
        message = f"tenant {question.tenant_id!r} has spent its budget of the day; it resets at {resets_at}"
        return LLMBudgetError(message, resets_at=resets_at)


class Accounts:
    """The accounts in a document store; each change is a compare-and-set."""

    def __init__(self, documents: Backend) -> None:
        self._documents = documents

    def read(self, key: DocumentKey) -> Account:
        """An account; an empty one where nothing was reserved yet."""
        try:
            return Account.model_validate(json.loads(self._documents.read(key)))
        except DocumentNotFoundError:
            return Account()

    def reserve(self, purses: list[_Purse], *, key: str, amount: Amount) -> _Purse | None:
        """Reserves an amount in every account, or in none; returns the one that has no room for it."""
        for number, purse in enumerate(purses):
            if not self._reserved(purse, key=key, amount=amount):
                for reserved in purses[:number]:
                    self.settle(reserved.key, key=key, spent=Amount())
                return purse
        return None

    def settle(self, account: DocumentKey, *, key: str, spent: Amount) -> None:
        """Turns the reservation of a question into what came of it; nothing where there is none."""
        self._change(account, lambda found: found.settling(key, spent) if key in found.reserved else found)

    def may_come_free(self, purse: _Purse, *, tenant_id: str, amount: Amount) -> bool:
        """Whether there is room for an amount once what others have reserved is known to cost nothing.

        Reservations of calls that nobody makes any more are settled first, by what the ledger says of them.
        """
        for key, reserved in self.read(purse.key).reserved.items():
            spent = self._outcome(tenant_id, key, reserved)
            if spent is not None:
                self.settle(purse.key, key=key, spent=spent)
        return (self.read(purse.key).spent + amount).is_within(purse.limit)

    def _outcome(self, tenant_id: str, key: str, reserved: Amount) -> Amount | None:
        """What became of a call, all of its reservation where nobody knows; None while it is being made."""
        record_key = ledger_key(tenant_id, key)
        if self._documents.claim_of(record_key) is not None:
            return None
        stored = read_record(self._documents, record_key)
        record = stored[1] if stored else None
        if record is None or record.state == "failed":
            return Amount()
        if record.answer is None:
            return reserved
        usage = record.answer.usage
        return Amount(tokens=usage.tokens, money=usage.cost or Decimal(0))

    def _reserved(self, purse: _Purse, *, key: str, amount: Amount) -> bool:
        """Whether there was room. An earlier reservation for the question is spent: what came of it is unknown."""

        def reserving(account: Account) -> Account:
            free = account.settling(key, account.reserved[key]) if key in account.reserved else account
            reserved = free.reserving(key, amount)
            return reserved if reserved.committed.is_within(purse.limit) else free

        return key in self._change(purse.key, reserving).reserved

    def _change(self, key: DocumentKey, change: Callable[[Account], Account]) -> Account:
        """The account as changed; one that the change returns as it is is not written."""
        while True:
            try:
                body = self._documents.read(key)
            except DocumentNotFoundError:
                body = None
            account = Account.model_validate(json.loads(body)) if body else Account()
            changed = change(account)
            if changed is account:
                return account
            try:
                if body is None:
                    self._documents.create(key, changed.as_bytes(), Facets())
                else:
                    self._documents.replace(key, changed.as_bytes(), Facets(), expected=body)
            except (DocumentChangedError, DocumentExistsError):
                continue
            return changed


def day_account(now: datetime) -> str:
    """The id of the account of a tenant's day, which is UTC's."""
    return f"day-{now.astimezone(UTC):%Y-%m-%d}"


def job_account(job_id: str) -> str:
    """The id of the account of a job."""
    return f"job-{job_id}"


def next_day(now: datetime) -> str:
    """When the next day begins, ISO 8601 in UTC."""
    tomorrow = now.astimezone(UTC).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), tzinfo=UTC).isoformat()
