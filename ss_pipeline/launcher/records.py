"""The record of each run: which process works on it and how that ended. One small file a run, lines only added.

The first line is linked into place whole, by the zygote, before the run's process goes on: whoever links it first has
launched the run, everybody else finds it launched. Later lines are added by the run's process (settled: its result is
in Dagster's storage) and by the zygote (exited, reported). What lives here: the files. What they mean for a run's
health: health.py.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ss_pipeline.launcher.processes import Process, is_alive

KEEP_SECONDS: Final = 600.0
"""How long the record of an ended run is kept: a second launch of the run in that time is told from the first."""
KEEP_UNREPORTED_SECONDS: Final = 24 * 3600.0
"""The same for a run whose end nobody could report; run monitoring has long done so by then."""


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class RunRecord:
    """What is known of the process of one run.

    Args:
        zygote: The process that forked it and tells of its end, while it lives itself.
        key: The zygote's key; its successor looks after the runs it leaves.
        settled: The run's result is in Dagster's storage: nothing is lost when the process is gone.
        exit_status: As `os.waitstatus_to_exitcode` has it; None where it runs or nobody knows.
        reported: Dagster knows that the process was lost.
    """

    run_id: str
    process: Process
    zygote: Process
    key: str
    settled: bool = False
    exit_status: int | None = None
    reported: bool = False


_RECORD: Final = TypeAdapter(RunRecord)


class RunRecords:
    """The records in one folder, which exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, record: RunRecord) -> bool:
        """Writes the record of a run that has none; False where it has one: the run is launched already."""
        temporary = self._folder / f".{record.run_id}.{record.process.pid}"
        try:
            temporary.write_bytes(_RECORD.dump_json(record) + b"\n")
            os.link(temporary, self._path(record.run_id))
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return True

    def read(self, run_id: str) -> RunRecord | None:
        """The record of a run; None where there is none, or none that can be read."""
        try:
            lines = self._path(run_id).read_bytes().splitlines()
        except FileNotFoundError:
            return None
        facts: dict[str, object] = {}
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # cut short by a full disk
                facts |= json.loads(line)
        try:
            return _RECORD.validate_python(facts)
        except ValidationError:
            return None

    def settle(self, run_id: str) -> None:
        """Says, from the run's own process, that its result is stored."""
        self._add(run_id, {"settled": True})

    def exited(self, run_id: str, status: int) -> None:
        """Says how the run's process ended."""
        self._add(run_id, {"exit_status": status})

    def reported(self, run_id: str) -> None:
        """Says that Dagster knows of the lost process."""
        self._add(run_id, {"reported": True})

    def all(self) -> Iterator[RunRecord]:
        """Every record that can be read."""
        for path in sorted(self._folder.glob("*.jsonl")):
            if (record := self.read(path.stem)) is not None:
                yield record

    def prune(self) -> int:
        """Removes the records of runs that ended long ago; returns how many."""
        old = [path for path in self._folder.glob("*") if self._is_done_with(path)]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _is_done_with(self, path: Path) -> bool:
        try:
            age = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        if age < KEEP_SECONDS:
            return False
        record = self.read(path.stem)
        if record is None:
            return age > KEEP_UNREPORTED_SECONDS
        if is_alive(record.process):
            return False
        return record.settled or record.reported or age > KEEP_UNREPORTED_SECONDS

    def _add(self, run_id: str, facts: dict[str, bool | int]) -> None:
        line = b"\n" + json.dumps(facts).encode() + b"\n"  # what was cut short before ends here
        with contextlib.suppress(OSError):  # pruned, removed with the instance, no space: the kernel still knows
            descriptor = os.open(self._path(run_id), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.jsonl"
