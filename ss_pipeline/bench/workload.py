"""The jobs that are worked off: submissions of 200 rows × 10 columns, taken in at once; and when each was published."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ss_pipeline import wiring
from ss_pipeline.stages.intake.stage import take_in

_COLUMNS: Final = ("wage", "educ", "exper", *(f"x{number}" for number in range(7)))
_ROWS: Final = 200
_REQUEST: Final = {"requirement": "Effect of educ on wage, controlling for exper", "inputs": [{"path": "data.csv"}]}


@dataclass(frozen=True)
class Published:
    """One job's way: when it was taken in and when published (seconds since the epoch), and by which run."""

    submitted_at: float
    published_at: float
    run: str


def hand_in(inbox: Path, jobs: int) -> None:
    """Puts complete submissions into a folder; each has numbers of its own."""
    for number in range(jobs):
        folder = inbox / f"bench-{number:04d}"
        folder.mkdir(parents=True)
        draw = random.Random(number)  # noqa: S311 - made-up data, no secret
        lines = [",".join(f"{draw.gauss(10, 3):.3f}" for _ in _COLUMNS) for _ in range(_ROWS)]
        (folder / "data.csv").write_text("\n".join([",".join(_COLUMNS), *lines, ""]), encoding="utf-8")
        (folder / "request.json").write_text(json.dumps(_REQUEST), encoding="utf-8")
        (folder / ".ready").touch()


def take_all_in(parts: wiring.Parts, inbox: Path, jobs: int) -> list[str]:
    """Makes jobs of the submissions in this folder, as the inbox sensor does; returns their ids in order.

    Raises:
        SystemExit: not all were accepted.
    """
    report = take_in(
        inbox, jobs=parts.jobs, artifacts=parts.artifacts, clock=parts.clock, limits=parts.intake_limits, most=jobs
    )
    expect(len(report.accepted), jobs, "accepted")
    return [accepted.job_id for accepted in report.accepted]


def published(parts: wiring.Parts, job_ids: Sequence[str]) -> list[Published]:
    """The way of each of these jobs, from its document.

    Raises:
        SystemExit: one is not published, or more than once.
    """
    jobs = [parts.jobs.load(job_id) for job_id in job_ids]
    expect(sum(len(job.publications) == 1 and job.status == "succeeded" for job in jobs), len(jobs), "published once")
    return [
        Published(_seconds(job.history[0].at), _seconds(job.history[-1].at), job.history[-1].by or "") for job in jobs
    ]


def expect(found: int, jobs: int, what: str) -> None:
    """A way that loses jobs gives no figure.

    Raises:
        SystemExit: so many jobs were not found.
    """
    if found != jobs:
        raise SystemExit(f"bench: {found} of {jobs} jobs {what}")


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
