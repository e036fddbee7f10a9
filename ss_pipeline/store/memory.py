"""The store in memory: for tests and trials. It keeps every promise of store/base.py but one: it forgets at exit."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import groupby, islice
from threading import RLock
from typing import Self

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StoreSealedError,
)
from ss_pipeline.store.base import Backend, ClaimHistory, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.store.claim_records import ClaimRecord, LeaseMoment


class MemoryBackend(Backend):
    """Documents and claims of one process, safe among its threads.

    Args:
        clock: The lease clock: seconds that never go back.
        wall: Epoch seconds, against which `Facets.not_before` is held.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._lock = RLock()
        self._documents: dict[DocumentKey, tuple[bytes, Facets]] = {}
        self._claims: dict[DocumentKey, ClaimRecord] = {}
        self._successors: list[str] = []
        self._heeds_seal = True

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        with self._changing():
            if key in self._documents:
                raise DocumentExistsError(f"{key.document_id!r} exists already")
            self._documents[key] = (body, facets)

    def read(self, key: DocumentKey) -> bytes:
        with self._lock:
            if key not in self._documents:
                raise DocumentNotFoundError(f"there is no {key.document_id!r}")
            return self._documents[key][0]

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        with self._changing():
            stored = self.read(key)
            if fence is not None:
                self._record(key).check_fence(key, fence, at=self._now())
            if stored != expected:
                raise DocumentChangedError(f"{key.document_id!r} was changed meanwhile")
            self._documents[key] = (body, facets)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        with self._changing():
            if self.read(key) != expected:
                raise DocumentChangedError(f"{key.document_id!r} was changed meanwhile")
            del self._documents[key]

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        wanted = (
            listed
            for listed in self._listed(collection)
            if (tenant_id is None or listed.key.tenant_id == tenant_id)
            and (status is None or listed.facets.status == status)
            and (after is None or listed.key > after)
        )
        return list(islice(wanted, limit))

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        result: dict[tuple[str, str], int] = {}
        for listed in self._listed(collection):
            of = (listed.key.tenant_id, listed.facets.status)
            result[of] = result.get(of, 0) + 1
        return result

    def collections(self) -> list[str]:
        with self._lock:
            return sorted({key.collection for key in self._documents})

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        with self._lock:
            at, wall = self._now(), self._wall()
            waiting = [
                listed
                for listed in self._listed(collection)
                if listed.facets.waiting
                and listed.facets.not_before <= wall
                and not self._record(listed.key).is_live(at)
            ]
        waiting.sort(key=lambda listed: (*_group(listed), listed.facets.due_at))
        return [head for _, group in groupby(waiting, key=_group) for head in islice(group, per_group)]

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        with self._changing():
            return [
                key
                for key in keys
                if self._enter(key, self._record(key).reserved_for(claim_id, ttl=ttl, at=self._now()))
            ]

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        lease = Lease(claim_id=claim_id, owner=owner)
        with self._changing():
            for key in keys:
                leased = self._record(key).leased_to(owner, claim_id=claim_id, ttl=ttl, at=self._now())
                if leased and self._enter(key, leased):
                    lease.fences[key] = Fence(claim_id, leased.fence)
                    lease.attempts[key] = leased.attempts
        return lease

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        with self._lock:
            at = self._now()
            beats = {key: self._record(key).prolonged(fence, ttl=ttl, at=at) for key, fence in lease.fences.items()}
            return [key for key, record in beats.items() if self._enter(key, record)]

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        with self._lock:
            self._claims[key] = self._record(key).completed(key, fence)

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        with self._lock:
            self._claims[key] = self._record(key).released(key, fence, refund=refund)

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        with self._lock:
            for key in keys:
                self._enter(key, self._record(key).cancelled(claim_id))

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        with self._lock:
            return self._record(key).view(key, at=self._now())

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        with self._lock:
            return self._record(key).history()

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        with self._changing():
            self._enter(key, self._record(key).continued(history, at=self._now()))

    def seal(self, successor: str) -> None:
        with self._lock:
            self._successors[:] = [successor]

    def unseal(self) -> None:
        with self._lock:
            self._successors.clear()

    def sealed_for(self) -> str | None:
        with self._lock:
            return next(iter(self._successors), None)

    def for_moving(self) -> Self:
        mover = copy(self)
        mover._heeds_seal = False  # noqa: SLF001 - its own copy
        return mover

    def check(self) -> list[str]:
        return []

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            if self._successors and self._heeds_seal:
                raise StoreSealedError(self._successors[0])
            yield

    def _now(self) -> LeaseMoment:
        return LeaseMoment(self._clock())

    def _record(self, key: DocumentKey) -> ClaimRecord:
        return self._claims.get(key, ClaimRecord())

    def _enter(self, key: DocumentKey, record: ClaimRecord | None) -> bool:
        if record is None or key not in self._documents:
            return False
        self._claims[key] = record
        return True

    def _listed(self, collection: str) -> list[Listed]:
        with self._lock:
            keys = sorted(key for key in self._documents if key.collection == collection)
            return [Listed(key, self._documents[key][1]) for key in keys]


def _group(listed: Listed) -> tuple[str, str]:
    return listed.key.tenant_id, listed.facets.priority_class
