"""The store on Redis: for any number of processes of any number of machines, at the speed of a round trip.

Every call is one script, which Redis runs as a whole: it compares, checks the fence and the seal, and changes the body,
the claim and the listings together, by the server's clock. The keys and the steps of the scripts are in redis_lua/;
this module turns calls into them. Which servers are refused is redis_server.py's business.

Redis runs one script after the other, so on one server the store is linearizable; a failover to a replica can lose what
was acknowledged last, and is not covered.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

from pydantic import SecretStr

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    SettingsError,
    StoreError,
    StorePathUnsafeError,
)
from ss_pipeline.jobs.documents import is_safe_segment
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
from ss_pipeline.store.redis_faults import named_faults
from ss_pipeline.store.redis_scripts import ScriptRunner
from ss_pipeline.store.redis_server import ServerInfo, connect, problems, refuse_unfit

_OPENED_AT_ONCE: Final = 500
"""Documents put back into the queue by one script when their claims or parking end: a few milliseconds' work."""


class RedisBackend(Backend):
    """Documents and claims in one Redis database; safe among threads and after a fork.

    Args:
        url: SS_REDIS_URL: `redis://`, `rediss://` or `unix://`. Nothing is connected before the first call.
        namespace: What keys begin with, where several stores share a database.
        connect_seconds: How long the server may take to accept a connection.
        heeds_seal: False for whoever moves documents.

    Raises:
        SettingsError: the URL cannot be used.
    """

    def __init__(self, url: str, *, namespace: str = "", connect_seconds: float = 5.0, heeds_seal: bool = True) -> None:
        self._url = SecretStr(url)
        self._namespace = namespace
        self._connect_seconds = connect_seconds
        self._client = connect(url, connect_seconds=connect_seconds, look_at=self._look_at)
        space = f"{namespace}/" if namespace else ""
        self._scripts = ScriptRunner(self._client, space=space, heeds_seal=heeds_seal)

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        self._change(key, "create", *_parts(key), *_fields(facets), body)

    def read(self, key: DocumentKey) -> bytes:
        body: bytes = self._change(key, "read", *_parts(key))[0]
        return body

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        bound_to = _fence(fence) if fence else ()
        self._change(key, "replace", *_parts(key), *_fields(facets), body, expected, *bound_to, fence=fence)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        self._change(key, "delete", *_parts(key), expected)

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        first, last = _range(tenant_id, after)
        only = () if status is None else (status,)
        return _listed(collection, self._found("page", collection, first, last, limit, *only)[0])

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        fields = iter(self._found("counts", collection)[0])
        return {_tenant_and_status(field): int(number) for field, number in zip(fields, fields, strict=True)}

    def collections(self) -> list[str]:
        return sorted(name.decode() for name in self._found("collections")[0])

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        more = 1
        while more:
            more, rows = self._found("heads", collection, per_group, _OPENED_AT_ONCE)
        return _listed(collection, rows)

    # --- claims ----------------------------------------------------------------------------------------------------

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        reserved = self._found("reserve", claim_id, ttl, *_parts_of_all(keys))[0]
        return [keys[index] for index in reserved]

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        lease = Lease(claim_id=claim_id, owner=owner)
        for index, fence, attempts in self._found("lease", claim_id, owner, ttl, *_parts_of_all(keys))[0]:
            lease.fences[keys[index]] = Fence(claim_id, int(fence))
            lease.attempts[keys[index]] = int(attempts)
        return lease

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        keys = list(lease.fences)
        held = [part for key, fence in lease.fences.items() for part in (*_parts(key), *_fence(fence))]
        return [keys[index] for index in self._found("heartbeat", ttl, *held)[0]]

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._change(key, "complete", *_parts(key), *_fence(fence), fence=fence)

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._change(key, "release", *_parts(key), *_fence(fence), int(refund), fence=fence)

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        self._found("cancel_reservation", claim_id, *_parts_of_all(keys))

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        found = self._found("claim_of", *_parts(key))
        if not found:
            return None
        claim_id, owner, state, fence, attempts, left = (field.decode() for field in found)
        return ClaimView(key, claim_id, owner, state, int(fence), int(attempts), max(0.0, float(left)))

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        fence, attempts = self._found("history_of", *_parts(key))
        return ClaimHistory(fence=int(fence), attempts=int(attempts))

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        self._found("adopt_history", *_parts(key), history.fence, history.attempts)

    # --- sealed ----------------------------------------------------------------------------------------------------

    def seal(self, successor: str) -> None:
        self._found("seal", successor)

    def unseal(self) -> None:
        self._found("unseal")

    def sealed_for(self) -> str | None:
        successor = self._found("sealed_for")[0]
        return successor.decode() if successor is not None else None

    def for_moving(self) -> Self:
        return type(self)(
            self._url.get_secret_value(),
            namespace=self._namespace,
            connect_seconds=self._connect_seconds,
            heeds_seal=False,
        )

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        self._client.connection_pool.disconnect(inuse_connections=False)  # the next call looks at the server
        try:
            self._found("sealed_for")
            with named_faults():
                return list(problems(self._client))
        except (StoreError, SettingsError) as error:
            return [f"{error.message}. {error.todo}"]

    def close(self) -> None:
        self._client.connection_pool.disconnect()

    def _look_at(self, info: ServerInfo) -> None:
        """Looks at the server whenever it is connected to, so also after it was started anew."""
        refuse_unfit(info)

    # --- how scripts are asked ---------------------------------------------------------------------------------------

    def _found(self, script: str, *given: bytes | str | float) -> list[Any]:
        """What a script found that refuses nothing by itself."""
        return self._scripts.run(script, *given)[1]

    def _change(
        self, key: DocumentKey, script: str, *given: bytes | str | float, fence: Fence | None = None
    ) -> list[Any]:
        """What a script found that is about one document.

        Raises:
            DocumentExistsError, DocumentNotFoundError, DocumentChangedError, StaleFenceError: what it refused.
        """
        outcome, found = self._scripts.run(script, *given)
        match outcome:
            case "exists":
                raise DocumentExistsError(f"{key.name} exists already")
            case "missing":
                raise DocumentNotFoundError(f"there is no {key.name}")
            case "changed":
                raise DocumentChangedError(f"{key.name} was changed meanwhile")
            case "stale" if fence:
                raise stale_fence(key, fence)
        return found


def _parts(key: DocumentKey) -> tuple[str, str, str]:
    """A key as scripts take it."""
    parts = (key.collection, key.tenant_id, key.document_id)
    for part in parts:
        if not is_safe_segment(part):
            raise StorePathUnsafeError(
                f"{part!r} cannot be part of a document's name",
                todo="Use names without slashes and control characters, of at most 200 bytes.",
            )
    return parts


def _parts_of_all(keys: Sequence[DocumentKey]) -> Iterator[str]:
    return (part for key in keys for part in _parts(key))


def _fields(facets: Facets) -> tuple[str | float, ...]:
    """Facets as scripts take them."""
    return (
        facets.status,
        facets.priority,
        facets.priority_class,
        facets.created_at,
        int(facets.waiting),
        facets.not_before,
        facets.due_at,
    )


def _fence(fence: Fence) -> tuple[str, int]:
    return fence.claim_id, fence.number


def _range(tenant_id: str | None, after: DocumentKey | None) -> tuple[bytes, bytes]:
    """The names of a page as ranges of a sorted set have them: from the cursor or the tenant's first to its last."""
    first, last = b"-", b"+"
    if tenant_id is not None:
        first, last = f"[{tenant_id}\t".encode(), f"({tenant_id}\n".encode()
    if after is not None:
        cursor = f"({after.tenant_id}\t{after.document_id}".encode()
        first = cursor if tenant_id is None or cursor[1:] >= first[1:] else first
    return first, last


def _listed(collection: str, rows: list[list[bytes]]) -> list[Listed]:
    return [_row(collection, row) for row in rows]


def _row(collection: str, row: list[bytes]) -> Listed:
    """A row of a listing; its fields are in the order of `add_row` in the prelude."""
    tenant_id, document_id, *fields = (field.decode() for field in row)
    status, priority, created_at, waiting, not_before, due_at = fields
    facets = Facets(status, int(priority), created_at, waiting == "1", float(not_before), float(due_at))
    return Listed(DocumentKey(collection, tenant_id, document_id), facets)


def _tenant_and_status(field: bytes) -> tuple[str, str]:
    tenant_id, _, status = field.decode().partition("\t")
    return tenant_id, status
