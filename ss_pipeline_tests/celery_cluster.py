"""Larger than one machine, on this one: PostgreSQL, Redis, a Dagster daemon and Celery workers as deploy/celery says.

Each worker is the head of a process group of its own, which dies whole as a machine would.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg2

from ss_pipeline import wiring
from ss_pipeline.settings import Settings
from ss_pipeline.store.jobs import JOBS, job_key
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.pipeline import Pipeline
from ss_pipeline_tests.servers import new_database, own_redis

DEPLOY: Final = PROJECT_ROOT / "deploy" / "celery"
_STOP_SECONDS: Final = 40


@dataclass(frozen=True)
class Worker:
    """A Celery worker and what it logs."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path

    def logged(self) -> str:
        """What it wrote so far."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8")

    def taken(self) -> list[str]:
        """Ids of the Celery tasks that it took, oldest first."""
        return re.findall(r"Task execute_job\[([0-9a-f-]+)\] received", self.logged())

    def finished(self) -> list[str]:
        """Ids of those that it ended."""
        return re.findall(r"Task execute_job\[([0-9a-f-]+)\] succeeded", self.logged())

    def kill(self) -> None:
        """Ends it and all its processes at once, as a machine that loses its power does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Cluster:
    """The servers, and what is asked of them."""

    folder: Path
    database: str
    environment: dict[str, str]
    pipeline: Pipeline

    def asks(self, query: str) -> list[tuple[object, ...]]:
        """What the database answers; the jobs are in the schema `ss_pipeline`, the runs in `public`."""
        connection = psycopg2.connect(self.database.replace("+psycopg2", ""))
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def leases(self) -> dict[str, str]:
        """The ids of the jobs that are worked on now, with the ids of the Celery tasks that do."""
        rows = self.asks(
            "SELECT document_id, value FROM ss_pipeline.claims JOIN run_tags ON owner = 'run:' || run_id"
            " WHERE state = 'leased' AND key = 'dagster-celery/task_id'"
        )
        return {str(job_id): str(task) for job_id, task in rows}

    def fence_of(self, job_id: str) -> int | None:
        """The fence of the live lease on a job; None where nobody works on it."""
        view = self.pipeline.parts.jobs.backend.claim_of(job_key(job_id))
        return view.fence if view else None

    def publications(self) -> dict[str, list[tuple[int, int]]]:
        """Of each job the versions that are published, with the fences they were published under."""
        jobs = self.pipeline.parts.jobs
        found = [jobs.load(row.key.document_id, tenant_id=row.key.tenant_id) for row in jobs.rows()]
        return {job.job_id: [(made.version, made.fence) for made in job.publications] for job in found}

    def runs_in(self, status: str) -> int:
        """How many of Dagster's runs are in this status."""
        return len(self.asks(f"SELECT 1 FROM runs WHERE status = '{status}'"))

    def published(self) -> int:
        """How many jobs are published."""
        counts = self.pipeline.parts.jobs.backend.counts(JOBS)
        return sum(number for (_, status), number in counts.items() if status == "succeeded")


@contextmanager
def celery_cluster(folder: Path, *, changes: Mapping[str, int], **settings: str) -> Iterator[Cluster]:
    """PostgreSQL and Redis, with the settings of deploy/celery in a DAGSTER_HOME; no process of Dagster yet.

    Args:
        changes: Numbers in its dagster.yaml that are to be others, by name.
        settings: Environment variables for all processes.
    """
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(_changed((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"), changes))
    with own_redis() as redis:
        broker = redis.url.replace("unix://", "redis+socket://")
        database = new_database()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SS_")}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)
        addresses = {
            "DAGSTER_HOME": str(home),
            "DAGSTER_CELERY_BROKER_URL": broker,
            "DAGSTER_CELERY_BACKEND_URL": broker,
            "PYTHONPATH": str(DEPLOY),
            "SS_DAGSTER_POSTGRES_URL": database,
            "SS_DATA_DIR": str(folder),
            "SS_JOB_STORE_BACKEND": "postgres",
            "SS_JOB_STORE_POSTGRES_DSN": database,
            "OPENBLAS_NUM_THREADS": "1",
        }
        parts = wiring.light_parts(
            Settings(data_dir=folder, job_store_backend="postgres", job_store_postgres_dsn=database)
        )
        try:
            yield Cluster(folder, database, inherited | addresses | settings, Pipeline(parts, wiring.work_parts(parts)))
        finally:
            parts.close()


@contextmanager
def dagster_and_workers(cluster: Cluster, *, names: Sequence[str], processes: int) -> Iterator[list[Worker]]:
    """A daemon and a worker for each name, stopped at the end; none is ready yet.

    Args:
        processes: Runs at once of each worker.
    """
    daemon = _started(
        cluster, [_program("dagster-daemon"), "run", "-w", str(PROJECT_ROOT / "workspace.yaml")], "daemon"
    )
    workers = [
        Worker(name, _started(cluster, _worker_command(name, processes), name), cluster.folder) for name in names
    ]
    try:
        yield workers
    finally:
        _stop([daemon, *(worker.process for worker in workers)])


def _changed(settings: str, changes: Mapping[str, int]) -> str:
    for name, number in changes.items():
        settings, found = re.subn(rf"{name}: \d+", f"{name}: {number}", settings)
        assert found == 1, name
    return settings


def _worker_command(name: str, processes: int) -> list[str]:
    """As deploy/celery/README.md has it."""
    worker = [_program("celery"), "--app", "dagster_celery.app", "worker", "--loglevel", "INFO"]
    return [*worker, "--hostname", f"{name}@%h", "--concurrency", str(processes)]


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _started(cluster: Cluster, command: list[str], name: str) -> subprocess.Popen[bytes]:
    with (cluster.folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, env=cluster.environment, cwd=PROJECT_ROOT, stdout=log, stderr=log, start_new_session=True
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """SIGTERM to each alone, which a worker's processes would not survive; SIGKILL to what is left of its group."""
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait(_STOP_SECONDS)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
