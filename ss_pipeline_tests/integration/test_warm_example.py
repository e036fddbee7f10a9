"""The example project with the warm launcher: by itself, and through queue and daemon with each of them killed once."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.launcher.zygotes import Zygotes
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.warm_instance import wait_for

EXAMPLE = PROJECT_ROOT / "examples" / "warm_launcher"
RUNS = 20
STARTED_SECONDS = 30.0
"""The longest that a run may be STARTED, killed or not, as promised."""
DAEMON_SECONDS = 90.0
WAITS_FOR_CODE_SERVERS = "\ncode_servers: {wait_for_local_processes_on_shutdown: true}\n"
STARTED = dg.DagsterRunStatus.STARTED


@dataclass(frozen=True)
class Orchard:
    """The example in a folder of its own, with its instance."""

    folder: Path
    instance: dg.DagsterInstance

    @property
    def launcher(self) -> LauncherFolder:
        """The launcher's private folder."""
        return LauncherFolder.of(self.instance.root_directory)

    @contextmanager
    def workspace(self) -> Iterator[WorkspaceProcessContext]:
        """The example's workspace, with its code server."""
        target = WorkspaceFileTarget([str(self.folder / "workspace.yaml")])
        with WorkspaceProcessContext(self.instance, target) as context:
            yield context

    def create(self, context: WorkspaceProcessContext, *, seconds: float = 0.0) -> str:
        """The id of a new run of the harvest, as the UI would make it."""
        request = context.create_request_context()
        (location,) = request.code_locations
        job = next(iter(location.get_repositories().values())).get_full_job("harvest")
        config = {"ops": {"cider": {"config": {"seconds": seconds}}}}
        plan = location.get_execution_plan(job, config, step_keys_to_execute=None, known_state=None)
        run = self.instance.create_run(
            job_name=job.name,
            run_id=None,
            run_config=config,
            status=None,
            tags={},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=location.get_repositories()[job.repository_handle.repository_name].asset_graph,
        )
        return run.run_id

    def count(self, *statuses: dg.DagsterRunStatus) -> int:
        """Runs in one of these statuses."""
        return self.instance.get_runs_count(dg.RunsFilter(statuses=list(statuses)))

    def at_work(self) -> RunRecord:
        """The record of a run whose process is at work."""
        found: list[RunRecord] = []

        def look() -> bool:
            started = {run.run_id for run in self.instance.get_runs(dg.RunsFilter(statuses=[STARTED]))}
            found[:] = [record for record in RunRecords(self.launcher.runs).all() if record.run_id in started]
            return bool(found)

        wait_for(look)
        return found[-1]


@pytest.fixture
def orchard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchard]:
    folder = tmp_path / "orchard"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((EXAMPLE / "dagster.yaml").read_text() + WAITS_FOR_CODE_SERVERS)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT_ROOT))  # the package need not be installed for the test
    monkeypatch.chdir(folder)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        orchard = Orchard(folder, instance)
        yield orchard
        assert Zygotes(orchard.launcher).stop(seconds=60)


def test_the_example_harvests(orchard: Orchard) -> None:
    with orchard.workspace() as context:
        run_ids = [orchard.create(context) for _ in range(2)]
        for run_id in run_ids:
            orchard.instance.launch_run(run_id, context.create_request_context())
        wait_for(lambda: orchard.count(dg.DagsterRunStatus.SUCCESS) == 2)
    cider = orchard.instance.get_latest_materialization_event(dg.AssetKey("cider"))
    assert cider is not None
    assert cider.asset_materialization is not None
    assert cider.asset_materialization.metadata["litres"].value == pytest.approx(144.0)
    assert len({record.zygote for record in RunRecords(orchard.launcher.runs).all()}) == 1


def test_the_example_knows_the_launcher_by_name_only() -> None:
    assert "ss_pipeline" not in (EXAMPLE / "orchard.py").read_text().split('"""', 2)[2]


@pytest.mark.soak
@pytest.mark.guarantee("F1", "F3", "F4", "R12")
def test_queue_and_daemon_bear_the_death_of_a_run_of_the_zygote_and_of_the_daemon(orchard: Orchard) -> None:
    with orchard.workspace() as context:
        for _ in range(RUNS):
            orchard.instance.submit_run(orchard.create(context, seconds=1.0), context.create_request_context())
    with _daemon(orchard.folder):
        killed = orchard.at_work()
        os.kill(killed.process.pid, signal.SIGKILL)
        wait_for(lambda: _finished(orchard) >= 4, seconds=DAEMON_SECONDS)
        zygote = orchard.at_work().zygote
        os.kill(zygote.pid, signal.SIGKILL)
        wait_for(lambda: _finished(orchard) >= 10, seconds=DAEMON_SECONDS)
    with _daemon(orchard.folder):  # the first one was killed in the middle of its work
        wait_for(lambda: _finished(orchard) == RUNS, seconds=DAEMON_SECONDS)
    records = orchard.instance.get_run_records()
    failed = [record.dagster_run.run_id for record in records if not record.dagster_run.is_success]
    assert failed == [killed.run_id]
    assert max((record.end_time or 0) - (record.start_time or 0) for record in records) < STARTED_SECONDS
    assert len({record.zygote for record in RunRecords(orchard.launcher.runs).all()}) == 2


def _finished(orchard: Orchard) -> int:
    return orchard.count(dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@contextmanager
def _daemon(folder: Path) -> Iterator[None]:
    """A daemon that is killed, not stopped, when the block ends."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", "workspace.yaml"]
    with (folder / "daemon.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()
