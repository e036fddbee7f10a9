"""A Dagster instance with the warm launcher in a temporary folder, and what tests do with it. No daemon, no server."""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import dagster as dg
import yaml
from dagster._core.code_pointer import CodePointer, ModuleCodePointer
from dagster._core.launcher import WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from ss_pipeline.launcher import WarmRunLauncher
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.processes import Process
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.launcher.zygotes import Zygotes
from ss_pipeline_tests.conftest import PROJECT_ROOT

PATIENCE_SECONDS: Final = 60.0
"""For things that take a second on a machine that does nothing else."""
WARM_CODE: Final = PROJECT_ROOT / "ss_pipeline_tests" / "fixtures" / "warm_code.py"
LOCATION: Final = "warm_location"
ASSETS: Final = dg.Definitions(assets=[dg.AssetSpec("sheep"), dg.AssetSpec("flock", deps=["sheep"])])


def wait_for(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Returns as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


@dataclass
class WarmInstance:
    """One instance, its project and its notes.

    Args:
        home: DAGSTER_HOME.
        project: Where the code is.
    """

    home: Path
    project: Path
    dagster: dg.DagsterInstance

    @property
    def launcher(self) -> WarmRunLauncher:
        """The launcher under test."""
        launcher = self.dagster.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        return launcher

    @property
    def folder(self) -> LauncherFolder:
        """The launcher's private folder."""
        return LauncherFolder.of(str(self.home))

    @property
    def notes(self) -> Path:
        """Where the project's jobs leave notes."""
        return self.home / "notes"

    def create(
        self, job: str, *, pointer: CodePointer | None = None, assets: list[str] | None = None, **tags: str
    ) -> str:
        """The id of a new run."""
        pointer = pointer or ModuleCodePointer("warm_code", "warm", str(self.project))
        run = self.dagster.create_run(
            job_name=job,
            run_id=None,
            run_config=None,
            status=None,
            tags=tags,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=None,
            job_snapshot=None,
            parent_job_snapshot=None,
            asset_selection=frozenset(dg.AssetKey(name) for name in assets) if assets else None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(self.location(), "warm"), job),
            job_code_origin=JobPythonOrigin(job, RepositoryPythonOrigin(sys.executable, pointer)),
            asset_graph=ASSETS.resolve_asset_graph(),
        )
        return run.run_id

    def location(self) -> ManagedGrpcPythonEnvCodeLocationOrigin:
        """The code location as a workspace would have it."""
        target = LoadableTargetOrigin(module_name="warm_code", working_directory=str(self.project))
        return ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)

    def launch(self, job: str, **options: Any) -> str:
        """Creates and launches a run; its id."""
        run_id = self.create(job, **options)
        self.dagster.launch_run(run_id, None)  # type: ignore[arg-type]  # only the default launcher needs a workspace
        return run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        """The run as it is stored now."""
        found = self.dagster.get_run_by_id(run_id)
        assert found is not None
        return found

    def ended(self, run_id: str, *, seconds: float = PATIENCE_SECONDS) -> str:
        """The status of a run, once it is finished."""
        wait_for(lambda: self.run(run_id).is_finished, seconds=seconds)
        return self.run(run_id).status.value

    def asleep(self, **tags: str) -> str:
        """A run of `sleep` whose op has begun."""
        run_id = self.launch("sleep_job", **tags)
        wait_for((self.notes / f"begun-{run_id}").exists)
        return run_id

    def wake_all(self) -> None:
        """Lets the sleeping runs go on."""
        (self.notes / "go").touch()

    def note(self, name: str) -> Any:
        """What a job noted."""
        wait_for((self.notes / name).exists)
        return json.loads((self.notes / name).read_text(encoding="utf-8"))

    def record(self, run_id: str) -> RunRecord:
        """The record of a run's process."""
        found = RunRecords(self.folder.runs).read(run_id)
        assert found is not None
        return found

    def zygotes(self) -> list[Process]:
        """The living zygotes."""
        return [process for _, process in self.folder.zygotes()]

    @contextmanager
    def options(self, **changes: Any) -> Iterator[None]:
        """The launcher with other options for the length of the block."""
        before = self.launcher._options
        self.launcher._options = replace(before, **changes)
        yield
        self.launcher._options = before

    def rest(self) -> None:
        """Ends all runs and zygotes; the next runs find the code as it was, and sleep again."""
        self.wake_all()
        assert Zygotes(self.folder).stop(seconds=PATIENCE_SECONDS)
        (self.notes / "go").unlink()
        shutil.copy(WARM_CODE, self.project)

    def threads_of(self, process: Process) -> list[str]:
        """The kernel's names of a process's threads."""
        return [path.read_text().strip() for path in Path(f"/proc/{process.pid}/task").glob("*/comm")]

    def health(self, run_id: str, *, dagster: dg.DagsterInstance | None = None) -> WorkerStatus:
        """What run monitoring would hear."""
        return (dagster or self.dagster).run_launcher.check_run_worker_health(self.run(run_id)).status

    def events(self, run_id: str) -> list[str]:
        """The types of a run's events, in order."""
        entries = self.dagster.all_logs(run_id)
        return [entry.dagster_event.event_type_value for entry in entries if entry.dagster_event is not None]

    def messages(self, run_id: str) -> str:
        """All that a run's events say."""
        entries = self.dagster.all_logs(run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event is not None]
        return "\n".join(f"{event.event_type_value} {event.message} {event.event_specific_data}" for event in events)

    def log(self) -> str:
        """What the zygotes wrote."""
        return "".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.path.glob("*.log")))

    def log_events(self, code: str) -> list[dict[str, Any]]:
        """The zygotes' events of one code."""
        lines = [line for line in self.log().splitlines() if line.startswith("{") and code in line]
        return [json.loads(line) for line in lines]

    @contextmanager
    def reopened(self) -> Iterator[dg.DagsterInstance]:
        """The same instance as another process, or a restarted daemon, opens it."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield instance


@contextmanager
def warm_instance(
    folder: Path,
    *,
    settings: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    **options: object,
) -> Iterator[WarmInstance]:
    """An instance whose zygotes are gone when the block ends.

    Args:
        settings: More of dagster.yaml.
        environment: Variables set for the length of the block, for the project's import.
        options: The launcher's.
    """
    home, project = folder / "home", folder / "project"
    for path in (home, home / "notes", project, project / "late"):
        path.mkdir(parents=True, exist_ok=True)
    shutil.copy(WARM_CODE, project / "warm_code.py")
    (project / "late" / "imported_late.py").write_text("VALUE = 'late'\n", encoding="utf-8")
    launcher = {"module": "ss_pipeline.launcher", "class": "WarmRunLauncher", "config": {"idle_seconds": 5, **options}}
    text = yaml.safe_dump({"telemetry": {"enabled": False}, "run_launcher": launcher, **(settings or {})})
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    variables = {"DAGSTER_HOME": str(home), "WARM_NOTES": str(home / "notes"), **(environment or {})}
    with _environment(variables), dg.DagsterInstance.from_config(str(home)) as instance:
        warm = WarmInstance(home, project, instance)
        try:
            yield warm
        finally:
            warm.wake_all()
            assert Zygotes(warm.folder).stop(seconds=PATIENCE_SECONDS) or warm.log() == ""


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
