"""The tables of the PostgreSQL store and how they came about: numbered migrations, each applied once, in order.

A migration that was released is never edited; what is to change is a new one at the end. It must leave the statements
of the version before usable, because processes of that version may still run. Statements: postgres_sql.py.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from ss_pipeline.errors import StoreFormatError


@dataclass(frozen=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    ddl: str


_DOCUMENTS_AND_CLAIMS: Final = """
CREATE TABLE documents (
    collection text COLLATE "C" NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    row_version bigint NOT NULL DEFAULT 1,
    status text COLLATE "C" NOT NULL,
    priority bigint NOT NULL,
    class text COLLATE "C" NOT NULL,
    created_at text COLLATE "C" NOT NULL,
    waiting boolean NOT NULL,
    not_before double precision NOT NULL,
    rests_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (collection, tenant_id, document_id)
);
COMMENT ON COLUMN documents.body IS 'The bytes of the document as they were written; see the view job_documents.';
COMMENT ON COLUMN documents.row_version IS 'Grows with every write of the document.';
COMMENT ON COLUMN documents.not_before IS 'Epoch seconds before which the document is not offered for a claim.';
COMMENT ON COLUMN documents.rests_until IS 'When to look again whether the document is free; NULL: it is offered.';
CREATE INDEX by_status ON documents (collection, status, tenant_id, document_id);
CREATE INDEX ready ON documents (collection, tenant_id, class, priority DESC, created_at, document_id)
    WHERE waiting AND rests_until IS NULL;
CREATE INDEX resting ON documents (rests_until) WHERE waiting AND rests_until IS NOT NULL;

CREATE TABLE claims (
    collection text COLLATE "C" NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    state text NOT NULL DEFAULT 'free' CHECK (state IN ('free', 'reserved', 'leased')),
    claim_id text NOT NULL DEFAULT '',
    owner text NOT NULL DEFAULT '',
    fence bigint NOT NULL,
    attempts integer NOT NULL,
    expires_at timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (collection, tenant_id, document_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE claims IS 'Who holds which document; a row stays for its fence when document or claim are gone.';
COMMENT ON COLUMN claims.expires_at IS '-infinity while it is free.';

CREATE TABLE seal (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    successor text NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION readable(body bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;
COMMENT ON FUNCTION readable IS 'A document as JSON, or NULL where its bytes are none.';
CREATE VIEW job_documents AS
    SELECT tenant_id, document_id AS job_id, status, priority, created_at, updated_at, row_version,
        readable(body) AS document
    FROM documents WHERE collection = 'jobs';
"""

_ORDER_BY_DUE_AT: Final = """
ALTER TABLE documents ADD COLUMN due_at double precision NOT NULL DEFAULT 0;
COMMENT ON COLUMN documents.due_at IS 'Epoch seconds; of each tenant and class what waits is offered in this order.';

CREATE FUNCTION due_at(created_at text, priority bigint) RETURNS double precision LANGUAGE plpgsql AS $$
BEGIN
    RETURN extract(epoch FROM created_at::timestamptz) + (100 - priority) * 4.5;
EXCEPTION WHEN data_exception THEN  -- a time as PostgreSQL does not know it; the next write of the document mends it
    RETURN 0;
END $$;
SET LOCAL timezone = 'UTC';  -- for times without an offset
UPDATE documents SET due_at = due_at(created_at, priority);
DROP FUNCTION due_at;

-- What a process of version 1 still creates, which does not know the column, is due as if it had the priority 0. Its
-- own look at who is next has no index any more and sorts.
ALTER TABLE documents ALTER COLUMN due_at SET DEFAULT extract(epoch FROM clock_timestamp()) + 450;
CREATE INDEX due ON documents (collection, tenant_id, class, due_at, document_id) WHERE waiting AND rests_until IS NULL;
DROP INDEX ready;
"""

MIGRATIONS: Final = (
    Migration(1, "documents and claims", _DOCUMENTS_AND_CLAIMS),
    Migration(2, "order by due_at", _ORDER_BY_DUE_AT),
)
CURRENT: Final = MIGRATIONS[-1].number

_MIGRATIONS_TABLE: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_SCHEMA_IS_THERE: Final = text("SELECT to_regnamespace(:schema) IS NOT NULL")
_TABLE_IS_THERE: Final = text("SELECT to_regclass(:table) IS NOT NULL")
_VERSION: Final = text("SELECT coalesce(max(number), 0) FROM schema_migrations")
_APPLIED: Final = text("INSERT INTO schema_migrations (number, name) VALUES (:number, :name)")


def version_of(connection: Connection, *, schema: str) -> int:
    """The number of the last migration that was applied; 0 where there is no schema."""
    there = connection.execute(_TABLE_IS_THERE, {"table": f"{schema}.schema_migrations"}).scalar_one()
    return int(connection.execute(_VERSION).scalar_one()) if there else 0


def check_version(version: int, *, schema: str) -> None:
    """Raises:
    StoreFormatError: a newer version of this package made the schema.
    """
    if version > CURRENT:
        raise StoreFormatError(
            f"the tables in the PostgreSQL schema {schema} are at version {version}; this code knows up to {CURRENT}"
        )


def migrate(connection: Connection, *, schema: str) -> list[Migration]:
    """Makes the schema or brings it up to date, within the caller's transaction, whose search path is the schema.

    The caller holds a lock against others who do the same.

    Returns:
        What was applied.

    Raises:
        StoreFormatError: it is newer than this code.
    """
    if not connection.execute(_SCHEMA_IS_THERE, {"schema": schema}).scalar_one():
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')  # only so: its user need not have the right to it
    connection.exec_driver_sql(_MIGRATIONS_TABLE)
    version = int(connection.execute(_VERSION).scalar_one())
    check_version(version, schema=schema)
    missing = [migration for migration in MIGRATIONS if migration.number > version]
    for migration in missing:
        connection.exec_driver_sql(migration.ddl)
        connection.execute(_APPLIED, {"number": migration.number, "name": migration.name})
    return missing
