"""The claiming stage: reserves waiting jobs for runs to come. Who is next is jobs/fairness.py's decision.

How far the tenants have come (`Turns`) is kept in the store, in a document of its own. It may be lost or late: then
the shares of the next few claims are not quite even, and nothing else.
"""

import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pydantic import TypeAdapter, ValidationError

from ss_pipeline.errors import DocumentChangedError, DocumentExistsError, DocumentNotFoundError, SSError
from ss_pipeline.jobs.documents import moment_of
from ss_pipeline.jobs.fairness import IDLE, START, Busy, FairnessRules, Turns, WaitingJob, assemble_claims, due_at
from ss_pipeline.jobs.model import DEFAULT_TENANT, PriorityClass
from ss_pipeline.store.base import Backend, DocumentKey, Facets, Listed
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.telemetry.events import emit

TURNS: Final = DocumentKey("scheduling", DEFAULT_TENANT, "turns")
"""Where the store keeps how far the tenants have come."""

_TURNS = TypeAdapter(Turns)


@dataclass(frozen=True)
class Claim:
    """Jobs reserved for one run: of one tenant and one priority class, in claim order.

    `priority` is the highest one among them as it has aged, so that no claim starves in the run queue.
    """

    claim_id: str
    tenant_id: str
    priority_class: PriorityClass
    priority: int
    job_ids: tuple[str, ...]


@dataclass(frozen=True)
class ClaimRules:
    """How claims are made: how slots are shared, and how long (seconds) a reservation waits for its run."""

    fairness: FairnessRules
    reserve_seconds: float


def make_claims(
    jobs: JobStore,
    *,
    room: int,
    rules: ClaimRules,
    now: datetime,
    shareable: Callable[[DocumentKey], bool],
    busy: Busy = IDLE,
) -> list[Claim]:
    """Reserves the next jobs for at most `room` runs; where the store fails in between, none stays reserved.

    Args:
        shareable: Whether a job may share a run with others; one that was tried before may not, so that a job
            which kills its run takes no other with it.
        now: The time, in UTC; who has waited longer is further up.
        busy: The runs in flight.
    """
    if room <= 0:
        return []
    heads = jobs.waiting(per_group=room * rules.fairness.max_jobs)
    waiting = [_as_waiting(head, now=now, shareable=shareable) for head in heads]
    if not waiting:
        return []
    kept = _KeptTurns(jobs.backend)
    groups, turns = assemble_claims(waiting, room=room, rules=rules.fairness, busy=busy, turns=kept.read())
    claims: list[Claim] = []
    try:
        for group in groups:
            claim = _reserve(jobs, _fit_to_share(jobs, group), rules)
            claims.extend([claim] if claim else [])
        kept.write(turns)
    except SSError:
        free_claims(jobs, claims)
        raise
    return claims


def claim_next(
    jobs: JobStore, key: DocumentKey, *, room: int, rules: ClaimRules, now: datetime, busy: Busy = IDLE
) -> Claim | None:
    """Reserves this one job if it is the very next in turn and there is room; so it passes nobody who waits.

    Args:
        room: Runs that would start at once.
        rules: How long the reservation waits for its run is theirs, too; `keep_claim` prolongs it.
    """
    if room <= 0:
        return None
    waiting = [
        _as_waiting(head, now=now, shareable=lambda _: False)
        for head in jobs.waiting(per_group=room * rules.fairness.max_jobs)
    ]
    kept = _KeptTurns(jobs.backend)
    turns = kept.read()
    groups, _ = assemble_claims(waiting, room=room, rules=rules.fairness, busy=busy, turns=turns)
    if not groups or job_key(groups[0][0].job_id, groups[0][0].tenant_id) != key:
        return None
    claim = _reserve(jobs, groups[0], rules)
    if claim:
        kept.write(turns.served(claim.tenant_id, jobs=1, weight=rules.fairness.weight(claim.tenant_id)))
    return claim


def keep_claim(jobs: JobStore, claim: Claim, *, seconds: float) -> None:
    """Prolongs the reservation of a claim whose run is launched; what the run has leased meanwhile stays as it is."""
    keys = [job_key(job_id, claim.tenant_id) for job_id in claim.job_ids]
    jobs.backend.reserve(keys, claim_id=claim.claim_id, ttl=seconds)


def free_claims(jobs: JobStore, claims: Iterable[Claim]) -> None:
    """Gives reserved jobs back, because no run will come for them."""
    for claim in claims:
        keys = [job_key(job_id, claim.tenant_id) for job_id in claim.job_ids]
        jobs.backend.cancel_reservation(keys, claim_id=claim.claim_id)


def in_turn(jobs: JobStore, rules: ClaimRules, *, now: datetime, per_group: int) -> list[DocumentKey]:
    """The waiting jobs as they come next, one by one; of each tenant and class at most `per_group`.

    Caps and reserved slots are left out of account: they hold a job back, they do not change who comes before it.
    """
    heads = jobs.waiting(per_group=per_group)
    waiting = [_as_waiting(head, now=now, shareable=lambda _: False) for head in heads]
    alone = replace(rules.fairness, max_jobs=1, caps={}, reserved={})
    turns = _KeptTurns(jobs.backend).read()
    claims, _ = assemble_claims(waiting, room=len(waiting), rules=alone, turns=turns)
    return [job_key(job.job_id, job.tenant_id) for claim in claims for job in claim]


def _as_waiting(head: Listed, *, now: datetime, shareable: Callable[[DocumentKey], bool]) -> WaitingJob:
    return WaitingJob(
        tenant_id=head.key.tenant_id,
        job_id=head.key.document_id,
        priority=head.facets.priority,
        due_in=head.facets.due_at - now.timestamp(),
        alone=not shareable(head.key),
    )


def _fit_to_share(jobs: JobStore, group: list[WaitingJob]) -> list[WaitingJob]:
    """The group without jobs that were tried before: such a one gets a run of its own once it is the first."""
    if len(group) == 1:
        return group
    tried = [jobs.backend.attempts_of(job_key(job.job_id, job.tenant_id)) > 0 for job in group]
    return group[:1] if tried[0] else [job for job, was_tried in zip(group, tried, strict=True) if not was_tried]


def _reserve(jobs: JobStore, group: list[WaitingJob], rules: ClaimRules) -> Claim | None:
    claim_id = f"claim_{secrets.token_hex(10)}"
    keys = [job_key(job.job_id, job.tenant_id) for job in group]
    reserved = jobs.backend.reserve(keys, claim_id=claim_id, ttl=rules.reserve_seconds)
    if not reserved:
        return None
    job_ids = tuple(key.document_id for key in reserved)
    emit("SS_CLAIM_RESERVED", claim_id=claim_id, tenant_id=group[0].tenant_id, job_ids=job_ids)
    return Claim(
        claim_id=claim_id,
        tenant_id=group[0].tenant_id,
        priority_class=group[0].priority_class,
        priority=int(max(job.aged for job in group)),
        job_ids=job_ids,
    )


def foremost_at(created_at: str, *, priority: int) -> datetime:
    """When a job is due: of its tenant nothing that is handed in from then on comes before it."""
    return datetime.fromtimestamp(due_at(created_at, priority=priority), UTC)


def seconds_since(created_at: str, now: datetime) -> float:
    """Seconds since a time of a document."""
    return (now - moment_of(created_at)).total_seconds()


class _KeptTurns:
    """The turns as the store keeps them; what another sensor writes meanwhile is left as it is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stored: bytes | None = None

    def read(self) -> Turns:
        """The turns; blank where none are kept or they cannot be understood."""
        try:
            self._stored = self._backend.read(TURNS)
            return _TURNS.validate_json(self._stored)
        except (DocumentNotFoundError, ValidationError):
            return START

    def write(self, turns: Turns) -> None:
        """Keeps these turns in place of those that were read."""
        body = _TURNS.dump_json(turns)
        with suppress(DocumentExistsError, DocumentChangedError, DocumentNotFoundError):
            if self._stored is None:
                self._backend.create(TURNS, body, Facets())
            else:
                self._backend.replace(TURNS, body, Facets(), expected=self._stored)
