"""The PostgreSQL store beyond the contract: addresses, refused servers, its schema, bytes, plans, locks, seal."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from ss_pipeline.errors import (
    DocumentNotFoundError,
    SettingsError,
    SSError,
    StoreFormatError,
    StoreLockedError,
    StoreSealedError,
    StoreUnavailableError,
    StoreUnsafeError,
)
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.store import postgres_sql as sql
from ss_pipeline.store.base import Facets
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline.store.postgres_connections import address_of
from ss_pipeline.store.postgres_schema import CURRENT
from ss_pipeline_tests.postgres_schemas import PostgresSchema, postgres_schema
from ss_pipeline_tests.servers import own_postgres
from ss_pipeline_tests.store_contract import TTL, WAITING, ServerClock, Stand, a_body, a_key, keys_of, leased, stored

SECRET: Final = "s3cret-w0rd"


@pytest.fixture
def schema() -> Iterator[PostgresSchema]:
    with postgres_schema() as schema:
        yield schema


@pytest.fixture
def stand(schema: PostgresSchema) -> Iterator[Stand]:
    with open_store(schema) as backend:
        yield Stand(backend, ServerClock(schema.age))


@pytest.fixture(scope="module")
def changeable() -> Iterator[PostgresServer]:
    """A server whose settings tests change and put back."""
    with own_postgres() as server:
        yield server


def open_store(schema: PostgresSchema, **parameters: Any) -> closing[PostgresBackend]:
    """The store in a schema."""
    return closing(PostgresBackend(schema.url, schema=schema.name, **parameters))


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
def administered(server: PostgresServer) -> Iterator[Callable[[str], None]]:
    """Runs statements as the server's superuser."""
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda statement: void(connection.execute(text(statement)))
    engine.dispose()


def void(_result: object) -> None:
    """Nothing."""


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
    with postgres_schema(changeable.url) as schema, open_store(schema) as backend:
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
    with postgres_schema(changeable.url) as schema, open_store(schema, pool_size=1) as backend:
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
        with open_store(schema) as backend:
            key = stored(Stand(backend))
        with setting(changeable, change, "ALTER DATABASE postgres RESET ALL"), open_store(schema) as backend:
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


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_first_call_makes_the_tables_and_a_second_store_uses_them(schema: PostgresSchema) -> None:
    for _ in range(2):
        with open_store(schema) as backend:
            backend.page("jobs")
        assert schema.rows("SELECT number, name FROM schema_migrations") == [(CURRENT, "documents and claims")]


def test_tables_of_a_later_version_are_refused(stand: Stand, schema: PostgresSchema) -> None:
    stored(stand)
    schema.rows("INSERT INTO schema_migrations (number, name) VALUES (99, 'of another version')")
    with open_store(schema) as later:
        with pytest.raises(StoreFormatError, match=f"at version 99; this code knows up to {CURRENT}"):
            later.read(a_key())
        assert ["version 99" in problem for problem in later.check()] == [True]


def test_two_stores_of_one_database_do_not_meet(stand: Stand) -> None:
    stored(stand)
    with postgres_schema() as other, open_store(other) as backend:
        assert backend.collections() == []
        backend.seal("elsewhere")
        stored(stand, a_key(2))


def test_closing_ends_the_connections(schema: PostgresSchema) -> None:
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ss-pipeline' AND query LIKE '%' || :it"
    with open_store(schema) as backend:
        backend._connections.run(f"SELECT '{schema.name}'", {})
        assert schema.rows(sessions, it=f"{schema.name}'")[0][0] == 1
    deadline = time.monotonic() + 10
    while schema.rows(sessions, it=f"{schema.name}'")[0][0] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert schema.rows(sessions, it=f"{schema.name}'")[0][0] == 0


# --- bytes -----------------------------------------------------------------------------------------------------------

EVERY_BYTE: Final = bytes(range(256))


@pytest.mark.guarantee("F24")
@pytest.mark.parametrize(
    "body", [b"", b"\0", EVERY_BYTE * 3, b'{"half a', "日本".encode()[:-1], EVERY_BYTE * 20_480], ids=len
)
def test_bytes_come_back_as_they_were(stand: Stand, body: bytes) -> None:
    key, backend = a_key(), stand.backend
    backend.create(key, body, WAITING)
    assert backend.read(key) == body
    backend.replace(key, body + b"\xff", WAITING, expected=body)
    assert backend.read(key) == body + b"\xff"
    backend.delete(key, expected=body + b"\xff")
    with pytest.raises(DocumentNotFoundError):
        backend.read(key)


def test_jobs_can_be_looked_at_as_json(stand: Stand, schema: PostgresSchema) -> None:
    stored(stand)
    for number, body in enumerate((b"\xff\0", b'{"half', b'{"nul": "\\u0000"}'), start=2):
        stand.backend.create(a_key(number), body, Facets(status="corrupted"))
    rows = schema.rows("SELECT document->>'text', status FROM job_documents ORDER BY job_id")
    assert rows == [("", "created"), (None, "corrupted"), (None, "corrupted"), (None, "corrupted")]
    assert [problem.split(" ")[0] for problem in stand.backend.check()] == [
        f"jobs/default/job_{number:016d}" for number in (2, 3, 4)
    ]


def test_every_write_of_a_document_counts_and_no_claim_does(stand: Stand, schema: PostgresSchema) -> None:
    key = stored(stand)
    for text_ in ("1", "2"):
        stand.backend.replace(key, a_body(WAITING, text_), WAITING, expected=stand.backend.read(key))
    lease = leased(stand, key, claim_id="c")
    stand.backend.heartbeat(lease, ttl=TTL)
    stand.backend.complete(key, lease.fences[key])
    assert schema.rows("SELECT row_version FROM documents") == [(3,)]


def test_a_heartbeat_writes_no_row_of_documents(stand: Stand, schema: PostgresSchema) -> None:
    lease = leased(stand, stored(stand), claim_id="c")
    before = schema.rows("SELECT ctid, xmin FROM documents")
    for _ in range(3):
        stand.backend.heartbeat(lease, ttl=TTL)
    assert schema.rows("SELECT ctid, xmin FROM documents") == before


# --- who is next -----------------------------------------------------------------------------------------------------


def test_a_lease_that_was_prolonged_is_looked_at_again_and_stays_out(stand: Stand, schema: PostgresSchema) -> None:
    key = stored(stand)
    lease = leased(stand, key, claim_id="c")
    first = schema.rows("SELECT rests_until FROM documents")
    stand.backend.heartbeat(lease, ttl=2 * TTL)
    assert schema.rows("SELECT rests_until FROM documents") == first
    stand.clock.advance(TTL + 1)
    assert stand.backend.heads("jobs", per_group=9) == []
    assert schema.rows("SELECT rests_until = expires_at FROM documents JOIN claims USING (document_id)") == [(True,)]
    stand.clock.advance(TTL)
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [key]


def test_a_document_that_begins_to_wait_while_it_is_held_is_offered_when_it_is_free(stand: Stand) -> None:
    busy = Facets(status="running", created_at=WAITING.created_at)
    key = stored(stand)
    lease = leased(stand, key, claim_id="c")
    stand.backend.replace(key, a_body(busy), busy, expected=a_body(WAITING), fence=lease.fences[key])
    stand.backend.replace(key, a_body(WAITING), WAITING, expected=a_body(busy))
    assert stand.backend.heads("jobs", per_group=9) == []
    stand.backend.release(key, lease.fences[key])
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [key]


def fill(schema: PostgresSchema, start: int, end: int, *, rests: str = "NULL") -> None:
    """Waiting documents of 5 tenants and 2 classes, put straight into the table."""
    schema.rows(
        f"""
        INSERT INTO documents (
            collection, tenant_id, document_id, body, status, priority, class, created_at, waiting, not_before,
            rests_until
        )
        SELECT 'jobs', 't' || g % 5, 'job_' || g, '{{}}', 'created', 0, CASE g % 2 WHEN 0 THEN 'low' ELSE 'normal' END,
            to_char(g, '000000000'), true, 0, {rests}
        FROM generate_series({start}, {end} - 1) AS g"""
    )


def rows_read(stand: Stand, statement: str, **parameters: object) -> tuple[int, int]:
    """Rows that the scans of a statement looked at, and the buffers it touched, as the store runs it."""
    assert isinstance(stand.backend, PostgresBackend)
    before, _, itself = statement.partition(";")
    explain = f"{before}; EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {itself}"
    explained = stand.backend._connections.run(explain, parameters)[0][0][0]["Plan"]
    return scanned(explained), explained["Shared Hit Blocks"] + explained["Shared Read Blocks"]


def scanned(plan: dict[str, Any]) -> int:
    """Rows of the tables that a plan and what is below it looked at."""
    looked = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if "Relation Name" in plan else 0
    looked_in_all = round(float(looked) * plan["Actual Loops"])
    return looked_in_all + sum(scanned(part) for part in plan.get("Plans", []))


@pytest.mark.guarantee("R9")
@pytest.mark.parametrize("analyzed", [False, True])
def test_who_is_next_costs_the_same_at_20_000_waiting_as_at_200(
    stand: Stand, schema: PostgresSchema, analyzed: bool
) -> None:
    stand.backend.page("jobs")
    costs = {}
    for start, end in ((0, 200), (200, 20_000)):
        fill(schema, start, end)
        if analyzed:
            schema.rows("ANALYZE documents; ANALYZE claims")
        assert len(stand.backend.heads("jobs", per_group=4)) == 40
        costs[end] = rows_read(stand, sql.HEADS, collection="jobs", per_group=4)
    assert costs[200][0] == costs[20_000][0] <= 2 * 40 + 10
    assert costs[20_000][1] <= 3 * costs[200][1]  # deeper indexes, and bodies of documents further apart


@pytest.mark.guarantee("R9")
@pytest.mark.parametrize("analyzed", [False, True])
def test_a_page_and_a_claim_read_what_they_ask_for(stand: Stand, schema: PostgresSchema, analyzed: bool) -> None:
    stand.backend.page("jobs")
    fill(schema, 0, 20_000)
    if analyzed:
        schema.rows("ANALYZE documents")
    page = {"collection": "jobs", "after_tenant": "t2", "after_id": "job_7", "last_tenant": sql.LAST_TENANT}
    assert rows_read(stand, sql.PAGE, **page, status=None, limit=100)[0] == 100
    assert rows_read(stand, sql.PAGE, **page, status="failed", limit=100)[0] == 0
    assert len(stand.backend.page("jobs", status="created", limit=100)) == 100
    keys = [head.key for head in stand.backend.heads("jobs", per_group=2)]
    asked = {
        "collections": ["jobs"] * 20,
        "tenant_ids": [key.tenant_id for key in keys],
        "document_ids": [key.document_id for key in keys],
        "seal_lock": 1,
        "heeds_seal": True,
    }
    claim = {"claim_id": "c", "ttl": TTL, "state": "leased", "owner": "run", "step": 1}
    assert rows_read(stand, sql.LEASE, **asked, **claim)[0] <= 4 * 20
    assert len(stand.backend.heads("jobs", per_group=2)) == 20
    assert set(keys_of(stand.backend.heads("jobs", per_group=2))).isdisjoint(keys)


@pytest.mark.guarantee("R9")
def test_what_is_held_or_parked_or_was_held_in_front_costs_nothing(stand: Stand, schema: PostgresSchema) -> None:
    stand.backend.page("jobs")
    fill(schema, 0, 10_000, rests="clock_timestamp() + interval '1 hour'")
    columns = "collection, tenant_id, document_id, 'leased', 'c', 'run', 1, 1, rests_until"
    schema.rows(f"INSERT INTO claims SELECT {columns} FROM documents")
    fill(schema, 10_000, 10_200)
    held = rows_read(stand, sql.HEADS, collection="jobs", per_group=4)
    look = rows_read(stand, sql.WAKE)
    assert held[0] <= 2 * 40 + 10
    assert look[0] == 0
    schema.age(3_601)
    heads = stand.backend.heads("jobs", per_group=4)
    assert min(int(head.key.document_id[4:]) for head in heads) == 0
    assert max(int(head.key.document_id[4:]) for head in heads) < 40
    expired = rows_read(stand, sql.HEADS, collection="jobs", per_group=4)
    assert expired[0] <= 3 * 40 + 10
    assert rows_read(stand, sql.WAKE)[0] == 0


# --- locks and faults ------------------------------------------------------------------------------------------------


@contextmanager
def session(schema: PostgresSchema) -> Iterator[Callable[[str], None]]:
    """Another session, in one transaction that is rolled back at the end."""
    engine = create_engine(schema.url)
    with engine.connect() as connection:
        connection.execute(text(f"SET LOCAL search_path = {schema.name}"))
        yield lambda statement: void(connection.execute(text(statement)))
    engine.dispose()


def test_what_another_session_locks_is_not_reserved_and_not_waited_for(stand: Stand, schema: PostgresSchema) -> None:
    keys = [stored(stand, a_key(number)) for number in range(3)]
    with session(schema) as run:
        run(f"SELECT FROM documents WHERE document_id = '{keys[1].document_id}' FOR UPDATE")
        assert stand.backend.reserve(keys, claim_id="c", ttl=TTL) == [keys[0], keys[2]]
    assert stand.backend.reserve(keys, claim_id="c", ttl=TTL) == keys


def test_a_lock_that_is_not_granted_in_time_leaves_all_as_it_was(schema: PostgresSchema) -> None:
    with open_store(schema, lock_seconds=0.2) as backend, session(schema) as run:
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


def test_more_threads_than_connections_wait_for_one_another(schema: PostgresSchema) -> None:
    with open_store(schema, pool_size=2) as backend, ThreadPoolExecutor(8) as threads:
        backend.page("jobs")
        list(threads.map(lambda number: backend.create(a_key(number), b"{}", WAITING), range(64)))
        assert backend.counts("jobs") == {("default", "created"): 64}


def test_a_thread_that_gets_no_connection_in_time_is_told(schema: PostgresSchema) -> None:
    with open_store(schema, pool_size=1, connect_seconds=0.2) as backend, ThreadPoolExecutor(1) as threads:
        backend.page("jobs")
        slow = threads.submit(backend._connections.run, "SELECT pg_sleep(1)", {})
        time.sleep(0.3)
        with pytest.raises(StoreUnavailableError, match="all connections of this process"):
            backend.page("jobs")
        slow.result()


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
    with open_store(schema, lock_seconds=20) as backend:
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
    with session(schema) as run, ThreadPoolExecutor(3) as threads:
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
    with open_store(schema, lock_seconds=20) as backend, open_store(schema, lock_seconds=0.2) as sealer:
        act = lambda: backend.create(a_key(), b"{}", WAITING)  # noqa: E731
        with a_paused_writer(backend, schema, act) as (writer, let_go):
            with pytest.raises(StoreLockedError):
                sealer.seal("the next store")
            assert sealer.sealed_for() is None
            let_go()
            writer.result()
        backend.create(a_key(2), b"{}", WAITING)
        sealer.seal("the next store")
