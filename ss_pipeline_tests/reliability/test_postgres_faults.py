"""A PostgreSQL server that is killed or whose disk is full, and processes that come at once or are forked."""

import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ss_pipeline.errors import StoreUnavailableError
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline.store.postgres_schema import MIGRATIONS
from ss_pipeline_tests.postgres_schemas import PostgresSchema
from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.postgres_writers import UncheckedBackend
from ss_pipeline_tests.reliability.server_faults import (
    WRITERS,
    filled,
    killed_under_writers,
    lost,
    small_disk,
    wait_for_documents,
)
from ss_pipeline_tests.reliability.server_writers import FACETS
from ss_pipeline_tests.servers import own_postgres
from ss_pipeline_tests.store_contract import a_key


def run(task: str, **parameters: object) -> Found:
    return forking.run("ss_pipeline_tests.reliability.postgres_writers", task, seconds=300, **parameters)


# --- killed ----------------------------------------------------------------------------------------------------------


def kill_all(server: PostgresServer) -> None:
    """Kills every process of a server at once, so that what they had in memory only is gone."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    os.kill(server.pid, signal.SIGKILL)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    server.kill()


def killed(server: PostgresServer, *, kind: str = "real") -> list[int]:
    """Kills a server under writers and starts it again; how far each of them was acknowledged."""
    write = partial(run, "writes", url=server.url, processes=WRITERS, kind=kind)
    acked = killed_under_writers(write, partial(kill_all, server), UncheckedBackend(server.url))
    server.start()
    return acked


@pytest.mark.guarantee("R1")
@pytest.mark.guarantee("F6")
def test_what_four_writers_were_acknowledged_survives_the_kill_of_the_server() -> None:
    with own_postgres() as server:
        acked = killed(server)
        with closing(PostgresBackend(server.url)) as backend:
            assert lost(backend, acked) == 0
            listed = backend.page("jobs", limit=1_000_000)
            assert sum(acked) + WRITERS <= len(listed) <= sum(acked) + 2 * WRITERS
            assert sum(backend.counts("jobs").values()) == len(listed)
            assert len(backend.heads("jobs", per_group=1_000_000)) == len(listed)
            assert all(backend.read(row.key) for row in listed)
            assert backend.check() == []
    assert min(acked) > 20


@pytest.mark.guarantee("R1")
def test_a_store_that_takes_a_server_which_commits_later_is_caught() -> None:
    with own_postgres(synchronous_commit="off", wal_writer_delay="10s") as server:
        acked = killed(server, kind="unchecked")
        with closing(UncheckedBackend(server.url)) as backend:
            assert lost(backend, acked) > 0


@pytest.mark.guarantee("R3")
@pytest.mark.guarantee("F6")
def test_writers_that_wait_go_on_where_a_server_that_is_killed_three_times_comes_back() -> None:
    with own_postgres() as server, ThreadPoolExecutor(1) as thread:
        writing = thread.submit(run, "increments", url=server.url, processes=WRITERS, times=100)
        with closing(PostgresBackend(server.url)) as backend:
            wait_for_documents(backend, 1)
        for _ in range(3):
            time.sleep(0.4)
            kill_all(server)
            time.sleep(0.3)
            server.start()
        found = writing.result()
    assert found == {"acked": WRITERS * 100, "lost": 0, "twice": 0}


@pytest.mark.guarantee("F6")
def test_connections_to_a_server_that_was_killed_are_replaced_once_it_is_back() -> None:
    with own_postgres() as server, closing(PostgresBackend(server.url)) as backend, ThreadPoolExecutor(5) as threads:
        for number in range(20):
            backend.create(a_key(number), b"{}", FACETS)
        assert set(threads.map(lambda number: backend.read(a_key(number)), range(20))) == {b"{}"}
        kill_all(server)
        for act in (lambda: backend.read(a_key(1)), lambda: backend.create(a_key(99), b"{}", FACETS)):
            with pytest.raises(StoreUnavailableError) as failed:
                act()
            assert "Check that the server runs" in failed.value.todo
        assert len(backend.check()) == 1
        server.start()
        assert set(threads.map(lambda number: backend.read(a_key(number)), range(20))) == {b"{}"}
        assert backend.check() == []


@pytest.mark.guarantee("F6")
def test_a_restart_between_two_calls_is_not_noticed() -> None:
    with own_postgres() as server, closing(PostgresBackend(server.url)) as backend:
        for number in range(3):
            backend.create(a_key(number), b"{}", FACETS)
            server.stop()
            server.start()
        assert len(backend.page("jobs")) == 3


# --- the disk --------------------------------------------------------------------------------------------------------


def keep_tables_on(server: PostgresServer, disk: Path) -> None:
    """New tables are made on that disk."""
    if (user := server.user()) is not None:
        shutil.chown(disk, user, user)
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE TABLESPACE small LOCATION '{disk}'"))
        connection.execute(text("ALTER DATABASE postgres SET default_tablespace = small"))
    engine.dispose()


@pytest.mark.guarantee("F9")
def test_a_full_disk_of_the_server_refuses_changes_and_loses_none() -> None:
    ballast = os.urandom(200_000)
    with own_postgres() as server, small_disk(server.folder / "disk") as disk:
        keep_tables_on(server, disk)
        with closing(PostgresBackend(server.url)) as backend:
            acked, failure = filled(backend, ballast)
            assert "could not extend" in failure.message
            assert "Free space there" in failure.todo
            assert acked > 5
            assert [backend.read(a_key(number)) for number in range(acked)] == [ballast] * acked
            assert len(backend.page("jobs")) == acked
            subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
            backend.create(a_key(acked), ballast, FACETS)
            assert len(backend.page("jobs")) == acked + 1
        server.stop()


# --- at once ---------------------------------------------------------------------------------------------------------


def test_eight_processes_that_come_first_make_the_tables_once(schema: PostgresSchema) -> None:
    assert run("first_uses", url=schema.url, schema=schema.name, processes=8) == {"failed": []}
    assert schema.rows("SELECT count(*) FROM schema_migrations") == [(len(MIGRATIONS),)]
    assert schema.rows("SELECT count(*) FROM documents") == [(8,)]


@pytest.mark.guarantee("R10")
def test_eight_claimers_never_get_the_same_document(schema: PostgresSchema) -> None:
    found = run("reservations", url=schema.url, schema=schema.name, processes=8, documents=300)
    assert found == {"got": 300, "twice": 0}
    assert schema.rows("SELECT count(*), count(DISTINCT claim_id) > 8 FROM claims WHERE state = 'reserved'") == [
        (300, True)
    ]


@pytest.mark.guarantee("R10")
def test_a_store_whose_claims_do_not_look_at_the_holder_is_caught(schema: PostgresSchema) -> None:
    found = run("reservations", url=schema.url, schema=schema.name, processes=8, documents=300, kind="grabbing")
    assert found["twice"] > 0


@pytest.mark.guarantee("R9")
@pytest.mark.guarantee("R10")
def test_what_waits_is_offered_however_claims_and_changes_cross(schema: PostgresSchema) -> None:
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    before = schema.rows(deadlocks)
    for _ in range(3):
        found = run("shuffles", url=schema.url, schema=schema.name, processes=8, rounds=60)
        assert found["refused"] > 0
        assert (found["held"], found["forgotten"]) == ([], [])
        schema.rows("TRUNCATE documents, claims")
    assert schema.rows(deadlocks) == before


@pytest.mark.guarantee("R9")
def test_a_store_that_does_not_offer_again_is_caught(schema: PostgresSchema) -> None:
    found = run("shuffles", url=schema.url, schema=schema.name, processes=1, rounds=20, kind="forgetting")
    assert found["forgotten"] != []


# --- forks -----------------------------------------------------------------------------------------------------------


def test_children_of_a_fork_leave_the_connections_of_their_parent_alone(schema: PostgresSchema) -> None:
    found = run("forks", url=schema.url, schema=schema.name)
    assert len(set(found["parent"])) == 1
    statuses, sessions = zip(*found["children"], strict=True)
    assert statuses == (0, 0, 0, 0)
    assert len({sessions[0], sessions[3], found["parent"][0]}) == 3
    assert schema.rows("SELECT count(*) FROM documents") == [(3,)]


def test_children_forked_from_a_process_whose_threads_use_the_store_use_it_too(schema: PostgresSchema) -> None:
    assert run("forks_of_a_busy_process", url=schema.url, schema=schema.name, children=20) == {"failed": []}
