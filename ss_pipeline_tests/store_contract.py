"""What every back end must do, as case functions that any test can run on any back end, also on a broken one.

A new back end joins with one line in `STANDS`. Cases take a `Stand` with no documents and fail by assertion.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Barrier
from typing import Any, Final, Protocol, TypeAlias

import pytest

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreSealedError,
)
from ss_pipeline.store.base import Backend, ClaimHistory, DocumentKey, Facets, Lease, Listed
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_claims import LeaseClock
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.redis import RedisBackend
from ss_pipeline_tests.postgres_schemas import postgres_schema
from ss_pipeline_tests.redis_namespaces import redis_namespace

FacetsOf: TypeAlias = Callable[[DocumentKey, bytes], Facets]


@dataclass
class MovedClock:
    """The lease clock and the wall clock; each moves only when told."""

    lease: float = 1_000.0
    wall: float = 1_770_000_000.0
    boot_id: str = "this boot"

    def advance(self, seconds: float) -> None:
        """Moves both on."""
        self.lease += seconds
        self.wall += seconds

    def now(self) -> float:
        """The wall clock's time, epoch seconds."""
        return self.wall

    def for_leases(self) -> LeaseClock:
        """As the file back end takes it."""
        return LeaseClock(seconds=lambda: self.lease, boot_id=lambda: self.boot_id, wall=lambda: self.wall)


class ServerClock(MovedClock):
    """The clock of a server, which nobody can move: what the server has stored is made older instead.

    Args:
        age: Makes every time that is stored earlier by so many seconds.
    """

    def __init__(self, age: Callable[[float], None]) -> None:
        super().__init__(wall=time.time())
        self._age = age

    def advance(self, seconds: float) -> None:
        self._age(seconds)

    def now(self) -> float:
        return time.time()


@dataclass
class Stand:
    """A back end to try, and the clock it goes by."""

    backend: Backend
    clock: MovedClock = field(default_factory=MovedClock)


def facets_in_body(_key: DocumentKey, body: bytes) -> Facets:
    """The facets that `a_body` wrote into a document."""
    return Facets(**json.loads(body)["facets"])


class StandMaker(Protocol):
    """Makes a stand whose files, if it has any, are in a folder."""

    def __call__(self, folder: Path, *, facets_of: FacetsOf = ...) -> AbstractContextManager[Stand]: ...


@contextmanager
def on_memory(folder: Path, *, facets_of: FacetsOf = facets_in_body) -> Iterator[Stand]:
    """The memory back end, which needs neither."""
    del folder, facets_of
    clock = MovedClock()
    yield Stand(MemoryBackend(clock=lambda: clock.lease, wall=lambda: clock.wall), clock)


@contextmanager
def on_files(folder: Path, *, facets_of: FacetsOf = facets_in_body) -> Iterator[Stand]:
    """The file back end."""
    clock = MovedClock()
    root = folder / "jobs"
    with closing(FileBackend(root, facets_of=facets_of, clock=clock.for_leases(), look_seconds=0)) as backend:
        yield Stand(backend, clock)


@contextmanager
def on_postgres(folder: Path, *, facets_of: FacetsOf = facets_in_body) -> Iterator[Stand]:
    """The PostgreSQL back end, in a schema of its own."""
    del folder, facets_of
    with postgres_schema() as schema, schema.store() as backend:
        yield Stand(backend, ServerClock(schema.age))


@contextmanager
def on_redis(folder: Path, *, facets_of: FacetsOf = facets_in_body) -> Iterator[Stand]:
    """The Redis back end, in a namespace of its own."""
    del folder, facets_of
    with redis_namespace() as space, closing(RedisBackend(space.url, namespace=space.name)) as backend:
        yield Stand(backend, ServerClock(space.age))


STANDS: Final[dict[str, StandMaker]] = {
    "memory": on_memory,
    "file": on_files,
    "postgres": on_postgres,
    "redis": on_redis,
}

Case: TypeAlias = Callable[[Stand], None]
CASES: Final[dict[str, Case]] = {}

WAITING: Final = Facets(status="created", created_at="2026-01-06T12:00:00+00:00", waiting=True)
TTL: Final = 60.0
SLACK: Final = 5.0
"""Seconds that may pass on a server's clock, which runs on while a case works."""


def a_body(facets: Facets, text: str = "") -> bytes:
    """A document that says its own facets."""
    return json.dumps({"facets": asdict(facets), "text": text}).encode()


def a_key(number: int = 1, *, tenant: str = "default", collection: str = "jobs") -> DocumentKey:
    """A key of the form of a job's."""
    return DocumentKey(collection, tenant, f"job_{number:016d}")


def stored(stand: Stand, key: DocumentKey | None = None, **facets: Any) -> DocumentKey:
    """A document in the store, waiting unless told otherwise."""
    key = key or a_key()
    all_facets = Facets(**{**asdict(WAITING), **facets})
    stand.backend.create(key, a_body(all_facets), all_facets)
    return key


def leased(stand: Stand, key: DocumentKey, *, claim_id: str, owner: str = "run") -> Lease:
    """A lease on one document, which must be free."""
    lease = stand.backend.lease([key], claim_id=claim_id, owner=owner, ttl=TTL)
    assert list(lease.fences) == [key], "a free document was not leased"
    return lease


def keys_of(listed: list[Listed]) -> list[DocumentKey]:
    """The keys of a listing, in its order."""
    return [row.key for row in listed]


def case(function: Case) -> Case:
    """Enters a case under its name."""
    CASES[function.__name__] = function
    return function


# --- documents -----------------------------------------------------------------------------------------------------


@case
def create_is_exclusive(stand: Stand) -> None:
    key = stored(stand)
    with pytest.raises(DocumentExistsError):
        stand.backend.create(key, a_body(WAITING, "second"), WAITING)
    assert stand.backend.read(key) == a_body(WAITING)


@case
def what_is_not_there_is_not_found(stand: Stand) -> None:
    key, body = a_key(), a_body(WAITING)
    with pytest.raises(DocumentNotFoundError):
        stand.backend.read(key)
    with pytest.raises(DocumentNotFoundError):
        stand.backend.replace(key, body, WAITING, expected=body)
    with pytest.raises(DocumentNotFoundError):
        stand.backend.delete(key, expected=body)
    assert stand.backend.claim_of(key) is None
    assert stand.backend.attempts_of(key) == 0


@case
def replace_compares_and_sets(stand: Stand) -> None:
    key = stored(stand)
    first, second, third = a_body(WAITING), a_body(WAITING, "2"), a_body(WAITING, "3")
    stand.backend.replace(key, second, WAITING, expected=first)
    with pytest.raises(DocumentChangedError):
        stand.backend.replace(key, third, WAITING, expected=first)
    assert stand.backend.read(key) == second


@case
def delete_compares_first(stand: Stand) -> None:
    key = stored(stand)
    with pytest.raises(DocumentChangedError):
        stand.backend.delete(key, expected=b"other")
    stand.backend.delete(key, expected=a_body(WAITING))
    with pytest.raises(DocumentNotFoundError):
        stand.backend.read(key)
    assert stand.backend.page("jobs") == []
    assert stand.backend.heads("jobs", per_group=5) == []
    stored(stand)


@case
def listings_show_the_facets_last_written(stand: Stand) -> None:
    key = stored(stand)
    done = Facets(status="succeeded", priority=3, created_at="2026-01-07", due_at=1_767_744_436.25)
    stand.backend.replace(key, a_body(done), done, expected=a_body(WAITING))
    assert stand.backend.page("jobs") == [Listed(key, done)]
    assert stand.backend.counts("jobs") == {("default", "succeeded"): 1}
    assert stand.backend.heads("jobs", per_group=5) == []


@case
def pages_follow_one_another_in_key_order(stand: Stand) -> None:
    keys = [a_key(n, tenant=tenant) for n in (3, 1, 2) for tenant in ("b", "a", "default")]
    for key in keys:
        stored(stand, key)
    found: list[DocumentKey] = []
    while page := stand.backend.page("jobs", after=found[-1] if found else None, limit=2):
        assert len(page) <= 2
        found += keys_of(page)
    assert found == sorted(keys)


@case
def pages_are_filtered_by_tenant_and_status(stand: Stand) -> None:
    for tenant in ("a", "b"):
        for number, status in enumerate(("created", "failed", "created", "created")):
            stored(stand, a_key(number, tenant=tenant), status=status)
    page = stand.backend.page
    of_a = [a_key(number, tenant="a") for number in range(4)]
    assert keys_of(page("jobs", tenant_id="a")) == of_a
    assert keys_of(page("jobs", status="failed")) == [a_key(1, tenant="a"), a_key(1, tenant="b")]
    assert keys_of(page("jobs", tenant_id="a", status="created", limit=2)) == [of_a[0], of_a[2]]
    assert keys_of(page("jobs", tenant_id="a", status="created", after=of_a[2])) == [of_a[3]]
    assert keys_of(page("jobs", tenant_id="b", after=of_a[3])) == [a_key(number, tenant="b") for number in range(4)]
    assert page("jobs", tenant_id="a", after=a_key(0, tenant="b")) == []
    assert page("jobs", tenant_id="c") == []


@case
def counts_are_by_tenant_and_status(stand: Stand) -> None:
    for number in range(3):
        stored(stand, a_key(number, tenant="a"), status="failed" if number else "created")
    stored(stand, a_key(9, tenant="b"))
    assert stand.backend.counts("jobs") == {("a", "created"): 1, ("a", "failed"): 2, ("b", "created"): 1}


@case
def tenants_and_collections_do_not_meet(stand: Stand) -> None:
    keys = [a_key(1, tenant="a"), a_key(1, tenant="b"), a_key(1, tenant="a", collection="originals")]
    for key in keys:
        stand.backend.create(key, a_body(WAITING, repr(key)), WAITING)
    stand.backend.replace(keys[0], a_body(WAITING, "new"), WAITING, expected=a_body(WAITING, repr(keys[0])))
    stand.backend.reserve([keys[0]], claim_id="c", ttl=TTL)
    assert [stand.backend.read(key) for key in keys[1:]] == [a_body(WAITING, repr(key)) for key in keys[1:]]
    assert [stand.backend.claim_of(key) for key in keys[1:]] == [None, None]
    assert keys_of(stand.backend.page("jobs", tenant_id="b")) == [keys[1]]
    assert keys_of(stand.backend.page("originals")) == [keys[2]]
    with pytest.raises(DocumentNotFoundError):
        stand.backend.read(a_key(1, tenant="c"))


@case
def collections_are_those_that_have_documents(stand: Stand) -> None:
    assert stand.backend.collections() == []
    for collection in ("ledger", "jobs", "aliases"):
        for number in range(2):
            stored(stand, a_key(number, collection=collection))
    assert stand.backend.collections() == ["aliases", "jobs", "ledger"]
    for number in range(2):
        stand.backend.delete(a_key(number, collection="ledger"), expected=a_body(WAITING))
    assert stand.backend.collections() == ["aliases", "jobs"]


# --- who is next ---------------------------------------------------------------------------------------------------


@case
def heads_are_those_of_each_group_that_are_due_first(stand: Stand) -> None:
    """Whatever their priorities within the group, and when they were created."""
    places = [(0, 3e9), (0, 1e9), (0, 2e9 + 1e-5), (10, 9.0), (500, 4e9), (-1, -5.5), (5, 2e9), (0, 3e9)]
    for tenant in ("a", "b"):
        for number, (priority, due_at) in enumerate(places):
            stored(stand, a_key(number, tenant=tenant), priority=priority, due_at=due_at)
    heads = stand.backend.heads("jobs", per_group=3)
    for tenant in ("a", "b"):
        of_class = {
            name: [
                int(h.key.document_id[4:])
                for h in heads
                if (h.key.tenant_id, h.facets.priority_class) == (tenant, name)
            ]
            for name in ("high", "normal", "low")
        }
        assert of_class == {"high": [3, 4], "normal": [1, 6, 2], "low": [5]}
    assert len(heads) == 12


@case
def of_two_that_are_due_at_once_the_lower_id_is_first(stand: Stand) -> None:
    keys = [stored(stand, a_key(number), due_at=1e9) for number in (3, 1, 2)]
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == sorted(keys)


@case
def a_document_whose_place_changes_is_offered_at_its_new_one(stand: Stand) -> None:
    keys = [stored(stand, a_key(number), due_at=1e9 + number) for number in range(3)]
    sooner = replace(WAITING, due_at=1.0)
    stand.backend.replace(keys[2], a_body(sooner), sooner, expected=stand.backend.read(keys[2]))
    assert keys_of(stand.backend.heads("jobs", per_group=2)) == [keys[2], keys[0]]


@case
def heads_leave_out_what_does_not_wait_or_is_parked(stand: Stand) -> None:
    stored(stand, a_key(1), waiting=False)
    parked = stored(stand, a_key(2), not_before=stand.clock.wall + 100)
    ready = stored(stand, a_key(3), not_before=stand.clock.wall - 100, due_at=1.0)
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [ready]
    stand.clock.advance(101)
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [parked, ready]


@case
def heads_leave_out_what_a_live_claim_holds(stand: Stand) -> None:
    keys = [stored(stand, a_key(number)) for number in range(3)]
    stand.backend.reserve(keys[:1], claim_id="c1", ttl=TTL)
    lease = leased(stand, keys[1], claim_id="c2")
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == keys[2:]
    stand.backend.release(keys[1], lease.fences[keys[1]])
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == keys[1:]
    stand.clock.advance(TTL + 1)
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == keys


@case
def a_parked_document_comes_back_after_claim_and_parking_end(stand: Stand) -> None:
    key = stored(stand, not_before=stand.clock.wall + 2 * TTL)
    leased(stand, key, claim_id="c")
    stand.clock.advance(TTL + 1)
    assert stand.backend.heads("jobs", per_group=9) == []
    stand.clock.advance(TTL)
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [key]


# --- claims --------------------------------------------------------------------------------------------------------


@case
def reserving_takes_what_is_free_in_the_given_order(stand: Stand) -> None:
    keys = [stored(stand, a_key(number)) for number in range(4)]
    assert stand.backend.reserve([keys[2]], claim_id="c1", ttl=TTL) == [keys[2]]
    wanted = [keys[3], keys[2], a_key(77), keys[0]]
    assert stand.backend.reserve(wanted, claim_id="c2", ttl=TTL) == [keys[3], keys[0]]
    view = stand.backend.claim_of(keys[3])
    assert view is not None
    assert (view.claim_id, view.state, view.attempts) == ("c2", "reserved", 0)
    assert view.expires_in == pytest.approx(TTL, abs=SLACK)


@case
def a_reservation_expires(stand: Stand) -> None:
    key = stored(stand)
    stand.backend.reserve([key], claim_id="c1", ttl=TTL)
    stand.clock.advance(TTL + 1)
    assert stand.backend.claim_of(key) is None
    assert stand.backend.reserve([key], claim_id="c2", ttl=TTL) == [key]
    assert stand.backend.lease([key], claim_id="c1", owner="late", ttl=TTL).fences == {}
    leased(stand, key, claim_id="c2")


@case
def a_lease_needs_a_free_document_or_its_own_reservation(stand: Stand) -> None:
    free, own, others = (stored(stand, a_key(number)) for number in range(3))
    stand.backend.reserve([own], claim_id="c1", ttl=TTL)
    stand.backend.reserve([others], claim_id="c2", ttl=TTL)
    lease = stand.backend.lease([free, own, others, a_key(77)], claim_id="c1", owner="run", ttl=TTL)
    assert list(lease.fences) == [free, own]
    view = stand.backend.claim_of(own)
    assert view is not None
    assert (view.claim_id, view.owner, view.state, view.fence) == ("c1", "run", "leased", lease.fences[own].number)


@case
def a_second_run_of_the_same_claim_gets_nothing(stand: Stand) -> None:
    key = stored(stand)
    stand.backend.reserve([key], claim_id="c", ttl=TTL)
    leased(stand, key, claim_id="c", owner="first")
    assert stand.backend.lease([key], claim_id="c", owner="second", ttl=TTL).fences == {}
    assert stand.backend.reserve([key], claim_id="c", ttl=TTL) == []


@case
def every_lease_has_a_higher_fence(stand: Stand) -> None:
    key = stored(stand)
    fences = []
    for number in range(6):
        lease = leased(stand, key, claim_id=f"c{number}")
        fences.append(lease.fences[key].number)
        if number % 3 == 0:
            stand.backend.complete(key, lease.fences[key])
        elif number % 3 == 1:
            stand.backend.release(key, lease.fences[key])
        else:
            stand.clock.advance(TTL + 1)
    assert fences == sorted(set(fences))


@case
def a_zombie_is_refused_every_time(stand: Stand) -> None:
    key, refused = stored(stand), 0
    for number in range(20):
        zombie = leased(stand, key, claim_id=f"z{number}").fences[key]
        stand.clock.advance(TTL + 1)
        holder = leased(stand, key, claim_id=f"c{number}").fences[key]
        body = stand.backend.read(key)
        with pytest.raises(StaleFenceError):
            stand.backend.replace(key, a_body(WAITING, "zombie"), WAITING, expected=body, fence=zombie)
        with pytest.raises(StaleFenceError):
            stand.backend.complete(key, zombie)
        with pytest.raises(StaleFenceError):
            stand.backend.release(key, zombie)
        stand.backend.replace(key, a_body(WAITING, str(number)), WAITING, expected=body, fence=holder)
        stand.backend.complete(key, holder)
        refused += 1
    assert refused == 20
    assert stand.backend.read(key) == a_body(WAITING, "19")


@case
def an_expired_lease_writes_nothing(stand: Stand) -> None:
    key = stored(stand)
    fence = leased(stand, key, claim_id="c").fences[key]
    stand.clock.advance(TTL + 1)
    with pytest.raises(StaleFenceError):
        stand.backend.replace(key, a_body(WAITING, "late"), WAITING, expected=a_body(WAITING), fence=fence)
    assert stand.backend.read(key) == a_body(WAITING)


@case
def a_late_completion_counts_while_nobody_else_took_the_document(stand: Stand) -> None:
    key = stored(stand)
    fence = leased(stand, key, claim_id="c").fences[key]
    stand.clock.advance(TTL + 1)
    stand.backend.complete(key, fence)
    assert stand.backend.attempts_of(key) == 0
    with pytest.raises(StaleFenceError):
        stand.backend.complete(key, fence)


@case
def a_fence_that_was_given_up_writes_nothing(stand: Stand) -> None:
    key = stored(stand)
    fence = leased(stand, key, claim_id="c").fences[key]
    stand.backend.replace(key, a_body(WAITING, "1"), WAITING, expected=a_body(WAITING), fence=fence)
    stand.backend.complete(key, fence)
    with pytest.raises(StaleFenceError):
        stand.backend.replace(key, a_body(WAITING, "2"), WAITING, expected=a_body(WAITING, "1"), fence=fence)


@case
def a_person_writes_without_a_fence(stand: Stand) -> None:
    key = stored(stand)
    lease = leased(stand, key, claim_id="c")
    stand.backend.replace(key, a_body(WAITING, "1"), WAITING, expected=a_body(WAITING))
    assert stand.backend.heartbeat(lease, ttl=TTL) == [key]
    assert stand.backend.heads("jobs", per_group=9) == []


@case
def a_heartbeat_prolongs_and_says_what_is_lost(stand: Stand) -> None:
    kept, lost = stored(stand, a_key(1)), stored(stand, a_key(2))
    lease = stand.backend.lease([kept, lost], claim_id="c", owner="run", ttl=TTL)
    stand.backend.release(lost, lease.fences[lost])
    leased(stand, lost, claim_id="other")
    for _ in range(4):
        stand.clock.advance(TTL / 2)
        assert stand.backend.heartbeat(lease, ttl=TTL) == [kept]
    view = stand.backend.claim_of(kept)
    assert view is not None
    assert view.expires_in == pytest.approx(TTL, abs=SLACK)
    stand.clock.advance(TTL + 1)
    assert stand.backend.heartbeat(lease, ttl=TTL) == []


@case
def attempts_count_until_completion(stand: Stand) -> None:
    key = stored(stand)
    for number in range(1, 4):
        assert leased(stand, key, claim_id=f"c{number}").attempts == {key: number}
        stand.clock.advance(TTL + 1)
    assert stand.backend.attempts_of(key) == 3
    lease = leased(stand, key, claim_id="c4")
    stand.backend.complete(key, lease.fences[key])
    assert stand.backend.attempts_of(key) == 0


@case
def a_release_refunds_the_attempt_if_asked(stand: Stand) -> None:
    key = stored(stand)
    lease = leased(stand, key, claim_id="c1")
    stand.backend.release(key, lease.fences[key])
    assert stand.backend.attempts_of(key) == 0
    lease = leased(stand, key, claim_id="c2")
    stand.backend.release(key, lease.fences[key], refund=False)
    assert stand.backend.attempts_of(key) == 1
    assert stand.backend.claim_of(key) is None


@case
def only_ones_own_reservation_is_cancelled(stand: Stand) -> None:
    own, others, held = (stored(stand, a_key(number)) for number in range(3))
    stand.backend.reserve([own, held], claim_id="c1", ttl=TTL)
    stand.backend.reserve([others], claim_id="c2", ttl=TTL)
    lease = leased(stand, held, claim_id="c1")
    stand.backend.cancel_reservation([own, others, held, a_key(77)], claim_id="c1")
    assert stand.backend.claim_of(own) is None
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [own]
    assert stand.backend.reserve([others], claim_id="c3", ttl=TTL) == []
    assert stand.backend.heartbeat(lease, ttl=TTL) == [held]


# --- moving to another store -----------------------------------------------------------------------------------------


@case
def a_history_is_gone_on_from(stand: Stand) -> None:
    key = stored(stand)
    assert stand.backend.history_of(key) == ClaimHistory()
    stand.backend.adopt_history(key, ClaimHistory(fence=7, attempts=2))
    assert stand.backend.history_of(key) == ClaimHistory(fence=7, attempts=2)
    lease = leased(stand, key, claim_id="c")
    assert (lease.fences[key].number, lease.attempts[key]) == (8, 3)
    stand.backend.complete(key, lease.fences[key])
    stand.backend.adopt_history(key, ClaimHistory(fence=3, attempts=1))
    assert stand.backend.history_of(key) == ClaimHistory(fence=8, attempts=1)


@case
def the_history_of_what_is_held_or_missing_is_left_alone(stand: Stand) -> None:
    key = stored(stand)
    lease = leased(stand, key, claim_id="c")
    stand.backend.adopt_history(key, ClaimHistory(fence=7, attempts=2))
    stand.backend.adopt_history(a_key(77), ClaimHistory(fence=7, attempts=2))
    assert stand.backend.history_of(key) == ClaimHistory(fence=1, attempts=1)
    assert stand.backend.history_of(a_key(77)) == ClaimHistory()
    assert stand.backend.heartbeat(lease, ttl=TTL) == [key]


@case
def a_sealed_store_refuses_every_change_and_new_claim(stand: Stand) -> None:
    backend, key = stand.backend, stored(stand)
    body = a_body(WAITING, "2")
    assert backend.sealed_for() is None
    backend.seal("the next store")
    assert backend.sealed_for() == "the next store"
    changes: list[Callable[[], object]] = [
        lambda: stored(stand, a_key(2)),
        lambda: backend.replace(key, body, WAITING, expected=a_body(WAITING)),
        lambda: backend.delete(key, expected=a_body(WAITING)),
        lambda: backend.reserve([key], claim_id="c", ttl=TTL),
        lambda: backend.lease([key], claim_id="c", owner="run", ttl=TTL),
        lambda: backend.adopt_history(key, ClaimHistory(fence=7)),
    ]
    for change in changes:
        with pytest.raises(StoreSealedError) as refused:
            change()
        assert refused.value.successor == "the next store"
    assert backend.read(key) == a_body(WAITING)
    assert keys_of(backend.page("jobs")) == [key]
    assert backend.claim_of(key) is None


@case
def a_store_takes_changes_again_once_it_is_unsealed(stand: Stand) -> None:
    key = stored(stand)
    stand.backend.unseal()
    stand.backend.seal("a")
    stand.backend.seal("b")
    assert stand.backend.sealed_for() == "b"
    stand.backend.unseal()
    assert stand.backend.sealed_for() is None
    stand.backend.replace(key, a_body(WAITING, "2"), WAITING, expected=a_body(WAITING))
    leased(stand, key, claim_id="c")
    assert keys_of(stand.backend.page("jobs")) == [key]


@case
def who_moves_documents_passes_the_seal(stand: Stand) -> None:
    key = stored(stand)
    stand.backend.seal("the next store")
    with closing(stand.backend.for_moving()) as mover:
        mover.replace(key, a_body(WAITING, "2"), WAITING, expected=a_body(WAITING))
        mover.create(a_key(2), a_body(WAITING), WAITING)
        mover.adopt_history(key, ClaimHistory(fence=7, attempts=1))
        assert mover.sealed_for() == "the next store"
    assert stand.backend.read(key) == a_body(WAITING, "2")
    assert keys_of(stand.backend.page("jobs")) == [key, a_key(2)]
    assert stand.backend.history_of(key) == ClaimHistory(fence=7, attempts=1)
    with pytest.raises(StoreSealedError):
        stored(stand, a_key(3))


@case
def what_is_held_may_be_kept_and_given_back_in_a_sealed_store(stand: Stand) -> None:
    keys = [stored(stand, a_key(number)) for number in range(3)]
    lease = stand.backend.lease(keys[:2], claim_id="c", owner="run", ttl=TTL)
    stand.backend.reserve(keys[2:], claim_id="r", ttl=TTL)
    stand.backend.seal("the next store")
    assert stand.backend.heartbeat(lease, ttl=TTL) == keys[:2]
    stand.backend.release(keys[0], lease.fences[keys[0]])
    stand.backend.complete(keys[1], lease.fences[keys[1]])
    stand.backend.cancel_reservation(keys[2:], claim_id="r")
    assert [stand.backend.claim_of(key) for key in keys] == [None, None, None]


@case
def a_sound_store_has_nothing_to_report(stand: Stand) -> None:
    stored(stand)
    assert stand.backend.check() == []


def create_race(stand: Stand, *, rounds: int) -> list[int]:
    """How many of eight threads that create the same document at once succeed, for each round; must be one."""
    barrier = Barrier(8)

    def create(number: int) -> int:
        barrier.wait()
        try:
            stored(stand, a_key(number))
        except DocumentExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        return [sum(threads.map(create, [number] * 8)) for number in range(rounds)]
