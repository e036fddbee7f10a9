"""What the store costs: each operation on each back end, with a short and a long backlog, and with many writers.

The servers are started for the benchmark (local_servers.py), with the durability the store asks of them. The bare work
beside it is an fsynced file write of a job's bytes (`durable.write_file`): what one durable change costs on this disk.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from ss_pipeline import durable, wiring
from ss_pipeline.console import print_table
from ss_pipeline.errors import JobVersionConflictError
from ss_pipeline.jobs.documents import render_document
from ss_pipeline.jobs.lifecycle import born
from ss_pipeline.jobs.model import Job
from ss_pipeline.local_servers import PostgresServer, RedisServer
from ss_pipeline.local_stack import isolated_settings
from ss_pipeline.settings import BackendName, Settings
from ss_pipeline.store.base import Backend
from ss_pipeline.store.jobs import JOBS, JobStore, job_key

Seconds: TypeAlias = list[float]
Value = TypeVar("Value")
BACK_ENDS: Final[tuple[BackendName, ...]] = ("file", "redis", "postgres")
_REQUIREMENT: Final = "Does education raise wages? Control for experience and for the region people live in."


@dataclass(frozen=True)
class Quantiles:
    """Median and 95th percentile of a sample, in milliseconds."""

    p50: float
    p95: float

    def __str__(self) -> str:
        return f"{self.p50:.2f} / {self.p95:.2f}"


def measure(*, backlogs: Sequence[int] = (1_000, 10_000), samples: int = 400, writers: int = 10) -> None:
    """Measures every back end with each number of waiting jobs; prints p50 / p95 in milliseconds.

    Args:
        backlogs: Jobs that wait while the operations are measured, ascending.
        samples: Measurements of each operation.
        writers: Processes that save at once, each jobs of its own and one that all share.
    """
    found: dict[str, dict[str, Quantiles]] = {}
    for name in BACK_ENDS:
        with _an_empty_store(name) as settings:
            found[name] = dict(_measured(settings, name, backlogs=backlogs, samples=samples, writers=writers))
    with tempfile.TemporaryDirectory() as folder:
        bare = _quantiles(_bare(Path(folder), samples))
    rows: list[Sequence[object]] = [
        (operation, *(str(found[name][operation]) for name in BACK_ENDS)) for operation in found[BACK_ENDS[0]]
    ]
    rows.append(("bare: one fsynced file", str(bare), "", ""))
    growth = f"claim one, p95: {backlogs[-1]} against {backlogs[0]} waiting"
    rows.append((growth, *(_growth(found[name], backlogs) for name in BACK_ENDS)))
    print_table("Store: p50 / p95, milliseconds", ["operation", *BACK_ENDS], rows)


def _growth(found: dict[str, Quantiles], backlogs: Sequence[int]) -> str:
    first, last = (found[_named("claim one", backlog)] for backlog in (backlogs[0], backlogs[-1]))
    return f"{last.p95 / first.p95:.2f} ×"


@contextmanager
def _an_empty_store(name: BackendName) -> Iterator[Settings]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ss-bench-")))
        folder.chmod(0o755)
        if name == "postgres":
            server = stack.enter_context(PostgresServer(folder / "server"))
            yield isolated_settings(folder / "data", job_store_postgres_dsn=server.url)
        elif name == "redis":
            redis = stack.enter_context(RedisServer(folder / "server"))
            yield isolated_settings(folder / "data", redis_url=redis.url)
        else:
            yield isolated_settings(folder / "data")


def _measured(
    settings: Settings, name: BackendName, *, backlogs: Sequence[int], samples: int, writers: int
) -> Iterator[tuple[str, Quantiles]]:
    with closing(wiring.open_backend(settings, name)) as backend:
        store, made = JobStore(backend), 0
        for backlog in backlogs:
            created = _each(range(made, backlog), lambda number: store.create(_a_job(number)))
            made = backlog
            yield _named("create", backlog), _quantiles(created)
            for operation, taken in _operations(store, backlog=backlog, samples=samples).items():
                yield _named(operation, backlog), _quantiles(taken)
    yield f"save, {writers} writers", _quantiles(_raced(settings, name, writers=writers, times=samples, shared=False))
    yield (
        f"save, {writers} writers of one job",
        _quantiles(_raced(settings, name, writers=writers, times=max(1, samples // writers), shared=True)),
    )


def _named(operation: str, backlog: int) -> str:
    return f"{operation}, {backlog} waiting"


def _operations(store: JobStore, *, backlog: int, samples: int) -> dict[str, Seconds]:
    """Seconds of each operation. A claim is what a sensor and its run do: heads, reservation, lease."""
    backend, step = store.backend, max(1, backlog // samples)
    ids = [_job_id(number) for number in range(0, backlog, step)][:samples]
    taken: dict[str, Seconds] = {"load": _each(ids, store.load)}
    jobs = [store.load(job_id) for job_id in ids]
    taken["save"] = _each(jobs, lambda job: store.save(job.changed(language="en")))
    taken["claim one"] = _claims(backend, times=samples, size=1)
    taken["claim 25"] = _claims(backend, times=max(1, samples // 25), size=25)
    lease = backend.lease([job_key(job_id) for job_id in ids], claim_id="bench", owner="bench", ttl=600)
    singles = [replace(lease, fences={key: fence}) for key, fence in lease.fences.items()]
    taken["heartbeat of one"] = _each(singles, lambda single: backend.heartbeat(single, ttl=600))
    taken["complete"] = _each(lease.fences.items(), lambda held: backend.complete(*held))
    taken["page of 100"] = _each(range(max(1, samples // 10)), lambda _: backend.page(JOBS, limit=100))
    return taken


def _claims(backend: Backend, *, times: int, size: int) -> Seconds:
    """Each claim is given back untimed, so that as many wait at the end as at the start."""
    taken: Seconds = []
    for number in range(times):
        started = time.perf_counter()
        heads = backend.heads(JOBS, per_group=size)
        reserved = backend.reserve([head.key for head in heads], claim_id=f"bench.{number}", ttl=600)
        lease = backend.lease(reserved, claim_id=f"bench.{number}", owner="bench", ttl=600)
        taken.append(time.perf_counter() - started)
        if len(lease.fences) != size:
            raise SystemExit(f"bench: {len(lease.fences)} of {size} jobs were leased")
        for key, fence in lease.fences.items():
            backend.release(key, fence)
    return taken


def _raced(settings: Settings, name: BackendName, *, writers: int, times: int, shared: bool) -> Seconds:
    """Seconds of each acknowledged save, the tries that found another version included, of all writers together."""
    pipes = [_forked(partial(_saves, settings, name, 0 if shared else index, times)) for index in range(writers)]
    taken: Seconds = []
    for child, pipe in pipes:
        with os.fdopen(pipe, "rb") as answers:
            taken += json.loads(answers.read())
        os.waitpid(child, 0)
    return taken


def _saves(settings: Settings, name: BackendName, number: int, times: int) -> Seconds:
    with closing(wiring.open_backend(settings, name)) as backend:
        store = JobStore(backend)
        store.load(_job_id(number))
        return _each(range(times), lambda priority: _save(store, _job_id(number), priority % 100))


def _save(store: JobStore, job_id: str, priority: int) -> None:
    while True:
        with suppress(JobVersionConflictError):
            store.save(store.load(job_id).changed(priority=priority))
            return


def _forked(work: Callable[[], Seconds]) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writer, "wb") as answers:
                answers.write(json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return child, reader


def _bare(folder: Path, samples: int) -> Seconds:
    body = render_document(_a_job(0).as_payload())
    return _each(range(samples), lambda number: durable.write_file(folder / str(number % 10), body))


def _each(values: Iterable[Value], work: Callable[[Value], object]) -> Seconds:
    taken: Seconds = []
    for value in values:
        started = time.perf_counter()
        work(value)
        taken.append(time.perf_counter() - started)
    return taken


def _quantiles(taken: Seconds) -> Quantiles:
    cuts = statistics.quantiles(taken, n=20, method="inclusive") if len(taken) > 1 else taken * 19
    return Quantiles(p50=1_000 * statistics.median(taken), p95=1_000 * cuts[18])


def _a_job(number: int) -> Job:
    values = {
        "job_id": _job_id(number),
        "trace_id": f"{number:032x}",
        "status": "created",
        "requirement": _REQUIREMENT,
        "created_at": f"2026-01-06T12:00:00.{number:06d}+00:00",
    }
    return born(Job.model_validate(values), by="bench")


def _job_id(number: int) -> str:
    return f"job_{number:016d}"
