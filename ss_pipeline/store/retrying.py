"""A store that waits out a server which does not answer for a while, with the interface of a back end.

A call that failed may have changed something all the same: the answer got lost, not the request. So a change is never
just tried again; the second try looks at what the first one left. What a server is and how it fails is the back ends'
business, and who goes without waiting wraps nothing.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final, Self, TypeVar

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreLockedError,
    StoreSealedError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import Backend, ClaimHistory, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.telemetry.events import emit

Answer = TypeVar("Answer")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0


class RetryingBackend(Backend):
    """Waits for a back end that raises StoreUnavailableError; a sealed store or a held lock is no such case.

    A change whose outcome is unknown is settled by looking. Where another has changed the document since, a change
    that did take effect may be reported as refused. A document that a second try of `delete` does not find counts as
    deleted, a lease that a second try finds ended and held by nobody as ended by the first.

    Args:
        inner: The back end.
        patience: Most seconds to wait from the first failure of a call on; then its error is raised.
        sleep, clock: Time, in seconds.
        jitter: From 0 to 1: what part of the second half of a pause is slept, so that callers do not come back as one.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        patience: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner = inner
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter

    # --- changes that are settled by looking ------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        def again() -> None:
            try:
                self._inner.create(key, body, facets)
            except DocumentExistsError:
                if not self._is_stored(key, body):
                    raise

        self._patiently(lambda: self._inner.create(key, body, facets), again=again)

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        def replace() -> None:
            self._inner.replace(key, body, facets, expected=expected, fence=fence)

        def again() -> None:
            try:
                replace()
            except (DocumentChangedError, StaleFenceError):
                if not self._is_stored(key, body):
                    raise

        self._patiently(replace, again=again)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        def again() -> None:
            try:
                self._inner.delete(key, expected=expected)
            except DocumentNotFoundError:
                return

        self._patiently(lambda: self._inner.delete(key, expected=expected), again=again)

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        def lease() -> Lease:
            return self._inner.lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)

        def again() -> Lease:
            return self._completed_by_looking(lease(), keys)

        return self._patiently(lease, again=again)

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._end_lease(key, fence, lambda: self._inner.complete(key, fence))

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._end_lease(key, fence, lambda: self._inner.release(key, fence, refund=refund))

    # --- calls that may be made twice -------------------------------------------------------------------------------

    def read(self, key: DocumentKey) -> bytes:
        return self._patiently(lambda: self._inner.read(key))

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        return self._patiently(
            lambda: self._inner.page(collection, tenant_id=tenant_id, status=status, after=after, limit=limit)
        )

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        return self._patiently(lambda: self._inner.counts(collection))

    def collections(self) -> list[str]:
        return self._patiently(self._inner.collections)

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        return self._patiently(lambda: self._inner.heads(collection, per_group=per_group))

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        return self._patiently(lambda: self._inner.reserve(keys, claim_id=claim_id, ttl=ttl))

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        return self._patiently(lambda: self._inner.heartbeat(lease, ttl=ttl))

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        self._patiently(lambda: self._inner.cancel_reservation(keys, claim_id=claim_id))

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        return self._patiently(lambda: self._inner.claim_of(key))

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        return self._patiently(lambda: self._inner.history_of(key))

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        self._patiently(lambda: self._inner.adopt_history(key, history))

    def seal(self, successor: str) -> None:
        self._patiently(lambda: self._inner.seal(successor))

    def unseal(self) -> None:
        self._patiently(self._inner.unseal)

    def sealed_for(self) -> str | None:
        return self._patiently(self._inner.sealed_for)

    def for_moving(self) -> Self:
        return type(self)(
            self._inner.for_moving(),
            patience=self._patience,
            sleep=self._sleep,
            clock=self._clock,
            jitter=self._jitter,
        )

    def check(self) -> list[str]:
        return self._inner.check()

    def close(self) -> None:
        self._inner.close()

    # --- how ----------------------------------------------------------------------------------------------------------

    def _patiently(self, call: Callable[[], Answer], *, again: Callable[[], Answer] | None = None) -> Answer:
        """What the call answers in the end; after a failure `again` is called in its place, which looks first."""
        pauses = self._pauses()
        while True:
            try:
                return call()
            except (StoreSealedError, StoreLockedError):
                raise
            except StoreUnavailableError as error:
                pause = next(pauses, None)
                if pause is None:
                    raise
                emit("SS_STORE_WAITING", level=logging.WARNING, code=error.error_code, pause_seconds=round(pause, 3))
            self._sleep(pause)
            call = again or call

    def _pauses(self) -> Iterator[float]:
        """Seconds, twice as many each time, until the patience that begins now is at its end."""
        end = self._clock() + self._patience
        for tries in count():
            left = end - self._clock()
            if left <= 0:
                return
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(tries, 10))
            yield min(left, pause * (1 + self._jitter()) / 2)

    def _is_stored(self, key: DocumentKey, body: bytes) -> bool:
        try:
            return self._inner.read(key) == body
        except DocumentNotFoundError:
            return False

    def _completed_by_looking(self, lease: Lease, keys: Sequence[DocumentKey]) -> Lease:
        """The lease with what an earlier try leased under the same claim for the same owner, in the order of `keys`."""
        whole = Lease(lease.claim_id, lease.owner)
        for key in keys:
            if key in lease.fences:
                whole.fences[key], whole.attempts[key] = lease.fences[key], lease.attempts[key]
                continue
            view = self._inner.claim_of(key)
            if view and (view.state, view.claim_id, view.owner) == ("leased", lease.claim_id, lease.owner):
                whole.fences[key], whole.attempts[key] = Fence(view.claim_id, view.fence), view.attempts
        return whole

    def _end_lease(self, key: DocumentKey, fence: Fence, end: Callable[[], None]) -> None:
        def again() -> None:
            try:
                end()
            except StaleFenceError:
                if self._inner.history_of(key).fence != fence.number or self._inner.claim_of(key) is not None:
                    raise

        self._patiently(end, again=again)
