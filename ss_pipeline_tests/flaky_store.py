"""A store that fails on command, before or after a call had its effect, and a time that passes by sleeping only."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias, TypeVar

from ss_pipeline.errors import StoreUnavailableError
from ss_pipeline.store.base import Backend, ClaimHistory, ClaimView, DocumentKey, Facets, Fence, Lease, Listed

Answer = TypeVar("Answer")
Failure: TypeAlias = Literal["no", "before", "after"]
"""What becomes of a call: answered, failed without an effect, or done with its answer lost."""


@dataclass
class SleptClock:
    """Seconds that pass by sleeping only."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Lets them pass."""
        self.seconds += seconds


class FlakyBackend(Backend):
    """Another back end behind a line that breaks.

    Args:
        inner: The back end.
        failures: What becomes of each call in turn; all are answered once they are used up.
        error: What a broken call raises.
    """

    def __init__(
        self,
        inner: Backend,
        failures: Iterable[Failure] = (),
        *,
        error: Callable[[], StoreUnavailableError] = lambda: StoreUnavailableError("the line broke"),
    ) -> None:
        self._inner = inner
        self._failures = deque(failures)
        self._error = error
        self.calls: list[str] = []

    def fail_next(self, *failures: Failure) -> None:
        """Gives the next calls other failures than were planned."""
        self._failures.clear()
        self._failures.extend(failures)

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        self._call("create", lambda: self._inner.create(key, body, facets))

    def read(self, key: DocumentKey) -> bytes:
        return self._call("read", lambda: self._inner.read(key))

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        self._call("replace", lambda: self._inner.replace(key, body, facets, expected=expected, fence=fence))

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        self._call("delete", lambda: self._inner.delete(key, expected=expected))

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        return self._call(
            "page",
            lambda: self._inner.page(collection, tenant_id=tenant_id, status=status, after=after, limit=limit),
        )

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        return self._call("counts", lambda: self._inner.counts(collection))

    def collections(self) -> list[str]:
        return self._call("collections", self._inner.collections)

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        return self._call("heads", lambda: self._inner.heads(collection, per_group=per_group))

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        return self._call("reserve", lambda: self._inner.reserve(keys, claim_id=claim_id, ttl=ttl))

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        return self._call("lease", lambda: self._inner.lease(keys, claim_id=claim_id, owner=owner, ttl=ttl))

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        return self._call("heartbeat", lambda: self._inner.heartbeat(lease, ttl=ttl))

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._call("complete", lambda: self._inner.complete(key, fence))

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._call("release", lambda: self._inner.release(key, fence, refund=refund))

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        self._call("cancel_reservation", lambda: self._inner.cancel_reservation(keys, claim_id=claim_id))

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        return self._call("claim_of", lambda: self._inner.claim_of(key))

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        return self._call("history_of", lambda: self._inner.history_of(key))

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        self._call("adopt_history", lambda: self._inner.adopt_history(key, history))

    def seal(self, successor: str) -> None:
        self._call("seal", lambda: self._inner.seal(successor))

    def unseal(self) -> None:
        self._call("unseal", self._inner.unseal)

    def sealed_for(self) -> str | None:
        return self._call("sealed_for", self._inner.sealed_for)

    def for_moving(self) -> Self:
        mover = type(self)(self._inner.for_moving(), error=self._error)
        mover._failures, mover.calls = self._failures, self.calls
        return mover

    def check(self) -> list[str]:
        return self._inner.check()

    def _call(self, name: str, act: Callable[[], Answer]) -> Answer:
        self.calls.append(name)
        failure = self._failures.popleft() if self._failures else "no"
        if failure == "before":
            raise self._error()
        answer = act()
        if failure == "after":
            raise self._error()
        return answer
