"""The contract suite judged: stores that are broken on purpose, each caught by a case of the suite itself."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import pytest

from ss_pipeline.store.base import Backend, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.store.claim_records import ClaimRecord, LeaseMoment
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.store_contract import CASES, MovedClock, Stand, create_race


class NoVersionCheck(MemoryBackend):
    """Replaces whatever is there."""

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        super().replace(key, body, facets, expected=self.read(key), fence=fence)


class NoFenceCheck(MemoryBackend):
    """Replaces under any fence."""

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        super().replace(key, body, facets, expected=expected)


class OverwritingCreate(MemoryBackend):
    """Creates over what is there."""

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        self._documents.pop(key, None)
        super().create(key, body, facets)


class CheckThenCreate(MemoryBackend):
    """Looks whether it is there, then creates: not one step."""

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        if key not in self._documents:
            time.sleep(0.0005)
            self._documents.pop(key, None)
        super().create(key, body, facets)


class ExpiredLeaseStillSaves(MemoryBackend):
    """Checks whose the fence is, not whether its time is up."""

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        record = self._record(key)
        if fence is not None and (record.claim_id, record.fence) == (fence.claim_id, fence.number):
            fence = None
        super().replace(key, body, facets, expected=expected, fence=fence)


class TenantIgnored(MemoryBackend):
    """Finds documents by id alone."""

    def read(self, key: DocumentKey) -> bytes:
        found = [other for other in self._documents if other.document_id == key.document_id]
        return super().read(found[0] if found else key)


class UnfilteredPage(MemoryBackend):
    """Lists the documents of all tenants to each."""

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        return super().page(collection, status=status, after=after, limit=limit)


class ReleaseWithoutOwnerCheck(MemoryBackend):
    """Whoever asks frees the document."""

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._claims[key] = self._record(key).model_copy(update={"state": "free"})


class CompleteWithoutOwnerCheck(MemoryBackend):
    """Whoever asks completes the document."""

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        self._claims[key] = self._record(key).model_copy(update={"state": "free", "attempts": 0})


class FenceStartsAnew(MemoryBackend):
    """Forgets the fence with the claim."""

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        super().complete(key, fence)
        del self._claims[key]


class ReservationNeverExpires(MemoryBackend):
    """Ignores the time a reservation was made for."""

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        return super().reserve(keys, claim_id=claim_id, ttl=1e9)


class LeaseTakesAll(MemoryBackend):
    """Leases what another claim has reserved."""

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        for key in keys:
            record = self._record(key)
            if record.state == "reserved":
                self._claims[key] = record.model_copy(update={"claim_id": claim_id})
        return super().lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)


class SecondRunOfAClaimLeases(MemoryBackend):
    """Gives a claim's leased documents to a second run of the same claim."""

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        for key in keys:
            record = self._record(key)
            if record.claim_id == claim_id:
                self._claims[key] = record.model_copy(update={"state": "reserved"})
        return super().lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)


class HeartbeatRevives(MemoryBackend):
    """Prolongs whatever it is asked to."""

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        super().heartbeat(lease, ttl=ttl)
        return list(lease.fences)


class AttemptsCountedAtCompletion(MemoryBackend):
    """A run that dies costs no attempt."""

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        lease = super().lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)
        for key in lease.fences:
            self._claims[key] = self._record(key).model_copy(update={"attempts": 0})
        return replace(lease, attempts=dict.fromkeys(lease.fences, 1))


class HeadsOfferWhatIsHeld(MemoryBackend):
    """Lists claimed documents as free."""

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        held, self._claims = self._claims, {}
        try:
            return super().heads(collection, per_group=per_group)
        finally:
            self._claims = held


class HighestFirst(MemoryBackend):
    """Queues by priority, not by who is due."""

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        heads = super().heads(collection, per_group=1_000_000)
        heads.sort(key=lambda head: -head.facets.priority)
        groups: dict[tuple[str, str], list[Listed]] = {}
        for head in heads:
            groups.setdefault((head.key.tenant_id, head.facets.priority_class), []).append(head)
        return [head for group in groups.values() for head in group[:per_group]]


class ParkedForEver(MemoryBackend):
    """Never offers what was parked once."""

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        return [head for head in super().heads(collection, per_group=per_group) if not head.facets.not_before]


class AnybodysReservationIsCancelled(MemoryBackend):
    """Cancels whatever it is given."""

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        for key in keys:
            self._claims[key] = ClaimRecord(fence=self._record(key).fence)


class ExpiredClaimIsShown(MemoryBackend):
    """Says that a claim holds what nobody holds any more."""

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        record = self._record(key)
        return record.view(key, at=LeaseMoment(record.expires_at - 1)) if record.state != "free" else None


BROKEN: Final[list[tuple[type[MemoryBackend], str]]] = [
    (NoVersionCheck, "replace_compares_and_sets"),
    (NoFenceCheck, "a_zombie_is_refused_every_time"),
    (NoFenceCheck, "a_fence_that_was_given_up_writes_nothing"),
    (OverwritingCreate, "create_is_exclusive"),
    (ExpiredLeaseStillSaves, "an_expired_lease_writes_nothing"),
    (TenantIgnored, "tenants_and_collections_do_not_meet"),
    (UnfilteredPage, "pages_are_filtered_by_tenant_and_status"),
    (ReleaseWithoutOwnerCheck, "a_zombie_is_refused_every_time"),
    (CompleteWithoutOwnerCheck, "a_zombie_is_refused_every_time"),
    (FenceStartsAnew, "every_lease_has_a_higher_fence"),
    (ReservationNeverExpires, "a_reservation_expires"),
    (LeaseTakesAll, "a_lease_needs_a_free_document_or_its_own_reservation"),
    (SecondRunOfAClaimLeases, "a_second_run_of_the_same_claim_gets_nothing"),
    (HeartbeatRevives, "a_heartbeat_prolongs_and_says_what_is_lost"),
    (AttemptsCountedAtCompletion, "attempts_count_until_completion"),
    (HeadsOfferWhatIsHeld, "heads_leave_out_what_a_live_claim_holds"),
    (HighestFirst, "heads_are_those_of_each_group_that_are_due_first"),
    (ParkedForEver, "heads_leave_out_what_does_not_wait_or_is_parked"),
    (AnybodysReservationIsCancelled, "only_ones_own_reservation_is_cancelled"),
    (ExpiredClaimIsShown, "a_reservation_expires"),
]


def on(cls: Callable[..., Backend]) -> Stand:
    """A stand on a memory store of this class."""
    clock = MovedClock()
    return Stand(cls(clock=lambda: clock.lease, wall=lambda: clock.wall), clock)


@pytest.mark.guarantee("R5")
@pytest.mark.parametrize(("broken", "case"), BROKEN, ids=[f"{cls.__name__}-{case}" for cls, case in BROKEN])
def test_a_broken_store_is_caught_by_the_case_that_the_sound_one_keeps(broken: type[MemoryBackend], case: str) -> None:
    CASES[case](on(MemoryBackend))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        CASES[case](on(broken))


@pytest.mark.guarantee("R5")
def test_a_create_in_two_steps_is_caught_by_a_race() -> None:
    assert create_race(on(MemoryBackend), rounds=20) == [1] * 20
    assert create_race(on(CheckThenCreate), rounds=20) != [1] * 20
