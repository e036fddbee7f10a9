"""A real pipeline whose processes are killed while jobs are in work: what is killed, and what may not be lost.

Daemon, code server, zygote and runs are those that `ss-pipeline up` starts, without the UI. What lives here: the stack
under fault and the judgement on it. What is killed how often: test_launcher_faults.py.
"""

import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dagster as dg

from ss_pipeline import wiring
from ss_pipeline.jobs.model import Job
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.processes import is_alive, send_signal
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.local_stack import StackHome, _environment, daemon_command, running
from ss_pipeline.settings import load_settings
from ss_pipeline.store.base import ClaimView
from ss_pipeline.store.jobs import job_key
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.pipeline import Pipeline, wages_csv
from ss_pipeline_tests.stacks import wait_for

SCALED: Final = {
    "SS_CLAIM_LEASE_SECONDS": "3",
    "SS_CLAIM_HEARTBEAT_SECONDS": "1",
    "SS_CLAIM_RESERVE_SECONDS": "30",
}
"""Leases and reservations of a twentieth of their length: the ratio to the heartbeat is the promise."""
VICTIMS: Final = ("child", "zygote", "daemon", "code server", "everything")
RUN_KEY: Final = "dagster/run_key"
STARTED: Final = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
UNFINISHED: Final = dg.RunsFilter(
    statuses=[status for status in dg.DagsterRunStatus if status.value not in {"SUCCESS", "FAILURE", "CANCELED"}]
)
_PATIENCE_SECONDS: Final = 240.0


@dataclass
class FaultyStack:
    """A daemon and its pipeline in a folder of their own.

    Args:
        environment: The settings that the daemon's processes get besides the folder.
    """

    home: StackHome
    instance: dg.DagsterInstance
    pipeline: Pipeline
    environment: Mapping[str, str]
    started: ExitStack
    daemons: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    handed_in: int = 0

    def start(self) -> None:
        """Starts a daemon, beside what an earlier one left behind."""
        command = daemon_command(self.home)
        daemon = running(self.home, command, isolated=True, environment=self.environment)
        self.daemons.append(self.started.enter_context(daemon))

    def stop(self) -> None:
        """Stops all daemons, as Ctrl-C does, and what is left of them and of runs."""
        self.started.close()

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the daemons."""
        return _environment(self.home, isolated=True) | {**self.environment}

    def hand_in(self, *, jobs: int, rows: int = 60) -> None:
        """Puts so many submissions into the inbox, each with data of its own: the same ones would be the same job."""
        for _ in range(jobs):
            self.handed_in += 1
            self.pipeline.hand_in(f"submission-{self.handed_in}", csv=wages_csv(rows + self.handed_in))

    def kill(self, victim: str) -> list[str]:
        """Kills it with SIGKILL while a run is at work; the runs that were started then.

        `everything` is what a dead machine would take: daemon, code server, zygote and runs.
        """
        daemon = self.daemons[-1]
        while True:
            record = self._at_work()
            started = self.started_runs()
            match victim:
                case "child" | "zygote":
                    has_hit = send_signal(record.process if victim == "child" else record.zygote, signal.SIGKILL)
                case "daemon":
                    has_hit = _killed([daemon.pid])
                case "code server":
                    has_hit = _killed(self.code_servers())
                case _:
                    runs = [each.process.pid for each in self._living()]
                    has_hit = _killed([*_group(daemon.pid), *self.zygotes(), *runs])
            if has_hit:
                return started

    def seconds_started(self, run_ids: Sequence[str], *, since: float, patience: float = _PATIENCE_SECONDS) -> float:
        """How long after `since` (of time.monotonic) the last of these runs left STARTED; infinite where it did not."""
        left = self._comes_true(lambda: not {*self.started_runs()} & {*run_ids}, seconds=patience)
        return time.monotonic() - since if left else math.inf

    def jobs(self) -> list[Job]:
        """All jobs, as stored."""
        return [self.pipeline.job(row.key.document_id) for row in self.pipeline.parts.jobs.rows()]

    def settle(self, *, jobs: int, seconds: float = _PATIENCE_SECONDS) -> bool:
        """Waits until so many jobs are published, all runs ended and nothing is held; whether that came in time."""
        return self._comes_true(lambda: self._is_settled(jobs), seconds=seconds)

    def faults(self, *, jobs: int) -> list[str]:
        """What was lost, doubled or left."""
        found = [f"{len(self.jobs())} jobs instead of {jobs}"] if len(self.jobs()) != jobs else []
        for job in self.jobs():
            if job.status != "succeeded":
                found.append(f"{job.job_id} is {job.status}, {job.failure}")
            found += doubled(job)
            if (view := self._claim_of(job)) is not None:
                found.append(f"{job.job_id} is still held: {view}")
        found += [f"run {run.run_id} is {run.status.value}" for run in self.instance.get_runs(UNFINISHED)]
        run_keys = Counter(run.tags.get(RUN_KEY, run.run_id) for run in self.instance.get_runs())
        found += [f"{count} runs of {key}" for key, count in run_keys.items() if count > 1]
        commits = Counter(self._committed())
        found += [f"{job_id} was published {count} times" for job_id, count in commits.items() if count > 1]
        return found

    def started_runs(self) -> list[str]:
        """The ids of the runs that are STARTED."""
        return [run.run_id for run in self.instance.get_runs(STARTED)]

    def _comes_true(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _at_work(self) -> RunRecord:
        """The record of a run that is started and whose process lives."""
        found: list[RunRecord] = []

        def look() -> bool:
            started = self.started_runs()
            found[:] = [record for record in self._living() if record.run_id in started]
            return bool(found)

        wait_for(look, _PATIENCE_SECONDS)
        return found[0]

    def _is_settled(self, jobs: int) -> bool:
        stored = self.jobs()
        if len(stored) != jobs or any(job.status != "succeeded" for job in stored):
            return False
        return not self.instance.get_runs_count(UNFINISHED) and not any(map(self._claim_of, stored))

    def _claim_of(self, job: Job) -> ClaimView | None:
        return self.pipeline.parts.jobs.backend.claim_of(job_key(job.job_id, job.tenant_id))

    def _committed(self) -> Iterator[str]:
        """The jobs of the events that say that a version was published."""
        for line in self.home.log_file.read_text(encoding="utf-8", errors="replace").splitlines():
            if "SS_PUBLICATION_COMMITTED" in line:
                yield line.partition('"job_id": "')[2].partition('"')[0]

    @property
    def _folder(self) -> LauncherFolder:
        return LauncherFolder.of(str(self.home.dagster_home))

    def _living(self) -> list[RunRecord]:
        return [record for record in RunRecords(self._folder.runs).all() if is_alive(record.process)]

    def zygotes(self) -> list[int]:
        """The process ids of the living zygotes."""
        return [process.pid for _, process in self._folder.zygotes()]

    def code_servers(self) -> list[int]:
        """The process ids of the newest daemon's code servers."""
        return _code_servers(self.daemons[-1].pid)


def doubled(job: Job) -> list[str]:
    """What was published more than once: each version, and each draft."""
    versions = Counter(publication.version for publication in job.publications)
    drafts = Counter(publication.draft_sha256 for publication in job.publications)
    found = [f"{job.job_id} has {count} versions {version}" for version, count in versions.items() if count > 1]
    return found + [f"{job.job_id} has {count} versions of one draft" for count in drafts.values() if count > 1]


@contextmanager
def faulty_stack(
    folder: Path, *, environment: Mapping[str, str] = SCALED, instance: Path | None = None
) -> Iterator[FaultyStack]:
    """A stack, not yet started; at the end nothing of it is left.

    Args:
        instance: Other settings of the Dagster instance than the project's.
    """
    project = folder / "project"
    project.mkdir()
    shutil.copyfile(instance or PROJECT_ROOT / "dagster.yaml", project / "dagster.yaml")
    shutil.copyfile(PROJECT_ROOT / "workspace.yaml", project / "workspace.yaml")
    home = StackHome(project=project, dagster_home=folder / "data" / "dagster", data=folder / "data")
    home.prepare()
    parts = wiring.light_parts(load_settings(data_dir=home.data))
    with ExitStack() as started, dg.DagsterInstance.from_config(str(home.dagster_home)) as opened:
        yield FaultyStack(home, opened, Pipeline(parts, wiring.work_parts(parts)), environment, started)
        started.close()
    left = processes_of(folder)
    assert left == [], left


def kill_at_random(stack: FaultyStack, victim: str, *, chance: random.Random) -> tuple[float, list[str]]:
    """Kills the victim at some moment while runs are at work, and starts a daemon where it is gone.

    Returns:
        When that was (time.monotonic), and the runs that were started then.
    """
    wait_for(lambda: bool(stack.started_runs()), _PATIENCE_SECONDS)
    time.sleep(chance.uniform(0, 0.5))
    started = stack.kill(victim)
    if victim in {"daemon", "everything"}:
        stack.start()
    return time.monotonic(), started


def kill_group(leader: int) -> None:
    """Kills what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def processes_of(folder: Path) -> list[str]:
    """Living processes that name the folder in their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in told and int(process.name) != os.getpid():
            found.append(f"{process.name} {told[:200]!r}")
    return found


def _killed(pids: Sequence[int]) -> bool:
    """Kills these processes; False where none was there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _code_servers(daemon: int) -> list[int]:
    """The processes of a daemon's group that serve its code."""
    return [pid for pid in _group(daemon) if b"\0api\0grpc" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _group(leader: int) -> list[int]:
    """The processes of a group; the leader is the first."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(process.name)) == leader:
                found.append(int(process.name))
    return sorted(found, key=lambda pid: pid != leader)
