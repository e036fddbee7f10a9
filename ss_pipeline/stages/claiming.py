"""The claiming stage: reserves waiting jobs for runs to come. Who is next is jobs/fairness.py's decision."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

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
    jobs: JobStore, *, room: int, rules: ClaimRules, shareable: Callable[[DocumentKey], bool]
) -> list[Claim]:
    """Reserves the next jobs for at most `room` runs.

    Args:
        shareable: Whether a job may share a run with others; one that was tried before may not, so that a job
            which kills its run takes no other with it.
    """
    if room <= 0:
        return []
    heads = jobs.waiting(per_group=room * rules.max_jobs)
    waiting = [_as_waiting(jobs, head, shareable) for head in heads]
    return [
        claim
        for group in assemble_claims(waiting, room=room, max_jobs=rules.max_jobs)
        if (claim := _reserve(jobs, group, ttl=rules.reserve_seconds))
    ]


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
