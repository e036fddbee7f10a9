"""Many jobs handed in at once, through inbox, sensors, queue, daemon and launcher; whether each was published once.

    python -m ss_pipeline_tests.load.backlog --jobs 1000 [--storage postgres] [--stored 100000] [--answer-seconds 2]

`--stored` puts so many finished jobs into the store first, and partition keys of 9,000 of them into Dagster's set:
they must slow nothing down, and their keys must be retired. `--answer-seconds` has a language model draft, on loopback,
that takes so long for an answer. Prints what was seen while the backlog was drained.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dagster as dg

from ss_pipeline import wiring
from ss_pipeline.bench.meter import Meter
from ss_pipeline.bench.workload import hand_in
from ss_pipeline.console import OUT, print_table
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.local_stack import StackHome, check_alive, daemon_command, find_project, running
from ss_pipeline.settings import load_settings
from ss_pipeline.store.jobs import JOBS
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.fake_llm.process import FakeLLM, fake_llm

ANSWER: Final = {
    "draft_text": "The effect of educ on wage, with exper as a control.",
    "outcome_var": "wage",
    "treatment_var": "educ",
    "controls": ["exper"],
    "method": "ols",
}
STORED_KEYS: Final = 9_000
PATIENCE_SECONDS: Final = 900.0
MOST_GROWTH: Final = 0.10
"""Of the memory when a quarter is published, how much more it may be at the end."""
LIVE_KEYS: Final = 10_000


@dataclass
class Seen:
    """What was seen of a backlog while it was drained. Memory in MB, of all processes of the stack."""

    jobs: int
    seconds: float = 0.0
    published: int = 0
    twice: int = 0
    failed_runs: int = 0
    runs: int = 0
    at_once: int = 0
    held: int = 0
    keys: int = 0
    most_keys: int = 0
    memory: list[tuple[int, float]] = field(default_factory=list)

    def growth(self) -> float:
        """Memory at the end over memory when a quarter was published, less one."""
        early = [used for done, used in self.memory if done <= self.jobs / 4]
        late = [used for done, used in self.memory if done >= self.jobs * 3 / 4]
        return max(late) / max(early) - 1 if early and late else 0.0

    def faults(self) -> list[str]:
        """What should not be so."""
        wrong = {
            f"{self.jobs - self.published} jobs were not published": self.published != self.jobs,
            f"{self.twice} jobs were published twice": self.twice > 0,
            f"{self.failed_runs} runs failed": self.failed_runs > 0,
            f"{self.held} jobs are still claimed": self.held > 0,
            f"memory grew by {self.growth():.0%}": self.growth() > MOST_GROWTH,
            f"{self.most_keys} partition keys lived at once": self.most_keys >= LIVE_KEYS,
        }
        return [fault for fault, is_so in wrong.items() if is_so]


@dataclass(frozen=True)
class Stack:
    """A daemon with sensors on a fresh instance, with its store and its inbox."""

    parts: wiring.Parts
    instance: dg.DagsterInstance
    home: StackHome
    environment: dict[str, str]
    model: FakeLLM | None = None

    def fill(self, stored: int) -> None:
        """Puts finished jobs into the store, and keys of the newest into the set."""
        names = [f"job_{number:026d}" for number in range(stored)]
        for name in names:
            self.parts.jobs.create(a_job(name, status="succeeded"))
        self.instance.add_dynamic_partitions("jobs", names[-STORED_KEYS:])

    def drain(self, jobs: int) -> Seen:
        """Hands the jobs in at once and watches until all are published."""
        hand_in(self.home.data / "made", jobs)
        seen = Seen(jobs)
        before = self._published()
        with running(self.home, daemon_command(self.home), isolated=True, environment=self.environment) as process:
            meter = Meter([process.pid])
            time.sleep(15)  # the code location is loaded, the sensors tick
            started = time.monotonic()
            for folder in sorted((self.home.data / "made").iterdir()):
                folder.rename(self.home.data / "inbox" / folder.name)
            while seen.published < jobs and time.monotonic() - started < PATIENCE_SECONDS:
                check_alive(process, self.home)
                self._look(seen, meter, before)
                time.sleep(0.5)
            seen.seconds = time.monotonic() - started
            self._settle(seen)
        return seen

    def _look(self, seen: Seen, meter: Meter, before: int) -> None:
        started = dg.RunsFilter(job_name="process_jobs", statuses=[dg.DagsterRunStatus.STARTED])
        seen.at_once = max(seen.at_once, self.instance.get_runs_count(started))
        seen.keys = len(self.instance.get_dynamic_partitions("jobs"))
        seen.most_keys = max(seen.most_keys, seen.keys)
        seen.memory.append((seen.published, meter.memory_bytes() / 1e6))
        seen.published = self._published() - before

    def _settle(self, seen: Seen) -> None:
        """Waits for the last runs to end, and for keys beyond 5,000 to be retired; then counts."""
        deadline = time.monotonic() + 150
        while time.monotonic() < deadline and (self._in_flight() or seen.keys > 5_000):
            time.sleep(1)
            seen.keys = len(self.instance.get_dynamic_partitions("jobs"))
        runs = dg.RunsFilter(job_name="process_jobs")
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED])
        seen.runs, seen.failed_runs = self.instance.get_runs_count(runs), self.instance.get_runs_count(failed)
        for row in self.parts.jobs.rows(status="succeeded"):
            if not row.key.document_id.startswith("job_0000"):
                job = self.parts.jobs.load(row.key.document_id)
                seen.twice += len(job.publications) > 1
                seen.held += self.parts.jobs.backend.claim_of(row.key) is not None

    def _published(self) -> int:
        counts = self.parts.jobs.backend.counts(JOBS)
        return sum(number for (_, status), number in counts.items() if status == "succeeded")

    def _in_flight(self) -> int:
        statuses = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
        return self.instance.get_runs_count(dg.RunsFilter(statuses=statuses))


@contextmanager
def a_stack(folder: Path, *, storage: str, answer_seconds: float | None = None) -> Iterator[Stack]:
    """Everything in one folder; on PostgreSQL twelve runs at once, as deploy/dagster.postgres.yaml says."""
    home = StackHome(project=find_project(), dagster_home=folder / "dagster", data=folder / "data")
    environment: dict[str, str] = {}
    with ExitStack() as up:
        model = None
        if answer_seconds is not None:
            model = up.enter_context(fake_llm())
            model.does(seconds=answer_seconds, answer=json.dumps(ANSWER))
            environment = {"SS_LLM_BASE_URL": model.openai_url, "SS_LLM_PROVIDER": "loopback", "SS_LLM_MODEL": "m"}
        if storage == "postgres":
            server = up.enter_context(PostgresServer(folder / "server"))
            home = StackHome(home.project, home.dagster_home, home.data, instance="deploy/dagster.postgres.yaml")
            environment |= {
                "SS_JOB_STORE_BACKEND": "postgres",
                "SS_JOB_STORE_POSTGRES_DSN": server.url.replace("+psycopg2", ""),
                "SS_DAGSTER_POSTGRES_URL": server.url,
                "SS_CLAIM_SLOTS": "12",
            }
        home.prepare()
        with_values = {name.removeprefix("SS_").lower(): value for name, value in environment.items()}
        parts = wiring.light_parts(load_settings(data_dir=home.data, **with_values))
        up.callback(parts.close)
        up.enter_context(_variables(environment))
        instance = up.enter_context(dg.DagsterInstance.from_config(str(home.dagster_home)))
        yield Stack(parts, instance, home, environment, model)


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Dagster reads the address of its database from the environment."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> int:
    """Prints what was seen; 1 if something should not be so."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--stored", type=int, default=0)
    parser.add_argument("--answer-seconds", type=float)
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ss-backlog-") as name:
        Path(name).chmod(0o755)  # PostgreSQL does not run as root
        with a_stack(Path(name), storage=options.storage, answer_seconds=options.answer_seconds) as stack:
            stack.fill(options.stored)
            seen = stack.drain(options.jobs)
            asked = stack.model.seen() if stack.model else None
    rows = [
        ("published", f"{seen.published} of {seen.jobs}, {seen.twice} twice"),
        ("seconds", f"{seen.seconds:.1f} ({60 * seen.published / seen.seconds:.0f} a minute)"),
        ("runs", f"{seen.runs}, {seen.failed_runs} failed, {seen.at_once} at once"),
        ("memory", f"{max(used for _, used in seen.memory):.0f} MB at most, grown by {seen.growth():.0%}"),
        ("partition keys", f"{seen.most_keys} at most, {seen.keys} at the end"),
    ]
    if asked:
        rows.append(("calls", f"{asked.calls}, {asked.billed} billed, {asked.most_at_once} at once"))
    print_table(f"{options.jobs} jobs at once, {options.storage}, {options.stored} stored", ["what", "seen"], rows)
    for fault in seen.faults():
        OUT.print(f"FAULT: {fault}")
    return 1 if seen.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
