"""Who is next: waiting jobs put into claims. Pure; the store says who waits, stages/claiming.py reserves.

Rules, in this order:
1. A class with reserved slots has them for itself; a tenant at its cap waits.
2. The higher class first. Waiting raises a job's priority, so that the lowest one reaches the highest after
   `AGEING_SECONDS`. The moment at which it does so is when the job is due: nobody waits for ever.
3. Among tenants of one class start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996): each claim moves its tenant on
   by its jobs over the tenant's weight, and the one that has come least far is next. `Turns` is what must be
   remembered for that between two looks.
4. Within a tenant whoever is due first. All priorities grow at the same rate, so this is at any time the order of the
   priorities as they have aged; and once a job is due, nothing that comes later passes it.

A claim holds jobs of one tenant and one class only.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ss_pipeline.jobs.documents import moment_of
from ss_pipeline.jobs.model import PriorityClass, class_of

CLASS_ORDER: Final[tuple[PriorityClass, ...]] = ("high", "normal", "low")
HIGHEST: Final = 100
LOWEST: Final = -100
AGEING_SECONDS: Final = 900.0
"""After so long the lowest priority counts as the highest. No setting: stored documents carry the place it gives."""
_SECONDS_A_STEP: Final = AGEING_SECONDS / (HIGHEST - LOWEST)


def due_at(created_at: str, *, priority: int) -> float:
    """When a job has aged to the highest priority, in seconds since the epoch.

    Raises:
        ValueError: `created_at` is no ISO 8601 time.
    """
    return moment_of(created_at).timestamp() + (HIGHEST - priority) * _SECONDS_A_STEP


@dataclass(frozen=True)
class WaitingJob:
    """A job that no claim holds.

    Args:
        due_in: Seconds until it is due, negative since then; see `due_at`.
        alone: It failed a run before, so it must not share one with others.
    """

    tenant_id: str
    job_id: str
    priority: int
    due_in: float
    alone: bool = False

    @property
    def priority_class(self) -> PriorityClass:
        """The class of its own priority, not aged."""
        return class_of(self.priority)

    @property
    def aged(self) -> float:
        """The priority it has by now: from its own, also where the clock it was handed in by is ahead, to `HIGHEST`."""
        return min(HIGHEST, max(self.priority, HIGHEST - self.due_in / _SECONDS_A_STEP))


@dataclass(frozen=True)
class FairnessRules:
    """How slots are shared.

    Args:
        max_jobs: Most jobs of one claim.
        weights: Tenant → share against the others; 1 for whoever is not named.
        caps: Tenant → most runs it may have in flight; "*" is for whoever is not named. No bound where neither is.
        reserved: Class → slots that no other class may take.
    """

    max_jobs: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    reserved: Mapping[PriorityClass, int] = field(default_factory=dict)

    def weight(self, tenant_id: str) -> float:
        """A tenant's share against the others."""
        return self.weights.get(tenant_id, 1.0)

    def cap(self, tenant_id: str) -> int | None:
        """Most runs of a tenant in flight; None for no bound."""
        return self.caps.get(tenant_id, self.caps.get("*"))


@dataclass(frozen=True)
class Turns:
    """How far the tenants have come: jobs served over weight.

    Args:
        clock: Where the last claim began; who comes back after a pause goes on from here, not from long ago.
        ends: Tenant → where its last claim ends; one at or before the clock needs no entry.
    """

    clock: float = 0.0
    ends: Mapping[str, float] = field(default_factory=dict)

    def start(self, tenant_id: str) -> float:
        """Where the tenant's next claim begins."""
        return max(self.clock, self.ends.get(tenant_id, 0.0))

    def served(self, tenant_id: str, *, jobs: int, weight: float) -> "Turns":
        """After a claim of so many jobs."""
        clock = self.start(tenant_id)
        ends = {**self.ends, tenant_id: clock + jobs / weight}
        return Turns(clock, {name: end for name, end in ends.items() if end > clock})


@dataclass(frozen=True)
class Busy:
    """Runs in flight: by tenant and by class."""

    tenants: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[PriorityClass, int] = field(default_factory=dict)


IDLE: Final = Busy()
"""No run in flight."""
START: Final = Turns()
"""No tenant has been served yet."""


def assemble_claims(
    waiting: Sequence[WaitingJob],
    *,
    room: int,
    rules: FairnessRules,
    busy: Busy = IDLE,
    turns: Turns = START,
) -> tuple[list[list[WaitingJob]], Turns]:
    """At most `room` claims, the most urgent first, and how far the tenants have come with them.

    While the backlog fits into the room each job gets a claim of its own; a longer one is shared out evenly, up to
    `rules.max_jobs` a claim.
    """
    queue = _Queue(waiting, room=room, rules=rules, busy=busy, turns=turns)
    claims: list[list[WaitingJob]] = []
    while (claim := queue.next()) is not None:
        claims.append(claim)
    return claims, queue.turns


class _Queue:
    """The claims that could be made now, taken one by one."""

    def __init__(
        self, waiting: Sequence[WaitingJob], *, room: int, rules: FairnessRules, busy: Busy, turns: Turns
    ) -> None:
        self.turns = turns
        self._room = room
        self._rules = rules
        self._of_tenant = Counter(busy.tenants)
        self._of_class = Counter(busy.classes)
        size = min(rules.max_jobs, -(-len(waiting) // room)) if room > 0 else 0
        self._lanes = {name: _cut(jobs, size=size) for name, jobs in _in_lanes(waiting).items()}

    def next(self) -> list[WaitingJob] | None:
        """The next claim; None where there is no room, or nobody who may have it."""
        lanes = [lane for lane in self._lanes.values() if lane and self._may_run(lane[0][0])]
        if not lanes or self._room <= 0:
            return None
        claim = min(lanes, key=lambda lane: self._rank(lane[0][0])).popleft()
        first = claim[0]
        self._room -= 1
        self._of_tenant[first.tenant_id] += 1
        self._of_class[first.priority_class] += 1
        weight = self._rules.weight(first.tenant_id)
        self.turns = self.turns.served(first.tenant_id, jobs=len(claim), weight=weight)
        return claim

    def _may_run(self, job: WaitingJob) -> bool:
        cap = self._rules.cap(job.tenant_id)
        kept_for_others = sum(
            max(0, slots - self._of_class[name])
            for name, slots in self._rules.reserved.items()
            if name != job.priority_class
        )
        return self._room > kept_for_others and (cap is None or self._of_tenant[job.tenant_id] < cap)

    def _rank(self, job: WaitingJob) -> tuple[int, float, float, float, str]:
        """Of tenants that have come equally far (nothing is remembered of them) the one with fewer runs is next."""
        start = self.turns.start(job.tenant_id)
        in_flight = self._of_tenant[job.tenant_id] / self._rules.weight(job.tenant_id)
        return CLASS_ORDER.index(class_of(job.aged)), start, in_flight, job.due_in, job.tenant_id


def _in_lanes(waiting: Iterable[WaitingJob]) -> dict[tuple[str, PriorityClass], list[WaitingJob]]:
    """The jobs of each tenant and class, in the order in which they are claimed."""
    lanes: dict[tuple[str, PriorityClass], list[WaitingJob]] = {}
    for job in sorted(waiting, key=lambda job: (job.due_in, job.job_id)):
        lanes.setdefault((job.tenant_id, job.priority_class), []).append(job)
    return lanes


def _cut(jobs: Sequence[WaitingJob], *, size: int) -> deque[list[WaitingJob]]:
    """Claims of at most `size` jobs; one that must be alone is."""
    claims: deque[list[WaitingJob]] = deque()
    for job in jobs:
        if claims and not job.alone and not claims[-1][0].alone and len(claims[-1]) < size:
            claims[-1].append(job)
        else:
            claims.append([job])
    return claims
