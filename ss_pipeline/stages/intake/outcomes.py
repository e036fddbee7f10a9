"""What can become of a submission in one look at the inbox."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Accepted:
    """A submission that is a job now; `duplicate`: it equals one that was a job before, and that job is named."""

    name: str
    tenant_id: str
    job_id: str
    duplicate: bool


@dataclass(frozen=True)
class Refused:
    """A submission that cannot become a job; it lies in `folder` with reason.json."""

    name: str
    tenant_id: str
    code: str
    message: str
    todo: str
    folder: Path


@dataclass(frozen=True)
class Waiting:
    """A submission that is looked at again, and what it waits for, in words."""

    name: str
    tenant_id: str
    reason: str


Outcome: TypeAlias = Accepted | Refused | Waiting


@dataclass(frozen=True)
class IntakeReport:
    """What one call of `take_in` did and saw."""

    accepted: tuple[Accepted, ...]
    refused: tuple[Refused, ...]
    waiting: tuple[Waiting, ...]


def report_of(outcomes: list[Outcome]) -> IntakeReport:
    """The outcomes by kind, each kind in order."""
    return IntakeReport(
        accepted=tuple(each for each in outcomes if isinstance(each, Accepted)),
        refused=tuple(each for each in outcomes if isinstance(each, Refused)),
        waiting=tuple(each for each in outcomes if isinstance(each, Waiting)),
    )
