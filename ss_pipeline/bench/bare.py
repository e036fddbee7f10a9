"""The bare work: the stages without Dagster, in a loop of one process or in a pool of two. The limit of every engine.

It begins where an engine's ways begin, with submissions that are taken in, and ends with published reports.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from ss_pipeline import wiring
from ss_pipeline.bench import trivial
from ss_pipeline.bench.figures import Figures
from ss_pipeline.bench.meter import Meter
from ss_pipeline.bench.ways import Way
from ss_pipeline.bench.workload import hand_in, published, take_all_in
from ss_pipeline.claim_run import work_off
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.local_stack import isolated_settings
from ss_pipeline.settings import Settings

_WARM_UP_JOBS: Final = 2
_POOL: Final = 2


def measure_bare(way: Way, folder: Path) -> Figures:
    """Does the jobs of the way in `folder`, after two others that pay for what is done once in a process."""
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer(folder / "server")) if way.storage == "postgres" else None
        if way.stages == "trivial":
            trivial.install()
            stack.callback(trivial.uninstall)
        settings = bench_settings(folder / "data", server)
        hand_in(folder / "warm-up", _WARM_UP_JOBS)
        _work(settings, folder / "warm-up", _WARM_UP_JOBS, processes=1)
        hand_in(folder / "inbox", way.jobs)
        meter = Meter([os.getpid()])  # a server that was started here is a child of this process
        before, started = meter.cpu_seconds(), time.perf_counter()
        _work(settings, folder / "inbox", way.jobs, processes=_POOL if way.how == "bare-pool" else 1)
        wall = time.perf_counter() - started
        return Figures(way=way, wall_seconds=wall, cpu_seconds=meter.cpu_seconds() - before)


def bench_settings(data: Path, server: PostgresServer | None) -> Settings:
    """Settings of a store in `data`, or on the server, with whatever else the user has set left out."""
    if server is None:
        return isolated_settings(data)
    return isolated_settings(data, job_store_postgres_dsn=server.url).model_copy(
        update={"job_store_backend": "postgres"}
    )


def _work(settings: Settings, inbox: Path, jobs: int, *, processes: int) -> None:
    with closing(wiring.light_parts(settings)) as parts:
        job_ids = take_all_in(parts, inbox, jobs)
    if processes == 1:
        _work_off(settings, job_ids)
    else:
        children = [_forked(settings, job_ids[number::processes]) for number in range(processes)]
        for child in children:
            os.waitpid(child, 0)
    with closing(wiring.light_parts(settings)) as parts:
        published(parts, job_ids)


def _work_off(settings: Settings, job_ids: Sequence[str]) -> None:
    with closing(wiring.light_parts(settings)) as parts:
        work, claim_id = wiring.work_parts(parts), f"bench.{os.getpid()}"
        for _ in work_off(job_ids, tenant_id="default", claim_id=claim_id, owner=f"run:{claim_id}", parts=work):
            pass


def _forked(settings: Settings, job_ids: Sequence[str]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        _work_off(settings, job_ids)
        status = 0
    finally:
        os._exit(status)
