"""The claiming stage: reserves waiting jobs for runs to come. Who is next is jobs/fairness.py's decision."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ss_pipeline.errors import SSError
from ss_pipeline.jobs.fairness import WaitingJob, assemble_claims
from ss_pipeline.jobs.model import PriorityClass
from ss_pipeline.store.base import DocumentKey, Listed
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.telemetry.events import emit


@dataclass(frozen=True)
class Claim:
    """Jobs reserved for one run: of one tenant and one priority class, in claim order."""

    claim_id: str
    tenant_id: str
    priority_class: PriorityClass
    priority: int
    job_ids: tuple[str, ...]


@dataclass(frozen=True)
class ClaimRules:
    """How claims are made: how many jobs one may hold, and how long (seconds) a reservation waits for its run."""

    max_jobs: int
    reserve_seconds: float


def make_claims(
    jobs: JobStore,
    *,
    room: int,
    rules: ClaimRules,
    shareable: Callable[[DocumentKey], bool],
    busy: Mapping[str, int] | None = None,
) -> list[Claim]:
    """Reserves the next jobs for at most `room` runs; where the store fails in between, none stays reserved.

    Args:
        shareable: Whether a job may share a run with others; one that was tried before may not, so that a job
            which kills its run takes no other with it.
        busy: Tenant → runs it has in flight; a tenant with fewer is served first.
    """
    if room <= 0:
        return []
    heads = jobs.waiting(per_group=room * rules.max_jobs)
    waiting = [_as_waiting(jobs, head, shareable) for head in heads]
    claims: list[Claim] = []
    try:
        for group in assemble_claims(waiting, room=room, max_jobs=rules.max_jobs, busy=busy):
            claim = _reserve(jobs, group, ttl=rules.reserve_seconds)
            claims.extend([claim] if claim else [])
    except SSError:
        free_claims(jobs, claims)
        raise
    return claims


def free_claims(jobs: JobStore, claims: Iterable[Claim]) -> None:
    """Gives reserved jobs back, because no run will come for them."""
    for claim in claims:
        keys = [job_key(job_id, claim.tenant_id) for job_id in claim.job_ids]
        jobs.backend.cancel_reservation(keys, claim_id=claim.claim_id)


def in_turn(jobs: JobStore, *, per_group: int) -> list[DocumentKey]:
    """The waiting jobs as they come next, one by one; of each tenant and class at most `per_group`."""
    waiting = [_as_waiting(jobs, head, lambda _: False) for head in jobs.waiting(per_group=per_group)]
    claims = assemble_claims(waiting, room=len(waiting), max_jobs=1)
    return [job_key(job.job_id, job.tenant_id) for claim in claims for job in claim]


def _as_waiting(jobs: JobStore, head: Listed, shareable: Callable[[DocumentKey], bool]) -> WaitingJob:
    return WaitingJob(
        tenant_id=head.key.tenant_id,
        job_id=head.key.document_id,
        priority=head.facets.priority,
        priority_class=head.facets.priority_class,
        created_at=head.facets.created_at,
        alone=not shareable(head.key) or jobs.backend.attempts_of(head.key) > 0,
    )


def _reserve(jobs: JobStore, group: list[WaitingJob], *, ttl: float) -> Claim | None:
    claim_id = f"claim_{secrets.token_hex(10)}"
    keys = [job_key(job.job_id, job.tenant_id) for job in group]
    reserved = jobs.backend.reserve(keys, claim_id=claim_id, ttl=ttl)
    if not reserved:
        return None
    job_ids = tuple(key.document_id for key in reserved)
    emit("SS_CLAIM_RESERVED", claim_id=claim_id, tenant_id=group[0].tenant_id, job_ids=job_ids)
    return Claim(
        claim_id=claim_id,
        tenant_id=group[0].tenant_id,
        priority_class=group[0].priority_class,
        priority=max(job.priority for job in group),
        job_ids=job_ids,
    )
