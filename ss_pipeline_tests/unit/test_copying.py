"""Copies between stores and the switch to another one: whole, resumable, and safe wherever they break off."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest

from ss_pipeline.errors import (
    SSError,
    StaleFenceError,
    StoreCopyIncompleteError,
    StoreInUseError,
    StoreSealedError,
    StoreUnavailableError,
)
from ss_pipeline.store import copying
from ss_pipeline.store.base import Backend, ClaimHistory, DocumentKey, Facets
from ss_pipeline.store.comparing import MOVES, compare_documents
from ss_pipeline.store.copying import CopyResult, Pace, Phase, copy_documents
from ss_pipeline.store.jobs import JOBS, ORIGINALS, JobStore, facets_of_body, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.mirroring import MirroringBackend
from ss_pipeline.store.switching import SwitchResult, switch
from ss_pipeline.store.syncing import NamedBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.flaky_store import Failure, FlakyBackend

Answer = TypeVar("Answer")
FIXTURES: Final = Path(__file__).parent.parent / "fixtures"
BROKEN: Final = b'{"job_id": "job_broken00000000", "status": \xff\xfe'


def named(backend: Backend, name: str) -> NamedBackend:
    return NamedBackend(name, backend)


def filled(backend: Backend, *, jobs: int = 7) -> Backend:
    """The back end with jobs of two tenants, documents of old schemas, a broken one, and another collection."""
    store = JobStore(backend)
    for number in range(jobs):
        store.create(a_job(f"job_{number:016d}", tenant_id="ann" if number % 2 else "default", priority=number))
    for name in ("job_v1.json", "job_v2.json"):
        body = (FIXTURES / name).read_bytes()
        key = job_key(json.loads(body)["job_id"])
        backend.create(key, body, facets_of_body(key, body))
    key = job_key("job_broken00000000")
    backend.create(key, BROKEN, facets_of_body(key, BROKEN))
    backend.create(DocumentKey(ORIGINALS, "ann", "job_0000000000000001"), b"before", Facets())
    return backend


def all_documents(backend: Backend) -> dict[DocumentKey, bytes]:
    """Every document but those of moves."""
    rows = [row for name in backend.collections() if name != MOVES for row in backend.page(name, limit=10_000)]
    return {row.key: backend.read(row.key) for row in rows}


def copied(source: Backend, target: Backend, *, page_size: int = 200, **options: Any) -> CopyResult:
    pace = Pace(page_size, workers=1)
    return copy_documents(named(source, "file"), named(target, "redis"), facets_of=facets_of_body, pace=pace, **options)


def switched(source: Backend, target: Backend) -> SwitchResult | None:
    return switch(named(source, "file"), named(target, "redis"), facets_of=facets_of_body)


# --- a copy ----------------------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
@pytest.mark.guarantee("R14")
@pytest.mark.parametrize("page_size", [1, 3, 11, 200])
def test_every_document_travels_byte_for_byte_with_what_it_is_listed_by(page_size: int) -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    result = copied(source, target, verify=True, page_size=page_size)
    assert all_documents(target) == all_documents(source)
    assert len(all_documents(source)) == 11
    assert target.read(job_key("job_broken00000000")) == BROKEN
    for collection in (JOBS, ORIGINALS):
        assert target.page(collection) == source.page(collection)
    assert (result.copied, result.unchanged, result.removed, result.differences) == (11, 0, (), 0)
    assert result.compared
    assert result.compared.source_digest == result.compared.target_digest
    assert target.sealed_for() == "file"


def test_a_second_copy_changes_only_what_changed() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    first = copied(source, target, verify=True)
    store = JobStore(source)
    store.save(store.load("job_0000000000000002").changed(priority=9))
    store.create(a_job("job_new0000000000000"))
    source.delete(job_key("job_broken00000000"), expected=BROKEN)
    second = copied(source, target, verify=True)
    assert (second.copied, second.unchanged, second.differences) == (2, 9, 0)
    assert second.removed == (job_key("job_broken00000000"),)
    assert first.compared
    assert second.compared
    assert first.compared.source_digest != second.compared.source_digest
    assert all_documents(target) == all_documents(source)


def test_a_collection_that_the_source_never_had_is_left_alone_and_one_that_it_emptied_is_emptied() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    target.create(DocumentKey("ledger", "ann", "call"), b"kept", Facets())
    target.seal("file")
    copied(source, target)
    source.delete(DocumentKey(ORIGINALS, "ann", "job_0000000000000001"), expected=b"before")
    result = copied(source, target, verify=True)
    assert [key.collection for key in result.removed] == [ORIGINALS]
    assert target.read(DocumentKey("ledger", "ann", "call")) == b"kept"


def test_nothing_is_copied_into_a_store_that_takes_changes_itself() -> None:
    source, target = filled(MemoryBackend()), filled(MemoryBackend(), jobs=1)
    before = all_documents(target)
    with pytest.raises(StoreInUseError):
        copied(source, target)
    assert all_documents(target) == before
    assert target.sealed_for() is None


def test_nothing_is_copied_from_a_store_whose_documents_have_moved_elsewhere() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    source.seal("postgres")
    for act in (copied, switched):
        with pytest.raises(StoreSealedError, match="postgres"):
            act(source, target)
    assert target.collections() == []


def test_progress_is_told_page_by_page_for_both_phases() -> None:
    told: list[tuple[Phase, int, int]] = []
    copied(
        filled(MemoryBackend()),
        MemoryBackend(),
        verify=True,
        page_size=5,
        progress=lambda phase, done, total: told.append((phase, done, total)),
    )
    assert told == [(phase, done, 11) for phase in ("copying", "comparing") for done in (0, 5, 10, 11)]


def test_a_copy_is_an_event() -> None:
    with recorded_events() as tape:
        copied(filled(MemoryBackend()), MemoryBackend())
    (event,) = tape.of("SS_STORE_COPIED")
    assert (event["source"], event["target"], event["copied"], event["differences"]) == ("file", "redis", 11, None)


# --- broken off and resumed ------------------------------------------------------------------------------------------


def test_a_resumed_copy_goes_on_at_the_page_where_the_first_was_broken_off() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    line = FlakyBackend(target)
    for_good: list[Failure] = ["before"] * 1_000

    def break_line(_phase: Phase, done: int, _total: int) -> None:
        if done == 6:
            line.fail_next(*for_good)

    with pytest.raises(StoreUnavailableError):
        copied(source, line, page_size=3, progress=break_line)
    assert len(all_documents(target)) == 6
    resumed = copied(source, target, resume=True, page_size=3)
    assert (resumed.copied, resumed.unchanged) == (5, 0)
    assert all_documents(target) == all_documents(source)


def test_without_resume_or_after_the_end_a_copy_starts_anew() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    copied(source, target, page_size=3)
    for resume in (True, False):
        assert copied(source, target, resume=resume).unchanged == 11


def test_a_copy_from_another_source_is_not_resumed() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    target.create(copying._CURSOR, b'{"source": "postgres", "after": ["jobs", "zzz", "zzz"]}', Facets())
    target.seal("postgres")
    assert copied(source, target, resume=True).copied == 11


def test_a_cursor_that_cannot_be_read_is_as_none() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    target.create(copying._CURSOR, b"\xff", Facets())
    target.seal("file")
    assert copied(source, target, resume=True).copied == 11


def test_of_two_copies_into_one_store_one_stops() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()

    def another(_phase: Phase, done: int, _total: int) -> None:
        if done == 3:
            copied(source, target)

    with pytest.raises(StoreCopyIncompleteError, match="another copy"):
        copied(source, target, page_size=3, progress=another)
    assert all_documents(target) == all_documents(source)


# --- compared --------------------------------------------------------------------------------------------------------


def late_writer(source: Backend) -> Callable[[Phase, int, int], None]:
    """A process without a mirror that changes, creates and deletes behind the back of a copy."""

    def write(phase: Phase, done: int, total: int) -> None:
        if phase == "copying" and done == total:
            store = JobStore(source)
            store.save(store.load("job_0000000000000000").changed(priority=-1))
            store.create(a_job("job_late000000000000"))
            source.delete(job_key("job_broken00000000"), expected=BROKEN)

    return write


def test_a_copy_without_a_comparison_does_not_see_what_was_written_behind_it() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    assert copied(source, target, progress=late_writer(source)).differences is None
    found = compare_documents(named(source, "file"), named(target, "redis"))
    assert {key.document_id for key in found.differences} == {
        "job_0000000000000000",
        "job_late000000000000",
        "job_broken00000000",
    }
    assert found.source_digest != found.target_digest


def test_a_comparison_brings_what_differs_and_looks_again() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    result = copied(source, target, verify=True, progress=late_writer(source))
    assert result.differences == 0
    assert [key.document_id for key in result.removed] == ["job_broken00000000"]
    assert all_documents(target) == all_documents(source)


class RestlessDuringComparison(MemoryBackend):
    """Its one document is another whenever it is looked at again after it was brought: at every third read."""

    reads = -1

    def start(self, phase: Phase, _done: int, _total: int) -> None:
        """The progress of the copy."""
        if phase == "comparing" and self.reads < 0:
            self.reads = 0

    def read(self, key: DocumentKey) -> bytes:
        if self.reads >= 0:
            self.reads += 1
        return super().read(key) + b" " * ((self.reads + 2) // 3)


def test_a_collection_that_begins_behind_the_copy_is_compared_too() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()

    def begin(phase: Phase, done: int, total: int) -> None:
        if phase == "copying" and done == total:
            source.create(DocumentKey("aliases", "ann", "late"), b"late", Facets())

    assert copied(source, target, verify=True, progress=begin).differences == 0
    assert all_documents(target) == all_documents(source)


def test_a_document_that_never_rests_is_told_as_a_difference() -> None:
    source, target = RestlessDuringComparison(), MemoryBackend()
    source.create(job_key("job_0000000000000000"), b"{}", Facets())
    result = copied(source, target, verify=True, progress=source.start)
    assert result.differences == 1
    assert result.compared
    assert result.compared.source_digest != result.compared.target_digest


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("R7")
def test_fences_and_attempts_go_on_above_those_of_the_source() -> None:
    source, target, key = filled(MemoryBackend()), MemoryBackend(), job_key("job_0000000000000000")
    for number in range(4):
        source.lease([key], claim_id=f"c{number}", owner="run", ttl=-1.0)
    copied(source, target)
    assert target.history_of(key) == ClaimHistory(fence=4, attempts=4)
    zombie = source.lease([key], claim_id="zombie", owner="run", ttl=3_600.0).fences[key]
    switched(source, target)
    lease = target.lease([key], claim_id="c9", owner="run", ttl=60.0)
    assert (lease.fences[key].number, lease.attempts[key]) == (6, 6)
    body = target.read(key)
    for store, refusal in ((source, StoreSealedError), (target, StaleFenceError)):
        with pytest.raises(refusal):
            store.replace(key, body + b" ", Facets(), expected=body, fence=zombie)
    with pytest.raises(StaleFenceError):
        target.complete(key, zombie)


def test_fences_never_go_back_on_the_way_there_and_back() -> None:
    here, there = named(filled(MemoryBackend()), "file"), named(MemoryBackend(), "redis")
    key, fences = job_key("job_0000000000000000"), list[int]()
    for number in range(6):
        for _ in range(number % 3):
            fence = here.backend.lease([key], claim_id=f"c{number}", owner="run", ttl=60.0).fences[key]
            fences.append(fence.number)
            here.backend.release(key, fence)
        switch(here, there, facets_of=facets_of_body)
        here, there = there, here
    assert fences == [1, 2, 3, 4, 5, 6]


def test_a_document_that_a_run_of_before_holds_in_the_target_stops_the_switch() -> None:
    source, target, key = filled(MemoryBackend()), MemoryBackend(), job_key("job_0000000000000000")
    copied(source, target)
    target.for_moving().lease([key], claim_id="old", owner="run", ttl=3_600.0)
    source.lease([key], claim_id="new", owner="run", ttl=-1.0)
    source.lease([key], claim_id="new", owner="run", ttl=-1.0)
    with pytest.raises(StoreCopyIncompleteError, match="hold 1 documents in redis"):
        switched(source, target)
    assert (source.sealed_for(), target.sealed_for()) == (None, "file")


# --- the switch ------------------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
def test_after_the_switch_the_old_store_refuses_and_follows_and_the_new_one_takes_changes() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    with recorded_events() as tape:
        result = switched(source, target)
    assert result
    assert (result.copied, result.removed, result.last.differences, result.last.held) == (11, (), 0, ())
    assert (source.sealed_for(), target.sealed_for()) == ("redis", None)
    with pytest.raises(StoreSealedError, match="redis"):
        JobStore(source).create(a_job("job_toolate000000000"))
    with_mirror = JobStore(MirroringBackend(target, source, facets_of=facets_of_body, name="redis"))
    with_mirror.create(a_job("job_new0000000000000"))
    assert all_documents(source) == all_documents(target)
    assert [(event["source"], event["target"]) for event in tape.of("SS_STORE_SWITCHED")] == [("file", "redis")]


def test_a_switch_that_was_made_is_not_made_again() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    switched(source, target)
    JobStore(target).create(a_job("job_new0000000000000"))
    assert switched(source, target) is None
    with pytest.raises(StoreInUseError):
        copied(source, target)
    assert JobStore(target).load("job_new0000000000000")


@pytest.mark.seed("S2.3.8")
def test_the_way_back_gives_the_old_store_byte_for_byte() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    before = all_documents(source)
    switched(source, target)
    switch(named(target, "redis"), named(source, "file"), facets_of=facets_of_body)
    assert all_documents(source) == before
    assert (source.sealed_for(), target.sealed_for()) == (None, "file")
    JobStore(source).create(a_job("job_new0000000000000"))


def test_a_write_that_came_before_the_seal_is_in_the_new_store() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()
    assert late_write_survives(source, target, switch)


def late_write_survives(source: Backend, target: Backend, move: Callable[..., object]) -> bool:
    """Whether a job that the old store acknowledged at the last moment is in the new one; none is refused unheard."""
    acknowledged: list[str] = []

    class LateWriter(FlakyBackend):
        """The target; whenever its last document is read, somebody writes to the source, if that takes changes."""

        def read(self, key: DocumentKey) -> bytes:
            if key.collection == ORIGINALS:
                job = a_job(f"job_late{len(acknowledged):012d}")
                try:
                    JobStore(source).create(job)
                    acknowledged.append(job.job_id)
                except StoreSealedError:
                    pass
            return super().read(key)

    move(named(source, "file"), named(LateWriter(target), "redis"), facets_of=facets_of_body)
    assert acknowledged
    stored = {key.document_id for key in all_documents(target)}
    return set(acknowledged) <= stored


def switch_without_seal(source: NamedBackend, target: NamedBackend, **options: Any) -> None:
    """Broken: the old store takes changes until the very end."""
    copy_documents(source, target, verify=True, **options)
    source.backend.seal(target.name)
    target.backend.unseal()


def test_a_switch_without_a_seal_is_caught_losing_a_late_write() -> None:
    assert not late_write_survives(filled(MemoryBackend()), MemoryBackend(), switch_without_seal)


# --- a switch that breaks off anywhere -------------------------------------------------------------------------------


@dataclass
class Line:
    """What both stores are reached through: it fails at one call, once or for good, before or after its effect."""

    fails_at: int
    how: Literal["before", "after"]
    for_good: bool
    calls: int = 0

    def carry(self, act: Callable[[], Answer]) -> Answer:
        """Carries a call."""
        self.calls += 1
        is_late = self.for_good and self.calls > self.fails_at
        if is_late or (self.calls == self.fails_at and self.how == "before"):
            raise StoreUnavailableError("the line broke")
        answer = act()
        if self.calls == self.fails_at:
            raise StoreUnavailableError("the line broke")
        return answer


class OnLine(FlakyBackend):
    """A store at the end of a line."""

    def __init__(self, inner: Backend, line: Line) -> None:
        super().__init__(inner)
        self._line = line

    def for_moving(self) -> "OnLine":
        return OnLine(self._inner.for_moving(), self._line)

    def _call(self, name: str, act: Callable[[], Answer]) -> Answer:
        del name
        return self._line.carry(act)


def broken_switch(line: Line, move: Callable[..., object] = switch) -> tuple[Backend, Backend, SSError | None]:
    """Both stores after a switch over this line, and how it ended."""
    source, target = filled(MemoryBackend(), jobs=2), MemoryBackend()
    source.lease([job_key("job_0000000000000000")], claim_id="c", owner="run", ttl=-1.0)
    try:
        move(
            named(OnLine(source, line), "file"),
            named(OnLine(target, line), "redis"),
            facets_of=facets_of_body,
            pace=Pace(workers=1),
        )
    except SSError as error:
        return source, target, error
    return source, target, None


def in_use(*stores: Backend) -> int:
    """How many of the stores take changes and have documents."""
    return sum(store.sealed_for() is None and bool(store.collections()) for store in stores)


CALLS: Final = 160
"""More than a switch of `broken_switch` makes."""


@pytest.mark.guarantee("R1")
@pytest.mark.parametrize("how", ["before", "after"])
def test_a_switch_that_dies_at_any_call_leaves_at_most_one_store_in_use_and_can_be_run_again(
    how: Literal["before", "after"],
) -> None:
    ended_whole = 0
    for call in range(1, CALLS):
        source, target, error = broken_switch(Line(call, how, for_good=True))
        assert in_use(source, target) <= 1, call
        ended_whole += error is None
        switched(source, target)
        assert (source.sealed_for(), target.sealed_for()) == ("redis", None), call
        assert all_documents(target) == all_documents(source), call
        assert target.history_of(job_key("job_0000000000000000")).fence == 1, call
    assert 0 < ended_whole < CALLS / 2


def unsealing_first(source: NamedBackend, target: NamedBackend, **options: Any) -> None:
    """Broken: the new store takes changes before the old one refuses them."""
    copy_documents(source, target, verify=True, **options)
    target.backend.unseal()
    source.backend.seal(target.name)


def test_unsealing_the_new_store_first_is_caught() -> None:
    lines = [Line(call, "before", for_good=True) for call in range(1, CALLS)]
    assert max(in_use(*broken_switch(line, unsealing_first)[:2]) for line in lines) == 2


@pytest.mark.guarantee("F6")
@pytest.mark.parametrize("how", ["before", "after"])
def test_after_a_switch_that_fails_at_any_call_the_old_store_takes_changes_again(
    how: Literal["before", "after"],
) -> None:
    with recorded_events() as tape:
        for call in range(1, CALLS):
            source, target, error = broken_switch(Line(call, how, for_good=False))
            if error is None:
                assert (source.sealed_for(), target.sealed_for()) == ("redis", None), call
            elif "Both stores" in error.todo:
                assert source.sealed_for() == "redis", call
            else:
                assert source.sealed_for() is None, call
                assert in_use(source, target) == 1, call
    undone = tape.of("SS_STORE_SWITCH_UNDONE")
    assert len(undone) > 20
    assert undone[0] == {"source": "file"}


def test_a_source_that_is_unsealed_meanwhile_stops_the_switch() -> None:
    source, target = filled(MemoryBackend()), MemoryBackend()

    class Meddled(FlakyBackend):
        """Somebody unseals the source while the last documents are read."""

        def read(self, key: DocumentKey) -> bytes:
            if source.sealed_for() and key.collection == ORIGINALS:
                source.unseal()
            return super().read(key)

    with pytest.raises(StoreCopyIncompleteError, match="unsealed"):
        switched(source, Meddled(target))
    assert target.sealed_for() == "file"
