"""The zygote's runs: forks a process for each, notices the end of each, looks after those of a dead predecessor.

What lives here: the living runs and their pidfds. What does not: what a run does (child.py), what is done about one
whose result was not stored (reports.py).
"""

import os
import selectors
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from ss_pipeline.errors import ZygoteUnreachableError
from ss_pipeline.launcher import child
from ss_pipeline.launcher.child import Inheritance, Run, Task
from ss_pipeline.launcher.processes import (
    Process,
    end_group,
    identify,
    is_alive,
    open_pidfd,
    send_signal,
    this_process,
)
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.telemetry.events import emit

_SHORT_ID: Final = 8


class Children:
    """The runs that live now. `lost` is called with the record of each that ended without a stored result."""

    def __init__(
        self, key: str, *, records: RunRecords, selector: selectors.BaseSelector, lost: Callable[[RunRecord], None]
    ) -> None:
        self._key = key
        self._records = records
        self._selector = selector
        self._lost = lost
        self._me = this_process()
        self._living: dict[str, Process] = {}
        self._descriptors: set[int] = set()
        self.launched = 0

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that live now."""
        return tuple(self._living)

    def launch(self, run: Run, outputs: tuple[int, int], inheritance: Inheritance) -> tuple[RunRecord, bool]:
        """The record of the run's process, and whether it is new: a run that was launched before is left alone.

        Raises:
            ZygoteUnreachableError: the process was killed before it began.
        """
        if (earlier := self._records.read(run.run_id)) is not None:
            return earlier, False
        reader, writer = gate = os.pipe()
        try:
            work = partial(child.execute, replace(run, gate=gate))
            pid = child.fork(Task(work, f"run {run.run_id[:_SHORT_ID]}", outputs), inheritance)
            try:
                return self._recorded(run.run_id, pid)
            except (OSError, ZygoteUnreachableError):
                os.close(writer)  # without a record the process ends at the gate
                writer = -1
                os.waitpid(pid, 0)
                raise
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)

    def adopt(self) -> None:
        """Takes over the runs of dead zygotes of the same key: those that live are watched, the others are lost."""
        for record in self._records.all():
            if record.key != self._key or record.settled or record.reported or is_alive(record.zygote):
                continue
            descriptor = open_pidfd(record.process)
            if descriptor is None:
                self._lose(record)
            else:
                self._living[record.run_id] = record.process
                self._watch(descriptor, partial(self._orphan_ended, record.run_id))
                emit("SS_LAUNCHER_RUN_ADOPTED", run_id=record.run_id, pid=record.process.pid)

    def interrupt(self) -> None:
        """Sends SIGTERM to every run."""
        for process in self._living.values():
            send_signal(process, signal.SIGTERM)

    def release(self) -> None:
        """For a forked child: closes what is open here."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _recorded(self, run_id: str, pid: int) -> tuple[RunRecord, bool]:
        process = identify(pid)
        if process is None:
            raise ZygoteUnreachableError(f"the process of run {run_id} was killed before it began")
        descriptor = os.pidfd_open(pid)
        record = RunRecord(run_id, process, zygote=self._me, key=self._key)
        try:
            is_new = self._records.claim(record)
        except OSError:
            os.close(descriptor)
            raise
        self._watch(descriptor, partial(self._child_ended, run_id if is_new else None, pid))
        if not is_new:  # another zygote was faster; the process sees that too and ends
            return self._records.read(run_id) or record, False
        self._living[run_id] = process
        self.launched += 1
        return record, True

    def _watch(self, descriptor: int, ended: Callable[[int], None]) -> None:
        self._descriptors.add(descriptor)
        self._selector.register(descriptor, selectors.EVENT_READ, lambda _: ended(descriptor))

    def _unwatch(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        self._descriptors.remove(descriptor)
        os.close(descriptor)

    def _child_ended(self, run_id: str | None, pid: int, descriptor: int) -> None:
        self._unwatch(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if run_id is not None:
            self._records.exited(run_id, status)
            self._ended(run_id)

    def _orphan_ended(self, run_id: str, descriptor: int) -> None:
        self._unwatch(descriptor)
        self._ended(run_id)

    def _ended(self, run_id: str) -> None:
        del self._living[run_id]
        record = self._records.read(run_id)
        if record is not None and not record.settled:
            self._lose(record)

    def _lose(self, record: RunRecord) -> None:
        """What a run has started (Dagster's `tail` for its logs, steps, readers) ends with it where it died."""
        end_group(record.process)
        self._lost(record)
