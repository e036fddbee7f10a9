"""The PostgreSQL store's tables: who makes them, which bytes come back, and what a look at who is next costs."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest

from ss_pipeline.errors import (
    DocumentNotFoundError,
    StoreFormatError,
)
from ss_pipeline.jobs.fairness import due_at
from ss_pipeline.store import postgres_sql as sql
from ss_pipeline.store.base import Facets
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline.store.postgres_schema import CURRENT, MIGRATIONS
from ss_pipeline_tests.postgres_schemas import PostgresSchema, postgres_schema
from ss_pipeline_tests.store_contract import TTL, WAITING, ServerClock, Stand, a_body, a_key, keys_of, leased, stored


@pytest.fixture
def stand(schema: PostgresSchema) -> Iterator[Stand]:
    with schema.store() as backend:
        yield Stand(backend, ServerClock(schema.age))


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_first_call_makes_the_tables_and_a_second_store_uses_them(schema: PostgresSchema) -> None:
    for _ in range(2):
        with schema.store() as backend:
            backend.page("jobs")
        applied = schema.rows("SELECT number, name FROM schema_migrations ORDER BY number")
        assert applied == [(migration.number, migration.name) for migration in MIGRATIONS]


def test_tables_of_a_later_version_are_refused(stand: Stand, schema: PostgresSchema) -> None:
    stored(stand)
    schema.rows("INSERT INTO schema_migrations (number, name) VALUES (99, 'of another version')")
    with schema.store() as later:
        with pytest.raises(StoreFormatError, match=f"at version 99; this code knows up to {CURRENT}"):
            later.read(a_key())
        assert ["version 99" in problem for problem in later.check()] == [True]


FORMER: Final = """
    INSERT INTO documents (
        collection, tenant_id, document_id, body, status, priority, class, created_at, waiting, not_before
    ) VALUES ('jobs', 'default', :id, '{}', 'created', :priority, 'normal', :created_at, true, 0)"""
"""How version 1 creates a document."""


@pytest.mark.guarantee("R9")
def test_tables_of_version_1_are_given_the_order_by_due_at(schema: PostgresSchema) -> None:
    schema.rows(f"CREATE SCHEMA {schema.name}")
    schema.rows("CREATE TABLE schema_migrations (number integer, name text)")
    schema.rows("INSERT INTO schema_migrations VALUES (1, 'documents and claims')")
    schema.connection.exec_driver_sql(MIGRATIONS[0].ddl)
    created = [
        ("2026-01-06T12:00:00.123456+00:00", 9),
        ("2026-01-06T12:00:00.123457", 9),
        ("2026-01-06T17:00:10+05:00", 0),
        ("2026-01-06", 5),
        ("20260106T115959Z", 0),
        ("2026-01-06T11:00:00Z", -500),
        ("0001-01-01", 0),
    ]
    for number, (created_at, priority) in enumerate(created):
        schema.rows(FORMER, id=f"j{number}", priority=priority, created_at=created_at)
    schema.rows(FORMER, id="of no time", priority=3, created_at="some day")
    elsewhere = f"{schema.url}&options=-c%20timezone%3DAmerica/New_York"
    with closing(PostgresBackend(elsewhere, schema=schema.name)) as backend:
        due = {row.key.document_id: row.facets.due_at for row in backend.page("jobs")}
        expected = {f"j{number}": due_at(at, priority=priority) for number, (at, priority) in enumerate(created)}
        assert due == {**expected, "of no time": 0.0}
        offered = [key.document_id for key in keys_of(backend.heads("jobs", per_group=9))]
        assert offered == sorted(due, key=lambda name: due[name])


def test_a_document_that_version_1_creates_meanwhile_is_due_as_one_of_priority_0(
    stand: Stand, schema: PostgresSchema
) -> None:
    stand.backend.page("jobs")
    schema.rows(FORMER, id="late", priority=0, created_at="2026-01-06T12:00:00+00:00")
    (head,) = stand.backend.heads("jobs", per_group=1)
    assert head.facets.due_at == pytest.approx(stand.clock.now() + 450, abs=5)


def test_two_stores_of_one_database_do_not_meet(stand: Stand) -> None:
    stored(stand)
    with postgres_schema() as other, other.store() as backend:
        assert backend.collections() == []
        backend.seal("elsewhere")
        stored(stand, a_key(2))


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
            due_at, rests_until
        )
        SELECT 'jobs', 't' || g % 5, 'job_' || g, '{{}}', 'created', 0, CASE g % 2 WHEN 0 THEN 'low' ELSE 'normal' END,
            '2026', true, 0, g, {rests}
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
    looked_in_all = int(looked * plan["Actual Loops"])
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
