"""What the claim record of a document says and how it may change: pure, the same for the memory and the file store.

Where records are kept, locked and recovered is the back ends' business. A record is never deleted: it carries the
last fence number, which only ever grows, and the attempts since the document was last completed.
"""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ss_pipeline.store.base import ClaimHistory, ClaimView, DocumentKey, Fence, stale_fence


@dataclass(frozen=True)
class LeaseMoment:
    """A reading of the lease clock: seconds since the boot `boot_id`, which no change of the wall clock moves."""

    seconds: float
    boot_id: str = ""


class ClaimRecord(BaseModel):
    """Who holds a document: nobody (`free`), a sensor for a run to come (`reserved`), or a run (`leased`).

    A record of another boot, or whose time is up, counts as free; its fence and its attempts stay.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    state: Literal["free", "reserved", "leased"] = "free"
    claim_id: str = ""
    owner: str = ""
    fence: int = Field(default=0, ge=0, lt=2**62)
    attempts: int = Field(default=0, ge=0)
    expires_at: float = 0.0
    boot_id: str = ""

    def is_live(self, at: LeaseMoment) -> bool:
        """Whether somebody holds the document at this moment."""
        return self.state != "free" and self.boot_id == at.boot_id and at.seconds < self.expires_at

    def held_until(self, at: LeaseMoment) -> float:
        """When the hold ends on the lease clock, in seconds; 0 where nobody holds it."""
        return self.expires_at if self.is_live(at) else 0.0

    def reserved_for(self, claim_id: str, *, ttl: float, at: LeaseMoment) -> Self | None:
        """Reserved under a claim for `ttl` seconds; None where it is not free. A claim may prolong its own."""
        if not self._is_open_to(claim_id, at):
            return None
        return self._held(state="reserved", claim_id=claim_id, owner="", ttl=ttl, at=at)

    def leased_to(self, owner: str, *, claim_id: str, ttl: float, at: LeaseMoment) -> Self | None:
        """Leased with the next fence, the attempt counted; None where it is neither free nor reserved for the claim."""
        if not self._is_open_to(claim_id, at):
            return None
        held = self._held(state="leased", claim_id=claim_id, owner=owner, ttl=ttl, at=at)
        return held.model_copy(update={"fence": self.fence + 1, "attempts": self.attempts + 1})

    def prolonged(self, fence: Fence, *, ttl: float, at: LeaseMoment) -> Self | None:
        """With `ttl` seconds from now, or None where the lease is lost or its time was up."""
        if not (self._is_of(fence) and self.is_live(at)):
            return None
        return self.model_copy(update={"expires_at": at.seconds + ttl})

    def completed(self, key: DocumentKey, fence: Fence) -> Self:
        """Free, attempts counted anew. A late call is fine as long as nobody else took the document.

        Raises:
            StaleFenceError: the fence is not the record's.
        """
        return self._freed(key, fence, attempts=0)

    def released(self, key: DocumentKey, fence: Fence, *, refund: bool) -> Self:
        """Free, unworked; with `refund` the attempt does not count.

        Raises:
            StaleFenceError: the fence is not the record's.
        """
        return self._freed(key, fence, attempts=max(0, self.attempts - refund))

    def cancelled(self, claim_id: str) -> Self | None:
        """Free, where it was reserved (not leased) under this claim; else None."""
        if self.state != "reserved" or self.claim_id != claim_id:
            return None
        return self.model_copy(update={"state": "free", "claim_id": "", "owner": "", "expires_at": 0.0})

    def history(self) -> ClaimHistory:
        """What outlives the claim."""
        return ClaimHistory(fence=self.fence, attempts=self.attempts)

    def continued(self, history: ClaimHistory, *, at: LeaseMoment) -> Self | None:
        """With the attempts of another store's history and a fence that is not below its; None while it is held."""
        if self.is_live(at):
            return None
        return self.model_copy(update={"fence": max(self.fence, history.fence), "attempts": history.attempts})

    def check_fence(self, key: DocumentKey, fence: Fence, *, at: LeaseMoment) -> None:
        """Whether a write under this fence is allowed: it is the record's own and its lease has not run out.

        Raises:
            StaleFenceError: it is not.
        """
        if not (self._is_of(fence) and self.is_live(at)):
            raise stale_fence(key, fence)

    def view(self, key: DocumentKey, *, at: LeaseMoment) -> ClaimView | None:
        """Who holds the document at this moment, or None."""
        if not self.is_live(at):
            return None
        return ClaimView(
            key=key,
            claim_id=self.claim_id,
            owner=self.owner,
            state=self.state,
            fence=self.fence,
            attempts=self.attempts,
            expires_in=max(0.0, self.expires_at - at.seconds),
        )

    def _is_open_to(self, claim_id: str, at: LeaseMoment) -> bool:
        return not self.is_live(at) or (self.state == "reserved" and self.claim_id == claim_id)

    def _is_of(self, fence: Fence) -> bool:
        return self.state == "leased" and (self.claim_id, self.fence) == (fence.claim_id, fence.number)

    def _held(self, *, state: str, claim_id: str, owner: str, ttl: float, at: LeaseMoment) -> Self:
        until = at.seconds + ttl
        fields = {"state": state, "claim_id": claim_id, "owner": owner, "expires_at": until, "boot_id": at.boot_id}
        return self.model_copy(update=fields)

    def _freed(self, key: DocumentKey, fence: Fence, *, attempts: int) -> Self:
        if not self._is_of(fence):
            raise stale_fence(key, fence)
        fields = {"state": "free", "claim_id": "", "owner": "", "expires_at": 0.0, "attempts": attempts}
        return self.model_copy(update=fields)
