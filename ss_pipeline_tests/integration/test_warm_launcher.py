"""The warm launcher on a real instance (SQLite), without a daemon: what becomes of runs that are launched."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from ss_pipeline.errors import LauncherBusyError
from ss_pipeline.launcher.dagster_internals import CodeHere, code_here
from ss_pipeline.launcher.processes import identify, is_alive
from ss_pipeline.launcher.protocol import MAX_REQUEST_BYTES, Launch, Look, to_line
from ss_pipeline.launcher.start import ZygoteStart
from ss_pipeline.launcher.zygotes import Zygotes
from ss_pipeline_tests.warm_instance import LOCATION, WarmInstance, wait_for, warm_instance

REPORTED_SECONDS = 2.0
"""From the end of a run's process to the run's failure, as promised."""
PATIENCE = 5 if os.environ.get("PYTEST_XDIST_WORKER") else 2


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmInstance]:
    """One instance with one zygote for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / ".env").write_text("WARM_SECRET=from the secrets loader\n", encoding="utf-8")
    files = {"location_paths": {LOCATION: str(folder)}}
    loader = {"module": "dagster._core.secrets.env_file", "class": "PerProjectEnvFileLoader", "config": files}
    with warm_instance(folder, settings={"secrets": {"custom": loader}}, environment={"OMP_NUM_THREADS": "3"}) as warm:
        assert warm.ended(warm.launch("say_job")) == "SUCCESS"
        yield warm


def test_a_run_succeeds_and_all_its_events_are_there(warm: WarmInstance) -> None:
    run_id = warm.launch("say_job")
    assert warm.ended(run_id) == "SUCCESS"
    assert warm.events(run_id) == [
        "PIPELINE_STARTING", "ENGINE_EVENT", "PIPELINE_START", "ENGINE_EVENT", "RESOURCE_INIT_STARTED",
        "RESOURCE_INIT_SUCCESS", "LOGS_CAPTURED", "STEP_START", "STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS",
        "ENGINE_EVENT", "PIPELINE_SUCCESS",
    ]  # fmt: skip
    assert f"Started process for run (pid: {warm.record(run_id).process.pid})" in warm.messages(run_id)


@pytest.mark.parametrize("job", ["count_in_process", pytest.param("count", marks=pytest.mark.soak)])
def test_assets_are_made_by_any_executor(warm: WarmInstance, job: str) -> None:
    run_id = warm.launch(job)
    assert warm.ended(run_id) == "SUCCESS"
    assert warm.events(run_id).count("ASSET_MATERIALIZATION") == 2


def test_a_selection_of_assets_is_made(warm: WarmInstance) -> None:
    run_id = warm.launch("count_in_process", assets=["flock"])
    assert warm.ended(run_id) == "SUCCESS"
    assert warm.events(run_id).count("ASSET_MATERIALIZATION") == 1


def test_the_definitions_are_loaded_once_for_all_jobs(warm: WarmInstance) -> None:
    for job in ("say_job", "count_in_process"):
        assert warm.ended(warm.launch(job)) == "SUCCESS"
    (zygote,) = warm.zygotes()
    loaded_by_runs = [pid for pid in (warm.notes / "loaded").read_text().split() if int(pid) != zygote.pid]
    assert len(loaded_by_runs) == len(set(loaded_by_runs))  # only steps in processes of their own


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit 3", "unexpectedly exited with code 3"),
        ("exit 0", "unexpectedly exited with code 0"),
        ("killed", "was terminated by signal 9 (SIGKILL)"),
    ],
)
def test_a_process_that_ends_early_fails_its_run_only(warm: WarmInstance, how: str, said: str) -> None:
    neighbour = warm.asleep()
    run_id = warm.launch("leave_job", how=how)
    process = warm.record(run_id).process
    wait_for(lambda: not is_alive(process))
    died = time.monotonic()
    assert warm.ended(run_id) == "FAILURE"
    assert time.monotonic() - died < REPORTED_SECONDS * PATIENCE
    assert said in warm.messages(run_id)
    assert warm.events(run_id).count("PIPELINE_FAILURE") == 1
    assert warm.run(neighbour).status == dg.DagsterRunStatus.STARTED
    assert warm.launcher.terminate(neighbour)
    assert warm.ended(neighbour) == "CANCELED"


def test_what_a_run_has_started_ends_with_it_where_it_is_killed(warm: WarmInstance) -> None:
    run_id = warm.launch("leave_job", how="killed")
    assert warm.ended(run_id) == "FAILURE"
    started = warm.note(f"started-{run_id}")
    wait_for(lambda: identify(started) is None)


def test_an_op_that_leaves_the_interpreter_fails_its_run(warm: WarmInstance) -> None:
    run_id = warm.launch("leave_job", how="sys.exit")
    assert warm.ended(run_id) == "FAILURE"
    assert "SystemExit" in warm.messages(run_id)
    wait_for(lambda: not is_alive(warm.record(run_id).process))
    assert warm.record(run_id).settled


def test_terminating_interrupts_the_op_and_lets_it_clean_up(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    assert warm.health(run_id) == WorkerStatus.RUNNING
    assert warm.launcher.terminate(run_id) is True
    assert warm.ended(run_id) == "CANCELED"
    assert warm.note(f"ended-{run_id}") == "interrupted"
    assert warm.events(run_id).count("PIPELINE_CANCELING") == 1
    wait_for(lambda: not is_alive(warm.record(run_id).process))
    assert warm.health(run_id) == WorkerStatus.SUCCESS
    assert warm.launcher.terminate(run_id) is False


def test_another_process_terminates_and_sees_the_health(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    with warm.reopened() as restarted:
        assert warm.health(run_id, dagster=restarted) == WorkerStatus.RUNNING
        assert restarted.run_launcher.terminate(run_id) is True
    assert warm.ended(run_id) == "CANCELED"


def test_a_run_terminated_before_it_has_a_process_never_begins(warm: WarmInstance) -> None:
    run_id = warm.create("say_job")
    assert warm.launcher.terminate(run_id) is True
    warm.launcher.launch_run(LaunchRunContext(warm.run(run_id), None))
    wait_for(lambda: not is_alive(warm.record(run_id).process))
    assert warm.run(run_id).status == dg.DagsterRunStatus.CANCELED
    assert "PIPELINE_START" not in warm.events(run_id)


def test_a_run_that_is_being_canceled_when_its_process_begins_is_canceled(warm: WarmInstance) -> None:
    run_id = warm.create("say_job")
    warm.dagster.report_run_canceling(warm.run(run_id))
    warm.launcher.launch_run(LaunchRunContext(warm.run(run_id), None))
    assert warm.ended(run_id) == "CANCELED"
    assert "PIPELINE_START" not in warm.events(run_id)


def test_a_started_run_without_a_record_is_not_found(warm: WarmInstance) -> None:
    run_id = warm.create("say_job")
    event = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name="say_job")
    warm.dagster.report_dagster_event(event, run_id)
    assert warm.health(run_id) == WorkerStatus.NOT_FOUND
    assert warm.launcher.terminate(run_id) is False
    assert "No process is recorded" in warm.messages(run_id)


# --- launched twice


@pytest.mark.guarantee("F21")
def test_a_run_launched_twice_has_one_process_and_keeps_its_status(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    warm.dagster.launch_run(run_id, None)  # type: ignore[arg-type]
    assert warm.run(run_id).status == dg.DagsterRunStatus.STARTED
    assert warm.launcher.terminate(run_id)
    assert warm.ended(run_id) == "CANCELED"
    warm.dagster.launch_run(run_id, None)  # type: ignore[arg-type]
    assert warm.run(run_id).status == dg.DagsterRunStatus.CANCELED
    assert warm.messages(run_id).count("Started process for run") == 1


@pytest.mark.guarantee("F21")
def test_of_daemons_that_launch_a_run_at_once_one_makes_the_process(warm: WarmInstance) -> None:
    run_id = warm.create("sleep_job")
    program = (
        "import sys; from dagster import DagsterInstance; from dagster._core.launcher import LaunchRunContext\n"
        "with DagsterInstance.get() as instance:\n"
        "    instance.run_launcher.launch_run(LaunchRunContext(instance.get_run_by_id(sys.argv[1]), None))\n"
    )
    daemons = [subprocess.Popen([sys.executable, "-c", program, run_id]) for _ in range(3)]
    assert [daemon.wait(60) for daemon in daemons] == [0, 0, 0]
    warm.note(f"begun-{run_id}")
    assert warm.launcher.terminate(run_id)
    assert warm.ended(run_id) == "CANCELED"
    assert warm.messages(run_id).count("Started process for run") == 1
    assert len(warm.zygotes()) == 1


# --- what a run inherits


def test_a_run_shares_nothing_with_its_zygote_or_with_other_runs(warm: WarmInstance) -> None:
    run_ids = [warm.launch("look_around_job") for _ in range(2)]
    assert [warm.ended(run_id) for run_id in run_ids] == ["SUCCESS", "SUCCESS"]
    one, other = (warm.note(f"facts-{run_id}") for run_id in run_ids)
    (zygote,) = warm.zygotes()
    assert one["imported_in"] == zygote.pid == one["parent"]
    assert one["pid"] == one["session"] == one["group"] == warm.record(run_ids[0]).process.pid
    assert {one["random"], other["random"]}.isdisjoint({one["random_at_import"]})
    assert one["random"] != other["random"]
    assert one["numpy"] != other["numpy"]
    assert one["hooks"] == ["hook"]
    assert (one["mask"], one["wakeup"], one["threads"]) == ([], -1, 1)
    assert one["handlers"] == {
        "SIGCHLD": "<Handlers.SIG_IGN: 1>",  # the code's own
        "SIGHUP": repr(signal.getsignal(signal.SIGHUP)),  # ignored where the tests run under nohup
        "SIGUSR1": "<Handlers.SIG_DFL: 0>",
    }
    assert one["descriptors"].pop("0") == "/dev/null"
    shared = set(one["descriptors"].values()) & _targets_of(zygote.pid) - _targets_of(os.getpid())
    assert {target for target in shared if target.startswith(("socket", "pipe"))} == set()
    assert "anon_inode:[pidfd]" not in one["descriptors"].values()


def test_a_run_has_the_folder_and_environment_of_a_code_server(warm: WarmInstance) -> None:
    run_id = warm.launch("look_around_job")
    assert warm.ended(run_id) == "SUCCESS"
    facts = warm.note(f"facts-{run_id}")
    assert facts["cwd"] == str(Path.cwd())
    assert facts["numeric_threads"] == "3"
    assert facts["secret"] == facts["secret_at_import"] == "from the secrets loader"


def test_runs_write_no_byte_code(warm: WarmInstance) -> None:
    run_id = warm.launch("look_around_job")
    assert warm.ended(run_id) == "SUCCESS"
    facts = warm.note(f"facts-{run_id}")
    assert (facts["late"], facts["dont_write_bytecode"]) == ("late", True)
    assert not (warm.project / "late" / "__pycache__").exists()


def test_what_a_run_prints_and_logs_is_captured(warm: WarmInstance) -> None:
    run_id = warm.launch("look_around_job")
    assert warm.ended(run_id) == "SUCCESS"
    captured = list((warm.home / "storage" / run_id / "compute_logs").iterdir())
    texts = {path.suffix: path.read_text() for path in captured}
    assert "logging works" in texts[".err"]
    assert texts[".out"] == "printed\n"


@pytest.mark.soak
def test_what_a_run_prints_outside_of_steps_goes_where_its_launcher_prints(warm: WarmInstance) -> None:
    program = (
        "import sys; from dagster import DagsterInstance\n"
        "with DagsterInstance.get() as instance:\n"
        "    instance.launch_run(sys.argv[1], None)\n"
        "    instance.run_launcher.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, warm.create("say_job")], capture_output=True, text=True, check=True, timeout=60
    )
    assert "RUN_SUCCESS" in done.stderr
    assert "RUN_SUCCESS" not in warm.log()


# --- many


@pytest.mark.guarantee("R17")
@pytest.mark.parametrize("launches", [30, pytest.param(500, marks=pytest.mark.soak)])
def test_nothing_grows_with_the_number_of_launches(warm: WarmInstance, launches: int) -> None:
    assert warm.ended(warm.launch("say_job")) == "SUCCESS"
    (zygote,) = warm.zygotes()
    wait_for(lambda: _children_of(zygote.pid) == [])
    before = (_descriptors_of(zygote.pid), _memory_of(zygote.pid))
    own = _descriptors_of(os.getpid())
    for _ in range(launches):
        run_id = warm.create("say_job")
        warm.dagster.report_run_canceled(warm.run(run_id))  # its process finds that and ends: the launch is the test
        warm.launcher.launch_run(LaunchRunContext(warm.run(run_id), None))
    wait_for(lambda: _children_of(zygote.pid) == [])
    descriptors, memory = _descriptors_of(zygote.pid), _memory_of(zygote.pid)
    assert descriptors == before[0]
    assert memory - before[1] < 5
    assert len(_descriptors_of(os.getpid())) - len(own) <= 2


# --- the cap


def test_a_launch_beyond_the_cap_waits_for_a_place(tmp_path: Path) -> None:
    with warm_instance(tmp_path, max_children=1) as warm:
        first = warm.asleep()
        second = warm.create("say_job")
        waiting = threading.Thread(target=warm.dagster.launch_run, args=(second, None))
        waiting.start()
        third = warm.create("say_job")
        with pytest.raises(LauncherBusyError, match="max_children"):
            Zygotes(warm.folder).launch(third, _start_of(warm, third), seconds=1)
        assert waiting.is_alive()
        warm.wake_all()
        waiting.join(30)
        assert [warm.ended(first), warm.ended(second)] == ["SUCCESS", "SUCCESS"]
        assert warm.run(third).status == dg.DagsterRunStatus.NOT_STARTED


@pytest.mark.soak
def test_a_refused_launch_is_an_error_after_which_the_queue_tries_again(tmp_path: Path) -> None:
    with warm_instance(tmp_path, max_children=1) as warm:
        warm.asleep()
        with warm.options(start_seconds=1), pytest.raises(DagsterUserCodeUnreachableError, match="max_concurrent_runs"):
            warm.launch("say_job")


# --- strangers at the socket


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"{}\n",
        b"[" * MAX_REQUEST_BYTES + b"\n",
        b"x" * (3 * MAX_REQUEST_BYTES),
        b"\xff\xfe\n",
        to_line(Look()).replace(b'"version":1', b'"version":2'),
        to_line(Launch("run", 1e9)),  # without its two descriptors
        b'{"verb": "launch", "run_id": "../../etc/passwd", "deadline": 1e9, "version": 1}\n',
    ],
)
def test_a_message_that_is_none_is_answered_and_nothing_else_happens(warm: WarmInstance, sent: bytes) -> None:
    with _connected(warm) as connection:
        connection.sendall(sent)
        answer = json.loads(connection.makefile().readline())
    assert (answer["verb"], answer["code"]) == ("refused", "LAUNCHER_PROTOCOL")
    assert len(warm.zygotes()) == 1


def test_callers_that_leave_in_mid_sentence_do_no_harm(warm: WarmInstance) -> None:
    for sent in (b"", b'{"verb":', to_line(Look())):
        with _connected(warm) as connection:
            connection.sendall(sent)
    assert warm.ended(warm.launch("say_job")) == "SUCCESS"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_gets_no_answer(warm: WarmInstance) -> None:
    (socket_path,) = warm.folder.path.glob("*.sock")
    assert warm.folder.path.stat().st_mode & 0o777 == 0o700
    program = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(20); os.chdir(sys.argv[1])\n"
        "os.setuid(65534); s.connect(sys.argv[2]); s.sendall(sys.argv[3].encode() + b'\\n'); print(s.recv(100))\n"
    )
    arguments = [str(warm.folder.path), socket_path.name, to_line(Look()).decode().strip()]
    for path, mode in ((warm.folder.path, 0o711), (socket_path, 0o666)):
        path.chmod(mode)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
    finally:
        warm.folder.path.chmod(0o700)
    assert done.stdout == "b''\n" or "ConnectionResetError" in done.stderr or "BrokenPipeError" in done.stderr


def _connected(warm: WarmInstance) -> socket.socket:
    (path,) = warm.folder.path.glob("*.sock")
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


def _start_of(warm: WarmInstance, run_id: str) -> ZygoteStart:
    code = code_here(warm.run(run_id))
    assert isinstance(code, CodeHere)
    return warm.launcher._start_for(warm.run(run_id), code)


def _targets_of(pid: int) -> set[str]:
    """What the descriptors of a process are: paths, or kind and number of a socket or pipe."""
    return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}


def _children_of(pid: int) -> list[str]:
    return [path.read_text() for path in Path(f"/proc/{pid}/task/{pid}").glob("children") if path.read_text().strip()]


def _descriptors_of(pid: int) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def _memory_of(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024
