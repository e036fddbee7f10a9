"""The rows of the file store's index: what is asked of them and how they change.

The statements are file_index_sql.py's; when the index is opened and rebuilt is file_index.py's business.

A mark says that a document may differ from its row. It is set before the document changes and removed with the row's
update; what a killed writer leaves is read from the document again.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from ss_pipeline.store import file_index_sql as sql
from ss_pipeline.store.base import DocumentKey, Facets, Listed

_Value: TypeAlias = str | int | float


@dataclass(frozen=True)
class Hold:
    """How long a claim holds a document (lease clock, seconds; 0 = not at all) and the last fence given."""

    until: float = 0.0
    fence: int = 0


@dataclass(frozen=True)
class Row:
    """All the index says about a document."""

    key: DocumentKey
    facets: Facets
    hold: Hold


@dataclass(frozen=True)
class Mark:
    """A document that may differ from its row; a new mark on the same key has another token."""

    key: DocumentKey
    token: int


@dataclass(frozen=True)
class Now:
    """Both clocks at one moment: the lease clock and the wall clock (epoch), in seconds."""

    lease: float
    wall: float


class IndexRows:
    """The statements on one open connection. Errors of SQLite pass; file_index.py names them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One write transaction; undone where the block fails or is interrupted."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def fill(self, rows: Iterable[Row | DocumentKey], *, now: Now, meta: dict[str, _Value]) -> int:
        """Enters everything into a new index, in one transaction; a bare key (unreadable now) becomes a mark."""
        count = 0
        with self.transaction():
            for row in rows:
                if isinstance(row, Row):
                    self._put(row, now)
                    count += 1
                else:
                    self._mark(row, token=1)
            self._connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        return count

    def meta(self, name: str) -> _Value | None:
        """A fact about the index itself."""
        found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else found[0]

    def set_meta(self, name: str, value: _Value) -> None:
        """Replaces a fact about the index."""
        with self.transaction():
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def collections(self) -> list[str]:
        """The collections that have rows, sorted; found by stepping over each, not by reading every row."""
        found: list[str] = []
        while row := self._connection.execute(sql.NEXT_COLLECTION, (found[-1] if found else "",)).fetchone():
            found.append(row[0])
        return found

    def mark(self, keys: Iterable[DocumentKey], *, token: int) -> bool:
        """Marks documents, durably against kill -9; returns whether one of them was marked before."""
        was_marked = False
        with self.transaction():
            for key in keys:
                was_marked = self._mark(key, token=token) or was_marked
        return was_marked

    def marks(self) -> list[Mark]:
        """Every mark there is."""
        found = self._connection.execute("SELECT collection, tenant, id, token FROM marks").fetchall()
        return [Mark(DocumentKey(*row[:3]), row[3]) for row in found]

    def enter(self, row: Row, *, now: Now) -> None:
        """Puts a document's row and removes its mark."""
        with self.transaction():
            self._put(row, now)
            self._unmark(row.key)

    def update(self, key: DocumentKey, *, facets: Facets | None, hold: Hold | None, now: Now) -> bool:
        """Changes what is given of a row and removes its mark; False (and nothing done) where there is no row."""
        with self.transaction():
            if not self.has(key):
                return False
            if facets is not None:
                self._connection.execute(sql.UPDATE_FACETS, (*_facet_values(facets), *_id(key)))
            if hold is not None:
                self._connection.execute(sql.UPDATE_HOLD, (hold.until, hold.fence, *_id(key)))
            self._connection.execute(sql.SET_GATE, (now.lease, now.wall, *_id(key)))
            self._unmark(key)
            return True

    def remove(self, key: DocumentKey) -> None:
        """Removes a document that is gone, with its mark."""
        with self.transaction():
            self._remove(key)

    def forget(self, mark: Mark) -> None:
        """Removes a document found gone without its lock, unless it was marked again since it was looked at."""
        where = (*_id(mark.key), mark.token)
        with self.transaction():
            found = self._connection.execute(
                "SELECT 1 FROM marks WHERE collection = ? AND tenant = ? AND id = ? AND token = ?", where
            ).fetchone()
            if found:
                self._remove(mark.key)

    def keys(self) -> list[DocumentKey]:
        """The keys of all rows."""
        return [DocumentKey(*row) for row in self._connection.execute("SELECT collection, tenant, id FROM documents")]

    def has(self, key: DocumentKey) -> bool:
        """Whether there is a row for the document."""
        statement = "SELECT 1 FROM documents WHERE collection = ? AND tenant = ? AND id = ?"
        return self._connection.execute(statement, _id(key)).fetchone() is not None

    def fence(self, key: DocumentKey) -> int:
        """The last fence known for the document, or 0."""
        statement = "SELECT fence FROM documents WHERE collection = ? AND tenant = ? AND id = ?"
        found = self._connection.execute(statement, _id(key)).fetchone()
        return 0 if found is None else int(found[0])

    def page(
        self, collection: str, *, tenant_id: str | None, status: str | None, after: DocumentKey | None, limit: int
    ) -> list[Listed]:
        """A page in key order (see store/base.py)."""
        first = (tenant_id or "", "")
        start = max(first, (after.tenant_id, after.document_id)) if after else first
        last = sql.LAST_TENANT if tenant_id is None else tenant_id
        if status is None:
            return self._listed(collection, sql.PAGE, (collection, *start, last, limit))
        return self._listed(collection, sql.PAGE_OF_STATUS, (collection, status, *start, last, limit))

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        """Documents for each (tenant, status)."""
        found = self._connection.execute(sql.COUNTS, (collection,)).fetchall()
        return {(tenant, status): number for tenant, status, number in found}

    def heads(self, collection: str, *, per_group: int, now: Now) -> list[Listed]:
        """The first ready documents of each tenant and class (see store/base.py)."""
        self._open_gates(now)
        return [
            head
            for group in self._groups(collection)
            for head in self._listed(collection, sql.HEADS, (collection, *group, now.wall, per_group))
        ]

    def folder_times(self) -> dict[str, int]:
        """When each folder was last found changed, in nanoseconds since the epoch."""
        return dict(self._connection.execute("SELECT path, mtime_ns FROM folders").fetchall())

    def set_folder_times(self, times: dict[str, int]) -> None:
        """Keeps when folders were found changed."""
        with self.transaction():
            self._connection.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?)", times.items())

    def _open_gates(self, now: Now) -> None:
        if self._connection.execute(sql.TIME_HAS_COME, (now.lease, now.wall)).fetchone()[0]:
            with self.transaction():
                self._connection.execute(sql.OPEN_HELD, (now.wall, now.lease))
                self._connection.execute(sql.OPEN_PARKED, (now.wall,))

    def _groups(self, collection: str) -> Iterator[tuple[str, str]]:
        """Each by one seek; `(tenant, class) > (?, ?)` in one statement would read the whole group before."""
        group: tuple[str, str] | None = ("", "")
        while group:
            within = self._connection.execute(sql.NEXT_CLASS, (collection, *group)).fetchone()
            group = within or self._connection.execute(sql.NEXT_TENANT, (collection, group[0])).fetchone()
            if group:
                yield group

    def _listed(self, collection: str, statement: str, values: tuple[_Value, ...]) -> list[Listed]:
        rows = self._connection.execute(statement, values).fetchall()
        return [
            Listed(
                DocumentKey(collection, tenant, document_id),
                Facets(status, priority, created_at, bool(waiting), not_before, due_at),
            )
            for tenant, document_id, status, priority, created_at, waiting, not_before, due_at in rows
        ]

    def _put(self, row: Row, now: Now) -> None:
        values = (*_id(row.key), *_facet_values(row.facets), row.hold.until, row.hold.fence)
        self._connection.execute(sql.PUT, values)
        self._connection.execute(sql.SET_GATE, (now.lease, now.wall, *_id(row.key)))

    def _mark(self, key: DocumentKey, *, token: int) -> bool:
        statement = "SELECT 1 FROM marks WHERE collection = ? AND tenant = ? AND id = ?"
        before = self._connection.execute(statement, _id(key)).fetchone()
        self._connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", (*_id(key), token))
        return before is not None

    def _unmark(self, key: DocumentKey) -> None:
        statement = "DELETE FROM marks WHERE collection = ? AND tenant = ? AND id = ?"
        self._connection.execute(statement, _id(key))

    def _remove(self, key: DocumentKey) -> None:
        statement = "DELETE FROM documents WHERE collection = ? AND tenant = ? AND id = ?"
        self._connection.execute(statement, _id(key))
        self._unmark(key)


def _id(key: DocumentKey) -> tuple[str, str, str]:
    return key.collection, key.tenant_id, key.document_id


def _facet_values(facets: Facets) -> tuple[str, int, str, str, int, float, float]:
    return (
        facets.status,
        facets.priority,
        facets.priority_class,
        facets.created_at,
        int(facets.waiting),
        facets.not_before,
        facets.due_at,
    )
