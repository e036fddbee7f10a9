"""One document brought to another store in any order of steps, and the store that brings every change to a mirror."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeAlias, TypeVar

import pytest

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreInUseError,
    StoreSealedError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.mirroring import MirroringBackend
from ss_pipeline.store.syncing import NamedBackend, synced
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.flaky_store import FlakyBackend, SleptClock
from ss_pipeline_tests.interleaving import Actor, Play, SteppedBackend, every_order
from ss_pipeline_tests.store_contract import CASES, WAITING, MovedClock, Stand, a_body, a_key, facets_in_body

Answer = TypeVar("Answer")
Sync: TypeAlias = Callable[..., object]
KEY: Final = a_key()
V: Final = [a_body(WAITING, f"version {number}") for number in range(4)]


def bytes_in(store: Backend, key: DocumentKey = KEY) -> bytes | None:
    try:
        return store.read(key)
    except DocumentNotFoundError:
        return None


# --- one step, alone -------------------------------------------------------------------------------------------------


def two_stores(in_source: bytes | None = None, in_target: bytes | None = None) -> tuple[NamedBackend, NamedBackend]:
    """A source and a target that follows it, each with one document or none; the target as who moves has it."""
    stores = [MemoryBackend(), MemoryBackend()]
    for store, body in zip(stores, (in_source, in_target), strict=True):
        if body is not None:
            store.create(KEY, body, WAITING)
    stores[1].seal("file")
    return NamedBackend("file", stores[0]), NamedBackend("redis", stores[1].for_moving())


@pytest.mark.parametrize(
    ("in_source", "in_target", "outcome"),
    [
        (None, None, "unchanged"),
        (V[1], V[1], "unchanged"),
        (V[1], None, "copied"),
        (V[1], V[0], "copied"),
        (None, V[0], "removed"),
    ],
)
def test_the_target_gets_what_the_source_has(in_source: bytes | None, in_target: bytes | None, outcome: str) -> None:
    source, target = two_stores(in_source, in_target)
    assert synced(source, target, KEY, facets_of=facets_in_body) == outcome
    assert bytes_in(target.backend) == bytes_in(source.backend) == in_source
    assert target.backend.counts("jobs") == source.backend.counts("jobs")


@pytest.mark.parametrize("followed", [None, "postgres"])
def test_a_store_that_does_not_follow_the_source_is_never_written_to(followed: str | None) -> None:
    source, target = two_stores(V[1], V[0])
    target.backend.seal(followed) if followed else target.backend.unseal()
    with pytest.raises(StoreInUseError, match="redis"):
        synced(source, target, KEY, facets_of=facets_in_body)
    assert bytes_in(target.backend) == V[0]


def test_a_folder_under_two_paths_is_the_same_kind_of_store() -> None:
    source, target = two_stores()
    target.backend.seal("file:/srv/jobs")
    assert target.follows(source)


def test_a_document_that_never_rests_is_given_up() -> None:
    source, target = two_stores(V[0])

    def restless(_key: DocumentKey, body: bytes) -> Facets:
        source.backend.replace(KEY, body + b" ", WAITING, expected=body)
        return WAITING

    with pytest.raises(DocumentChangedError):
        synced(source, target, KEY, facets_of=restless)


# --- many at once, in every order ------------------------------------------------------------------------------------


class RecordedMemory(MemoryBackend):
    """A memory store that notes what its documents become."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[bytes | None] = []

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        super().create(key, body, facets)
        self.states.append(body)

    def replace(self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: object = None) -> None:
        super().replace(key, body, facets, expected=expected)
        self.states.append(body)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        super().delete(key, expected=expected)
        self.states.append(None)


@dataclass
class Record:
    """Two stores, and every state the target's document went through."""

    source: MemoryBackend = field(default_factory=MemoryBackend)
    target: RecordedMemory = field(default_factory=RecordedMemory)


def source_first(source: NamedBackend, target: NamedBackend, _key: DocumentKey, **_given: object) -> None:
    """Broken: reads the source first, and so may overwrite what is newer with what it read earlier."""
    while True:
        wanted, before = bytes_in(source.backend), bytes_in(target.backend)
        if before == wanted:
            return
        try:
            _set(target.backend, wanted, before)
        except (DocumentChangedError, DocumentNotFoundError, DocumentExistsError):
            continue


def looked_once(source: NamedBackend, target: NamedBackend, _key: DocumentKey, **_given: object) -> None:
    """Broken: does not look at the source again after it has written."""
    while True:
        before, wanted = bytes_in(target.backend), bytes_in(source.backend)
        if before == wanted:
            return None
        try:
            return _set(target.backend, wanted, before)
        except (DocumentChangedError, DocumentNotFoundError, DocumentExistsError):
            continue


def _set(target: Backend, wanted: bytes | None, before: bytes | None) -> None:
    if wanted is None:
        target.delete(KEY, expected=before or b"")
    elif before is None:
        target.create(KEY, wanted, WAITING)
    else:
        target.replace(KEY, wanted, WAITING, expected=before)


def a_play(sync: Sync, *history: bytes | None) -> Callable[[], tuple[Play, Record]]:
    """Actors that each make one change of the source's document and then sync it; both stores begin with the first.

    A change that comes before its time is refused, and nothing is synced for it.
    """

    def new_play() -> tuple[Play, Record]:
        record = Record()
        if history[0] is not None:
            record.source.create(KEY, history[0], WAITING)
            record.target.create(KEY, history[0], WAITING)
        record.target.seal("source")
        mover = record.target.for_moving()

        def change(before: bytes | None, after: bytes | None) -> Callable[[Actor], None]:
            def act(actor: Actor) -> None:
                source = SteppedBackend(record.source, actor)
                target = SteppedBackend(mover, actor)
                try:
                    _set(source, after, before)
                except (DocumentChangedError, DocumentNotFoundError, DocumentExistsError):
                    return
                sync(NamedBackend("source", source), NamedBackend("target", target), KEY, facets_of=facets_in_body)

            return act

        return [change(*pair) for pair in pairwise(history)], record

    return new_play


def went_back(record: Record, history: tuple[bytes | None, ...]) -> bool:
    """Whether the target's document ever became older than it had been."""
    ages = [history.index(state) for state in record.target.states]
    return ages != sorted(ages)


def is_in_line(record: Record) -> bool:
    """Whether both stores have the same."""
    return bytes_in(record.source) == bytes_in(record.target)


HISTORIES: Final = [(V[0], V[1], V[2]), (None, V[1], V[2]), (V[0], V[1], None), (V[0], None, V[2])]
BACK_AND_FORTH: Final = [(V[0], V[1], V[0]), (None, V[1], None), (V[0], None, V[0])]


@pytest.mark.guarantee("R3")
@pytest.mark.parametrize("history", HISTORIES)
def test_in_every_order_of_steps_the_target_ends_as_the_source_and_never_becomes_older(
    history: tuple[bytes | None, ...],
) -> None:
    """So a process that is killed between two steps leaves the target late, never wrong."""
    played = 0
    for order, record in every_order(a_play(synced, *history)):
        assert is_in_line(record), order
        assert not went_back(record, history), order
        played += 1
    assert played > 1_000


@pytest.mark.parametrize("history", BACK_AND_FORTH)
def test_in_every_order_of_steps_the_target_follows_a_source_that_goes_back(history: tuple[bytes | None, ...]) -> None:
    for order, record in every_order(a_play(synced, *history)):
        assert is_in_line(record), order


def test_reading_the_source_first_is_caught() -> None:
    assert any(went_back(record, HISTORIES[0]) for _, record in every_order(a_play(source_first, *HISTORIES[0])))


def test_not_looking_again_is_caught() -> None:
    assert any(not is_in_line(record) for _, record in every_order(a_play(looked_once, *BACK_AND_FORTH[0])))


# --- the store with a mirror -----------------------------------------------------------------------------------------


@dataclass
class Mirrored:
    """A store with a mirror that may fail, and the time it goes by."""

    primary: MemoryBackend = field(default_factory=MemoryBackend)
    mirror: MemoryBackend = field(default_factory=MemoryBackend)
    clock: SleptClock = field(default_factory=SleptClock)

    def __post_init__(self) -> None:
        self.line = FlakyBackend(self.mirror)
        self.store = MirroringBackend(
            self.primary, self.line, facets_of=facets_in_body, name="file", rest=30.0, clock=self.clock
        )


def test_every_change_is_brought_to_the_mirror() -> None:
    m = Mirrored()
    for number in range(3):
        m.store.create(a_key(number), V[0], WAITING)
    m.store.replace(a_key(1), V[1], WAITING, expected=V[0])
    m.store.delete(a_key(2), expected=V[0])
    assert [bytes_in(m.mirror, a_key(number)) for number in range(3)] == [V[0], V[1], None]
    assert m.mirror.page("jobs") == m.store.page("jobs")
    assert m.mirror.sealed_for() == "file"
    with pytest.raises(StoreSealedError):
        m.mirror.create(a_key(9), V[0], WAITING)


def test_what_is_refused_or_read_or_claimed_is_the_primary_s_alone() -> None:
    m = Mirrored()
    m.store.create(KEY, V[0], WAITING)
    m.line.calls.clear()
    with pytest.raises(DocumentExistsError):
        m.store.create(KEY, V[1], WAITING)
    with pytest.raises(DocumentChangedError):
        m.store.replace(KEY, V[1], WAITING, expected=V[2])
    fence = m.store.lease([KEY], claim_id="c", owner="run", ttl=60).fences[KEY]
    m.store.complete(KEY, fence)
    with pytest.raises(StaleFenceError):
        m.store.replace(KEY, V[1], WAITING, expected=V[0], fence=fence)
    m.store.heads("jobs", per_group=1)
    assert m.line.calls == []
    assert m.mirror.history_of(KEY).fence == 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_with_a_mirror_the_contract_is_kept_and_the_mirror_is_in_line(name: str) -> None:
    clock = MovedClock()
    primary, mirror = MemoryBackend(clock=lambda: clock.lease, wall=lambda: clock.wall), MemoryBackend()
    CASES[name](Stand(MirroringBackend(primary, mirror, facets_of=facets_in_body), clock))
    for collection in {*primary.collections(), *mirror.collections()}:
        rows = [store.page(collection, limit=1_000) for store in (primary, mirror)]
        assert [row.key for row in rows[0]] == [row.key for row in rows[1]]
        assert [primary.read(row.key) for row in rows[0]] == [mirror.read(row.key) for row in rows[1]]


def test_where_the_mirror_fails_the_change_stands_and_an_event_names_the_document() -> None:
    m = Mirrored()
    m.line.fail_next("before")
    with recorded_events() as tape:
        m.store.create(KEY, V[0], WAITING)
    assert m.store.read(KEY) == V[0]
    (event,) = tape.of("SS_STORE_MIRROR_BEHIND")
    assert (event["collection"], event["document_id"]) == ("jobs", KEY.document_id)
    assert event["code"] == StoreUnavailableError.code


def test_a_mirror_that_did_not_answer_is_left_alone_for_a_while() -> None:
    m = Mirrored()
    m.line.fail_next("before")
    m.store.create(a_key(1), V[0], WAITING)
    m.line.calls.clear()
    m.clock.sleep(29.0)
    with recorded_events() as tape:
        m.store.create(a_key(2), V[0], WAITING)
    assert m.line.calls == []
    assert len(tape.of("SS_STORE_MIRROR_BEHIND")) == 1
    m.clock.sleep(1.0)
    m.store.create(a_key(3), V[0], WAITING)
    assert [bytes_in(m.mirror, a_key(number)) for number in (1, 2, 3)] == [None, None, V[0]]


def test_a_mirror_that_takes_changes_of_others_is_left_alone() -> None:
    m = Mirrored()
    m.mirror.create(a_key(9), V[0], WAITING)
    with recorded_events() as tape:
        m.store.create(a_key(9), V[1], WAITING)
    assert m.mirror.read(a_key(9)) == V[0]
    assert [event["code"] for event in tape.of("SS_STORE_MIRROR_BEHIND")] == [StoreInUseError.code]


class SleepingLine(FlakyBackend):
    """A line on which somebody sleeps before or after the first read, while the world goes on."""

    def __init__(self, inner: Backend, at: str, world: Callable[[], None]) -> None:
        super().__init__(inner)
        self._at = at
        self._world = world

    def for_moving(self) -> "SleepingLine":
        return SleepingLine(self._inner.for_moving(), self._at, self._world)

    def _call(self, name: str, act: Callable[[], Answer]) -> Answer:
        if (name, self._at) == ("read", "before"):
            self._wake()
        answer = super()._call(name, act)
        if (name, self._at) == ("read", "after"):
            self._wake()
        return answer

    def _wake(self) -> None:
        self._at = ""
        self._world()


def state_after_sleep(at: str, kind: type[NamedBackend] = NamedBackend) -> bytes | None:
    """What the new store has after a process slept through the switch, between its change and the mirror's turn."""
    old, new = MemoryBackend(), MemoryBackend()
    for store in (old, new):
        store.create(KEY, V[0], WAITING)
    new.seal("file")

    def switch_and_change() -> None:
        old.seal("redis")
        new.for_moving().replace(KEY, V[1], WAITING, expected=V[0])
        new.unseal()
        new.replace(KEY, V[2], WAITING, expected=V[1])

    sleeper = MirroringBackend(old, SleepingLine(new, at, switch_and_change), facets_of=facets_in_body, name="file")
    sleeper._target = kind("redis", sleeper._target.backend)
    sleeper.replace(KEY, V[1], WAITING, expected=V[0])
    with pytest.raises(StoreSealedError):
        sleeper.replace(KEY, V[3], WAITING, expected=V[1])
    return bytes_in(new)


class FollowingForEver(NamedBackend):
    """Broken: is never asked whether it still follows."""

    def follows(self, source: NamedBackend) -> bool:
        del source
        return True


@pytest.mark.guarantee("R7")
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_process_that_slept_through_a_switch_does_not_overwrite_what_came_after_it(at: str) -> None:
    assert state_after_sleep(at) == V[2]


def test_not_asking_whether_the_mirror_still_follows_is_caught() -> None:
    assert state_after_sleep("before", FollowingForEver) == V[1]


def test_the_check_speaks_of_both() -> None:
    m = Mirrored()
    assert m.store.check() == []
    m.store.create(KEY, V[0], WAITING)
    assert m.store.check() == []
    m.mirror.unseal()
    assert m.store.check() == ["the mirror: it does not follow this store; copy into it first: ss-pipeline store copy"]
    m.line.fail_next("before")
    (problem,) = m.store.check()
    assert problem.startswith("the mirror: the line broke.")


def test_a_sealed_primary_refuses_and_the_mirror_is_as_it_was() -> None:
    m = Mirrored()
    m.store.create(KEY, V[0], WAITING)
    m.store.seal("redis")
    assert m.store.sealed_for() == "redis"
    with pytest.raises(StoreSealedError):
        m.store.replace(KEY, V[1], WAITING, expected=V[0])
    m.store.for_moving().replace(KEY, V[2], WAITING, expected=V[0])
    assert bytes_in(m.mirror) == V[2]
    m.store.unseal()
    m.store.delete(KEY, expected=V[2])
    assert bytes_in(m.mirror) is None
    m.store.close()
