"""What a job store must do, said once in plain dictionaries: the reference that every back end is compared with.

It knows no locks, files, servers or retries, and of the package only what is pure: migration, rendering, facets. The
steps that are compared are store_machine.py's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    JobDataCorruptedError,
    JobExistsError,
    JobNotFoundError,
    JobRollbackRefusedError,
    JobVersionConflictError,
    StaleFenceError,
)
from ss_pipeline.jobs.documents import parse_document, render_document
from ss_pipeline.jobs.migrations import Migration, migrate_payload_to_current
from ss_pipeline.jobs.model import Job, job_from_payload
from ss_pipeline.store.base import ClaimHistory, DocumentKey, Facets, Fence
from ss_pipeline.store.jobs import JOBS, ORIGINALS, facets_of_body, job_key


@dataclass
class Hold:
    """A reservation or a lease, live or lapsed, until another takes its place."""

    state: Literal["reserved", "leased"]
    claim_id: str
    owner: str
    until: float


@dataclass
class ClaimState:
    """What is known of a document's claims; it outlives the document."""

    hold: Hold | None = None
    fence: int = 0
    attempts: int = 0


NOTHING: Final = ClaimState()


class StoreModel:
    """A job store of dictionaries. Its methods return and raise what the store's must.

    Args:
        wall: Epoch seconds at the start; the model's time moves only when told.
    """

    def __init__(self, *, wall: float) -> None:
        self.wall = wall
        self.bodies: dict[DocumentKey, bytes] = {}
        self.claims: dict[DocumentKey, ClaimState] = {}
        self.parked_until: dict[DocumentKey, float] = {}
        """By the model's clock; the time in a job is by its store's, and a server's clock does not move in tests."""

    # --- documents -------------------------------------------------------------------------------------------------

    def put(self, key: DocumentKey, body: bytes) -> None:
        """Creates a document of any bytes."""
        if key in self.bodies:
            raise DocumentExistsError("there")
        self.bodies[key] = body

    def replace(self, key: DocumentKey, body: bytes, *, expected: bytes) -> None:
        """Compares and sets the bytes of a document."""
        if key not in self.bodies:
            raise DocumentNotFoundError("gone")
        if self.bodies[key] != expected:
            raise DocumentChangedError("other bytes")
        self.bodies[key] = body

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        """Removes a document; its claims stay."""
        self.replace(key, b"", expected=expected)
        del self.bodies[key]

    def create(self, job: Job) -> Job:
        """Stores a new job."""
        if job_key(job.job_id, job.tenant_id) in self.bodies:
            raise JobExistsError(job.job_id, tenant_id=job.tenant_id)
        self.bodies[job_key(job.job_id, job.tenant_id)] = render_document(job.as_payload())
        return job

    def job(self, key: DocumentKey) -> Job:
        """The stored job at the current schema; writes nothing."""
        return job_from_payload(self._migration(self._body(key)).payload)

    def is_older(self, key: DocumentKey) -> bool:
        """Whether a load would migrate the document."""
        try:
            return self._migration(self._body(key)).changed
        except (JobNotFoundError, JobDataCorruptedError):
            return False

    def load(self, key: DocumentKey) -> Job:
        """The stored job, migrated where it was older, its original bytes kept."""
        body = self._body(key)
        migration = self._migration(body)
        if migration.changed:
            self.bodies[_original_of(key)] = body
            self.bodies[key] = render_document(migration.payload)
        return self.job(key)

    def save(self, job: Job, *, fence: Fence | None = None) -> Job:
        """Compares and sets the version, under a fence where one is given."""
        key = job_key(job.job_id, job.tenant_id)
        stored = self.job(key)
        if stored.version != job.version:
            raise JobVersionConflictError(job.job_id, expected_version=job.version, actual_version=stored.version)
        if fence is not None and not self._is_live(key, fence):
            raise StaleFenceError("lost")
        saved = job.changed(version=job.version + 1)
        self.bodies[key] = render_document(saved.as_payload())
        return saved

    def update(self, key: DocumentKey, change: Callable[[Job], Job]) -> Job:
        """Loads, changes and saves, unless nothing changed."""
        job = self.load(key)
        changed = change(job)
        return job if changed == job else self.save(changed)

    def roll_back(self, key: DocumentKey) -> bool:
        """Puts the original bytes back where nothing was saved since."""
        original = self.bodies.get(_original_of(key))
        if original is None:
            return False
        if self._body(key) not in {original, render_document(self._migration(original).payload)}:
            raise JobRollbackRefusedError("saved since")
        self.bodies[key] = self.bodies.pop(_original_of(key))
        return True

    # --- claims ----------------------------------------------------------------------------------------------------

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        """Reserves what is free, or reserved under the same claim."""
        taken = [key for key in keys if self.is_open(key, claim_id)]
        for key in taken:
            self._claim(key).hold = Hold("reserved", claim_id, "", self.wall + ttl)
        return taken

    def leasable(self, keys: Sequence[DocumentKey], *, claim_id: str) -> list[DocumentKey]:
        """What a lease under this claim would get."""
        return [key for key in keys if self.is_open(key, claim_id)]

    def leased(self, key: DocumentKey, fence: Fence, *, owner: str, ttl: float) -> int:
        """Enters a lease with the number its store gave, which must be higher than all before; returns the attempt."""
        claim = self._claim(key)
        assert fence.number > claim.fence, f"fence {fence.number} after {claim.fence}"
        claim.hold, claim.fence = Hold("leased", fence.claim_id, owner, self.wall + ttl), fence.number
        claim.attempts += 1
        return claim.attempts

    def heartbeat(self, fences: dict[DocumentKey, Fence], *, ttl: float) -> list[DocumentKey]:
        """Prolongs what is still held."""
        kept = [key for key, fence in fences.items() if key in self.bodies and self._is_live(key, fence)]
        for key in kept:
            self._hold(key).until = self.wall + ttl
        return kept

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        """Ends a lease, also a lapsed one that nobody followed; the attempts start anew."""
        self._free(key, fence)
        self.claims[key].attempts = 0

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool) -> None:
        """Gives a document back, the attempt counted or not."""
        self._free(key, fence)
        self.claims[key].attempts -= refund and self.claims[key].attempts > 0

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        """Frees what this claim reserved."""
        for key in keys:
            hold = self.claims.get(key, NOTHING).hold
            if key in self.bodies and hold and (hold.state, hold.claim_id) == ("reserved", claim_id):
                self.claims[key].hold = None

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        """Goes on from another store's history, where nobody holds the document."""
        if key in self.bodies and not self.live_hold(key):
            claim = self._claim(key)
            claim.fence, claim.attempts = max(claim.fence, history.fence), history.attempts

    # --- what is shown ---------------------------------------------------------------------------------------------

    def facets(self, key: DocumentKey) -> Facets:
        """What a document is listed by."""
        return facets_of_body(key, self.bodies[key])

    def page(
        self, *, tenant_id: str | None, status: str | None, after: DocumentKey | None, limit: int
    ) -> list[DocumentKey]:
        """A page of jobs in key order."""
        keys = sorted(key for key in self.bodies if key.collection == JOBS)
        of_tenant = [key for key in keys if tenant_id is None or key.tenant_id == tenant_id]
        of_status = [key for key in of_tenant if status is None or self.facets(key).status == status]
        return [key for key in of_status if after is None or key > after][:limit]

    def counts(self) -> dict[tuple[str, str], int]:
        """Jobs for each tenant and status."""
        found = sorted((key.tenant_id, self.facets(key).status) for key in self.bodies if key.collection == JOBS)
        return {of: len(list(group)) for of, group in groupby(found)}

    def heads(self, *, per_group: int) -> dict[tuple[str, str], list[DocumentKey]]:
        """Who is next: for each tenant and class the first waiting jobs that nobody holds and whose time has come."""
        groups: dict[tuple[str, str], list[DocumentKey]] = {}
        waiting = [key for key in self.bodies if key.collection == JOBS and self._waits(key)]
        for key in sorted(waiting, key=self._turn):
            groups.setdefault((key.tenant_id, self.facets(key).priority_class), []).append(key)
        return {of: group[:per_group] for of, group in groups.items()}

    def live_hold(self, key: DocumentKey) -> Hold | None:
        """Who holds a document now."""
        hold = self.claims.get(key, NOTHING).hold
        return hold if key in self.bodies and hold and self.wall < hold.until else None

    def history(self, key: DocumentKey) -> ClaimHistory:
        """The last fence and the attempts."""
        claim = self.claims.get(key, NOTHING)
        return ClaimHistory(claim.fence, claim.attempts)

    def is_open(self, key: DocumentKey, claim_id: str) -> bool:
        """Whether a claim may reserve or lease a document."""
        hold = self.live_hold(key)
        return key in self.bodies and (hold is None or (hold.state, hold.claim_id) == ("reserved", claim_id))

    def has_lapsed_lease(self, key: DocumentKey) -> bool:
        """Whether a lease ran out and nobody followed it yet."""
        hold = self.claims.get(key, NOTHING).hold
        return hold is not None and hold.state == "leased" and hold.until <= self.wall

    def _body(self, key: DocumentKey) -> bytes:
        if key not in self.bodies:
            raise JobNotFoundError(key.document_id, tenant_id=key.tenant_id)
        return self.bodies[key]

    @staticmethod
    def _migration(body: bytes) -> Migration:
        return migrate_payload_to_current(parse_document(body))

    def _claim(self, key: DocumentKey) -> ClaimState:
        return self.claims.setdefault(key, ClaimState())

    def _hold(self, key: DocumentKey) -> Hold:
        hold = self.claims[key].hold
        assert hold
        return hold

    def _is_of(self, key: DocumentKey, fence: Fence) -> bool:
        claim = self.claims.get(key, NOTHING)
        holder = claim.hold and (claim.hold.state, claim.hold.claim_id, claim.fence)
        return holder == ("leased", fence.claim_id, fence.number)

    def _is_live(self, key: DocumentKey, fence: Fence) -> bool:
        return self._is_of(key, fence) and self.wall < self._hold(key).until

    def _free(self, key: DocumentKey, fence: Fence) -> None:
        if not self._is_of(key, fence):
            raise StaleFenceError("lost")
        self.claims[key].hold = None

    def _waits(self, key: DocumentKey) -> bool:
        facets = self.facets(key)
        is_due = not facets.not_before or self.parked_until[key] <= self.wall
        return facets.waiting and is_due and self.live_hold(key) is None

    def _turn(self, key: DocumentKey) -> tuple[float, str]:
        return self.facets(key).due_at, key.document_id


def _original_of(key: DocumentKey) -> DocumentKey:
    return DocumentKey(ORIGINALS, key.tenant_id, key.document_id)
