"""The plug that Dagster knows: launch, terminate, health, in terms of zygotes and records.

What lives here: `WarmRunLauncher`, and the decision which launcher a run goes to. What does not: how a process comes
to be (zygotes.py, zygote.py), what a record means (health.py).
"""

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import dagster as dg

from ss_pipeline.errors import CodeNotLoadedError, LauncherBusyError, LauncherError
from ss_pipeline.launcher import dagster_internals
from ss_pipeline.launcher.dagster_internals import (
    CheckRunHealthResult,
    CodeHere,
    ConfigurableClass,
    ConfigurableClassData,
    DagsterUserCodeUnreachableError,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
    launch_failed,
)
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.health import Sighting, how_it_ended, judge
from ss_pipeline.launcher.options import LauncherOptions, config_schema, read_options
from ss_pipeline.launcher.processes import can_fork, is_alive, is_in_sight, send_signal
from ss_pipeline.launcher.protocol import is_run_id
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.launcher.start import ZygoteStart, numeric_threads
from ss_pipeline.launcher.zygotes import Zygotes
from ss_pipeline.telemetry.events import LOGGER, emit
from ss_pipeline.telemetry.json_logs import log_to_stderr

_RETRY_SECONDS: Final = 60.0
"""A code location whose zygote did not come up goes to the default launcher for so long without another try."""
_REMEMBERED_LAUNCHES: Final = 1_000


class WarmRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Forks the process of each run from one that has the code location imported, instead of starting an interpreter.

    Runs it cannot take go to Dagster's default launcher, if the options allow.
    """

    def __init__(
        self, *, options: LauncherOptions | None = None, inst_data: ConfigurableClassData | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        self._options = options or LauncherOptions()
        self._default = dagster_internals.new_default_launcher()
        self._mutex = threading.Lock()
        self._connections = ExitStack()
        self._keeps_connections = False
        self._zygotes: Zygotes | None = None
        self._unusable: dict[str, tuple[float, str]] = {}
        self._said: set[tuple[str | None, str]] = set()
        self._gone_since: dict[str, float] = {}
        self._launched: deque[str] = deque(maxlen=_REMEMBERED_LAUNCHES)

    # --- as Dagster wants a configurable class

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What dagster.yaml says, for processes that open the same instance."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """The options, with their descriptions."""
        return config_schema()

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """The launcher that dagster.yaml describes."""
        return cls(options=read_options(config_value), inst_data=inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Called once by the instance that owns this launcher."""
        super().register_instance(instance)
        self._default.register_instance(instance)

    # --- launching

    def launch_run(self, context: LaunchRunContext) -> None:
        """Returns when the run has its process and that is recorded.

        Raises:
            DagsterLaunchFailedError: the code location raised an error when it was imported (given with the error), or
                no process can be forked for the run and there is no fallback.
            DagsterUserCodeUnreachableError: max_children runs live, and none ended in time. The queue tries again
                where `max_user_code_failure_retries` allows.
        """
        _show_events()
        self._keep_connections()
        code = self._warm_code(context.dagster_run)
        reason = code if isinstance(code, str) else self._launch_warm(context.dagster_run, code)
        if reason is not None:
            self._fall_back(context, reason)

    def _keep_connections(self) -> None:
        """Also this process works on the instance's databases for every run: it keeps its connections from now on."""
        with self._mutex:
            if self._options.pooled_connections and not self._keeps_connections:
                self._connections.enter_context(dagster_internals.kept_connections(self._instance))
                self._keeps_connections = True

    def _warm_code(self, run: dg.DagsterRun) -> CodeHere | str:
        """Where the run's code is, or why the run goes to the default launcher without a try."""
        if not can_fork():
            return "this platform has no fork, no /proc or no pidfd"
        if not self._instance.is_persistent:
            return "the Dagster instance lives in memory only"
        if not is_run_id(run.run_id):
            return "the run's id is no file name"
        code = dagster_internals.code_here(run)
        if self._options.fallback and isinstance(code, CodeHere) and code.repository in self._unusable:
            failed_at, reason = self._unusable[code.repository]
            return reason if time.monotonic() - failed_at < _RETRY_SECONDS else code
        return code

    def _launch_warm(self, run: dg.DagsterRun, code: CodeHere) -> str | None:
        """Launches; or says why not, where another launcher may do better."""
        try:
            launched = self._reach().launch(run.run_id, self._start_for(run, code), seconds=self._options.start_seconds)
        except CodeNotLoadedError as error:
            raise launch_failed(error.message, serialized=error.error_info) from error
        except LauncherBusyError as error:
            raise DagsterUserCodeUnreachableError(f"{error.message}. {error.todo}") from error
        except LauncherError as error:
            self._unusable[code.repository] = (time.monotonic(), error.message)
            return error.message
        self._launched.append(run.run_id)
        if launched.again:
            emit("SS_LAUNCHER_RUN_LAUNCHED_AGAIN", level=logging.WARNING, run_id=run.run_id, pid=launched.pid)
            dagster_internals.restore_status(self._instance, run.run_id)
        return None

    def _fall_back(self, context: LaunchRunContext, reason: str) -> None:
        if not self._options.fallback:
            raise launch_failed(f"No process can be forked for the run: {reason}")
        location = dagster_internals.location_of(context.dagster_run)
        if (location, reason) not in self._said:
            self._said.add((location, reason))
            emit("SS_LAUNCHER_FALLBACK", level=logging.WARNING, location=location, reason=reason)
        self._default.launch_run(context)

    def _start_for(self, run: dg.DagsterRun, code: CodeHere) -> ZygoteStart:
        options = self._options
        return ZygoteStart(
            folder=str(self._folder().path),
            executable=code.executable,
            repository=code.repository,
            load_data=dagster_internals.load_data_of(run, self._instance),
            instance=dagster_internals.reference_of(self._instance),
            location=code.location,
            working_folder=str(Path.cwd()),
            numeric_threads=numeric_threads(),
            max_children=options.max_children,
            recycle_after_mb=options.recycle_after_mb,
            drain_seconds=options.drain_seconds,
            idle_seconds=options.idle_seconds,
            rest_seconds=options.rest_seconds,
            preload=tuple(options.preload),
            watch=tuple(options.watch),
            pooled_connections=options.pooled_connections,
        )

    # --- terminating

    def terminate(self, run_id: str) -> bool:
        """Interrupts a run: its op gets DagsterExecutionInterruptedError and may clean up. False where it has ended.

        A run that has no process yet is canceled, and its process will find that and end.
        """
        run = self._instance.get_run_by_id(run_id) if self.has_instance else None
        if run is None or run.is_finished:
            return False
        record = self._record(run_id)
        if record is None:
            return self._terminate_unrecorded(run)
        if not self._lives(record):
            if not record.settled:
                dagster_internals.report_lost_run(self._instance, run_id, how=how_it_ended(record))
            return False
        if not is_in_sight(record.process):
            self._instance.report_engine_event("The run's process is in another container: terminate it there.", run)
            return False
        self._instance.report_run_canceling(run)
        if send_signal(record.process, signal.SIGTERM):
            return True
        dagster_internals.restore_status(self._instance, run_id)  # it ended in this very moment
        return False

    def _terminate_unrecorded(self, run: dg.DagsterRun) -> bool:
        if dagster_internals.was_started_by_default_launcher(run):
            return dagster_internals.terminate_with(self._default, run.run_id)
        self._instance.report_run_canceling(run)
        if run.status not in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING):
            self._instance.report_engine_event("No process is recorded for the run: nothing to interrupt.", run)
            return False
        self._instance.report_run_canceled(run, "The run was terminated before it had a process.")
        record = self._record(run.run_id)  # it may have begun meanwhile
        if record is not None:
            send_signal(record.process, signal.SIGTERM)
        return True

    # --- health

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """How the process of an unfinished run is, from its record and the kernel; after a reboot, too."""
        verdict = judge(self._sighting(run))
        return CheckRunHealthResult(WorkerStatus[verdict.health.value], verdict.message)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """What is recorded of the run's process, for the message of a run that is given up."""
        record = self._record(run.run_id)
        if record is None:
            return None
        state = "runs" if self._lives(record) else how_it_ended(record)
        return f"Warm run launcher: process {record.process.pid} of zygote {record.zygote.pid} ({record.key}); {state}."

    def _sighting(self, run: dg.DagsterRun) -> Sighting:
        record = self._record(run.run_id)
        if record is None:
            return Sighting(None, elsewhere=dagster_internals.was_started_by_default_launcher(run))
        if self._lives(record):
            return Sighting(record, alive=True)
        now = time.monotonic()
        self._gone_since = {key: since for key, since in self._gone_since.items() if now - since < _RETRY_SECONDS}
        gone_for = now - self._gone_since.setdefault(run.run_id, now)
        return Sighting(record, zygote_alive=is_alive(record.zygote), gone_for=gone_for)

    # --- the rest of the interface

    def join(self, timeout: int = 30) -> None:
        """Waits until the runs that this object has launched are finished.

        Raises:
            TimeoutError: one is not.
        """
        if self.has_instance and not dagster_internals.wait_until_finished(
            self._instance, list(self._launched), seconds=timeout
        ):
            raise TimeoutError(f"not all of these runs are finished after {timeout} s: {', '.join(self._launched)}")

    def dispose(self) -> None:
        """Zygotes stay: they serve the next daemon, or end by themselves (idle_seconds)."""
        self._default.dispose()
        with self._mutex:
            self._connections.close()
            self._keeps_connections = False

    def _folder(self) -> LauncherFolder:
        return LauncherFolder.of(self._instance.root_directory)

    def _record(self, run_id: str) -> RunRecord | None:
        return RunRecords(self._folder().runs).read(run_id) if is_run_id(run_id) else None

    def _lives(self, record: RunRecord) -> bool:
        if is_in_sight(record.process):
            return is_alive(record.process)
        return self._reach().say_that_it_runs(record)

    def _reach(self) -> Zygotes:
        with self._mutex:
            if self._zygotes is None:
                self._zygotes = Zygotes(self._folder())
            return self._zygotes


def _show_events() -> None:
    """Writes the launcher's events to standard error where the process has no place for them: the daemon has none."""
    if not LOGGER.hasHandlers():
        log_to_stderr()
