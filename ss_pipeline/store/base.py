"""The two ports a back end implements: documents (exclusive create, compare-and-set) and claims (lease, fence).

Add here what every back end must promise; the contract suite in ss_pipeline_tests proves it on each. Anything about
jobs (schema, migration, versions) belongs in store/jobs.py, which is written once on top of these ports.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from ss_pipeline.errors import StaleFenceError
from ss_pipeline.jobs.model import PriorityClass, class_of


@dataclass(frozen=True, order=True)
class DocumentKey:
    """The name of a document: which collection, whose, and its id. All three are safe segments."""

    collection: str
    tenant_id: str
    document_id: str

    @property
    def name(self) -> str:
        """The document as messages name it: `jobs/default/job_…`."""
        return f"{self.collection}/{self.tenant_id}/{self.document_id}"


@dataclass(frozen=True)
class Facets:
    """What a document is listed and queued by; derived from its body by whoever writes it.

    Args:
        status: The status, or "" for collections without one.
        priority: What the class goes by.
        created_at: ISO 8601 UTC.
        waiting: Whether the document waits for a claim (status claimable, not held, not parked).
        not_before: Epoch seconds before which it is not offered for a claim (parked); 0 = at once.
        due_at: Its place in the queue of its tenant and class: epoch seconds, lower is sooner.
    """

    status: str = ""
    priority: int = 0
    created_at: str = ""
    waiting: bool = False
    not_before: float = 0.0
    due_at: float = 0.0

    @property
    def priority_class(self) -> PriorityClass:
        """As for jobs."""
        return class_of(self.priority)


@dataclass(frozen=True)
class Listed:
    """A row of a listing: the key and its facets, without the body."""

    key: DocumentKey
    facets: Facets


@dataclass(frozen=True)
class Fence:
    """The right to write one document: the claim and the number its lease was given. Higher numbers win."""

    claim_id: str
    number: int


def stale_fence(key: DocumentKey, fence: Fence) -> StaleFenceError:
    """The error for whoever acts under a claim that holds the document no longer."""
    return StaleFenceError(f"{key.name}: claim {fence.claim_id!r} no longer holds it (fence {fence.number})")


@dataclass(frozen=True)
class Lease:
    """One claim's hold on documents. `fences[key].number` grows with every lease of that document.

    `attempts[key]` counts leases since the document was last completed (this one included).
    """

    claim_id: str
    owner: str
    fences: dict[DocumentKey, Fence] = field(default_factory=dict)
    attempts: dict[DocumentKey, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaimView:
    """Who holds a document now: `state` is "reserved" (by a sensor, for a run to come) or "leased" (by a run)."""

    key: DocumentKey
    claim_id: str
    owner: str
    state: str
    fence: int
    attempts: int
    expires_in: float
    """Seconds until it expires; never negative."""


@dataclass(frozen=True)
class ClaimHistory:
    """What outlives a claim: the last fence number given, and the leases since the document was last completed."""

    fence: int = 0
    attempts: int = 0


class DocumentStore(ABC):
    """Documents as bytes under keys. Every method is atomic and, once it returns, survives kill -9 and power loss.

    Every method raises StoreUnavailableError where the medium fails: then all of the change is there or nothing of it,
    and where the answer got lost on its way a write does not know which. Every change raises StoreSealedError where the
    store is sealed.
    """

    @abstractmethod
    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        """Creates a document exclusively.

        Raises:
            DocumentExistsError: one is there already; exactly one of many creators succeeds.
            StoreUnavailableError: the medium failed; nothing was created.
        """

    @abstractmethod
    def read(self, key: DocumentKey) -> bytes:
        """The bytes as they were last written.

        Raises:
            DocumentNotFoundError: there is none.
        """

    @abstractmethod
    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        """Compare-and-set: writes `body` only if the stored bytes are `expected` and the fence, if given, is live.

        Without a fence the write is not bound to a claim (a person's decision, an administrative change).

        Raises:
            DocumentNotFoundError, DocumentChangedError, StaleFenceError, StoreUnavailableError: nothing was written.
        """

    @abstractmethod
    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        """Removes a document if its bytes are `expected`.

        Raises:
            DocumentNotFoundError, DocumentChangedError: nothing was removed.
        """

    @abstractmethod
    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        """A page in key order after `after`; filters are optional. The last key is the cursor of the next page."""

    @abstractmethod
    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        """How many documents there are for each (tenant, status)."""

    @abstractmethod
    def collections(self) -> list[str]:
        """The collections that have documents, sorted."""

    @abstractmethod
    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        """Who is next: of each (tenant, priority class) the first `per_group` waiting documents that no live claim
        holds, by `due_at`, then by id. The cost does not grow with the backlog behind them."""


class ClaimStore(ABC):
    """Leased rights to work on documents, kept outside the documents so that a heartbeat is no new version.

    A document is free, reserved (by a sensor for a run to come; expires), or leased (by a run; kept by heartbeat).
    An expired reservation or lease counts as free. Time is the store's own clock.
    """

    @abstractmethod
    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        """Reserves those of the documents that are free, for `ttl` seconds; returns them in the given order.

        What is reserved under the same claim counts as free: its reservation is prolonged.
        """

    @abstractmethod
    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        """Leases those of the documents that are free or reserved under this claim id; a run's first act.

        Each gets a new, higher fence number, and its attempt count goes up by one. A document that another claim
        holds is not in the result.
        """

    @abstractmethod
    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        """Prolongs the lease by `ttl` from now; returns the keys that are still held (the others are lost)."""

    @abstractmethod
    def complete(self, key: DocumentKey, fence: Fence) -> None:
        """Ends the lease on a document whose work is done; its attempt count starts anew.

        This and `release` are accepted from a lease whose time is up as long as nobody else took the document; a
        `replace` under such a lease is not.

        Raises:
            StaleFenceError: another claim has it now.
        """

    @abstractmethod
    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        """Gives a document back unworked; with `refund` this attempt does not count.

        Raises:
            StaleFenceError: another claim has it now.
        """

    @abstractmethod
    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        """Frees documents reserved (not leased) under this claim id; others are left alone."""

    @abstractmethod
    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        """Who holds the document now, or None."""

    @abstractmethod
    def history_of(self, key: DocumentKey) -> ClaimHistory:
        """What is kept of the document's claims, also while nobody holds it."""

    @abstractmethod
    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        """Goes on from the history of another store: later fences are above both, the attempts are those given.

        A document that is held or not there is left as it is.
        """

    def attempts_of(self, key: DocumentKey) -> int:
        """Leases of this document since it was last completed."""
        return self.history_of(key).attempts


class Backend(DocumentStore, ClaimStore):
    """Both ports on one medium: what store/memory.py, store/file.py and later back ends implement."""

    @abstractmethod
    def seal(self, successor: str) -> None:
        """Refuses every change of a document and every new claim from now on, because `successor` has the documents.

        Once this returns, no change that began earlier is still to come. What runs hold already they may prolong and
        give back. It holds for every process, and until `unseal`.

        Raises:
            StoreLockedError: a change in progress did not end in time; the store is not sealed.
        """

    @abstractmethod
    def unseal(self) -> None:
        """Takes changes again; nothing where it is not sealed."""

    @abstractmethod
    def sealed_for(self) -> str | None:
        """The successor that a sealed store names, else None."""

    @abstractmethod
    def for_moving(self) -> Self:
        """The same store for whoever moves documents into it: what is changed through this object passes the seal."""

    @abstractmethod
    def check(self) -> list[str]:
        """Problems found with the medium (for `ss-pipeline doctor`); empty where all is well."""

    def close(self) -> None:
        """Lets go of connections and descriptors; the object is not used afterwards."""
