"""`ss-pipeline demo`: ten real submissions through the real thing — inbox, sensors, run queue, daemon, launcher.

It starts a daemon of its own in a fresh folder, puts the examples into the inbox, watches the store until each one is
settled, shows a table, and stops what it started. Nothing is processed in this process.
"""

import json
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ss_pipeline import wiring
from ss_pipeline.console import OUT, print_list, print_table
from ss_pipeline.errors import JobDataCorruptedError, JobNotFoundError, StackError
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.jobs.model import Job
from ss_pipeline.local_stack import (
    StackHome,
    check_alive,
    daemon_command,
    find_project,
    isolated_settings,
    running,
)
from ss_pipeline.stages.decision import open_questions

TIMEOUT_SECONDS: Final = 300.0
DEMO_MARK: Final = ".ss-demo"
"""A file that says the folder is a demo's and may be emptied."""
_SETTLED: Final = {"published", "in review", "failed", "cancelled", "refused"}


@dataclass(frozen=True)
class DemoRow:
    """How one example ended: its phase, and where to look or what to do."""

    name: str
    job_id: str
    phase: str
    seconds: float | None
    detail: str


def run_demo(data: Path) -> list[DemoRow]:
    """Runs the demo in `data`, which is emptied first; returns a row an example.

    Raises:
        StackError: STACK_FAILED if something else than a demo is in `data`; STACK_DIED, or STACK_TOO_SLOW if an
            example is unsettled after five minutes.
    """
    project = find_project()
    examples = sorted(folder for folder in (project / "examples" / "inbox").iterdir() if folder.is_dir())
    _empty(data)
    home = StackHome(project=project, dagster_home=data.absolute() / "dagster", data=data.absolute())
    home.prepare()
    parts = wiring.light_parts(isolated_settings(data.absolute()))
    started = time.time()
    for folder in examples:
        _hand_in(folder, home.data / "inbox")
    with running(home, daemon_command(home), isolated=True) as process, _progress() as progress:
        task = progress.add_task("starting the daemon", total=len(examples))
        while True:
            rows = [_row(folder.name, parts, home.data, started) for folder in examples]
            settled = sum(row.phase in _SETTLED for row in rows)
            progress.update(task, completed=settled, description=_describe(rows))
            if settled == len(rows):
                return rows
            check_alive(process, home)
            if time.time() - started > TIMEOUT_SECONDS:
                late = f"the examples are not settled after {TIMEOUT_SECONDS:.0f} s; see {home.log_file}"
                raise StackError(late, code="STACK_TOO_SLOW")
            time.sleep(0.25)


def show_results(rows: list[DemoRow], data: Path) -> None:
    """The table of results; below it where the reports are, what is asked and how to answer, and what was refused."""
    print_table("Results", ["submission", "phase", "s"], [(r.name, r.phase, _rounded(r.seconds)) for r in rows])
    for title, phase_name in (("Reports", "published"), ("Waiting for you", "in review"), ("Refused", "refused")):
        print_list(title, [row.detail for row in rows if row.phase == phase_name])
    print_list("Failed", [f"{row.name}: {row.detail}" for row in rows if row.phase in {"failed", "cancelled"}])
    counts = {name: sum(row.phase == name for row in rows) for name in dict.fromkeys(row.phase for row in rows)}
    print_list("In all", [", ".join(f"{count} {name}" for name, count in counts.items())])
    print_list("Go on with them in the Dagster UI", [f"SS_DATA_DIR={data} make up"])


def as_documents(rows: list[DemoRow]) -> list[dict[str, Any]]:
    """The rows as JSON values."""
    return [vars(row) for row in rows]


def _empty(data: Path) -> None:
    """Empties the folder of an earlier demo, or makes a new one; anything else may be somebody's work."""
    mark = data / DEMO_MARK
    if data.exists() and not mark.is_file() and (not data.is_dir() or any(data.iterdir())):
        raise StackError(
            f"{data} is not empty and no demo made it, so it is not emptied",
            todo="Choose another folder with --data, or remove this one yourself.",
        )
    data.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for entry in data.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != mark:
            entry.unlink()


def _hand_in(folder: Path, inbox: Path) -> None:
    """Copies a submission into the inbox as a user would: under a hidden name first, then one rename."""
    staged = inbox / f".{folder.name}"
    shutil.copytree(folder, staged)
    (staged / ".ready").touch()
    staged.rename(inbox / folder.name)


def _row(name: str, parts: wiring.Parts, data: Path, started: float) -> DemoRow:
    refusal = data / "refused" / name / "reason.json"
    receipt = data / "accepted" / name / "receipt.json"
    if refusal.is_file():
        reason = json.loads(refusal.read_text(encoding="utf-8"))
        return DemoRow(name, "", "refused", refusal.stat().st_mtime - started, f"{reason['code']}: {reason['message']}")
    if not receipt.is_file():
        return DemoRow(name, "", "in the inbox", None, "")
    job_id = json.loads(receipt.read_text(encoding="utf-8"))["job_id"]
    try:
        job = parts.jobs.load(job_id)
    except JobNotFoundError:
        return DemoRow(name, job_id, "in the inbox", None, "")
    except JobDataCorruptedError as error:
        return DemoRow(name, job_id, "failed", None, error.message)
    return DemoRow(name, job_id, phase(job).phase, _settled_after(job, started), _detail(job, parts, data))


def _detail(job: Job, parts: wiring.Parts, data: Path) -> str:
    if job.published:
        return _shown(Path(parts.artifacts.location(job.tenant_id, job.job_id, f"{job.published.folder}/report.html")))
    if job.status == "draft_ready" and job.draft:
        questions = open_questions(job.draft)
        flags = " ".join(f"--answer {name}=…" for name in questions)
        asked = "\n".join(questions.values())
        return f"{asked}\nSS_DATA_DIR={_shown(data)} .venv/bin/ss-pipeline confirm {job.job_id} {flags}"
    return phase(job).reason


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _settled_after(job: Job, started: float) -> float | None:
    if phase(job).phase not in _SETTLED or job.updated_at is None:
        return None
    return datetime.fromisoformat(job.updated_at).timestamp() - started


def _describe(rows: list[DemoRow]) -> str:
    phases = [row.phase for row in rows if row.phase not in _SETTLED]
    if not phases:
        return "done"
    return ", ".join(f"{phases.count(name)} {name}" for name in dict.fromkeys(phases))


def _rounded(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f}"


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=OUT)
