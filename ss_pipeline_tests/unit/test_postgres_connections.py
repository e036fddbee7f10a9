"""The PostgreSQL store and its server: addresses, servers it refuses, connections, and what faults are called."""

import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Final

import pytest
from sqlalchemy import create_engine, text

from ss_pipeline.errors import (
    SettingsError,
    SSError,
    StoreUnavailableError,
    StoreUnsafeError,
)
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline.store.postgres_connections import address_of
from ss_pipeline_tests.postgres_schemas import PostgresSchema, postgres_schema
from ss_pipeline_tests.servers import own_postgres
from ss_pipeline_tests.store_contract import WAITING, ServerClock, Stand, a_body, a_key, stored

SECRET: Final = "s3cret-w0rd"


@pytest.fixture
def stand(schema: PostgresSchema) -> Iterator[Stand]:
    with schema.store() as backend:
        yield Stand(backend, ServerClock(schema.age))


@pytest.fixture(scope="module")
def changeable() -> Iterator[PostgresServer]:
    """A server whose settings tests change and put back."""
    with own_postgres() as server:
        yield server


def told(raised: pytest.ExceptionInfo[SSError]) -> str:
    """All that a person may get to see of an error: its message, its advice and its traceback."""
    return "\n".join([raised.value.message, raised.value.todo, *traceback.format_exception(raised.value)])


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_usual_form_of_the_address_is_understood(schema: PostgresSchema, scheme: str) -> None:
    url = address_of(f"{scheme}://me:pa%40ss@db.example:6543/jobs?sslmode=require")
    assert (url.drivername, url.username, url.password) == ("postgresql+psycopg2", "me", "pa@ss")
    assert (url.host, url.port, url.database, url.query) == ("db.example", 6543, "jobs", {"sslmode": "require"})
    socket = schema.url.replace("postgresql+psycopg2", scheme)
    assert "?host=/" in socket
    with closing(PostgresBackend(socket, schema=schema.name)) as backend:
        assert backend.check() == []


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        SECRET,
        f"host=db user=me password={SECRET}",
        f"mysql://me:{SECRET}@db/jobs",
        f"postgresql+asyncpg://me:{SECRET}@db/jobs",
        f"postgresql://me@db:{SECRET}/jobs",
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_variable(dsn: str) -> None:
    with pytest.raises(SettingsError) as refused:
        PostgresBackend(dsn)
    assert "SS_JOB_STORE_POSTGRES_DSN" in refused.value.message
    assert SECRET not in told(refused)


def test_an_option_that_there_is_not_is_a_wrong_setting() -> None:
    backend = PostgresBackend(f"postgresql://me:{SECRET}@127.0.0.1:1/jobs?colour=red")
    with pytest.raises(SettingsError, match=r"SS_JOB_STORE_POSTGRES_DSN.*colour") as refused:
        backend.read(a_key())
    assert SECRET not in told(refused)


@pytest.mark.seed("S2.3.4")
def test_the_password_is_never_shown(changeable: PostgresServer) -> None:
    addresses = [
        f"postgresql://me:{SECRET}@127.0.0.1:1/jobs",
        f"postgresql://nobody:{SECRET}@/postgres?host={changeable.folder}",
        f"postgresql://postgres:{SECRET}@/nowhere?host={changeable.folder}",
    ]
    for address in addresses:
        with closing(PostgresBackend(address)) as backend:
            with pytest.raises(StoreUnavailableError) as refused:
                backend.create(a_key(), a_body(WAITING), WAITING)
            shown = "\n".join([told(refused), repr(backend), *backend.check()])
        assert SECRET not in shown
        assert "ss-pipeline" in shown or "server" in shown


@pytest.mark.parametrize("name", ["Jobs", "a b", 'a"; DROP SCHEMA public', "", "1a"])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValueError, match="no plain lower-case name"):
        PostgresBackend("postgresql://db/jobs", schema=name)


# --- servers that are refused ----------------------------------------------------------------------------------------


@contextmanager
def administered(server: PostgresServer) -> Iterator[Callable[[str], object]]:
    """Runs statements as the server's superuser."""
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda statement: connection.execute(text(statement))
    engine.dispose()


@contextmanager
def setting(server: PostgresServer, change: str, back: str) -> Iterator[None]:
    """Changes something on a server for the length of a block."""
    with administered(server) as run:
        run(change)
        run("SELECT pg_reload_conf()")
        time.sleep(0.1)
        try:
            yield
        finally:
            run(back)
            run("SELECT pg_reload_conf()")
            time.sleep(0.1)


@pytest.mark.guarantee("R1")
@pytest.mark.guarantee("F8")
@pytest.mark.parametrize(
    ("name", "change", "back"),
    [
        *(
            (name, f"ALTER SYSTEM SET {name} = off", f"ALTER SYSTEM RESET {name}")
            for name in ("synchronous_commit", "fsync", "full_page_writes")
        ),
        *(
            (
                "synchronous_commit",
                f"ALTER {of} postgres SET synchronous_commit = off",
                f"ALTER {of} postgres RESET ALL",
            )
            for of in ("DATABASE", "ROLE")
        ),
    ],
)
def test_a_server_that_would_lose_what_it_acknowledges_is_refused(
    changeable: PostgresServer, name: str, change: str, back: str
) -> None:
    with postgres_schema(changeable.url) as schema, schema.store() as backend:
        with setting(changeable, change, back):
            for act in (lambda: backend.create(a_key(), b"{}", WAITING), lambda: backend.page("jobs")):
                with pytest.raises(StoreUnsafeError, match=f"{name} = off") as refused:
                    act()
                assert (refused.value.error_code, refused.value.retryable) == ("STORE_UNSAFE", False)
                assert f"Set {name} = on" in refused.value.todo
            assert [name in problem for problem in backend.check()] == [True]
            assert schema.rows("SELECT FROM pg_namespace WHERE nspname = :name", name=schema.name) == []
        backend.create(a_key(), b"{}", WAITING)


@pytest.mark.guarantee("R1")
def test_a_reload_of_the_server_takes_the_safety_of_no_open_connection(changeable: PostgresServer) -> None:
    off, back = "ALTER SYSTEM SET synchronous_commit = off", "ALTER SYSTEM RESET synchronous_commit"
    with postgres_schema(changeable.url) as schema, schema.store(pool_size=1) as backend:
        stored(Stand(backend))
        with setting(changeable, off, back):
            connections = backend._connections
            assert connections.run("SELECT current_setting('synchronous_commit')", {})[0][0] == "on"


@pytest.mark.guarantee("R1")
def test_a_server_that_comes_back_unsafe_is_refused() -> None:
    with own_postgres() as server, closing(PostgresBackend(server.url)) as backend:
        key = stored(Stand(backend))
        server.stop()
        server.options["synchronous_commit"] = "off"
        server.start()
        with pytest.raises(StoreUnsafeError):
            backend.read(key)
        server.stop()
        server.options["synchronous_commit"] = "on"
        server.start()
        assert backend.read(key) == a_body(WAITING)


def test_a_server_that_takes_no_writes_is_reported(changeable: PostgresServer) -> None:
    change = "ALTER DATABASE postgres SET default_transaction_read_only = on"
    with postgres_schema(changeable.url) as schema:
        with schema.store() as backend:
            key = stored(Stand(backend))
        with setting(changeable, change, "ALTER DATABASE postgres RESET ALL"), schema.store() as backend:
            assert backend.read(key) == a_body(WAITING)
            with pytest.raises(StoreUnavailableError) as refused:
                backend.delete(key, expected=a_body(WAITING))
            assert "Let SS_JOB_STORE_POSTGRES_DSN name the primary" in refused.value.todo
            assert ["takes no writes" in problem for problem in backend.check()] == [True]


def test_a_user_with_few_rights_and_few_connections_gets_along_and_is_told(changeable: PostgresServer) -> None:
    url = changeable.url.replace("//postgres@", "//limited@")
    with administered(changeable) as run:
        run("CREATE ROLE limited LOGIN CONNECTION LIMIT 1")
        with closing(PostgresBackend(url)) as backend, pytest.raises(StoreUnavailableError) as refused:
            stored(Stand(backend))
        assert "CREATE SCHEMA … AUTHORIZATION" in refused.value.todo
        run("CREATE SCHEMA own_one AUTHORIZATION limited")
        with closing(PostgresBackend(url, schema="own_one", pool_size=1)) as backend:
            key = stored(Stand(backend))
            other = PostgresBackend(url, schema="own_one")
            with pytest.raises(StoreUnavailableError, match="too many connections"):
                other.read(key)
            assert backend.read(key) == a_body(WAITING)
        run("DROP SCHEMA own_one CASCADE")
        run("DROP ROLE limited")


# --- connections -----------------------------------------------------------------------------------------------------


def test_closing_ends_the_connections(schema: PostgresSchema) -> None:
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ss-pipeline' AND query LIKE '%' || :it"
    with schema.store() as backend:
        backend._connections.run(f"SELECT '{schema.name}'", {})
        assert schema.rows(sessions, it=f"{schema.name}'")[0][0] == 1
    deadline = time.monotonic() + 10
    while schema.rows(sessions, it=f"{schema.name}'")[0][0] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert schema.rows(sessions, it=f"{schema.name}'")[0][0] == 0


def test_more_threads_than_connections_wait_for_one_another(schema: PostgresSchema) -> None:
    with schema.store(pool_size=2) as backend, ThreadPoolExecutor(8) as threads:
        backend.page("jobs")
        list(threads.map(lambda number: backend.create(a_key(number), b"{}", WAITING), range(64)))
        assert backend.counts("jobs") == {("default", "created"): 64}


def test_a_thread_that_gets_no_connection_in_time_is_told(schema: PostgresSchema) -> None:
    with schema.store(pool_size=1, connect_seconds=0.2) as backend, ThreadPoolExecutor(1) as threads:
        backend.page("jobs")
        slow = threads.submit(backend._connections.run, "SELECT pg_sleep(1)", {})
        time.sleep(0.3)
        with pytest.raises(StoreUnavailableError, match="all connections of this process"):
            backend.page("jobs")
        slow.result()


# --- faults ----------------------------------------------------------------------------------------------------------

FAILING: Final = """
CREATE SEQUENCE failures;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('failures') <= {times} THEN RAISE EXCEPTION 'made to fail' USING ERRCODE = '{code}'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER fail BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION fail()"""


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_a_transaction_that_collides_is_begun_again_a_few_times(
    stand: Stand, schema: PostgresSchema, code: str
) -> None:
    key, body = stored(stand), a_body(WAITING, "2")
    schema.rows(FAILING.format(times=3, code=code))
    stand.backend.replace(key, body, WAITING, expected=a_body(WAITING))
    assert stand.backend.read(key) == body
    schema.rows("ALTER SEQUENCE failures RESTART WITH -100 MINVALUE -100")
    with pytest.raises(StoreUnavailableError, match="made to fail"):
        stand.backend.replace(key, b"3", WAITING, expected=body)
    assert schema.rows("SELECT last_value FROM failures") == [(-96,)]


@pytest.mark.guarantee("F9")
@pytest.mark.parametrize(
    ("code", "todo"),
    [
        ("53100", "Free space"),
        ("53200", "out of memory"),
        ("53300", "max_connections"),
        ("57014", "gave the statement up"),
        ("25006", "name the primary"),
        ("57P01", "look before it is repeated"),
        ("XX000", "look before it is repeated"),
    ],
)
def test_what_the_server_says_comes_with_what_to_do(stand: Stand, schema: PostgresSchema, code: str, todo: str) -> None:
    key, secret = stored(stand), a_body(WAITING, "of a job")
    schema.rows(FAILING.format(times=1, code=code))
    with pytest.raises(StoreUnavailableError, match="PostgreSQL: made to fail") as failed:
        stand.backend.replace(key, secret, WAITING, expected=a_body(WAITING))
    assert todo in failed.value.todo
    assert failed.value.retryable
    assert '"text": "of a job"' not in told(failed)
    assert stand.backend.read(key) == a_body(WAITING)
    stand.backend.replace(key, b"2", WAITING, expected=a_body(WAITING))
