"""The store on PostgreSQL: one schema of a database, for any number of processes on any number of machines.

A document's body is kept as bytes (bytea), not as text or jsonb: what was damaged or is no text at all comes back as it
was. The view `job_documents` shows jobs as JSON. Time is the server's own. Each method is one statement, which is one
transaction and one round trip (postgres_sql.py); connections and their checks are postgres_connections.py's business.

Developed against PostgreSQL 18; the statements need 12 or later.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Self

from sqlalchemy import Row

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    SSError,
    StoreSealedError,
)
from ss_pipeline.store import postgres_sql as sql
from ss_pipeline.store.base import (
    Backend,
    ClaimHistory,
    ClaimView,
    DocumentKey,
    Facets,
    Fence,
    Lease,
    Listed,
    stale_fence,
)
from ss_pipeline.store.postgres_connections import Connections, address_of


class PostgresBackend(Backend):
    """Documents and claims in the tables of one schema.

    Nothing is connected to before the first call. That call makes the tables or brings them up to date. A server whose
    settings would lose acknowledged changes is refused (StoreUnsafeError), as are tables of a later version
    (StoreFormatError). A connection that is lost is not tried again here: see store/retrying.py.

    Args:
        dsn: `postgresql://user:password@host:5432/database`, also with `?host=/folder/of/the/socket`.
        schema: The schema of the tables: a plain lower-case name.
        pool_size: Most connections of this process.
        connect_seconds: How long a connection may take, at least 2, and how long a free one is waited for.
        lock_seconds: How long another writer of the same document is waited for.
        heeds_seal: False for whoever moves documents.

    Raises:
        SettingsError: the address is none.
    """

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "ss_pipeline",
        pool_size: int = 5,
        connect_seconds: float = 5.0,
        lock_seconds: float = 5.0,
        heeds_seal: bool = True,
    ) -> None:
        self._connections = Connections(
            address_of(dsn),
            schema=schema,
            pool_size=pool_size,
            connect_seconds=connect_seconds,
            lock_seconds=lock_seconds,
        )
        self._heeds_seal = heeds_seal
        self._seal_lock = self._connections.lock_number("seal")

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        if not self._changed(sql.CREATE, **_named(key), **_columns(facets), body=body).done:
            raise DocumentExistsError(f"{key.name} exists already")

    def read(self, key: DocumentKey) -> bytes:
        for row in self._rows(sql.READ, **_named(key)):
            return bytes(row.body)
        raise _not_found(key)

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        claim = {"claim_id": fence.claim_id, "fence": fence.number} if fence else {"claim_id": "", "fence": 0}
        row = self._changed(
            sql.REPLACE,
            **_named(key),
            **_columns(facets),
            **claim,
            body=body,
            expected=expected,
            fenced=fence is not None,
        )
        _check_written(key, row, fence)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        _check_written(key, self._changed(sql.DELETE, **_named(key), expected=expected))

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        first = (tenant_id or "", "")
        start = max(first, (after.tenant_id, after.document_id)) if after else first
        rows = self._rows(
            sql.PAGE,
            collection=collection,
            after_tenant=start[0],
            after_id=start[1],
            last_tenant=sql.LAST_TENANT if tenant_id is None else tenant_id,
            status=status,
            limit=limit,
        )
        return [_listed(collection, row) for row in rows]

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        rows = self._rows(sql.COUNTS, collection=collection)
        return {(row.tenant_id, row.status): row.number for row in rows}

    def collections(self) -> list[str]:
        return [row.collection for row in self._rows(sql.COLLECTIONS)]

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        while len(self._rows(sql.WAKE)) == sql.WAKE_BATCH:
            pass
        rows = self._rows(sql.HEADS, collection=collection, per_group=per_group)
        return [_listed(collection, row) for row in rows]

    # --- claims ----------------------------------------------------------------------------------------------------

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        taken = self._taken(sql.RESERVE, keys, state="reserved", claim_id=claim_id, owner="", step=0, ttl=ttl)
        return [key for key in keys if key in taken]

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        taken = self._taken(sql.LEASE, keys, state="leased", claim_id=claim_id, owner=owner, step=1, ttl=ttl)
        held = [key for key in dict.fromkeys(keys) if key in taken]
        return Lease(
            claim_id=claim_id,
            owner=owner,
            fences={key: Fence(claim_id, taken[key].fence) for key in held},
            attempts={key: taken[key].attempts for key in held},
        )

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        fences = list(lease.fences.values())
        rows = self._rows(
            sql.HEARTBEAT,
            **_arrays(list(lease.fences)),
            claim_ids=[fence.claim_id for fence in fences],
            fences=[fence.number for fence in fences],
            ttl=ttl,
        )
        held = {_key_of(row) for row in rows}
        return [key for key in lease.fences if key in held]

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._end_lease(key, fence, completed=True, refund=0)

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._end_lease(key, fence, completed=False, refund=int(refund))

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        free = {"state": "reserved", "claim_id": claim_id, "fence": None, "completed": False, "refund": 0}
        self._rows(sql.FREE, **_arrays(keys), **free)

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        for row in self._rows(sql.CLAIM, **_named(key)):
            if row.is_live:
                expires_in = max(0.0, float(row.expires_in))
                return ClaimView(key, row.claim_id, row.owner, row.state, row.fence, row.attempts, expires_in)
        return None

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        for row in self._rows(sql.CLAIM, **_named(key)):
            return ClaimHistory(fence=row.fence, attempts=row.attempts)
        return ClaimHistory()

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        self._changed(sql.ADOPT_HISTORY, **_named(key), fence=history.fence, attempts=history.attempts)

    # --- sealed ----------------------------------------------------------------------------------------------------

    def seal(self, successor: str) -> None:
        self._rows(sql.SEAL, successor=successor, seal_lock=self._seal_lock)

    def unseal(self) -> None:
        self._rows(sql.UNSEAL)

    def sealed_for(self) -> str | None:
        for row in self._rows(sql.SEALED_FOR):
            return str(row.successor)
        return None

    def for_moving(self) -> Self:
        mover = copy(self)
        mover._connections = self._connections.of_another()  # noqa: SLF001 - its own copy
        mover._heeds_seal = False  # noqa: SLF001
        return mover

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        try:
            return list(self._problems())
        except SSError as error:
            return [f"{error.message}. {error.todo}"]

    def close(self) -> None:
        self._connections.close()

    def _problems(self) -> Iterator[str]:
        for row in self._rows(sql.WRITABLE):
            if not row.writable:
                yield "the PostgreSQL server takes no writes: it is a standby, or default_transaction_read_only is on"
        for listed in self.page("jobs", status="corrupted", limit=20):
            yield f"{listed.key.name} is corrupted (its bytes are untouched)"

    # --- how statements are run ------------------------------------------------------------------------------------

    def _rows(self, statement: str, **parameters: Any) -> Sequence[Row[Any]]:
        return self._connections.run(statement, parameters)

    def _changes(self, statement: str, **parameters: Any) -> Sequence[Row[Any]]:
        """The rows of a change, at least one; each says whether the store is sealed."""
        rows = self._rows(statement, seal_lock=self._seal_lock, heeds_seal=self._heeds_seal, **parameters)
        if rows[0].successor is not None:
            raise StoreSealedError(rows[0].successor)
        return rows

    def _changed(self, statement: str, **parameters: Any) -> Row[Any]:
        return self._changes(statement, **parameters)[0]

    def _taken(self, statement: str, keys: Sequence[DocumentKey], **claim: Any) -> dict[DocumentKey, Row[Any]]:
        rows = self._changes(statement, **_arrays(list(dict.fromkeys(keys))), **claim)
        return {_key_of(row): row for row in rows if row.document_id is not None}

    def _end_lease(self, key: DocumentKey, fence: Fence, *, completed: bool, refund: int) -> None:
        lease = {"state": "leased", "claim_id": fence.claim_id, "fence": fence.number}
        if not self._rows(sql.FREE, **_arrays([key]), **lease, completed=completed, refund=refund):
            raise stale_fence(key, fence)


def _check_written(key: DocumentKey, row: Row[Any], fence: Fence | None = None) -> None:
    """What a change of a document says of itself: it was there, the fence was live, its bytes were those expected."""
    if row.is_expected is None:
        raise _not_found(key)
    if fence is not None and not row.may_write:
        raise stale_fence(key, fence)
    if not row.is_expected:
        raise DocumentChangedError(f"{key.name} was changed meanwhile")


def _not_found(key: DocumentKey) -> DocumentNotFoundError:
    return DocumentNotFoundError(f"there is no {key.name}")


# --- rows and parameters ---------------------------------------------------------------------------------------------


def _named(key: DocumentKey) -> dict[str, str]:
    return {"collection": key.collection, "tenant_id": key.tenant_id, "document_id": key.document_id}


def _arrays(keys: Sequence[DocumentKey]) -> dict[str, list[str]]:
    return {
        "collections": [key.collection for key in keys],
        "tenant_ids": [key.tenant_id for key in keys],
        "document_ids": [key.document_id for key in keys],
    }


def _key_of(row: Row[Any]) -> DocumentKey:
    return DocumentKey(row.collection, row.tenant_id, row.document_id)


def _columns(facets: Facets) -> dict[str, object]:
    return {**vars(facets), "class": facets.priority_class}


def _listed(collection: str, row: Row[Any]) -> Listed:
    facets = Facets(row.status, row.priority, row.created_at, row.waiting, row.not_before, row.due_at)
    return Listed(DocumentKey(collection, row.tenant_id, row.document_id), facets)
