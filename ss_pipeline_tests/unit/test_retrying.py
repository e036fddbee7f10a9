"""The store that waits out a silent server: its answers are those of a sound one, whatever was lost on the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    StaleFenceError,
    StoreError,
    StoreLockedError,
    StoreSealedError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import Backend, ClaimHistory, DocumentKey, Fence, Lease
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.retrying import RetryingBackend
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.flaky_store import Failure, FlakyBackend, SleptClock
from ss_pipeline_tests.store_contract import CASES, WAITING, MovedClock, Stand, a_body, a_key

Answer = TypeVar("Answer")
TTL: Final = 60.0


class BlindlyRetryingBackend(RetryingBackend):
    """Broken: tries again without looking."""

    def _patiently(self, call: Callable[[], Answer], *, again: Callable[[], Answer] | None = None) -> Answer:
        del again
        return super()._patiently(call)


def patient(inner: Backend, kind: type[RetryingBackend] = RetryingBackend, *, patience: float = 1e6) -> RetryingBackend:
    """A wrapper whose waiting takes no time."""
    clock = SleptClock()
    return kind(inner, patience=patience, sleep=clock.sleep, clock=clock, jitter=lambda: 0.5)


# --- a client that works on one store, and what it is told ------------------------------------------------------------


@dataclass
class Client:
    """Does what it is told on a back end; every change it makes has bytes or an owner of its own."""

    backend: Backend
    clock: MovedClock
    acts: int = 0
    leases: list[tuple[DocumentKey, Fence]] = field(default_factory=list)

    def act(self, name: str, key: DocumentKey, number: int) -> object:
        """The answer, or the name of the refusal."""
        self.acts += 1
        try:
            return getattr(self, name)(key, number)
        except StoreError as refused:
            return type(refused).__name__

    def create(self, key: DocumentKey, _number: int) -> None:
        self.backend.create(key, self._body(), WAITING)

    def read(self, key: DocumentKey, _number: int) -> bytes:
        return self.backend.read(key)

    def change(self, key: DocumentKey, number: int) -> None:
        """With or without a fence, perhaps one whose time is up."""
        of_key = [fence for leased, fence in self.leases if leased == key]
        fence = of_key[number % len(of_key)] if of_key and number % 2 else None
        self.backend.replace(key, self._body(), WAITING, expected=self._stored(key), fence=fence)

    def change_too_late(self, key: DocumentKey, _number: int) -> None:
        self.backend.replace(key, self._body(), WAITING, expected=b"what was there before")

    def delete(self, key: DocumentKey, _number: int) -> str:
        """Not there any more and not there at all are the same."""
        if not self._is_there(key):
            return "gone"
        self.backend.delete(key, expected=self._stored(key))
        return "gone"

    def look_around(self, key: DocumentKey, number: int) -> list[object]:
        page = self.backend.page("jobs", after=key if number % 2 else None, limit=2)
        heads = self.backend.heads("jobs", per_group=2)
        counts, collections = self.backend.counts("jobs"), self.backend.collections()
        return [page, heads, counts, collections, self.backend.sealed_for(), self.backend.claim_of(key)]

    def reserve(self, key: DocumentKey, number: int) -> list[DocumentKey]:
        return self.backend.reserve([key, a_key(1)], claim_id=f"c{number % 3}", ttl=TTL)

    def cancel(self, key: DocumentKey, number: int) -> None:
        self.backend.cancel_reservation([key], claim_id=f"c{number % 3}")

    def lease(self, key: DocumentKey, number: int) -> Lease:
        keys = list(dict.fromkeys([key, a_key(1), a_key(2)]))
        lease = self.backend.lease(keys, claim_id=f"c{number % 3}", owner=f"run {self.acts}", ttl=TTL)
        self.leases += lease.fences.items()
        return lease

    def heartbeat(self, _key: DocumentKey, _number: int) -> list[DocumentKey]:
        return [key for key, fence in self.leases if self.backend.heartbeat(_lease_of(key, fence), ttl=TTL)]

    def complete(self, _key: DocumentKey, number: int) -> object:
        return self._end(number, self.backend.complete)

    def release(self, _key: DocumentKey, number: int) -> object:
        return self._end(number, lambda key, fence: self.backend.release(key, fence, refund=number % 2 == 0))

    def adopt(self, key: DocumentKey, number: int) -> ClaimHistory:
        self.backend.adopt_history(key, ClaimHistory(fence=number, attempts=number % 5))
        return self.backend.history_of(key)

    def seal(self, _key: DocumentKey, number: int) -> None:
        self.backend.seal(f"store {number}") if number % 4 == 0 else self.backend.unseal()

    def wait(self, _key: DocumentKey, number: int) -> None:
        self.clock.advance(TTL if number % 2 else 1.0)

    def _end(self, number: int, end: Callable[[DocumentKey, Fence], None]) -> object:
        """A lease that nobody holds any more is ended, whether by this call, an earlier one or its time."""
        if not self.leases:
            return None
        key, fence = self.leases.pop(number % len(self.leases))
        try:
            end(key, fence)
        except StaleFenceError:
            if self.backend.claim_of(key) is not None or self.backend.history_of(key).fence != fence.number:
                raise
        return self.backend.history_of(key)

    def _body(self) -> bytes:
        return a_body(WAITING, f"act {self.acts}")

    def _stored(self, key: DocumentKey) -> bytes:
        return self.backend.read(key)

    def _is_there(self, key: DocumentKey) -> bool:
        return any(row.key == key for row in self.backend.page("jobs"))


def _lease_of(key: DocumentKey, fence: Fence) -> Lease:
    return Lease(fence.claim_id, "run", {key: fence}, {key: 1})


ACTS: Final = (
    "create", "read", "change", "change_too_late", "delete", "look_around", "reserve", "cancel", "lease", "heartbeat",
    "complete", "release", "adopt", "seal", "wait",
)  # fmt: skip
Act: TypeAlias = tuple[str, int, int]


def disagreement(acts: list[Act], failures: list[Failure], kind: type[RetryingBackend] = RetryingBackend) -> str | None:
    """The first act whose answer differs between a sound store and one behind a line that breaks; None if none does."""
    clocks = MovedClock(), MovedClock()
    sound, behind = (MemoryBackend(clock=_lease_clock(clock), wall=_wall(clock)) for clock in clocks)
    clients = (Client(sound, clocks[0]), Client(patient(FlakyBackend(behind, failures), kind), clocks[1]))
    for name, number, of_key in acts:
        told = [client.act(name, a_key(of_key), number) for client in clients]
        if told[0] != told[1]:
            return f"{name}: {told[0]} is {told[1]} behind the line"
    return None


def _lease_clock(clock: MovedClock) -> Callable[[], float]:
    return lambda: clock.lease


def _wall(clock: MovedClock) -> Callable[[], float]:
    return lambda: clock.wall


AN_ACT: Final = st.tuples(st.sampled_from(ACTS), st.integers(0, 7), st.integers(1, 3))
A_FAILURE: Final = st.sampled_from(("no", "no", "before", "after"))


@pytest.mark.guarantee("F6")
@pytest.mark.guarantee("F7")
@given(acts=st.lists(AN_ACT, max_size=30), failures=st.lists(A_FAILURE, max_size=60))
def test_behind_a_line_that_breaks_the_answers_are_those_of_a_sound_store(
    acts: list[Act], failures: list[Failure]
) -> None:
    assert disagreement(acts, failures) is None


# --- each change on its own, failed once or twice ---------------------------------------------------------------------

FIRST: Final[list[Act]] = [("create", 0, 1), ("create", 0, 2)]
LEASED: Final[list[Act]] = [*FIRST, ("lease", 0, 1)]
CHANGES: Final[dict[str, list[Act]]] = {
    "create": [("create", 0, 1)],
    "replace": [*FIRST, ("change", 0, 1), ("read", 0, 1)],
    "replace under a fence": [*LEASED, ("change", 1, 1), ("read", 0, 1)],
    "delete": [*FIRST, ("delete", 0, 1)],
    "reserve": [*FIRST, ("reserve", 0, 1)],
    "lease": [*FIRST, ("lease", 0, 1)],
    "lease of a reservation": [*FIRST, ("reserve", 1, 1), ("lease", 1, 1)],
    "heartbeat": [*LEASED, ("heartbeat", 0, 1)],
    "complete": [*LEASED, ("complete", 0, 1), ("look_around", 0, 1)],
    "release": [*LEASED, ("release", 0, 1), ("look_around", 0, 1)],
    "release without refund": [*LEASED, ("release", 1, 1), ("look_around", 0, 1)],
    "cancel": [*FIRST, ("reserve", 0, 1), ("cancel", 0, 1), ("look_around", 0, 1)],
    "adopt": [*FIRST, ("adopt", 7, 1)],
    "seal": [*FIRST, ("seal", 0, 1), ("create", 0, 3), ("seal", 1, 1), ("create", 0, 3)],
}


def disagreements(change: str, kind: type[RetryingBackend] = RetryingBackend) -> list[str]:
    """Every way of failing one call of a change, once or twice, after which an answer differs."""
    ways: list[list[Failure]] = [["before"], ["after"], ["after", "before"], ["after", "after"], ["before", "after"]]
    answered: list[Failure] = ["no"]
    plans = [answered * calls + way for calls in range(12) for way in ways]
    return [f"{plan}: {found}" for plan in plans if (found := disagreement(CHANGES[change], plan, kind))]


@pytest.mark.guarantee("F6")
@pytest.mark.guarantee("F7")
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_change_that_failed_before_or_after_its_effect_is_told_right(change: str) -> None:
    assert disagreements(change) == []


@pytest.mark.parametrize(
    "change",
    [
        "create",
        "replace",
        "replace under a fence",
        "delete",
        "lease",
        "lease of a reservation",
        "complete",
        "release",
    ],
)
def test_trying_again_without_looking_is_caught(change: str) -> None:
    assert disagreements(change, BlindlyRetryingBackend) != []


def test_what_another_has_written_meanwhile_is_not_taken_for_ones_own() -> None:
    memory = MemoryBackend()
    flaky = FlakyBackend(memory)
    store, key = patient(flaky), a_key()

    flaky.fail_next("before")
    memory.create(key, a_body(WAITING, "other"), WAITING)
    with pytest.raises(DocumentExistsError):
        store.create(key, a_body(WAITING, "own"), WAITING)

    flaky.fail_next("before")
    with pytest.raises(DocumentChangedError):
        store.replace(key, a_body(WAITING, "own"), WAITING, expected=a_body(WAITING))
    assert memory.read(key) == a_body(WAITING, "other")


def test_a_lease_of_another_run_of_the_same_claim_is_not_taken_for_ones_own() -> None:
    memory = MemoryBackend()
    flaky, key = FlakyBackend(memory), a_key()
    memory.create(key, a_body(WAITING), WAITING)
    memory.lease([key], claim_id="c", owner="another run", ttl=TTL)
    flaky.fail_next("before")
    assert patient(flaky).lease([key], claim_id="c", owner="run", ttl=TTL).fences == {}


def test_a_lease_that_another_claim_took_over_meanwhile_is_stale() -> None:
    memory, key = MemoryBackend(), a_key()
    flaky = FlakyBackend(memory)
    memory.create(key, a_body(WAITING), WAITING)
    fence = memory.lease([key], claim_id="c1", owner="run", ttl=0.0).fences[key]
    memory.lease([key], claim_id="c2", owner="run", ttl=TTL)
    for end in ("complete", "release"):
        flaky.fail_next("before")
        with pytest.raises(StaleFenceError):
            getattr(patient(flaky), end)(key, fence)


# --- how long it waits ------------------------------------------------------------------------------------------------


def pauses_of(patience: float, *, jitter: float) -> list[float]:
    """The pauses of a call that never succeeds."""
    clock, pauses = SleptClock(), list[float]()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.sleep(seconds)

    silent = FlakyBackend(MemoryBackend(), ["before"] * 100_000)
    store = RetryingBackend(silent, patience=patience, sleep=sleep, clock=clock, jitter=lambda: jitter)
    with pytest.raises(StoreUnavailableError, match="the line broke"):
        store.collections()
    assert len(silent.calls) == len(pauses) + 1
    return pauses


@pytest.mark.guarantee("F6")
def test_pauses_double_up_to_two_seconds_and_add_up_to_the_patience() -> None:
    pauses = pauses_of(15.0, jitter=1.0)
    assert pauses[:7] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    assert sum(pauses) == pytest.approx(15.0)
    assert sum(pauses_of(4_000.0, jitter=1.0)) == pytest.approx(4_000.0)
    assert pauses_of(15.0, jitter=0.0)[:3] == pytest.approx([0.025, 0.05, 0.1])


def test_without_patience_a_failure_is_raised_at_once() -> None:
    assert pauses_of(0.0, jitter=1.0) == []


@pytest.mark.parametrize("error", [StoreSealedError("redis"), StoreLockedError("held for long")])
def test_a_sealed_store_and_a_held_lock_are_not_waited_for(error: StoreUnavailableError) -> None:
    flaky = FlakyBackend(MemoryBackend(), ["before"] * 9, error=lambda: error)
    with pytest.raises(type(error)):
        patient(flaky).collections()
    assert flaky.calls == ["collections"]


def test_each_wait_is_an_event() -> None:
    with recorded_events() as tape:
        patient(FlakyBackend(MemoryBackend(), ["before", "after"])).collections()
    assert [event["code"] for event in tape.of("SS_STORE_WAITING")] == ["STORE_UNAVAILABLE"] * 2


def test_who_moves_documents_is_waited_for_too_and_passes_the_seal() -> None:
    memory, key = MemoryBackend(), a_key()
    flaky = FlakyBackend(memory)
    mover = patient(flaky).for_moving()
    memory.seal("redis")
    flaky.fail_next("after")
    mover.create(key, a_body(WAITING), WAITING)
    assert memory.read(key) == a_body(WAITING)
    assert mover.check() == []
    mover.close()


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_wrapper_keeps_the_contract(name: str) -> None:
    clock = MovedClock()
    memory = MemoryBackend(clock=_lease_clock(clock), wall=_wall(clock))
    failures: list[Failure] = ["after", "no", "before"]
    if name == "what_is_not_there_is_not_found":  # a delete that finds nothing after a failure may have done it
        failures = []
    CASES[name](Stand(patient(FlakyBackend(memory, failures * 30)), clock))
