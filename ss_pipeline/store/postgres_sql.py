"""The statements of the PostgreSQL store. Who runs them when: postgres.py; the tables: postgres_schema.py.

The row of a document is the lock of all that concerns it: who changes a document or who claims it locks that row first
and its claim after it, several documents in the order of their keys. Only a heartbeat goes straight to the claims. Rows
that were waited for are read again by their lock, so what is decided is decided on what is there then.

Every change enters first (`_ENTER`): it holds a lock, shared with other changes, until its commit, and looks at the
seal in a statement of its own after that. Who seals takes the same lock for itself alone, so no change that saw no seal
is still to come then. Both statements go to the server as one, which makes them one transaction.

A document waits for a claim in the index `due`, in the order of the queue, unless it rests: `rests_until` says when
to look again whether a claim holds it or it is parked. A heartbeat leaves that time as it is, so it is a time to look,
not the end of the hold; and a document can be in the index although a claim holds it, so the claim is looked at, too.
"""

from typing import Final

_KEY: Final = "collection = :collection AND tenant_id = :tenant_id AND document_id = :document_id"
_FACETS: Final = "tenant_id, document_id, status, priority, created_at, waiting, not_before, due_at"


def _same(one: str, other: str) -> str:
    """Two rows are of the same document."""
    return " AND ".join(f"{one}.{part} = {other}.{part}" for part in ("collection", "tenant_id", "document_id"))


_BY_INDEX: Final = "SET LOCAL enable_sort = off;"
"""Before statements whose order is that of an index: a planner without statistics would at times read and sort all."""


def _rest(not_before: str, held_until: str) -> str:
    """The later of two moments that is still to come, or NULL: until when a document rests."""
    moments = f"unnest(ARRAY[to_timestamp({not_before}), {held_until}]) AS moment"
    return f"(SELECT max(moment) FROM {moments} WHERE moment > clock_timestamp())"


# --- changes ---------------------------------------------------------------------------------------------------------

_ENTER: Final = """
SELECT pg_advisory_xact_lock_shared(:seal_lock);
WITH sealed AS (SELECT successor FROM seal WHERE only_row AND :heeds_seal)"""

_LOCKED: Final = f"""{_ENTER},
document AS MATERIALIZED (
    SELECT body = :expected AS is_expected FROM documents
    WHERE {_KEY} AND NOT EXISTS (SELECT FROM sealed) FOR UPDATE
)"""

CREATE: Final = f"""{_ENTER},
created AS (
    INSERT INTO documents (
        collection, tenant_id, document_id, body, status, priority, class, created_at, waiting, not_before, due_at,
        rests_until
    )
    SELECT
        :collection, :tenant_id, :document_id, :body, :status, :priority, :class, :created_at, :waiting, :not_before,
        :due_at, {_rest(":not_before", "NULL")}
    WHERE NOT EXISTS (SELECT FROM sealed)
    ON CONFLICT DO NOTHING RETURNING 1
)
SELECT (SELECT successor FROM sealed) AS successor, EXISTS (SELECT FROM created) AS done"""

REPLACE: Final = f"""{_LOCKED},
claim AS MATERIALIZED (
    SELECT
        expires_at,
        state = 'leased' AND claim_id = :claim_id AND fence = :fence AND expires_at > clock_timestamp() AS is_live
    FROM claims WHERE {_KEY} AND EXISTS (SELECT FROM document) FOR SHARE
),
verdict AS MATERIALIZED (
    SELECT is_expected, NOT :fenced OR coalesce((SELECT is_live FROM claim), false) AS may_write FROM document
),
written AS (
    UPDATE documents SET
        body = :body, row_version = row_version + 1, status = :status, priority = :priority, class = :class,
        created_at = :created_at, waiting = :waiting, not_before = :not_before, due_at = :due_at,
        updated_at = clock_timestamp(),
        rests_until = {_rest(":not_before", "(SELECT expires_at FROM claim)")}
    WHERE {_KEY} AND (SELECT is_expected AND may_write FROM verdict)
)
SELECT successor, is_expected, may_write
FROM (VALUES (1)) AS one LEFT JOIN verdict ON true LEFT JOIN sealed ON true"""

DELETE: Final = f"""{_LOCKED},
deleted AS (DELETE FROM documents WHERE {_KEY} AND (SELECT is_expected FROM document))
SELECT successor, is_expected, true AS may_write
FROM (VALUES (1)) AS one LEFT JOIN document ON true LEFT JOIN sealed ON true"""

# --- claims ----------------------------------------------------------------------------------------------------------

_WANTED: Final = """
    SELECT collection, tenant_id, document_id, d.waiting, d.rests_until, d.not_before
    FROM documents AS d JOIN unnest(
        CAST(:collections AS text[]), CAST(:tenant_ids AS text[]), CAST(:document_ids AS text[])
    ) AS asked (collection, tenant_id, document_id) USING (collection, tenant_id, document_id)"""
_IN_KEY_ORDER: Final = "ORDER BY collection, tenant_id, document_id FOR UPDATE OF d"


def _take(*, waiting_for_locks: str) -> str:
    """Gives the documents that are free, or reserved under the claim, to it: `step` is 1 for a lease, else 0."""
    return f"""{_ENTER},
wanted AS MATERIALIZED ({_WANTED}
    WHERE NOT EXISTS (SELECT FROM sealed) {_IN_KEY_ORDER} {waiting_for_locks}
),
taken AS (
    INSERT INTO claims AS claim (
        collection, tenant_id, document_id, state, claim_id, owner, fence, attempts, expires_at
    )
    SELECT
        collection, tenant_id, document_id, :state, :claim_id, :owner, :step, :step,
        clock_timestamp() + make_interval(secs => :ttl)
    FROM wanted
    ON CONFLICT (collection, tenant_id, document_id) DO UPDATE SET
        state = excluded.state, claim_id = excluded.claim_id, owner = excluded.owner,
        fence = claim.fence + :step, attempts = claim.attempts + :step, expires_at = excluded.expires_at
    WHERE claim.expires_at <= clock_timestamp()
        OR (claim.state = 'reserved' AND claim.claim_id = excluded.claim_id)
    RETURNING collection, tenant_id, document_id, fence, attempts, expires_at
),
resting AS (
    UPDATE documents AS d SET rests_until = {_rest("wanted.not_before", "taken.expires_at")}
    FROM taken JOIN wanted USING (collection, tenant_id, document_id)
    WHERE wanted.waiting
        AND {_same("d", "taken")}
)
SELECT successor, collection, tenant_id, document_id, fence, attempts
FROM (VALUES (1)) AS one LEFT JOIN taken ON true LEFT JOIN sealed ON true"""


RESERVE: Final = _take(waiting_for_locks="SKIP LOCKED")
LEASE: Final = _take(waiting_for_locks="")

HEARTBEAT: Final = f"""
WITH held AS MATERIALIZED (
    SELECT c.collection, c.tenant_id, c.document_id
    FROM claims AS c JOIN unnest(
        CAST(:collections AS text[]), CAST(:tenant_ids AS text[]), CAST(:document_ids AS text[]),
        CAST(:claim_ids AS text[]), CAST(:fences AS bigint[])
    ) AS lease (collection, tenant_id, document_id, claim_id, fence)
    USING (collection, tenant_id, document_id, claim_id, fence)
    JOIN documents AS d USING (collection, tenant_id, document_id)
    WHERE c.state = 'leased' AND c.expires_at > clock_timestamp()
    ORDER BY c.collection, c.tenant_id, c.document_id FOR UPDATE OF c
)
UPDATE claims AS c SET expires_at = clock_timestamp() + make_interval(secs => :ttl)
FROM held WHERE {_same("c", "held")}
RETURNING c.collection, c.tenant_id, c.document_id"""

FREE: Final = f"""
WITH wanted AS MATERIALIZED ({_WANTED} {_IN_KEY_ORDER}),
freed AS (
    UPDATE claims AS c SET
        state = 'free', claim_id = '', owner = '', expires_at = '-infinity',
        attempts = CASE WHEN :completed THEN 0 ELSE greatest(0, c.attempts - :refund) END
    FROM wanted
    WHERE {_same("c", "wanted")}
        AND c.state = :state AND c.claim_id = :claim_id AND c.fence = coalesce(:fence, c.fence)
    RETURNING c.collection, c.tenant_id, c.document_id
),
offered AS (
    UPDATE documents AS d SET rests_until = {_rest("wanted.not_before", "NULL")}
    FROM freed JOIN wanted USING (collection, tenant_id, document_id)
    WHERE wanted.waiting AND wanted.rests_until IS NOT NULL
        AND {_same("d", "freed")}
)
SELECT collection, tenant_id, document_id FROM freed"""

ADOPT_HISTORY: Final = f"""{_ENTER},
document AS MATERIALIZED (
    SELECT collection, tenant_id, document_id FROM documents
    WHERE {_KEY} AND NOT EXISTS (SELECT FROM sealed) FOR UPDATE
),
adopted AS (
    INSERT INTO claims AS claim (collection, tenant_id, document_id, fence, attempts)
    SELECT collection, tenant_id, document_id, :fence, :attempts FROM document
    ON CONFLICT (collection, tenant_id, document_id) DO UPDATE SET
        fence = greatest(claim.fence, excluded.fence), attempts = excluded.attempts
    WHERE claim.expires_at <= clock_timestamp()
)
SELECT (SELECT successor FROM sealed) AS successor"""

CLAIM: Final = f"""
SELECT
    claim_id, owner, state, fence, attempts, expires_at > clock_timestamp() AS is_live,
    extract(epoch FROM expires_at - clock_timestamp()) AS expires_in
FROM claims WHERE {_KEY} AND EXISTS (SELECT FROM documents WHERE {_KEY})"""

# --- reading ---------------------------------------------------------------------------------------------------------

READ: Final = f"SELECT body FROM documents WHERE {_KEY}"

PAGE: Final = f"""{_BY_INDEX}
SELECT {_FACETS} FROM documents
WHERE collection = :collection AND (tenant_id, document_id) > (:after_tenant, :after_id) AND tenant_id <= :last_tenant
    AND (CAST(:status AS text) IS NULL OR status = :status)
ORDER BY tenant_id, document_id LIMIT :limit"""
LAST_TENANT: Final = "\U0010ffff"

COUNTS: Final = """
SELECT tenant_id, status, count(*) AS number FROM documents WHERE collection = :collection GROUP BY tenant_id, status"""

COLLECTIONS: Final = f"""{_BY_INDEX}
WITH RECURSIVE found AS (
    (SELECT collection FROM documents ORDER BY collection LIMIT 1)
    UNION ALL
    SELECT later.collection FROM found CROSS JOIN LATERAL (
        SELECT d.collection FROM documents AS d WHERE d.collection > found.collection ORDER BY d.collection LIMIT 1
    ) AS later
)
SELECT collection FROM found"""

# --- who is next -----------------------------------------------------------------------------------------------------

WAKE_BATCH: Final = 5_000
_HELD_UNTIL: Final = f"(SELECT expires_at FROM claims AS c WHERE {_same('c', 'd')})"
"""Of a document `d`. A subquery, not a join: it stays a look-up by key, however many claims there are."""

WAKE: Final = f"""{_BY_INDEX}
WITH due AS MATERIALIZED (
    SELECT collection, tenant_id, document_id FROM documents
    WHERE waiting AND rests_until <= (SELECT clock_timestamp())
    ORDER BY rests_until LIMIT {WAKE_BATCH} FOR UPDATE SKIP LOCKED
)
UPDATE documents AS d SET rests_until = {_rest("d.not_before", _HELD_UNTIL)}
FROM due WHERE {_same("d", "due")}
RETURNING 1"""
"""Looks at documents whose rest is over: they are offered again, or rest on where a heartbeat has prolonged a lease."""

_READY: Final = "collection = :collection AND waiting AND rests_until IS NULL"

HEADS: Final = f"""{_BY_INDEX}
WITH RECURSIVE groups AS (
    (SELECT tenant_id, class FROM documents WHERE {_READY} ORDER BY tenant_id, class LIMIT 1)
    UNION ALL
    SELECT later.tenant_id, later.class FROM groups CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.class FROM documents AS d
        WHERE {_READY} AND (d.tenant_id, d.class) > (groups.tenant_id, groups.class)
        ORDER BY d.tenant_id, d.class LIMIT 1
    ) AS later
)
SELECT head.* FROM groups CROSS JOIN LATERAL (
    SELECT {_FACETS}, class FROM documents AS d
    WHERE {_READY} AND (d.tenant_id, d.class) = (groups.tenant_id, groups.class)
        AND coalesce({_HELD_UNTIL}, '-infinity') <= (SELECT clock_timestamp())
    ORDER BY due_at, document_id LIMIT :per_group
) AS head
ORDER BY tenant_id, class, due_at, document_id"""

# --- the seal --------------------------------------------------------------------------------------------------------

SEAL: Final = """
SELECT pg_advisory_xact_lock(:seal_lock);
INSERT INTO seal (successor) VALUES (:successor)
ON CONFLICT (only_row) DO UPDATE SET successor = excluded.successor, sealed_at = clock_timestamp()
RETURNING 1"""
UNSEAL: Final = "DELETE FROM seal WHERE only_row RETURNING 1"
SEALED_FOR: Final = "SELECT successor FROM seal WHERE only_row"

# --- upkeep ----------------------------------------------------------------------------------------------------------

WRITABLE: Final = "SELECT current_setting('transaction_read_only') = 'off' AS writable"
