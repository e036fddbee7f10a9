"""Telling Dagster of runs whose process ended before they did.

What lives here: the queue of such runs and the short-lived process that reports them. The zygote opens no connection
itself: a forked run would share it. What does not: what is written to Dagster (dagster_internals.report_lost_run).
"""

import logging
import os
import selectors
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from ss_pipeline.launcher import child, dagster_internals
from ss_pipeline.launcher.child import Inheritance, Task
from ss_pipeline.launcher.health import how_it_ended
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.telemetry.events import emit

_LONGEST_SECONDS: Final = 60.0
"""A reporter that takes longer is killed, and another tries."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


@dataclass
class _Reporter:
    pid: int
    descriptor: int
    records: Sequence[RunRecord]
    deadline: float


class Reports:
    """The lost runs still to be reported. One reporter works at a time, on all that have gathered."""

    def __init__(self, instance: str, *, records: RunRecords, selector: selectors.BaseSelector) -> None:
        self._instance = instance
        self._records = records
        self._selector = selector
        self._owed: list[RunRecord] = []
        self._reporter: _Reporter | None = None
        self._not_before = 0.0
        self._pause = _FIRST_PAUSE

    @property
    def are_owed(self) -> bool:
        """Whether something is still to be reported."""
        return bool(self._owed) or self._reporter is not None

    def add(self, record: RunRecord) -> None:
        """Takes a lost run."""
        how = how_it_ended(record)
        emit("SS_LAUNCHER_RUN_LOST", level=logging.WARNING, run_id=record.run_id, pid=record.process.pid, how=how)
        self._owed.append(record)

    def go_on(self, inheritance: Inheritance) -> None:
        """Starts a reporter where one is due, and ends one that hangs."""
        now = time.monotonic()
        if self._reporter is None:
            if self._owed and now >= self._not_before:
                self._start(inheritance)
        elif now > self._reporter.deadline:
            os.kill(self._reporter.pid, signal.SIGKILL)

    def release(self) -> None:
        """For a forked child: closes what is open here."""
        if self._reporter is not None:
            os.close(self._reporter.descriptor)

    def _start(self, inheritance: Inheritance) -> None:
        records, self._owed = self._owed, []
        try:
            pid = child.fork(Task(partial(_report, records, self._instance), "run reporter"), inheritance)
            descriptor = os.pidfd_open(pid)
        except OSError:  # no processes or descriptors left
            self._try_later(records)
            return
        reporter = _Reporter(pid, descriptor, records, time.monotonic() + _LONGEST_SECONDS)
        self._reporter = reporter
        self._selector.register(descriptor, selectors.EVENT_READ, lambda _: self._ended(reporter))

    def _ended(self, reporter: _Reporter) -> None:
        self._reporter = None
        self._selector.unregister(reporter.descriptor)
        os.close(reporter.descriptor)
        if os.waitstatus_to_exitcode(os.waitpid(reporter.pid, 0)[1]) == 0:
            for record in reporter.records:
                self._records.reported(record.run_id)
            self._pause = _FIRST_PAUSE
        else:  # the database is away: the reporter's error is in the zygote's log
            self._try_later(reporter.records)

    def _try_later(self, records: Sequence[RunRecord]) -> None:
        self._owed = [*records, *self._owed]
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def _report(records: Sequence[RunRecord], instance: str) -> bool:
    with dagster_internals.opened(instance) as found:
        for record in records:
            dagster_internals.report_lost_run(found, record.run_id, how=_explanation(record))
    return True


def _explanation(record: RunRecord) -> str:
    if record.exit_status is None:
        return f"Run execution process for {record.run_id} is gone: {how_it_ended(record)}."
    return dagster_internals.explain_exit(record.run_id, record.exit_status)
