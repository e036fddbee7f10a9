"""Who is next: waiting jobs put into claims. Pure; the store says who waits, stages/claiming.py reserves.

Rules (a first version): higher priority class first; within a class tenants take turns, the one with the fewest runs
first; within a tenant higher priority first, then oldest. A claim holds jobs of one tenant and one class only.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ss_pipeline.jobs.model import PriorityClass

CLASS_ORDER: Final[tuple[PriorityClass, ...]] = ("high", "normal", "low")


@dataclass(frozen=True)
class WaitingJob:
    """A job that no claim holds. `alone`: it failed a run before, so it must not share one with others."""

    tenant_id: str
    job_id: str
    priority: int
    priority_class: PriorityClass
    created_at: str
    alone: bool = False


def assemble_claims(
    waiting: Sequence[WaitingJob], *, room: int, max_jobs: int, busy: Mapping[str, int] | None = None
) -> list[list[WaitingJob]]:
    """At most `room` claims of at most `max_jobs` jobs each, the most urgent first.

    While the backlog fits into the room each job gets a claim of its own; a longer one is shared out evenly.

    Args:
        busy: Tenant → claims it has in flight. They count as turns it had: room comes one claim at a time when all
            slots are taken, and without them it would always be the turn of whoever has waited longest.
    """
    if room <= 0:
        return []
    size = min(max_jobs, -(-len(waiting) // room))
    turns = Counter(busy or {})
    claims: list[list[WaitingJob]] = []
    for priority_class in CLASS_ORDER:
        members = [job for job in waiting if job.priority_class == priority_class]
        claims.extend(_take_turns(members, size=size, turns=turns))
    return claims[:room]


def _take_turns(members: Sequence[WaitingJob], *, size: int, turns: Counter[str]) -> list[list[WaitingJob]]:
    """Claims of one class: each tenant's jobs in order, cut to size; whoever had the fewest turns is next."""
    lanes: dict[str, deque[list[WaitingJob]]] = {}
    for job in sorted(members, key=lambda job: (-job.priority, job.created_at, job.job_id)):
        lane = lanes.setdefault(job.tenant_id, deque())
        if lane and not job.alone and not lane[-1][0].alone and len(lane[-1]) < size:
            lane[-1].append(job)
        else:
            lane.append([job])
    claims: list[list[WaitingJob]] = []
    while lanes:
        tenant_id = min(lanes, key=lambda name: turns[name])
        turns[tenant_id] += 1
        claims.append(lanes[tenant_id].popleft())
        if not lanes[tenant_id]:
            del lanes[tenant_id]
    return claims
