"""One claim worked off: its jobs with lease, heartbeat, fence and outcomes. No dagster.

Jobs are worked on in claim order; while one waits for a model's answer, the next is begun, so that the calls of a claim
overlap and everything else happens one by one. The asset body (defs/assets.py) turns what happens here into Dagster
events. A job's faults end in its own outcome; an unforeseen exception ends the run, gives the other jobs back, and
counts as an attempt of the job it happened in.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from ss_pipeline.errors import ClaimAttemptsExhaustedError, ClaimLostError, SSError
from ss_pipeline.job_run import ALL_STAGES, JobEnded, JobWorker, Stage, StageDone, WorkParts
from ss_pipeline.store.base import DocumentKey, Lease
from ss_pipeline.store.jobs import job_key
from ss_pipeline.telemetry.events import emit

T = TypeVar("T")


@dataclass
class _Held:
    """The lease of this run, shrunk as jobs are finished or lost.

    `begun` are jobs that the end of the run would be blamed on: not those that only waited for an answer.
    """

    lease: Lease
    begun: set[DocumentKey] = field(default_factory=set)
    lost: set[DocumentKey] = field(default_factory=set)
    done: set[DocumentKey] = field(default_factory=set)

    def still_held(self) -> list[DocumentKey]:
        return [key for key in self.lease.fences if key not in self.done and key not in self.lost]


def work_off(
    job_ids: Sequence[str],
    *,
    tenant_id: str,
    claim_id: str,
    owner: str,
    parts: WorkParts,
    stages: frozenset[Stage] = ALL_STAGES,
) -> Iterator[StageDone | JobEnded]:
    """Works on each job as far as it can go now and says what happened, as it happens. Not from within an event loop.

    Args:
        claim_id: The reservation made for this run; a run without one passes an id of its own.
        owner: Who works, for people: `run:<run id>`.
        stages: All five = go on from where the job stands; fewer = make exactly these again.

    A job that another claim holds, or that this run's claim lost before it was begun, ends as "skipped" and is not
    touched.
    """
    keys = [job_key(job_id, tenant_id) for job_id in job_ids]
    lease = parts.jobs.backend.lease(keys, claim_id=claim_id, owner=owner, ttl=parts.lease_seconds)
    emit("SS_CLAIM_LEASED", claim_id=claim_id, job_ids=[key.document_id for key in lease.fences])
    held = _Held(lease)
    with _kept_alive(held, parts):
        yield from _one_by_one(_interleaved(_work_on(key, held, parts, stages) for key in keys))


def _one_by_one(events: AsyncIterator[T]) -> Iterator[T]:
    """What an async iterator gives; nothing goes on in it meanwhile."""

    with asyncio.Runner() as runner:
        while (event := runner.run(_following(events))) is not None:
            yield event


async def _interleaved(jobs: Iterable[AsyncGenerator[T, None]]) -> AsyncIterator[T]:
    """What the jobs give: the first that can go on does, and where none can, the next is begun."""
    unbegun = iter(jobs)
    steps: dict[AsyncGenerator[T, None], asyncio.Task[T | None]] = {}
    while True:
        ready = next((job for job, step in steps.items() if step.done()), None)
        if ready is not None:
            event = steps[ready].result()
            if event is None:
                del steps[ready]
                continue
            yield event
        elif (ready := next(unbegun, None)) is None:
            if not steps:
                return
            await asyncio.wait(steps.values(), return_when=asyncio.FIRST_COMPLETED)
            continue
        steps[ready] = asyncio.create_task(_following(ready))
        await asyncio.sleep(0)  # it goes on until it waits for something


async def _following(events: AsyncIterator[T]) -> T | None:
    return await anext(events, None)


async def _work_on(
    key: DocumentKey, held: _Held, parts: WorkParts, stages: frozenset[Stage]
) -> AsyncGenerator[StageDone | JobEnded, None]:
    """One job; every SSError becomes its one ending."""
    if key not in held.lease.fences:
        yield not_leased(key, parts)
        return
    worker = JobWorker(parts, key, held.lease.fences[key], owner=held.lease.owner)
    try:
        if key in held.lost:
            raise ClaimLostError(f"the lease on job {key.document_id!r} was lost before it was begun")
        held.begun.add(key)
        reason = worker.open()
        if reason is None:
            _refuse_exhausted(worker, held.lease.attempts[key], parts)
            async for done in worker.go_on() if stages == ALL_STAGES else worker.make_again(stages):
                yield done
        ended = worker.finish(reason)
    except asyncio.CancelledError:
        held.begun.discard(key)
        raise
    except SSError as error:
        ended = worker.give_up(error, keep_status=stages != ALL_STAGES)
    held.done.add(key)
    yield ended


def _refuse_exhausted(worker: JobWorker, attempt: int, parts: WorkParts) -> None:
    if attempt > parts.max_attempts:
        emit("SS_CLAIM_ATTEMPTS_EXHAUSTED", level=logging.ERROR, job_id=worker.job.job_id, attempts=attempt - 1)
        raise ClaimAttemptsExhaustedError(f"{attempt - 1} runs began job {worker.job.job_id!r} and none finished it")


@contextmanager
def _kept_alive(held: _Held, parts: WorkParts) -> Iterator[None]:
    """Heartbeats while the block runs; what is unfinished when it ends, for whatever reason, is given back."""
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(held, parts, stop), name="claim-heartbeat", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        _release_unfinished(held, parts)


def _beat(held: _Held, parts: WorkParts, stop: threading.Event) -> None:
    while not stop.wait(parts.heartbeat_seconds):
        mine = held.still_held()
        fences = {key: held.lease.fences[key] for key in mine}
        lease = Lease(held.lease.claim_id, held.lease.owner, fences, {})
        try:
            kept = parts.jobs.backend.heartbeat(lease, ttl=parts.lease_seconds)
        except SSError as error:
            emit("SS_CLAIM_LOST", level=logging.ERROR, claim_id=held.lease.claim_id, code=error.error_code)
            continue
        held.lost.update(key for key in mine if key not in kept and key not in held.done)


def _release_unfinished(held: _Held, parts: WorkParts) -> None:
    """Gives back what was not finished; only jobs that were not begun get their attempt refunded."""
    unfinished = held.still_held()
    for key in unfinished:
        try:
            parts.jobs.backend.release(key, held.lease.fences[key], refund=key not in held.begun)
        except SSError as error:
            emit("SS_CLAIM_LOST", level=logging.WARNING, job_id=key.document_id, code=error.error_code)
    if unfinished:
        emit("SS_CLAIM_RELEASED", job_ids=[key.document_id for key in unfinished], claim_id=held.lease.claim_id)


def not_leased(key: DocumentKey, parts: WorkParts) -> JobEnded:
    """A job that could not be leased: another claim has it, or it is not there at all."""
    try:
        holder = parts.jobs.backend.claim_of(key)
        if holder is None:
            parts.jobs.load(key.document_id, tenant_id=key.tenant_id)
    except SSError as error:
        return JobEnded(key.document_id, key.tenant_id, "failed", error.error_code, error.message)
    message = f"claimed elsewhere by {holder.owner or holder.claim_id}" if holder else "claimed elsewhere"
    emit("SS_CLAIM_SKIPPED", job_id=key.document_id, reason=message)
    return JobEnded(key.document_id, key.tenant_id, "skipped", "CLAIM_ELSEWHERE", message)
