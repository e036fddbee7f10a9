"""How long a person waits on an idle system: from handing in to the draft and to the report, by the inbox and the CLI.

One job after the other through the stack as `ss-pipeline up` starts it, each at a random moment between two looks of
the sensors. Times of a job are those of its own history; they begin when the folder is in the inbox, or when the
command is started.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Final

from ss_pipeline import wiring
from ss_pipeline.bench.workload import hand_in
from ss_pipeline.console import OUT, print_table
from ss_pipeline.jobs.model import Job
from ss_pipeline.local_stack import (
    LOOPBACK,
    StackHome,
    check_alive,
    development_command,
    find_project,
    isolated_settings,
    running,
    wait_for_page,
)
from ss_pipeline.webserver import Address, address_file, announced

_REQUIREMENT: Final = "Effect of educ on wage, controlling for exper"
_LOOKS_APART: Final = 5.0
"""Seconds between two looks of a sensor; Dagster's daemon has them no closer."""
_LONGEST_SECONDS: Final = 90.0


@dataclass(frozen=True)
class Waited:
    """Seconds of one job since it was handed in; `at_once`: its run was launched without a sensor."""

    command: float
    draft_ready: float
    published: float
    at_once: bool


@dataclass(frozen=True)
class _Stack:
    """A running stack: its first process, its folders and its stores."""

    process: subprocess.Popen[bytes]
    home: StackHome
    parts: wiring.Parts

    def published(self, name: str) -> Job:
        """The job of a submission, once it is published."""
        receipt = self.home.data / "accepted" / name / "receipt.json"
        deadline = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < deadline:
            check_alive(self.process, self.home)
            if receipt.is_file():
                job = self.parts.jobs.load(json.loads(receipt.read_bytes())["job_id"])
                if job.status == "succeeded":
                    return job
            time.sleep(0.1)
        raise SystemExit(f"bench: {name} is not published after {_LONGEST_SECONDS:.0f} s; see {self.home.log_file}")


def measure(options: Sequence[str]) -> None:
    """Measures both ways with `--jobs` jobs each (default 24) and prints median, 95th percentile and maximum."""
    parser = argparse.ArgumentParser(prog="latency", description=measure.__doc__)
    parser.add_argument("--jobs", type=int, default=24)
    jobs = parser.parse_args(options).jobs
    with tempfile.TemporaryDirectory(prefix="ss-bench-") as folder:
        made = Path(folder) / "made"
        hand_in(made, 2 * jobs + 2)
        submissions = iter(sorted(made.iterdir()))
        with _stack(Path(folder) / "data") as stack:
            by_inbox = _sample(_by_inbox, stack, submissions, jobs=jobs)
            by_command = _sample(_by_command, stack, submissions, jobs=jobs)
    rows = [*_rows("inbox", by_inbox), *_rows("ss-pipeline submit", by_command)]
    print_table("Latency on an idle system, seconds", ["way", "until", "p50", "p95", "max", "jobs"], rows)
    OUT.print(f"{sum(waited.at_once for waited in by_command)} of {jobs} commands had their run launched at once")


@contextmanager
def _stack(data: Path) -> Iterator[_Stack]:
    settings = isolated_settings(data)
    home = StackHome(project=find_project(), dagster_home=data / "dagster", data=data)
    port = _free_port()
    url = f"http://{LOOPBACK}:{port}"
    with (
        closing(wiring.light_parts(settings)) as parts,
        running(home, development_command(home, port=port), isolated=True) as process,
    ):
        wait_for_page(f"{url}/server_info", process=process, home=home, seconds=90)
        with announced(address_file(data), Address(url=url, pipeline=settings.pipeline_id())):
            yield _Stack(process, home, parts)


def _sample(
    way: Callable[[_Stack, Path], Waited], stack: _Stack, submissions: Iterator[Path], *, jobs: int
) -> list[Waited]:
    """One job that pays for what is done once, then so many, each after a pause that hits any moment of the tick."""
    way(stack, next(submissions))
    waited: list[Waited] = []
    for _ in range(jobs):
        time.sleep(random.uniform(0, _LOOKS_APART))  # noqa: S311 - no secret
        waited.append(way(stack, next(submissions)))
    return waited


def _by_inbox(stack: _Stack, submission: Path) -> Waited:
    began = time.time()
    submission.rename(stack.parts.inbox / submission.name)
    took = time.time() - began
    return _waited(stack.published(submission.name), began, command=took, at_once=False)


def _by_command(stack: _Stack, submission: Path) -> Waited:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SS_", "PYTHONDONT"))}
    command = [sys.executable, "-m", "ss_pipeline.cli", "submit", _REQUIREMENT, str(submission / "data.csv"), "--json"]
    began = time.time()
    done = subprocess.run(
        command, capture_output=True, check=True, env=environment | {"SS_DATA_DIR": str(stack.home.data)}
    )
    took, said = time.time() - began, json.loads(done.stdout)
    return _waited(stack.published(said["submission"]), began, command=took, at_once=said["run_id"] is not None)


def _waited(job: Job, began: float, *, command: float, at_once: bool) -> Waited:
    ends = {entry.to_status: datetime.fromisoformat(entry.at).timestamp() - began for entry in job.history}
    return Waited(command, ends["draft_ready"], ends["succeeded"], at_once)


def _rows(way: str, waited: Sequence[Waited]) -> Iterator[tuple[str, str, str, str, str, int]]:
    kinds = {
        "handed in": [each.command for each in waited],
        "draft_ready": [each.draft_ready for each in waited],
        "published": [each.published for each in waited],
    }
    for until, seconds in kinds.items():
        cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
        yield way, until, f"{cuts[9]:.2f}", f"{cuts[18]:.2f}", f"{max(seconds):.2f}", len(seconds)


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])
