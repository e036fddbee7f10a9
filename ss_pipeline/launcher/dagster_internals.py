"""Everything of Dagster that is not its public interface and that the launcher uses, in one place.

A new version of Dagster is checked here: ss_pipeline_tests/unit/test_launcher_internals.py compares each name with the
installed version. What lives here: names and thin functions around them. What does not: decisions of the launcher.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, cast

from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RepositoryDefinition
from dagster._core.definitions.reconstruct import ReconstructableRepository as _ReconstructableRepository
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.origin import RepositoryPythonOrigin
from dagster._core.remote_origin import CodeLocationOrigin, GrpcServerCodeLocationOrigin
from dagster._core.secrets.env_file import PerProjectEnvFileLoader
from dagster._core.storage import sql
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.impl import core_execute_run
from dagster._serdes import ConfigurableClass, ConfigurableClassData, deserialize_value, serialize_value
from dagster._utils import get_run_crash_explanation
from dagster._utils.error import serializable_error_info_from_exc_info
from dagster._utils.hosted_user_process import recon_repository_from_origin
from dagster._utils.interrupts import capture_interrupts
from dagster._utils.path import is_likely_venv_executable
from dagster_shared.error import SerializableErrorInfo

from ss_pipeline.launcher.sqlite_connections import SqliteConnections

__all__ = [
    "CheckRunHealthResult", "ConfigurableClass", "ConfigurableClassData", "DagsterInstance", "DagsterLaunchFailedError",
    "DagsterRun", "DagsterUserCodeUnreachableError", "DefaultRunLauncher", "LaunchRunContext", "RunLauncher",
    "WorkerStatus", "capture_interrupts",
]  # fmt: skip

FINAL_EVENTS: Final = frozenset(
    {DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED}
)
_STATUS_EVENTS: Final = frozenset(
    {
        DagsterEventType.RUN_START,
        DagsterEventType.RUN_CANCELING,
        DagsterEventType.RUN_SUSPENDED,
        DagsterEventType.RUN_RESUMED,
    }
)
_STARTED_BY_DEV: Final = "DAGSTER_IS_DEV_CLI"
"""In the environment of all that `dagster dev` starts."""
_SECONDS_OF_A_POOLED_CONNECTION: Final = 3_600
IMPORTED_BY_RUNS: Final = (
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.executor.multiprocess",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.system_config.composite_descent",
)
"""Modules that Dagster imports only when a run begins."""


# --- where a run's code is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodeHere:
    """Where a run's code is, on this machine.

    Args:
        repository: Dagster's origin of the repository, serialized.
        executable: The code location's Python.
        location: The code location's name.
    """

    repository: str
    executable: str
    location: str | None


def code_here(run: DagsterRun) -> CodeHere | str:
    """Where the run's code is; or why no process of this machine can run it."""
    origin, remote = run.job_code_origin, run.remote_job_origin
    if origin is None:
        return "the run does not say where its code is"
    if origin.repository_origin.container_image:
        return "the code location is a container image"
    if remote and _is_foreign_server(remote.repository_origin.code_location_origin):
        return "the code location is a gRPC server that Dagster does not start"
    if not os.access(origin.executable_path, os.X_OK):
        return f"the code location's Python is not on this machine: {origin.executable_path}"
    return CodeHere(serialize_value(origin.repository_origin), origin.executable_path, location_of(run))


def _is_foreign_server(origin: CodeLocationOrigin) -> bool:
    """Whether the code's server was started by somebody else than Dagster, in an environment that nobody here knows.

    `dagster dev` starts one server for its daemon and its webserver, with its own environment, and gives it to them as
    a server on a socket, with what the server loads beside it.
    """
    if not isinstance(origin, GrpcServerCodeLocationOrigin):
        return False
    return not (_STARTED_BY_DEV in os.environ and origin.socket and origin.additional_metadata)


def location_of(run: DagsterRun) -> str | None:
    """The name of a run's code location."""
    return run.remote_job_origin.location_name if run.remote_job_origin else None


def load_data_of(run: DagsterRun, instance: DagsterInstance) -> str | None:
    """What the code server fetched when it loaded the run's definitions, serialized; mostly nothing."""
    if not run.has_repository_load_data or run.execution_plan_snapshot_id is None:
        return None
    data = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).repository_load_data
    return serialize_value(data) if data is not None else None


def search_path_of(executable: str, environment: Mapping[str, str]) -> dict[str, str]:
    """PATH with a virtual environment's own folder first, as Dagster sets it for a code server's process."""
    if executable == sys.executable or not is_likely_venv_executable(executable):
        return {}
    return {"PATH": os.pathsep.join([str(Path(executable).parent), *filter(None, [environment.get("PATH")])])}


def reference_of(instance: DagsterInstance) -> str:
    """How another process opens the same persistent instance, serialized."""
    return serialize_value(instance.get_ref())


# --- in the zygote ---------------------------------------------------------------------------------------------------


class _MigrationScripts(ScriptDirectory):
    """The migration scripts of Dagster's storages, read once for each and inherited by all runs.

    On SQLite a run opens four databases, and Dagster reads all scripts for each to learn their newest revision: 60 ms.
    """

    read: ClassVar[dict[str, ScriptDirectory]] = {}

    @classmethod
    def from_config(cls, config: Config) -> ScriptDirectory:
        """The scripts that a configuration names."""
        place = config.get_main_option("script_location") or ""
        if place not in cls.read:
            cls.read[place] = ScriptDirectory.from_config(config)
        return cls.read[place]


def read_migrations_once() -> None:
    """Lets this process and its children read the migration scripts of a storage when they first open it, not again."""
    sql.ScriptDirectory = _MigrationScripts  # type: ignore[attr-defined]


class ReconstructableRepository(_ReconstructableRepository):
    """A repository that is loaded already, once for all runs of this process.

    Its name is that of its base on purpose: Dagster serializes by the name of the class.
    """

    loaded: ClassVar[RepositoryDefinition]

    def get_definition(self) -> RepositoryDefinition:
        """What was loaded; the base would call the location's functions again."""
        return ReconstructableRepository.loaded

    def __reduce__(self) -> tuple[type[_ReconstructableRepository], tuple[object, ...]]:
        """Another process gets the base, which loads."""
        return _ReconstructableRepository, tuple(self)


class ForeignErrors:
    """Keeps whatever foreign code raises in the block, as Dagster describes errors: `info` is None where nothing was.

    SystemExit is kept as well: code that leaves the interpreter when it is imported is code that cannot be loaded.
    """

    def __init__(self) -> None:
        self.info: SerializableErrorInfo | None = None

    def __enter__(self) -> "ForeignErrors":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        self.info = serializable_error_info_from_exc_info(sys.exc_info())
        return True


def serialized_error(info: SerializableErrorInfo) -> str:
    """An error for the launcher's process."""
    return serialize_value(info)


def shortened_error(info: SerializableErrorInfo, *, characters: int) -> SerializableErrorInfo:
    """The same error without its causes and with a message and a stack of a limited length, the innermost kept."""
    message = info.message[: characters // 2]
    stack = ["(shortened)\n", *info.stack]
    while len(stack) > 1 and sum(map(len, stack)) > characters // 2:
        del stack[1]
    return info._replace(message=message, stack=stack, cause=None, context=None)


def launch_failed(message: str, *, serialized: str | None = None) -> DagsterLaunchFailedError:
    """The error that makes Dagster fail the run, with the error that the zygote met where there was one."""
    info = deserialize_value(serialized, SerializableErrorInfo) if serialized else None
    return DagsterLaunchFailedError(message, serializable_error_info=info)  # type: ignore[no-untyped-call]


def new_default_launcher() -> DefaultRunLauncher:
    """Dagster's own launcher, which starts an interpreter for each run."""
    return DefaultRunLauncher()


def terminate_with(launcher: DefaultRunLauncher, run_id: str) -> bool:
    """Terminates a run that the default launcher started."""
    return bool(launcher.terminate(run_id))  # type: ignore[no-untyped-call]


def inject_secrets(instance: str, location: str | None) -> list[str]:
    """Puts what the instance's secrets loader finds into the environment, as a code server does at its start.

    Returns the .env files that Dagster's own loader looks at for this location, whether they are there or not.
    """
    with opened(instance) as found:
        found.inject_env_vars(location)
        loader = found._secrets_loader  # noqa: SLF001 - Dagster has no name for it
        if not isinstance(loader, PerProjectEnvFileLoader):
            return []
        listed = loader.inst_data.config_dict if loader.inst_data else {}
        folders = listed.get("location_paths") or json.loads(os.environ.get("DAGSTER_PROJECT_ENV_FILE_PATHS", "{}"))
        return [str(Path(folders[location], ".env").absolute())] if location in folders else []


def load_repository(origin: str, load_data: str | None) -> ReconstructableRepository:
    """Imports a code location and builds its jobs.

    Raises:
        Exception: whatever its code raises.
    """
    cold = recon_repository_from_origin(deserialize_value(origin, RepositoryPythonOrigin))
    if load_data is not None:
        cold = cold.with_repository_load_data(deserialize_value(load_data))  # type: ignore[arg-type]
    definition = cold.get_definition()
    definition.load_all_definitions()
    ReconstructableRepository.loaded = definition
    return ReconstructableRepository(*cold)


# --- in the process of a run -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(instance: str) -> Iterator[DagsterInstance]:
    """The instance behind a reference, with connections of this process alone, closed at the end."""
    with DagsterInstance.from_ref(deserialize_value(instance, InstanceRef)) as found:
        yield found


def execute_run(run_id: str, *, instance: str, repository: ReconstructableRepository, pooled: bool) -> bool:
    """Executes a run in this process; whether its result is stored.

    What Dagster raises it has written to the run's log before; only what it could not write goes to standard error.
    """
    with opened(instance) as found, kept_connections(found) if pooled else contextlib.nullcontext():
        run = found.get_run_by_id(run_id)
        if run is None or _ended_early(found, run):
            return True
        pid = os.getpid()
        found.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
        is_stored = False
        with ForeignErrors() as errors:
            job = repository.get_reconstructable_job(run.job_name)
            for event in core_execute_run(job, run, found, inject_env_vars=False):
                is_stored = is_stored or event.event_type in FINAL_EVENTS
        is_stored = is_stored or _is_finished(found, run_id)
        if errors.info and not is_stored:
            sys.stderr.write(errors.info.to_string())
        return is_stored


def _ended_early(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Whether the run was to be terminated before it had a process."""
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, "The run was terminated before its process began.")
    return run.status in (DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED)


def _is_finished(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


@contextlib.contextmanager
def kept_connections(instance: DagsterInstance) -> Iterator[None]:
    """Keeps the connections to the instance's databases open between statements, to the end of the block."""
    sqlite = SqliteConnections.keep(instance)
    if sqlite is None:
        pool_connections(instance)
    try:
        yield
    finally:
        if sqlite is not None:
            sqlite.close()


def pool_connections(instance: DagsterInstance) -> bool:
    """Keeps PostgreSQL connections open between statements; False where the storage is another.

    A connection is tried before each use, so that a restart of the server costs a run no more than it does without.
    """
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    if not all(type(storage).__module__.startswith("dagster_postgres.") for storage in storages):
        return False
    instance.optimize_for_webserver(statement_timeout=0, pool_recycle=_SECONDS_OF_A_POOLED_CONNECTION, max_overflow=8)
    for storage in storages:
        cast("PooledStorage", storage)._engine.pool._pre_ping = True  # noqa: SLF001 - Dagster has no option for it
    return True


class _Pool:
    _pre_ping: bool


class _Engine:
    pool: _Pool


class PooledStorage:
    """What `pool_connections` uses of a dagster-postgres storage."""

    _engine: _Engine


# --- telling Dagster of what happened --------------------------------------------------------------------------------


def report_lost_run(instance: DagsterInstance, run_id: str, *, how: str) -> None:
    """Ends an unfinished run whose process is gone: canceled where that was asked for, else failed."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    instance.report_engine_event(how, run)
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, how)
    else:
        lost = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
        instance.report_run_failed(run, how, lost)


def explain_exit(run_id: str, status: int) -> str:
    """Dagster's own words for a run's process that ended before its run."""
    return get_run_crash_explanation(f"Run execution process for {run_id}", status)


def restore_status(instance: DagsterInstance, run_id: str) -> bool:
    """Gives a run the status back that its own process reported: its end, else what came last. False for none.

    A second launch of a run (two daemons) makes it STARTING once more before the launcher hears of it.
    """
    for kinds in (FINAL_EVENTS, _STATUS_EVENTS):
        entries = instance.event_log_storage.get_logs_for_run(run_id, of_type=set(kinds), limit=1, ascending=False)
        if entries and entries[0].dagster_event is not None:
            at = datetime.fromtimestamp(entries[0].timestamp, UTC)
            instance.run_storage.handle_run_event(run_id, entries[0].dagster_event, at)
            return True
    return False


def was_started_by_default_launcher(run: DagsterRun) -> bool:
    """Whether the run carries the default launcher's mark."""
    return GRPC_INFO_TAG in run.tags


def wait_until_finished(instance: DagsterInstance, run_ids: Sequence[str], *, seconds: float) -> bool:
    """Whether all these runs finish in time."""
    deadline = time.monotonic() + seconds
    while not all(_is_finished(instance, run_id) for run_id in run_ids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
