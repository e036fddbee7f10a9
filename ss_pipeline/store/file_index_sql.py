"""The tables and statements of the file store's index. Who runs them when: file_index_rows.py.

A row has a gate: 0 not waiting, 1 ready, 2 held by a claim until `held_until` (lease clock), 3 parked until
`not_before` (epoch). Ready rows have an index of their own in the order of the queue, so that reading who is next costs
the same whatever waits, is held or is parked behind. Rows are moved to the gate `ready` when their time comes.
"""

from typing import Final

SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE marks (
    collection TEXT, tenant TEXT, id TEXT, token INTEGER NOT NULL, PRIMARY KEY (collection, tenant, id)
) WITHOUT ROWID;
CREATE TABLE folders (path TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    collection TEXT, tenant TEXT, id TEXT,
    status TEXT NOT NULL, priority INTEGER NOT NULL, class TEXT NOT NULL, created_at TEXT NOT NULL,
    waiting INTEGER NOT NULL, not_before REAL NOT NULL, due_at REAL NOT NULL,
    held_until REAL NOT NULL, fence INTEGER NOT NULL,
    gate INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (collection, tenant, id)
) WITHOUT ROWID;
CREATE INDEX by_status ON documents (collection, status, tenant, id);
CREATE INDEX ready ON documents (collection, tenant, class, due_at, id) WHERE gate = 1;
CREATE INDEX held ON documents (held_until) WHERE gate = 2;
CREATE INDEX parked ON documents (not_before) WHERE gate = 3;
"""

PUT: Final = """
INSERT OR REPLACE INTO documents
    (collection, tenant, id, status, priority, class, created_at, waiting, not_before, due_at, held_until, fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
UPDATE_FACETS: Final = """
UPDATE documents SET status = ?, priority = ?, class = ?, created_at = ?, waiting = ?, not_before = ?, due_at = ?
WHERE collection = ? AND tenant = ? AND id = ?"""
UPDATE_HOLD: Final = "UPDATE documents SET held_until = ?, fence = ? WHERE collection = ? AND tenant = ? AND id = ?"
SET_GATE: Final = """
UPDATE documents SET gate = CASE
    WHEN NOT waiting THEN 0 WHEN held_until > ? THEN 2 WHEN not_before > ? THEN 3 ELSE 1 END
WHERE collection = ? AND tenant = ? AND id = ?"""
TIME_HAS_COME: Final = """
SELECT EXISTS (SELECT 1 FROM documents INDEXED BY held WHERE gate = 2 AND held_until <= ?)
    OR EXISTS (SELECT 1 FROM documents INDEXED BY parked WHERE gate = 3 AND not_before <= ?)"""
OPEN_HELD: Final = """
UPDATE documents INDEXED BY held SET gate = CASE WHEN not_before > ? THEN 3 ELSE 1 END
WHERE gate = 2 AND held_until <= ?"""
OPEN_PARKED: Final = "UPDATE documents INDEXED BY parked SET gate = 1 WHERE gate = 3 AND not_before <= ?"
COLUMNS: Final = "SELECT tenant, id, status, priority, created_at, waiting, not_before, due_at FROM documents "
NEXT_CLASS: Final = """
SELECT tenant, class FROM documents INDEXED BY ready
WHERE gate = 1 AND collection = ? AND tenant = ? AND class > ? ORDER BY class LIMIT 1"""
NEXT_TENANT: Final = """
SELECT tenant, class FROM documents INDEXED BY ready
WHERE gate = 1 AND collection = ? AND tenant > ? ORDER BY tenant, class LIMIT 1"""
HEADS: Final = (
    COLUMNS
    + """INDEXED BY ready WHERE gate = 1 AND collection = ? AND tenant = ? AND class = ? AND not_before <= ?
ORDER BY due_at, id LIMIT ?"""
)
PAGE: Final = COLUMNS + "WHERE collection = ? AND (tenant, id) > (?, ?) AND tenant <= ? ORDER BY tenant, id LIMIT ?"
PAGE_OF_STATUS: Final = (
    COLUMNS
    + """INDEXED BY by_status WHERE collection = ? AND status = ? AND (tenant, id) > (?, ?) AND tenant <= ?
ORDER BY tenant, id LIMIT ?"""
)
COUNTS: Final = """
SELECT tenant, status, count(*) FROM documents INDEXED BY by_status WHERE collection = ? GROUP BY status, tenant"""
NEXT_COLLECTION: Final = "SELECT collection FROM documents WHERE collection > ? ORDER BY collection LIMIT 1"
LAST_TENANT: Final = "\U0010ffff"
