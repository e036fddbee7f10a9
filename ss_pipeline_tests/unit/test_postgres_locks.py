"""The PostgreSQL store where sessions meet: locks that are waited for, writes that are overtaken, and the seal."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import pytest

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentNotFoundError,
    SSError,
    StaleFenceError,
    StoreLockedError,
    StoreSealedError,
)
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline_tests.postgres_schemas import PostgresSchema
from ss_pipeline_tests.store_contract import TTL, WAITING, ServerClock, Stand, a_body, a_key, keys_of, leased, stored


@pytest.fixture
def stand(schema: PostgresSchema) -> Iterator[Stand]:
    with schema.store() as backend:
        yield Stand(backend, ServerClock(schema.age))


# --- locks and faults ------------------------------------------------------------------------------------------------


def test_what_another_session_locks_is_not_reserved_and_not_waited_for(stand: Stand, schema: PostgresSchema) -> None:
    keys = [stored(stand, a_key(number)) for number in range(3)]
    with schema.session() as run:
        run(f"SELECT FROM documents WHERE document_id = '{keys[1].document_id}' FOR UPDATE")
        assert stand.backend.reserve(keys, claim_id="c", ttl=TTL) == [keys[0], keys[2]]
    assert stand.backend.reserve(keys, claim_id="c", ttl=TTL) == keys


def test_a_lock_that_is_not_granted_in_time_leaves_all_as_it_was(schema: PostgresSchema) -> None:
    with schema.store(lock_seconds=0.2) as backend, schema.session() as run:
        stand = Stand(backend)
        key = stored(stand)
        run("SELECT FROM documents FOR UPDATE")
        acts: list[Callable[[], object]] = [
            lambda: backend.replace(key, b"2", WAITING, expected=a_body(WAITING)),
            lambda: backend.delete(key, expected=a_body(WAITING)),
            lambda: backend.lease([key], claim_id="c", owner="run", ttl=TTL),
        ]
        for act in acts:
            with pytest.raises(StoreLockedError, match="holds the lock"):
                act()
        assert backend.read(key) == a_body(WAITING)
        assert backend.claim_of(key) is None


TAKEN_OVER: Final = "UPDATE claims SET claim_id = 'heir', fence = fence + 1"
RUN_OUT: Final = "UPDATE claims SET expires_at = clock_timestamp() - interval '1 second'"


def written_meanwhile(backend: PostgresBackend, schema: PostgresSchema, change: str) -> bytes:
    """A write under a fence that has to wait for another session, which changes something and commits; what is stored.

    Raises what the write raises.
    """
    key = stored(Stand(backend))
    fence = leased(Stand(backend), key, claim_id="c").fences[key]
    with schema.session() as run, ThreadPoolExecutor(1) as threads:
        run("SELECT FROM documents FOR UPDATE")
        run(change)
        writer = threads.submit(backend.replace, key, b"2", WAITING, expected=a_body(WAITING), fence=fence)
        while not schema.rows("SELECT FROM pg_locks WHERE NOT granted"):
            time.sleep(0.01)
        run("COMMIT")
        writer.result()
    return backend.read(key)


@pytest.mark.guarantee("R7")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (TAKEN_OVER, StaleFenceError),
        (RUN_OUT, StaleFenceError),
        ("UPDATE documents SET body = 'x'", DocumentChangedError),
        ("DELETE FROM documents", DocumentNotFoundError),
    ],
)
def test_a_write_that_waited_is_judged_by_what_is_there_then(
    stand: Stand, schema: PostgresSchema, change: str, error: type[SSError]
) -> None:
    assert isinstance(stand.backend, PostgresBackend)
    with pytest.raises(error):
        written_meanwhile(stand.backend, schema, change)


def test_a_write_that_waited_goes_through_where_nothing_has_changed(stand: Stand, schema: PostgresSchema) -> None:
    assert isinstance(stand.backend, PostgresBackend)
    assert written_meanwhile(stand.backend, schema, "SELECT 1") == b"2"


class HastyBackend(PostgresBackend):
    """Broken: looks at the claim as it was when its statement began."""

    def _rows(self, statement: str, **parameters: Any) -> Any:
        return super()._rows(statement.replace("FOR SHARE", ""), **parameters)


def test_a_store_that_looks_at_the_claim_too_early_is_caught(schema: PostgresSchema) -> None:
    with closing(HastyBackend(schema.url, schema=schema.name)) as backend:
        assert written_meanwhile(backend, schema, TAKEN_OVER) == b"2"


# --- the seal --------------------------------------------------------------------------------------------------------

PAUSED: Final = """
CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(42);
    RETURN NEW;
END $$;
CREATE TRIGGER pause BEFORE INSERT OR UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION pause()"""


class UnlockedBackend(PostgresBackend):
    """Broken: looks at the seal, but enters without the lock that who seals waits for."""

    def _rows(self, statement: str, **parameters: Any) -> Any:
        return super()._rows(statement.replace("SELECT pg_advisory_xact_lock_shared(:seal_lock);", ""), **parameters)


@contextmanager
def a_paused_writer(
    backend: PostgresBackend, schema: PostgresSchema, act: Callable[[], None]
) -> Iterator[tuple[Future[None], Callable[[], None]]]:
    """A writer that has looked at the seal and waits before its commit, until it is let go."""
    backend.page("jobs")
    schema.rows(PAUSED)
    schema.rows("SELECT pg_advisory_lock(42)")
    going_on = threading.Event()

    def let_go() -> None:
        if not going_on.is_set():
            going_on.set()
            schema.rows("SELECT pg_advisory_unlock(42)")

    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(act)
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"
        while not schema.rows(waiting):
            time.sleep(0.01)
        try:
            yield writer, let_go
        finally:
            let_go()


@pytest.mark.seed("S2.3.4")
def test_no_change_that_began_before_comes_after_the_seal(schema: PostgresSchema) -> None:
    with schema.store(lock_seconds=20) as backend:
        act = lambda: backend.create(a_key(), b"{}", WAITING)  # noqa: E731
        with a_paused_writer(backend, schema, act) as (writer, let_go), ThreadPoolExecutor(1) as threads:
            sealing = threads.submit(backend.seal, "the next store")
            time.sleep(0.3)
            assert not sealing.done()
            assert not writer.done()
            let_go()
            sealing.result()
            assert writer.done() or keys_of(backend.page("jobs")) == [a_key()]
            writer.result()
        with pytest.raises(StoreSealedError):
            backend.create(a_key(2), b"{}", WAITING)
        assert keys_of(backend.page("jobs")) == [a_key()]


def test_a_store_that_only_looks_at_the_seal_is_caught(schema: PostgresSchema) -> None:
    with closing(UnlockedBackend(schema.url, schema=schema.name, lock_seconds=20)) as backend:
        act = lambda: backend.create(a_key(), b"{}", WAITING)  # noqa: E731
        with a_paused_writer(backend, schema, act) as (writer, let_go):
            backend.seal("the next store")
            there = keys_of(backend.page("jobs"))
            let_go()
            writer.result()
        assert (there, keys_of(backend.page("jobs"))) == ([], [a_key()])


def test_a_writer_that_waited_for_the_seal_is_refused(stand: Stand, schema: PostgresSchema) -> None:
    """Its statement began before the store was sealed, so what it saw when it began must not count."""
    key, backend = stored(stand), stand.backend
    number = PostgresBackend(schema.url, schema=schema.name)._connections.lock_number("seal")
    with schema.session() as run, ThreadPoolExecutor(3) as threads:
        run(f"SELECT pg_advisory_xact_lock({number})")
        run("INSERT INTO seal (successor) VALUES ('the next store')")
        acts: list[Callable[[], object]] = [
            lambda: backend.create(a_key(2), b"{}", WAITING),
            lambda: backend.replace(key, b"2", WAITING, expected=a_body(WAITING)),
            lambda: backend.lease([key], claim_id="c", owner="run", ttl=TTL),
        ]
        writers = [threads.submit(act) for act in acts]
        time.sleep(0.3)
        assert not any(writer.done() for writer in writers)
        run("COMMIT")
        for writer in writers:
            with pytest.raises(StoreSealedError):
                writer.result()


def test_a_seal_that_waits_too_long_is_not_set(schema: PostgresSchema) -> None:
    with schema.store(lock_seconds=20) as backend, schema.store(lock_seconds=0.2) as sealer:
        act = lambda: backend.create(a_key(), b"{}", WAITING)  # noqa: E731
        with a_paused_writer(backend, schema, act) as (writer, let_go):
            with pytest.raises(StoreLockedError):
                sealer.seal("the next store")
            assert sealer.sealed_for() is None
            let_go()
            writer.result()
        backend.create(a_key(2), b"{}", WAITING)
        sealer.seal("the next store")
