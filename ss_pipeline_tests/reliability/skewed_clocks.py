"""Workers whose wall clocks are hours apart, or jump while they work; test_store_clocks.py judges what they found.

The process must have moved_wall_clock.c preloaded. Moments are of the monotonic clock, which all processes share.
"""

import asyncio
import ctypes
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeAlias

from ss_pipeline.errors import StaleFenceError
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.store.base import Backend, Lease
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_claims import LeaseClock
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, job_key
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, run_tasks, together
from ss_pipeline_tests.reliability.store_addresses import open_address

KEY: Final = job_key("job_0000000000000001")
HOUR: Final = 3_600

Hold: TypeAlias = tuple[int, float, float]
"""A fence, and the moments from which to which a worker knew that it held the job."""


def move_wall_clock(seconds: int) -> None:
    """Moves the wall clock of this process away from the machine's."""
    ctypes.CDLL(None).move_wall_clock(ctypes.c_long(seconds))


def open_kind(address: str, kind: str) -> Backend:
    """The store at an address, or a broken one on the same files: its leases go by the wall clock."""
    if kind == "by the wall clock":
        clock = LeaseClock(seconds=time.time)
        return FileBackend(Path(address.removeprefix("file:")), facets_of=facets_of_body, clock=clock)
    return open_address(address)


def clocks(*, moved_by: int) -> Found:
    """How far each clock of this process is moved, in seconds."""

    def readings() -> dict[str, float]:
        now = datetime.now(UTC).timestamp()
        return {"time": time.time(), "now": now, "monotonic": time.monotonic(), "boot": _boottime()}

    before = readings()
    move_wall_clock(moved_by)
    return {name: round(after - before[name]) for name, after in readings().items()}


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def rivals(*, address: str, offsets: Sequence[int], lasting: float, ttl: float, kind: str = "real") -> Found:
    """Workers that want the same job all the time: each holds it for twice its TTL, kept by heartbeats."""
    _create_job(address)

    def work(index: int) -> dict[str, Any]:
        move_wall_clock(offsets[index])
        holds: list[Hold] = []
        lost = 0
        end = time.monotonic() + lasting
        with closing(open_kind(address, kind)) as backend:
            for turn in count():
                if time.monotonic() > end:
                    return {"holds": holds, "lost": lost}
                lease = backend.lease([KEY], claim_id=f"{index}.{turn}", owner=str(index), ttl=ttl)
                if lease.fences:
                    hold, is_lost = _held(backend, lease, ttl=ttl)
                    holds.append(hold)
                    lost += is_lost
                time.sleep(ttl / 20)
        raise AssertionError("the loop ends by itself")

    return {"workers": together(len(offsets), work)}


def _held(backend: Backend, lease: Lease, *, ttl: float) -> tuple[Hold, bool]:
    """Holds a job for twice its TTL; and whether it was lost although the heartbeats came in time."""
    fence = lease.fences[KEY]
    start = last = time.monotonic()
    while last < start + 2 * ttl:
        time.sleep(ttl / 5)
        beat = time.monotonic()
        if not backend.heartbeat(lease, ttl=ttl):
            return (fence.number, start, last), time.monotonic() < last + ttl
        last = beat
    with suppress(StaleFenceError):
        backend.release(KEY, fence)
    return (fence.number, start, last), False


def rescue(*, address: str, silent: int, rescuer: int, ttl: float, patience: float, kind: str = "real") -> Found:
    """One worker leases a job and is never heard of again; seconds until another may take it, or None."""
    _create_job(address)
    offsets, is_leased = [silent, rescuer], get_context("fork").Event()

    def work(index: int) -> float | None:
        move_wall_clock(offsets[index])
        with closing(open_kind(address, kind)) as backend:
            if index == 0:
                start = time.monotonic()
                assert backend.lease([KEY], claim_id="silent", owner="silent", ttl=ttl).fences
                is_leased.set()
                return start
            is_leased.wait()  # without a timeout: that would go by the wall clock
            end = time.monotonic() + patience
            while time.monotonic() < end:
                offered = KEY in [head.key for head in backend.heads(JOBS, per_group=1)]
                if backend.lease([KEY], claim_id="rescuer", owner="rescuer", ttl=ttl).fences:
                    return time.monotonic()
                assert not offered, "a job was offered that could not be leased"
                time.sleep(0.02)
            return None

    leased, rescued = together(2, work)
    return {"after": None if rescued is None else rescued - leased}


def _create_job(address: str) -> None:
    with closing(open_address(address)) as backend:
        JobStore(backend).create(a_job(KEY.document_id))


# --- a clock that jumps while a run works ----------------------------------------------------------------------------


class JumpingDrafter(LLMClient):
    """Drafts while the wall clock goes back and forth by an hour."""

    @property
    def name(self) -> str:
        return "jumping/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        for seconds in (-HOUR, HOUR, -HOUR):
            move_wall_clock(seconds)
            await asyncio.sleep(0.8)
        return DraftAnswer(
            draft_text="Wage on education.", outcome_var="wage", treatment_var="educ", controls=["exper"]
        )


def jumps(*, folder: str) -> Found:
    """A run whose lease lasts shorter than its drafting, in which the clock jumps."""
    from ss_pipeline_tests.event_tape import recorded_events
    from ss_pipeline_tests.pipeline import a_pipeline

    pipeline = a_pipeline(Path(folder)).with_client(JumpingDrafter())
    pipeline = replace(pipeline, work=replace(pipeline.work, lease_seconds=2.0, heartbeat_seconds=0.1))
    job_id = pipeline.a_job()
    with recorded_events() as tape:
        done, ended = pipeline.run(job_id)
    fields = [field for _, event in tape.events for field in event.items()]
    durations = [value for name, value in fields if "seconds" in name and isinstance(value, int | float)]
    return {
        "ending": ended[job_id].ending,
        "stages": len(done),
        "shortest": min([*durations, *(event.seconds for event in done)]),
        "lost": len(tape.of("SS_CLAIM_LOST")),
    }


if __name__ == "__main__":
    run_tasks({"clocks": clocks, "rivals": rivals, "rescue": rescue, "jumps": jumps})
