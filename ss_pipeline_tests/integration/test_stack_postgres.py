"""The whole stack on PostgreSQL as a user starts it: its database killed under it, and a second one on what it left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest

from ss_pipeline import wiring
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.settings import Settings
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.pipeline import Pipeline, wages_csv
from ss_pipeline_tests.stacks import free_port, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.seed("S2.3.4")]
CLI = [sys.executable, "-m", "ss_pipeline.cli"]
JOBS = 5
STARTED_SECONDS = 120
PUBLISHED_SECONDS = 150
STOPPED_SECONDS = 60
OUTAGE_SECONDS = 3


@dataclass(frozen=True)
class Place:
    """A data folder with the database that `up --postgres` keeps in it."""

    data: Path

    def server(self) -> PostgresServer:
        """The database, not started here."""
        return PostgresServer(self.data / "postgres")

    def database_pid(self) -> int:
        """Of the database that runs there now."""
        return int((self.data / "postgres" / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    def pipeline(self) -> Pipeline:
        """Its inbox, and its jobs in the database."""
        address = self.server().url
        settings = Settings(data_dir=self.data, job_store_backend="postgres", job_store_postgres_dsn=address)
        parts = wiring.light_parts(settings)
        return Pipeline(parts, wiring.work_parts(parts))

    def published(self) -> int:
        """How many jobs are published; a database that is away is waited for."""
        parts = self.pipeline().parts
        try:
            return len(list(parts.jobs.rows(status="succeeded")))
        finally:
            parts.close()

    def asks(self, query: str) -> list[tuple[object, ...]]:
        """What the database answers."""
        connection = psycopg2.connect(self.server().url.replace("+psycopg2", ""))
        try:
            with connection.cursor() as cursor:
                cursor.execute(query)
                return list(cursor.fetchall())
        finally:
            connection.close()


@dataclass(frozen=True)
class First:
    """What the first stack did and left."""

    place: Place
    printed: str
    documents: list[tuple[object, ...]]
    runs: list[tuple[object, ...]]
    databases: tuple[int, int]
    status: int


@contextmanager
def _up(place: Place, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`ss-pipeline up --postgres`, ready; killed at the end if the block has not stopped it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SS_")}
    with (place.data / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*CLI, "up", "--postgres", "--port", str(free_port())],
            env=inherited | environment | {"SS_DATA_DIR": str(place.data)},
            cwd=PROJECT_ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: "press Ctrl-C" in _printed(place), STARTED_SECONDS)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOPPED_SECONDS)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> First:
    """A stack with a database of its own, which is killed while runs are at work; stopped when all is published."""
    place = Place(tmp_path_factory.mktemp("stack"))
    for number in range(JOBS):  # in the inbox when the stack starts, which saves a look at it
        place.pipeline().hand_in(f"wages-{number}", csv=wages_csv(60 + number))
    with _up(place) as process:
        wait_for(lambda: bool(place.asks("SELECT 1 FROM runs WHERE status = 'STARTED'")), PUBLISHED_SECONDS)
        killed = place.database_pid()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: place.published() == JOBS, PUBLISHED_SECONDS)
        documents = place.asks("SELECT document ->> 'status' FROM ss_pipeline.job_documents")
        runs = place.asks("SELECT DISTINCT run_id FROM runs")
        databases = (killed, place.database_pid())
        process.terminate()
        status = process.wait(STOPPED_SECONDS)
    return First(place, _printed(place), documents, runs, databases, status)


@pytest.mark.guarantee("F6")
def test_a_database_that_is_killed_under_the_stack_is_started_again_and_every_job_is_published(first: First) -> None:
    before, after = first.databases
    assert before != after
    assert "PostgreSQL had ended and runs again" in first.printed
    assert first.documents == [("succeeded",)] * JOBS


def test_jobs_and_runs_are_in_the_database_and_no_history_in_files(first: First) -> None:
    assert len(first.runs) >= 1
    dagster_home = first.place.data / "dagster"
    assert [path for path in dagster_home.rglob("*") if path.suffix in {".db", ".sqlite", ".sqlite3"}] == []
    assert not (first.place.data / "jobs").exists()


def test_sigterm_stops_dagster_and_then_the_database(first: First) -> None:
    assert first.status == 143
    assert not (first.place.data / "postgres" / "data" / "postmaster.pid").exists()
    assert "database system is shut down" in first.place.server().log_file.read_text(encoding="utf-8").splitlines()[-1]
    assert _processes_in(first.place.data) == []


@pytest.mark.guarantee("F6")
def test_a_second_stack_goes_on_with_what_the_first_left_and_after_an_outage_of_a_database_that_is_not_its_own(
    first: First,
) -> None:
    place = first.place
    with place.server() as server, _up(place, SS_JOB_STORE_POSTGRES_DSN=server.url.replace("+psycopg2", "")) as process:
        assert place.published() == JOBS
        assert set(first.runs) <= set(place.asks("SELECT DISTINCT run_id FROM runs"))
        server.kill()
        place.pipeline().hand_in("in-the-outage", csv=wages_csv(59))
        time.sleep(OUTAGE_SECONDS)
        server.start()
        wait_for(lambda: place.published() == JOBS + 1, PUBLISHED_SECONDS)
        process.send_signal(signal.SIGHUP)  # its terminal is closed
        assert process.wait(STOPPED_SECONDS) == 129
        assert place.asks("SELECT 1") == [(1,)]
    assert _processes_in(place.data) == []


def _printed(place: Place) -> str:
    return (place.data / "up.log").read_text(encoding="utf-8")


def _processes_in(folder: Path) -> list[str]:
    """Living processes that name a folder in their command line or environment, or work in it: what a stack left."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if os.fsencode(folder) in told or place.startswith(str(folder)):
            found.append(f"{process.name} {told[:200]!r}")
    return found
