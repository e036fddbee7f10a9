"""What a run's record says about its health: pure decisions, no process is looked at here.

What lives here: the table from what was seen to what Dagster is told. What does not: reading records, asking the
kernel, Dagster's classes.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ss_pipeline.launcher.records import RunRecord

REPORT_SECONDS: Final = 10.0
"""How long the zygote may take to report a lost run before somebody else does."""


class Health(StrEnum):
    """Dagster's words for the worker of a run (`WorkerStatus`)."""

    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True)
class Sighting:
    """What was seen of a run.

    Args:
        record: Its record; None where there is none.
        alive: Its process lives.
        zygote_alive: The process that forked it lives and will report its end.
        elsewhere: The default launcher started it.
        gone_for: Seconds since the asker first saw that the process is gone.
    """

    record: RunRecord | None
    alive: bool = False
    zygote_alive: bool = False
    elsewhere: bool = False
    gone_for: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The health, and why."""

    health: Health
    message: str


def judge(seen: Sighting) -> Verdict:
    """The health of the process of an unfinished run.

    A process that is gone without a stored result is FAILED, after a reboot too. While its zygote is about to report
    that, the run counts as RUNNING: two reports would be two failures in the run's log.
    """
    record = seen.record
    if record is None:
        if seen.elsewhere:
            return Verdict(Health.RUNNING, "the default launcher started it and cannot tell how it is")
        return Verdict(Health.NOT_FOUND, "no process was recorded for the run")
    if seen.alive:
        return Verdict(Health.RUNNING, f"process {record.process.pid} runs")
    if record.settled:
        return Verdict(Health.SUCCESS, f"process {record.process.pid} stored the result and ended")
    if seen.zygote_alive and not record.reported and seen.gone_for < REPORT_SECONDS:
        return Verdict(Health.RUNNING, f"process {record.process.pid} ended; that is being reported")
    return Verdict(Health.FAILED, how_it_ended(record))


def how_it_ended(record: RunRecord) -> str:
    """One clause on the end of a process that stored no result."""
    pid, status = record.process.pid, record.exit_status
    if status is None:
        return f"process {pid} is gone and nobody saw how it ended (killed with its zygote, or the machine went down)"
    if status < 0:
        return f"process {pid} was ended by signal {-status}"
    return f"process {pid} exited with status {status} before the run was finished"
