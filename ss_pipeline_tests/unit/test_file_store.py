"""The file store beyond the contract: its places, its locks, its index, its faults, and what others put there."""

import errno
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ss_pipeline import durable
from ss_pipeline.errors import (
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreError,
    StoreLockedError,
    StorePathUnsafeError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_index_rows import Hold, IndexRows, Now, Row
from ss_pipeline.store.file_index_sql import SCHEMA
from ss_pipeline.store.file_lock import exclusive_lock
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.store_contract import (
    TTL,
    WAITING,
    MovedClock,
    Stand,
    a_body,
    a_key,
    facets_in_body,
    keys_of,
    leased,
    on_files,
    stored,
)


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with on_files(tmp_path) as stand:
        yield stand


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def another(root: Path, clock: MovedClock) -> closing[FileBackend]:
    """Another process's view of the same files."""
    return closing(FileBackend(root, facets_of=facets_in_body, clock=clock.for_leases(), look_seconds=0))


def drop(path: Path, body: bytes = a_body(WAITING)) -> None:
    """A document as another program puts it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def in_child(work: Callable[[], None]) -> int:
    """Runs something in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except StoreError:
            os._exit(9)
        os._exit(0)
    return os.waitpid(child, 0)[1]


# --- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (DocumentKey("jobs", "default", "job_abcd"), "ab/job_abcd/job.json"),
        (DocumentKey("jobs", "acme", "job_abcd"), "tenants/acme/ab/job_abcd/job.json"),
        (DocumentKey("jobs", "default", "x"), "x0/x/job.json"),
        (DocumentKey("jobs", "default", "职位一"), "职位/职位一/job.json"),
        (DocumentKey("ledger", "acme", "x.json"), "collections/ledger/acme/73/x.json.json"),
    ],
)
def test_documents_are_where_the_contract_says(stand: Stand, root: Path, key: DocumentKey, place: str) -> None:
    stored(stand, key)
    assert (root / place).read_bytes() == a_body(WAITING)
    assert [row.key for row in stand.backend.page(key.collection)] == [key]


def test_names_that_look_like_files_of_the_store_are_documents_like_others(stand: Stand, root: Path) -> None:
    names = ["x", "x.json", "x.claim", ".lock", "x.json.lock"]
    keys = sorted(stored(stand, DocumentKey("ledger", "default", name)) for name in names)
    lease = stand.backend.lease(keys, claim_id="c", owner="run", ttl=TTL)
    assert list(lease.fences) == keys
    with another(root, MovedClock(boot_id="another")) as rebuilt:
        assert keys_of(rebuilt.page("ledger")) == keys


@pytest.mark.parametrize("part", ["..", "a/b", "", "~", "a\x00", "\ud83d"])
def test_an_unsafe_name_is_refused_everywhere(stand: Stand, part: str) -> None:
    for key in (DocumentKey("jobs", "t", part), DocumentKey("jobs", part, "x"), DocumentKey(part, "t", "x")):
        with pytest.raises(StorePathUnsafeError):
            stand.backend.create(key, b"{}", WAITING)
        with pytest.raises(StorePathUnsafeError):
            stand.backend.read(key)


def test_a_job_of_an_older_system_is_read_listed_and_written_in_place(stand: Stand, root: Path) -> None:
    key = DocumentKey("jobs", "default", "job_old")
    drop(root / "job_old" / "job.json")
    assert stand.backend.read(key) == a_body(WAITING)
    assert keys_of(stand.backend.page("jobs")) == [key]
    fence = leased(stand, key, claim_id="c").fences[key]
    stand.backend.replace(key, a_body(WAITING, "new"), WAITING, expected=a_body(WAITING), fence=fence)
    assert (root / "job_old" / "job.json").read_bytes() == a_body(WAITING, "new")
    assert not (root / "ol").exists()
    with pytest.raises(DocumentExistsError):
        stored(stand, key)


def test_a_job_folder_dropped_in_is_listed_also_if_its_document_comes_later(stand: Stand, root: Path) -> None:
    assert stand.backend.counts("jobs") == {}
    for folder in ("ab/job_ab1", "tenants/acme/ab/job_ab2", "ab/elsewhere"):
        (root / folder).mkdir(parents=True)
    assert stand.backend.counts("jobs") == {}
    for folder in ("ab/job_ab1", "tenants/acme/ab/job_ab2", "ab/elsewhere"):
        drop(root / folder / "job.json")
    found = [DocumentKey("jobs", "acme", "job_ab2"), DocumentKey("jobs", "default", "job_ab1")]
    assert keys_of(stand.backend.page("jobs")) == found
    assert keys_of(stand.backend.heads("jobs", per_group=1)) == found


def test_a_document_changed_or_removed_by_others_is_listed_right_after_a_rescan(stand: Stand, root: Path) -> None:
    changed, gone = stored(stand, a_key(1)), stored(stand, a_key(2))
    body = a_body(facets_in_body(changed, a_body(WAITING)), "x").replace(b'"created"', b'"failed"')
    (root / "00" / changed.document_id / "job.json").write_bytes(body)
    (root / "00" / gone.document_id / "job.json").unlink()
    assert stand.backend.read(changed) == body
    assert isinstance(stand.backend, FileBackend)
    stand.backend.rescan()
    assert stand.backend.counts("jobs") == {("default", "failed"): 1}


def test_a_folder_removed_by_others_stops_nothing(stand: Stand, root: Path) -> None:
    gone, there = stored(stand, a_key(1)), stored(stand, a_key(2))
    lease = stand.backend.lease([gone], claim_id="c", owner="run", ttl=TTL)
    (root / "00" / gone.document_id).rename(root.parent / "elsewhere")
    assert stand.backend.reserve([gone, there], claim_id="d", ttl=TTL) == [there]
    assert stand.backend.heartbeat(lease, ttl=TTL) == []
    for end in (stand.backend.complete, stand.backend.release):
        with pytest.raises(StaleFenceError):
            end(gone, lease.fences[gone])
    assert keys_of(stand.backend.page("jobs")) == [there]


def make_link(root: Path, outside: Path) -> None:
    outside.mkdir()
    drop(outside / "job.json")
    (root / "00").mkdir(parents=True)
    (root / "00" / a_key().document_id).symlink_to(outside)


def make_shard_link(root: Path, outside: Path) -> None:
    drop(outside / a_key().document_id / "job.json")
    root.mkdir()
    (root / "00").symlink_to(outside)


def make_file_link(root: Path, outside: Path) -> None:
    drop(outside)
    (root / "00" / a_key().document_id).mkdir(parents=True)
    (root / "00" / a_key().document_id / "job.json").symlink_to(outside)


def make_pipe(root: Path, outside: Path) -> None:
    drop(outside)
    (root / "00" / a_key().document_id).mkdir(parents=True)
    os.mkfifo(root / "00" / a_key().document_id / "job.json")


@pytest.mark.parametrize("make", [make_link, make_shard_link, make_file_link, make_pipe])
def test_what_is_no_plain_file_inside_the_root_is_refused_and_not_listed(
    stand: Stand, root: Path, make: Callable[[Path, Path], None]
) -> None:
    outside = root.parent / "outside"
    make(root, outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    with pytest.raises(StorePathUnsafeError):
        stand.backend.read(a_key())
    with pytest.raises(StorePathUnsafeError):
        stand.backend.replace(a_key(), b"x", WAITING, expected=a_body(WAITING))
    with pytest.raises(StorePathUnsafeError):
        stored(stand)
    assert stand.backend.page("jobs") == []
    assert stand.backend.reserve([a_key()], claim_id="c", ttl=TTL) == []
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


# --- locks -----------------------------------------------------------------------------------------------------------


@pytest.mark.seed("S1.2.1")
def test_a_lock_keeps_others_out_until_it_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path), pytest.raises(StoreLockedError), exclusive_lock(path, timeout=0.02):
        pass
    with exclusive_lock(path, timeout=0):
        pass


@pytest.mark.seed("S1.2.1")
def test_the_second_holder_waits_for_the_first(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def wait() -> None:
        with exclusive_lock(path):
            order.append("second")

    waiting = threading.Thread(target=wait)
    with exclusive_lock(path):
        waiting.start()
        time.sleep(0.02)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


@pytest.mark.seed("S1.2.1")
def test_a_killed_holder_frees_its_lock(tmp_path: Path) -> None:
    def hold_and_die() -> None:
        with exclusive_lock(tmp_path / "lock"):
            os.kill(os.getpid(), 9)

    assert os.WTERMSIG(in_child(hold_and_die)) == 9
    with exclusive_lock(tmp_path / "lock", timeout=0):
        pass


def test_a_forked_child_neither_keeps_nor_frees_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with exclusive_lock(path):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(reader, 1)
            os._exit(0)
        with pytest.raises(StoreLockedError), exclusive_lock(path, timeout=0):
            pass
    with exclusive_lock(path, timeout=0):
        pass
    os.write(writer, b"x")
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)


def test_a_lock_file_removed_while_waiting_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    entered = threading.Event()

    def wait() -> None:
        with exclusive_lock(path):
            entered.set()

    waiting = threading.Thread(target=wait)
    with exclusive_lock(path):
        waiting.start()
        time.sleep(0.02)
        path.unlink()
    assert entered.wait(5)
    waiting.join()
    assert path.exists()


def test_a_document_whose_lock_is_held_for_long_is_passed_over_and_not_lost(root: Path) -> None:
    with closing(FileBackend(root, facets_of=facets_in_body, lock_timeout=0.02)) as backend:
        stand = Stand(backend)
        stuck, free = stored(stand, a_key(1)), stored(stand, a_key(2))
        lease = backend.lease([stuck], claim_id="c", owner="run", ttl=TTL)
        with exclusive_lock(root / "00" / stuck.document_id / "job.json.lock"):
            assert backend.reserve([stuck, free], claim_id="d", ttl=TTL) == [free]
            assert backend.heartbeat(lease, ttl=TTL) == [stuck]
            with pytest.raises(StoreLockedError):
                backend.replace(stuck, b"new", WAITING, expected=a_body(WAITING))
        assert backend.read(stuck) == a_body(WAITING)


# --- the index -------------------------------------------------------------------------------------------------------


def index_file(root: Path) -> Path:
    (path,) = root.glob(".index-*.sqlite3")
    return path


def remove_index(root: Path) -> None:
    index_file(root).unlink()


def overwrite_index(root: Path) -> None:
    with index_file(root).open("r+b") as file:
        file.write(b"no database " * 4_000)


def empty_index(root: Path) -> None:
    os.truncate(index_file(root), 0)


def age_index(root: Path) -> None:
    with closing(sqlite3.connect(index_file(root))) as connection:
        connection.execute("UPDATE meta SET value = 0 WHERE name = 'version'")
        connection.commit()


def wipe_gate(root: Path) -> None:
    (root / ".index.lock").write_bytes(b"nonsense")


@pytest.mark.parametrize("damage", [remove_index, overwrite_index, empty_index, age_index, wipe_gate])
def test_a_lost_or_damaged_index_is_rebuilt_from_the_documents(
    stand: Stand, root: Path, damage: Callable[[Path], None]
) -> None:
    keys = [stored(stand, a_key(number)) for number in range(5)]
    leased(stand, keys[0], claim_id="c")
    stand.backend.close()
    damage(root)
    with recorded_events() as tape, another(root, stand.clock) as backend:
        assert keys_of(backend.page("jobs")) == keys
        assert keys_of(backend.heads("jobs", per_group=9)) == keys[1:]
    assert tape.of("SS_STORE_INDEX_REBUILT") == [{"documents": 5}]
    index_file(root)


@pytest.mark.parametrize("damage", [overwrite_index, wipe_gate])
def test_an_index_damaged_under_an_open_store_stops_neither_writers_nor_listings(
    stand: Stand, root: Path, damage: Callable[[Path], None]
) -> None:
    with another(root, stand.clock) as other:
        stored(stand, a_key(1))
        assert len(other.page("jobs")) == 1
        for path in root.glob(".index-*-wal"):
            os.truncate(path, 0)
        damage(root)
        stored(stand, a_key(2))
        stored(Stand(other), a_key(3))
        for backend in (stand.backend, other):
            assert keys_of(backend.page("jobs")) == [a_key(1), a_key(2), a_key(3)]


def test_another_boot_rebuilds_the_index_and_ends_all_claims_but_no_fence(stand: Stand, root: Path) -> None:
    key = stored(stand)
    before = leased(stand, key, claim_id="c").fences[key]
    rebooted = MovedClock(lease=1.0, boot_id="next boot")
    with recorded_events() as tape, another(root, rebooted) as backend:
        assert keys_of(backend.heads("jobs", per_group=1)) == [key]
        assert backend.claim_of(key) is None
        with pytest.raises(StaleFenceError):
            backend.replace(key, b"x", WAITING, expected=a_body(WAITING), fence=before)
        after = leased(Stand(backend, rebooted), key, claim_id="d")
        assert (after.fences[key].number, after.attempts[key]) == (before.number + 1, 2)
    assert len(tape.of("SS_STORE_INDEX_REBUILT")) == 1


def test_a_change_whose_row_could_not_be_written_shows_at_the_next_listing(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = stored(stand)
    done = facets_in_body(key, a_body(WAITING).replace(b'"created"', b'"failed"'))
    with monkeypatch.context() as patch, recorded_events() as tape:
        patch.setattr(IndexRows, "update", _full_disk)
        stand.backend.replace(key, a_body(done), done, expected=a_body(WAITING))
    assert len(tape.of("SS_STORE_INDEX_DEFERRED")) == 1
    assert stand.backend.counts("jobs") == {("default", "failed"): 1}


def test_a_change_that_cannot_be_marked_is_not_made(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    key = stored(stand)
    with monkeypatch.context() as patch:
        patch.setattr(IndexRows, "mark", _full_disk)
        with pytest.raises(StoreUnavailableError):
            stand.backend.replace(key, b"new", WAITING, expected=a_body(WAITING))
    assert stand.backend.read(key) == a_body(WAITING)


def _full_disk(*_args: object, **_fields: object) -> bool:
    raise sqlite3.OperationalError("database or disk is full")


@pytest.mark.guarantee("R9")
def test_reading_who_is_next_costs_the_same_however_many_wait() -> None:
    """Counted in steps of SQLite's machine: 100 documents against 10,000, some of them parked, held or of others."""

    def steps(number: int) -> int:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            connection.executescript(SCHEMA)
            rows, now = IndexRows(connection), Now(lease=100.0, wall=1_000.0)
            rows.fill(
                (
                    Row(
                        a_key(n, tenant=f"t{n % 3}"),
                        Facets("created", n % 5, "2026", waiting=True, not_before=2e3 * (n % 7 == 0), due_at=float(n)),
                        Hold(until=200.0 * (n % 11 == 0)),
                    )
                    for n in range(number)
                ),
                now=now,
                meta={},
            )
            count = 0

            def step() -> int:
                nonlocal count
                count += 1
                return 0

            connection.set_progress_handler(step, 1)
            assert len(rows.heads("jobs", per_group=5, now=now)) == 15
            return count

    assert steps(10_000) <= 1.2 * steps(100)


def test_the_index_serves_threads_and_forked_children(stand: Stand) -> None:
    stored(stand, a_key(0))
    failures: list[StoreError] = []

    def work(number: int) -> None:
        try:
            stored(stand, a_key(number))
            stand.backend.page("jobs")
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert in_child(lambda: work(9)) == 0
    work(10)
    assert keys_of(stand.backend.page("jobs")) == [a_key(number) for number in range(11)]
    assert stand.backend.counts("jobs") == {("default", "created"): 11}


def test_what_a_killed_writer_left_is_swept_by_the_next_listing(stand: Stand, root: Path) -> None:
    key = stored(stand)

    def die_before_the_rename() -> None:
        setattr(os, "fsync", lambda _descriptor: os.kill(os.getpid(), 9))  # noqa: B010 - in the child only
        stand.backend.replace(key, a_body(WAITING, "new"), WAITING, expected=a_body(WAITING))

    assert os.WTERMSIG(in_child(die_before_the_rename)) == 9
    folder = root / "00" / key.document_id
    assert len(list(folder.glob(".tmp-*"))) == 1
    assert keys_of(stand.backend.page("jobs")) == [key]
    assert list(folder.glob(".tmp-*")) == []
    assert stand.backend.read(key) == a_body(WAITING)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("F9")
@pytest.mark.guarantee("F10")
@pytest.mark.guarantee("F11")
@pytest.mark.parametrize("folders", [False, True])
@pytest.mark.parametrize(
    ("code", "todo"), [(errno.ENOSPC, "Free space"), (errno.EIO, "disk reports errors"), (errno.EACCES, "permission")]
)
def test_a_write_that_fails_changes_nothing_and_says_what_to_do(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, *, folders: bool, code: int, todo: str
) -> None:
    key, real = stored(stand), os.fsync
    failed: list[int] = []

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders and not failed:
            failed.append(code)
            raise OSError(code, os.strerror(code))
        real(descriptor)

    for change in (
        lambda: stand.backend.replace(key, a_body(WAITING, "new"), WAITING, expected=a_body(WAITING)),
        lambda: stored(stand, a_key(2)),
    ):
        failed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(StoreUnavailableError) as refused:
                change()
        assert todo in refused.value.todo
        assert stand.backend.read(key) == a_body(WAITING)
        assert keys_of(stand.backend.page("jobs")) == [key]
    stored(stand, a_key(2))


def test_a_write_that_can_not_be_undone_says_that_its_outcome_is_unknown(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = stored(stand)

    def sync_folder(_folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(durable, "sync_folder", sync_folder)
        with pytest.raises(StoreUnavailableError, match="unknown whether"):
            stand.backend.replace(key, a_body(WAITING, "new"), WAITING, expected=a_body(WAITING))
    assert keys_of(stand.backend.page("jobs")) == [key]


# --- claims and upkeep -----------------------------------------------------------------------------------------------


@pytest.mark.guarantee("F24")
@pytest.mark.parametrize("record", [b"", b"{", b'{"fence": -3}', b'{"expires_at": NaN}', b"\xff\xfe", b"[]"])
def test_a_corrupt_claim_record_is_set_aside_and_its_fence_exceeded(stand: Stand, root: Path, record: bytes) -> None:
    key = stored(stand)
    before = leased(stand, key, claim_id="c").fences[key]
    claim = root / "00" / key.document_id / "claim.json"
    claim.write_bytes(record)
    assert stand.backend.claim_of(key) is None
    with pytest.raises(StaleFenceError), recorded_events() as tape:
        stand.backend.replace(key, b"x", WAITING, expected=a_body(WAITING), fence=before)
    (aside,) = claim.parent.glob("claim.json.corrupt-*")
    assert aside.read_bytes() == record
    assert [event["aside"] for event in tape.of("SS_STORE_RECORD_QUARANTINED")] == [aside.name]
    numbers = []
    for claim_id in ("d", "e"):
        numbers.append(leased(stand, key, claim_id=claim_id).fences[key].number)
        stand.clock.advance(TTL + 1)
    assert before.number < stand.clock.wall - 1_000 < numbers[0] < numbers[1]
    assert any(str(aside) in problem for problem in stand.backend.check())


def test_a_lost_claim_record_does_not_bring_a_fence_back(stand: Stand, root: Path) -> None:
    key = stored(stand)
    before = leased(stand, key, claim_id="c").fences[key]
    (root / "00" / key.document_id / "claim.json").unlink()
    assert leased(stand, key, claim_id="d").fences[key].number > before.number


def test_a_wall_clock_that_jumps_moves_no_lease(stand: Stand) -> None:
    key = stored(stand)
    lease = leased(stand, key, claim_id="c")
    for jump in (3_600, -7_200):
        stand.clock.wall += jump
        assert stand.backend.reserve([key], claim_id="d", ttl=TTL) == []
        assert stand.backend.heads("jobs", per_group=1) == []
        assert stand.backend.heartbeat(lease, ttl=TTL) == [key]


def test_the_doctor_is_told_of_corrupt_documents_and_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with closing(FileBackend(tmp_path / "a file" / "jobs", facets_of=facets_in_body)) as backend:
        (problem,) = backend.check()
        assert "cannot be written" in problem
    with on_files(tmp_path) as stand:
        corrupted = stored(stand, status="corrupted", waiting=False)
        (problem,) = stand.backend.check()
        assert corrupted.document_id in problem


def test_the_doctor_is_told_of_a_full_disk(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(100 * 2**30, 99 * 2**30, 2**30))
    stored(stand)
    (problem,) = stand.backend.check()
    assert "nearly full: 1024 MiB" in problem


def test_a_deleted_document_leaves_its_fences_behind(stand: Stand) -> None:
    key = stored(stand)
    before = leased(stand, key, claim_id="c").fences[key]
    stand.backend.delete(key, expected=a_body(WAITING))
    with pytest.raises(DocumentNotFoundError):
        stand.backend.delete(key, expected=a_body(WAITING))
    stand.clock.advance(TTL + 1)
    stored(stand)
    assert leased(stand, key, claim_id="d").fences[key].number > before.number
