"""What the launcher uses of Dagster's insides is as the installed version has it."""

import ast
import importlib
import inspect
import json
import multiprocessing.reduction
import os
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._cli import dev
from dagster._cli.proxy_server_manager import ProxyServerManager
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.definitions.reconstruct import ReconstructableRepository as ColdRepository
from dagster._core.launcher.base import RunLauncher, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.event_log.base import EventLogStorage
from dagster._core.storage.runs.base import RunStorage
from dagster._grpc.impl import core_execute_run
from dagster._serdes import deserialize_value, serialize_value

from ss_pipeline.launcher import WarmRunLauncher, dagster_internals
from ss_pipeline.launcher.dagster_internals import CodeHere, ForeignErrors, ReconstructableRepository
from ss_pipeline.launcher.health import Health
from ss_pipeline_tests.conftest import PROJECT_ROOT

LAUNCHER = PROJECT_ROOT / "ss_pipeline" / "launcher"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def a_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run that is started."""
    run = instance.create_run_for_job(dg.GraphDefinition(name="nothing").to_job())
    _report(instance, run, dg.DagsterEventType.RUN_START)
    return run


def _report(instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType) -> None:
    event = dg.DagsterEvent(event_type_value=kind.value, job_name=run.job_name)
    instance.report_dagster_event(event, run.run_id)


def _status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status.value


def _private_imports(path: Path) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [node.module for node in nodes if node.module and re.match(r"dagster(_\w+)?\._|dagster_shared", node.module)]


def test_two_modules_know_dagster_s_insides() -> None:
    knowing = {path.name for path in LAUNCHER.glob("*.py") if _private_imports(path)}
    assert knowing == {"dagster_internals.py", "sqlite_connections.py"}


@pytest.mark.parametrize("name", dagster_internals.IMPORTED_BY_RUNS)
def test_what_runs_import_late_is_there(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (core_execute_run, ["recon_job", "dagster_run", "instance", "inject_env_vars", "resume_from_failure"]),
        (RunStorage.handle_run_event, ["self", "run_id", "event", "update_timestamp"]),
        (EventLogStorage.get_logs_for_run, ["self", "run_id", "cursor", "of_type", "limit", "ascending"]),
        (dg.DagsterInstance.optimize_for_webserver, ["self", "statement_timeout", "pool_recycle", "max_overflow"]),
        (dg.DagsterInstance.report_run_failed, ["self", "dagster_run", "message", "job_failure_data"]),
        (RunLauncher.get_run_worker_debug_info, ["self", "run", "include_container_logs"]),
    ],
)
def test_functions_have_the_parameters_that_are_given(function: object, parameters: list[str]) -> None:
    assert callable(function)
    assert list(inspect.signature(function).parameters) == parameters


def test_the_launcher_answers_all_that_dagster_may_ask_and_nothing_else() -> None:
    asked = {name for name, value in vars(RunLauncher).items() if not name.startswith("_")}
    inherited = {"supports_resume_run", "resume_run"}  # a run is not resumed: its process is gone with its state
    assert asked - inherited <= vars(WarmRunLauncher).keys()


def test_dagster_s_words_for_health_are_ours() -> None:
    assert {word.value for word in Health} <= {status.name for status in WorkerStatus}


# --- a loaded repository


def test_a_loaded_repository_is_its_base_for_every_other_process() -> None:
    cold = ColdRepository(ModuleCodePointer("some_module", "defs", "/somewhere"))
    loaded = ReconstructableRepository(*cold)
    assert loaded == cold
    assert serialize_value(loaded) == serialize_value(cold)
    assert type(deserialize_value(serialize_value(loaded))) is ColdRepository
    sent = multiprocessing.reduction.ForkingPickler.dumps(ReconstructableJob(loaded, "job"))
    assert b"dagster_internals" not in bytes(sent)


def test_a_loaded_repository_stays_loaded_with_other_load_data(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = dg.Definitions().get_repository_def()
    monkeypatch.setattr(ReconstructableRepository, "loaded", definition, raising=False)
    repository = ReconstructableRepository(ModuleCodePointer("no_such_module", "defs", None))
    job = repository.get_reconstructable_job("job").with_repository_load_data(None)
    assert job.get_repository_definition() is definition


# --- errors of foreign code


def test_errors_are_kept_shortened_and_come_through() -> None:
    def fail(depth: int) -> None:
        if depth:
            fail(depth - 1)
        raise ValueError("x" * 100_000)

    with ForeignErrors() as errors:
        fail(50)
    assert errors.info is not None
    short = dagster_internals.shortened_error(errors.info, characters=10_000)
    assert len(dagster_internals.serialized_error(short)) < 20_000
    raised = dagster_internals.launch_failed("no", serialized=dagster_internals.serialized_error(short))
    assert "ValueError: xxx" in raised.serializable_error_info.to_string()


def test_leaving_the_interpreter_is_an_error_like_others() -> None:
    with ForeignErrors() as errors:
        raise SystemExit(0)
    assert errors.info is not None
    assert "SystemExit" in errors.info.message


# --- where the code is


def _run_from(origin: RepositoryPythonOrigin | None, **options: object) -> dg.DagsterRun:
    job_origin = JobPythonOrigin("job", origin) if origin else None
    return dg.DagsterRun("job", job_code_origin=job_origin, **options)  # type: ignore[arg-type]


HERE = RepositoryPythonOrigin("/bin/sh", ModuleCodePointer("some_module", "defs", None))


def _served_by(server: GrpcServerCodeLocationOrigin) -> dg.DagsterRun:
    return _run_from(HERE, remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(server, "repository"), "job"))


def test_the_code_of_a_run_is_found_here() -> None:
    found = dagster_internals.code_here(_run_from(HERE))
    assert isinstance(found, CodeHere)
    assert (found.executable, found.location) == ("/bin/sh", None)
    assert deserialize_value(found.repository, RepositoryPythonOrigin) == HERE


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (_run_from(None), "does not say"),
        (_run_from(HERE._replace(container_image="image:1")), "container image"),
        (_run_from(HERE._replace(executable_path="/no/such/python")), "not on this machine"),
        (_served_by(GrpcServerCodeLocationOrigin("localhost", 4000)), "gRPC server"),
        (_served_by(GrpcServerCodeLocationOrigin("localhost", socket="/tmp/socket")), "gRPC server"),
    ],
)
def test_code_that_is_elsewhere_is_told(run: dg.DagsterRun, said: str) -> None:
    found = dagster_internals.code_here(run)
    assert isinstance(found, str)
    assert said in found


def test_the_server_that_dagster_dev_starts_has_its_code_here(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"module_name": "some_module", "working_directory": "/somewhere"}
    run = _served_by(GrpcServerCodeLocationOrigin("localhost", socket="/tmp/socket", additional_metadata=ours))
    assert isinstance(dagster_internals.code_here(run), str)  # no `dagster dev` here: somebody else's server
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    assert isinstance(dagster_internals.code_here(run), CodeHere)
    foreign = _served_by(GrpcServerCodeLocationOrigin("localhost", 4000))
    assert isinstance(dagster_internals.code_here(foreign), str)


def test_dagster_dev_marks_what_it_starts_and_says_what_its_server_loads() -> None:
    assert 'os.environ["DAGSTER_IS_DEV_CLI"]' in inspect.getsource(dev.dev_command_impl)
    described = inspect.getsource(ProxyServerManager.get_code_server_specs)
    assert '"additional_metadata": origin.loadable_target_origin.as_dict' in described
    assert '"socket": grpc_endpoint.socket' in described


# --- telling Dagster


def test_a_lost_run_is_failed_once_with_its_reason(instance: dg.DagsterInstance) -> None:
    run = a_run(instance)
    for _ in range(2):
        dagster_internals.report_lost_run(instance, run.run_id, how="it was killed")
    assert _status(instance, run) == "FAILURE"
    entries = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    assert [event.message for event in entries if event.is_run_failure] == ["it was killed"]
    assert instance.get_run_tags(["dagster/failure_reason"]) == [("dagster/failure_reason", {"UNEXPECTED_TERMINATION"})]


def test_a_lost_run_that_was_being_canceled_is_canceled(instance: dg.DagsterInstance) -> None:
    run = a_run(instance)
    instance.report_run_canceling(run)
    dagster_internals.report_lost_run(instance, run.run_id, how="it was killed")
    assert _status(instance, run) == "CANCELED"


@pytest.mark.guarantee("F21")
@pytest.mark.parametrize(
    ("told", "restored"),
    [
        ([], "STARTED"),
        ([dg.DagsterEventType.RUN_SUCCESS], "SUCCESS"),
        ([dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_CANCELING], "SUCCESS"),
        ([dg.DagsterEventType.RUN_CANCELING], "CANCELING"),
    ],
)
def test_a_second_launch_does_not_change_what_the_run_said_of_itself(
    instance: dg.DagsterInstance, told: list[dg.DagsterEventType], restored: str
) -> None:
    run = a_run(instance)
    (record,) = instance.get_run_records()
    for kind in told:
        _report(instance, run, kind)
    _report(instance, run, dg.DagsterEventType.RUN_STARTING)
    assert _status(instance, run) == "STARTING"
    assert dagster_internals.restore_status(instance, run.run_id)
    assert _status(instance, run) == restored
    (after,) = instance.get_run_records()
    assert after.start_time == pytest.approx(record.start_time, abs=1)


def test_a_run_that_said_nothing_keeps_its_status(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(dg.GraphDefinition(name="nothing").to_job())
    _report(instance, run, dg.DagsterEventType.RUN_STARTING)
    assert not dagster_internals.restore_status(instance, run.run_id)
    assert _status(instance, run) == "STARTING"


# --- connections


def test_connections_are_pooled_on_postgres_only(instance: dg.DagsterInstance) -> None:
    assert not dagster_internals.pool_connections(instance)


def test_a_pool_tries_a_connection_before_it_is_used_where_this_attribute_says_so() -> None:
    pool = sa.create_engine("sqlite://", poolclass=sa.QueuePool, pool_pre_ping=True).pool
    assert pool._pre_ping is True


def test_secrets_are_looked_for_where_dagster_s_loader_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("LAUNCHER_TEST_SECRET=42\n")
    monkeypatch.setenv("DAGSTER_PROJECT_ENV_FILE_PATHS", json.dumps({"here": str(tmp_path)}))
    monkeypatch.setenv("LAUNCHER_TEST_SECRET", "before")
    (tmp_path / "home").mkdir()
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        reference = dagster_internals.reference_of(instance)
        assert dagster_internals.inject_secrets(reference, "there") == []
        assert dagster_internals.inject_secrets(reference, "here") == [str(tmp_path / ".env")]
    assert os.environ["LAUNCHER_TEST_SECRET"] == "42"
