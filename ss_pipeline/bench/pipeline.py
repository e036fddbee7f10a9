"""What the engine costs beside the bare work, side by side in one run on this machine.

The same job (200 rows × 10 columns, report with plots published) three ways: the stages in a loop in this process (the
limit), one Dagster run in this process over all jobs, and the whole stack: inbox, sensors, queue, daemon, default
launcher. CPU is user + system of all processes involved. Not a test: figures are compared by hand.
"""

import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ss_pipeline import wiring
from ss_pipeline.claim_run import work_off
from ss_pipeline.console import print_table
from ss_pipeline.local_stack import (
    StackHome,
    check_alive,
    daemon_command,
    find_project,
    isolated_settings,
    running,
)
from ss_pipeline.stages.intake.stage import take_in


@dataclass(frozen=True)
class Measured:
    """One way of doing `jobs` jobs: wall seconds from submission to the last publication, and CPU seconds."""

    name: str
    jobs: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def per_minute(self) -> float:
        """Jobs a minute."""
        return 60 * self.jobs / self.wall_seconds

    @property
    def cpu_per_job(self) -> float:
        """CPU seconds a job."""
        return self.cpu_seconds / self.jobs


def measure(*, many: int = 60, few: int = 12) -> None:
    """Measures the three ways and prints a table: `many` jobs for the first two, `few` for the whole stack."""
    results = [
        _timed("bare stages in a loop", many, _bare),
        _timed("one Dagster run, in process", many, _one_run),
        _timed("inbox → sensors → queue → default launcher", few, _whole_stack),
    ]
    bare = results[0]
    rows = [
        (r.name, r.jobs, f"{r.per_minute:.0f}", f"{r.cpu_per_job:.3f}", f"{r.cpu_per_job / bare.cpu_per_job:.1f} ×")
        for r in results
    ]
    print_table("Benchmark", ["way", "jobs", "jobs a minute", "CPU s a job", "CPU against bare"], rows)


def _timed(name: str, jobs: int, way: Callable[[Path, int], None]) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        _warm_up(data / "warm", way)
        _hand_in(data / "timed" / "inbox", jobs)
        before, started = _cpu(), time.perf_counter()
        way(data / "timed", jobs)
        return Measured(name, jobs, time.perf_counter() - started, _cpu() - before)


def _warm_up(data: Path, way: Callable[[Path, int], None]) -> None:
    """Imports and first-use costs are not the job's; the stack starts anew each time, so it has none to warm."""
    if way is not _whole_stack:
        _hand_in(data / "inbox", 2)
        way(data, 2)


def _bare(data: Path, jobs: int) -> None:
    parts = _parts(data)
    job_ids = _taken(parts, jobs)
    events = work_off(job_ids, tenant_id="default", claim_id="bench", owner="run:bench", parts=wiring.work_parts(parts))
    _expect([event for event in events if getattr(event, "ending", "") == "published"], jobs)


def _one_run(data: Path, jobs: int) -> None:
    import dagster as dg

    from ss_pipeline.definitions import build_definitions
    from ss_pipeline.defs.tags import RANGE_END_TAG, RANGE_START_TAG

    parts = _parts(data)
    job_ids = _taken(parts, jobs)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("jobs", job_ids)
        job = build_definitions(parts.settings).get_repository_def().get_job("process_jobs")
        tags = {RANGE_START_TAG: job_ids[0], RANGE_END_TAG: job_ids[-1]}
        job.execute_in_process(tags=tags, instance=instance)
    _expect(list(parts.jobs.rows(status="succeeded")), jobs)


def _whole_stack(data: Path, jobs: int) -> None:
    parts = _parts(data)
    home = StackHome(project=find_project(), dagster_home=data / "dagster", data=data)
    command, settings = daemon_command(home), {"SS_CLAIM_MAX_JOBS": "1", "SS_INBOX_QUIET_SECONDS": "0"}
    with running(home, command, isolated=True, environment=settings) as process:
        while len(list(parts.jobs.rows(status="succeeded"))) < jobs:
            check_alive(process, home)
            time.sleep(0.2)


def _parts(data: Path) -> wiring.Parts:
    return wiring.light_parts(isolated_settings(data, inbox_quiet_seconds=0.0, claim_max_jobs=1))


def _taken(parts: wiring.Parts, jobs: int) -> list[str]:
    report = take_in(
        parts.inbox,
        jobs=parts.jobs,
        artifacts=parts.artifacts,
        clock=parts.clock,
        limits=parts.intake_limits,
        most=jobs,
    )
    _expect(list(report.accepted), jobs)
    return [accepted.job_id for accepted in report.accepted]


def _hand_in(inbox: Path, jobs: int) -> None:
    """Submissions of 200 rows × 10 columns; every one has other numbers."""
    for number in range(jobs):
        folder = inbox / f"bench-{number:04d}"
        folder.mkdir(parents=True)
        draw = random.Random(number)  # noqa: S311 - made-up data, no secret
        names = ["wage", "educ", "exper", *(f"x{i}" for i in range(7))]
        lines = [",".join(f"{draw.gauss(10, 3):.3f}" for _ in names) for _ in range(200)]
        (folder / "data.csv").write_text(",".join(names) + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
        request = {"requirement": "Effect of educ on wage, controlling for exper", "inputs": [{"path": "data.csv"}]}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        (folder / ".ready").touch()


def _cpu() -> float:
    """User and system seconds of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _expect(found: list[object], jobs: int) -> None:
    if len(found) != jobs:
        raise SystemExit(f"bench: {len(found)} of {jobs} jobs came through")
