"""A store whose every change is brought to a second one, too, with the interface of a back end.

It is used while documents move: the second store stays in line with the first under live writers, before a switch and
after it for the way back. The first one alone decides; what the second one misses, the next copy brings (copying.py).
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Self

from ss_pipeline.errors import StoreError, StoreUnavailableError
from ss_pipeline.store.base import Backend, ClaimHistory, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.store.syncing import FacetsOf, NamedBackend, synced
from ss_pipeline.telemetry.events import emit

_REST: Final = 30.0


class MirroringBackend(Backend):
    """Reads and claims go to the primary; a change of a document goes there and is then followed by the mirror.

    The mirror is a sealed store that follows the primary (syncing.py). One that was never used is sealed by the first
    change; one that takes changes of others is left alone. A mirror that fails or is left alone costs no change: the
    event SS_STORE_MIRROR_BEHIND names the document.

    Args:
        primary: The store that decides.
        mirror: The store that follows.
        facets_of: What a document is listed by in the mirror; must not raise.
        name: What the primary is called in the mirror's seal.
        rest: Seconds for which a mirror that did not answer is not tried again, so that not every change waits for it.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        primary: Backend,
        mirror: Backend,
        *,
        facets_of: FacetsOf,
        name: str = "primary",
        rest: float = _REST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._primary = primary
        self._mirror = mirror
        self._facets_of = facets_of
        self._source = NamedBackend(name, primary)
        self._target = NamedBackend("mirror", mirror.for_moving())
        self._rest = rest
        self._clock = clock
        self._rests_until = float("-inf")
        self._is_prepared = False

    # --- changes of documents ---------------------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        self._primary.create(key, body, facets)
        self._follow(key)

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        self._primary.replace(key, body, facets, expected=expected, fence=fence)
        self._follow(key)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        self._primary.delete(key, expected=expected)
        self._follow(key)

    # --- all else is the primary's ----------------------------------------------------------------------------------

    def read(self, key: DocumentKey) -> bytes:
        return self._primary.read(key)

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        return self._primary.page(collection, tenant_id=tenant_id, status=status, after=after, limit=limit)

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        return self._primary.counts(collection)

    def collections(self) -> list[str]:
        return self._primary.collections()

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        return self._primary.heads(collection, per_group=per_group)

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        return self._primary.reserve(keys, claim_id=claim_id, ttl=ttl)

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        return self._primary.lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        return self._primary.heartbeat(lease, ttl=ttl)

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._primary.complete(key, fence)

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._primary.release(key, fence, refund=refund)

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        self._primary.cancel_reservation(keys, claim_id=claim_id)

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        return self._primary.claim_of(key)

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        return self._primary.history_of(key)

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        self._primary.adopt_history(key, history)

    def seal(self, successor: str) -> None:
        self._primary.seal(successor)

    def unseal(self) -> None:
        self._primary.unseal()

    def sealed_for(self) -> str | None:
        return self._primary.sealed_for()

    def for_moving(self) -> Self:
        return type(self)(
            self._primary.for_moving(),
            self._mirror,
            facets_of=self._facets_of,
            name=self._source.name,
            rest=self._rest,
            clock=self._clock,
        )

    def check(self) -> list[str]:
        return [*self._primary.check(), *(f"the mirror: {problem}" for problem in self._problems_of_mirror())]

    def close(self) -> None:
        self._primary.close()
        self._target.backend.close()
        self._mirror.close()

    # --- the mirror ---------------------------------------------------------------------------------------------------

    def _follow(self, key: DocumentKey) -> None:
        """Brings the mirror in line with a change that stands, whatever becomes of this."""
        if self._clock() < self._rests_until:
            _emit_behind(key, StoreUnavailableError.code)
            return
        try:
            self._prepare()
            synced(self._source, self._target, key, facets_of=self._facets_of)
        except StoreError as error:
            _emit_behind(key, error.error_code)
            if isinstance(error, StoreUnavailableError):
                self._rests_until = self._clock() + self._rest

    def _prepare(self) -> None:
        """Seals a mirror that was never used, once."""
        if self._is_prepared:
            return
        mirror = self._target.backend
        if mirror.sealed_for() is None and not mirror.collections():
            mirror.seal(self._source.name)
        self._is_prepared = True

    def _problems_of_mirror(self) -> list[str]:
        if problems := self._mirror.check():
            return problems
        try:
            followed = self._target.follows(self._source) or not self._mirror.collections()
        except StoreUnavailableError as error:
            return [f"{error.message}. {error.todo}"]
        return [] if followed else ["it does not follow this store; copy into it first: ss-pipeline store copy"]


def _emit_behind(key: DocumentKey, code: str) -> None:
    emit(
        "SS_STORE_MIRROR_BEHIND",
        level=logging.WARNING,
        collection=key.collection,
        tenant_id=key.tenant_id,
        document_id=key.document_id,
        code=code,
    )
