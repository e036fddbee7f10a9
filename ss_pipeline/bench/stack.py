"""The ways through the engine: a daemon and its code server on a fresh instance, for the length of one measurement.

The instance is the project's own (dagster.yaml), changed in exactly what the way says. Jobs are taken in all at once;
then everything goes through claim sensor, run queue, daemon and launcher. A few jobs before them pay for what is done
once: imports, byte code, the zygote.
"""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
import yaml

from ss_pipeline import wiring
from ss_pipeline.bench.bare import bench_settings
from ss_pipeline.bench.figures import Figures
from ss_pipeline.bench.meter import Meter
from ss_pipeline.bench.ways import Way
from ss_pipeline.bench.workload import Published, expect, hand_in, published, take_all_in
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.local_stack import StackHome, check_alive, daemon_command, find_project, running
from ss_pipeline.store.jobs import JOBS

_WARM_UP_JOBS: Final = 3
_PATIENCE_SECONDS: Final = 300.0
"""After so long without an end of a job something is wrong."""
_LOOK_SECONDS: Final = 0.2
_LOOKS_A_WEIGHING: Final = 5
"""Memory is weighed at every fifth look: the kernel walks the page tables of all processes for it."""
_SETTLE_SECONDS: Final = 10.0
_LOG_CHARACTERS: Final = 3_000


@dataclass(frozen=True)
class _Used:
    """What the processes have used for some jobs."""

    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class _Stack:
    """A running stack: where its jobs are, its first process, and what all its processes use."""

    way: Way
    home: StackHome
    parts: wiring.Parts
    process: subprocess.Popen[bytes]
    meter: Meter

    def work(self, inbox: Path, jobs: int) -> tuple[list[str], _Used]:
        """Takes the submissions in and waits until all are published and their processes have ended."""
        living, before, own = self.meter.living(), self.meter.cpu_seconds(), time.process_time()
        job_ids = take_all_in(self.parts, inbox, jobs)
        intake = time.process_time() - own
        peak = self._wait(jobs)
        self._settle(living)
        return job_ids, _Used(self.meter.cpu_seconds() - before + intake, peak)

    def _wait(self, jobs: int) -> int:
        """Returns when all jobs are published; the most memory seen."""
        peak, looks, left = 0, 0, jobs
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while left > 0:
            check_alive(self.process, self.home)
            if looks % _LOOKS_A_WEIGHING == 0:
                peak = max(peak, self.meter.memory_bytes())
            looks += 1
            time.sleep(_LOOK_SECONDS)
            left, before = self._unpublished(), left
            if left < before:
                deadline = time.monotonic() + _PATIENCE_SECONDS
            elif time.monotonic() > deadline:
                raise self._failed(f"{left} of {jobs} jobs stay")
        return peak

    def _unpublished(self) -> int:
        counts = self.parts.jobs.backend.counts(JOBS)
        if failed := sum(number for (_, status), number in counts.items() if status in {"failed", "draft_ready"}):
            raise self._failed(f"{failed} jobs were not published")
        return sum(number for (_, status), number in counts.items() if status != "succeeded")

    def _failed(self, what: str) -> SystemExit:
        """The log is in a folder that is removed, so its end is shown."""
        log = self.home.log_file.read_text(encoding="utf-8", errors="replace")
        return SystemExit(f"bench: {self.way.name}: {what}; the log ends:\n{log[-_LOG_CHARACTERS:]}")

    def _settle(self, living: set[int]) -> None:
        """Runs outlive their jobs by a moment, which costs as well."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while self.meter.living() - living and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)


def measure_stack(way: Way, folder: Path) -> Figures:
    """Does the jobs of the way through the engine, with everything it needs in `folder`."""
    hand_in(folder / "warm-up", _WARM_UP_JOBS)
    hand_in(folder / "inbox", way.jobs)
    with _stack(way, folder) as stack:
        stack.work(folder / "warm-up", _WARM_UP_JOBS)
        job_ids, used = stack.work(folder / "inbox", way.jobs)
        ways = published(stack.parts, job_ids)
    return _figures(way, ways, used)


def _figures(way: Way, ways: list[Published], used: _Used) -> Figures:
    first = min(job.submitted_at for job in ways)
    return Figures.of_stack(
        way,
        waits=[job.published_at - job.submitted_at for job in ways],
        ends=[job.published_at - first for job in ways],
        cpu_seconds=used.cpu_seconds,
        peak_bytes=used.peak_bytes,
        runs=len({job.run for job in ways}),
    )


@contextmanager
def _stack(way: Way, folder: Path) -> Iterator[_Stack]:
    with ExitStack() as up:
        server = up.enter_context(PostgresServer(folder / "server")) if way.storage == "postgres" else None
        settings = bench_settings(folder / "data", server)
        home = _home(way, folder, server)
        if way.live_keys:
            _add_keys(home, way.live_keys)
        parts = wiring.light_parts(settings)
        up.callback(parts.close)
        environment = _environment(way, folder, server)
        process = up.enter_context(running(home, daemon_command(home), isolated=True, environment=environment))
        yield _Stack(way, home, parts, process, Meter([process.pid, *([server.pid] if server else [])]))


def _home(way: Way, folder: Path, server: PostgresServer | None) -> StackHome:
    """A project folder of its own, with the instance and the workspace of the way."""
    project = find_project()
    own = folder / "project"
    own.mkdir()
    given = yaml.safe_load((project / "dagster.yaml").read_text(encoding="utf-8"))
    (own / "dagster.yaml").write_text(yaml.safe_dump(instance_of(way, given, server)), encoding="utf-8")
    (own / "workspace.yaml").write_text(yaml.safe_dump(_workspace(way, project)), encoding="utf-8")
    home = StackHome(project=own, dagster_home=folder / "dagster", data=folder / "data")
    home.prepare()
    return home


def instance_of(way: Way, given: Mapping[str, Any], server: PostgresServer | None) -> dict[str, Any]:
    """The project's instance, with the launcher, the queue and the storage of the way."""
    instance = {name: value for name, value in given.items() if name != "run_launcher" or way.is_warm}
    if way.is_warm:
        instance.setdefault("run_launcher", {"module": "ss_pipeline.launcher", "class": "WarmRunLauncher"})
    if way.how == "usual":
        del instance["run_queue"]
    if server is not None:
        instance["storage"] = {"postgres": {"postgres_url": server.url}}
    runs = {**instance["concurrency"]["runs"], "max_concurrent_runs": way.slots}
    return {**instance, "concurrency": {**instance["concurrency"], "runs": runs}}


def _workspace(way: Way, project: Path) -> dict[str, Any]:
    attribute = {
        ("trivial", False): "trivial", ("trivial", True): "trivial_usual", ("real", True): "usual",
    }.get((way.stages, way.how == "usual"))  # fmt: skip
    module = {"module_name": "ss_pipeline.definitions"}
    if attribute:
        module = {"module_name": "ss_pipeline.bench.locations", "attribute": attribute}
    place = {"working_directory": str(project), "location_name": "ss_pipeline"}
    return {"load_from": [{"python_module": module | place}]}


def _environment(way: Way, folder: Path, server: PostgresServer | None) -> dict[str, str]:
    """Settings of the stack's processes. The inbox stays empty: jobs are taken in here, at once."""
    settings = {
        "SS_INBOX_DIR": str(folder / "no-inbox"),
        "SS_CLAIM_MAX_JOBS": str(way.claim_size),
        "SS_CLAIM_SLOTS": str(way.slots),
    }
    if server is not None:
        settings |= {"SS_JOB_STORE_BACKEND": "postgres", "SS_JOB_STORE_POSTGRES_DSN": server.url}
    return settings


def _add_keys(home: StackHome, keys: int) -> None:
    """Fills the set of partition keys as jobs do that nobody has retired yet."""
    with dg.DagsterInstance.from_config(str(home.dagster_home)) as instance:
        instance.add_dynamic_partitions("jobs", [f"job_{number:026d}" for number in range(keys)])
        expect(len(instance.get_dynamic_partitions("jobs")), keys, "keys added")
