"""The life of a zygote: started once, replaced when code or memory has changed, survived by its runs, never left."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import WorkerStatus
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from ss_pipeline.launcher.processes import Process, is_alive, send_signal
from ss_pipeline.launcher.zygotes import Zygotes
from ss_pipeline_tests.servers import own_postgres
from ss_pipeline_tests.warm_instance import LOCATION, WarmInstance, wait_for, warm_instance

LAUNCHES = (
    "import sys; from dagster import DagsterInstance\n"
    "with DagsterInstance.get() as instance:\n"
    "    for run_id in sys.argv[1:]: instance.launch_run(run_id, None)\n"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmInstance]:
    """One instance for the tests that need no options or environment of their own."""
    with warm_instance(tmp_path_factory.mktemp("warm")) as warm:
        yield warm


@pytest.fixture
def warm(shared: WarmInstance) -> Iterator[WarmInstance]:
    """The shared instance, without a zygote."""
    yield shared
    shared.rest()


def zygote_of(warm: WarmInstance, run_id: str) -> Process:
    """The process that forked a run."""
    return warm.record(run_id).zygote


def test_many_that_launch_first_at_once_start_one_zygote(warm: WarmInstance) -> None:
    here = [warm.create("say_job") for _ in range(6)]
    elsewhere = [warm.create("say_job") for _ in range(2)]
    threads = [threading.Thread(target=warm.dagster.launch_run, args=(run_id, None)) for run_id in here]
    for thread in threads:
        thread.start()
    others = [subprocess.Popen([sys.executable, "-c", LAUNCHES, run_id]) for run_id in elsewhere]
    for thread in threads:
        thread.join(60)
    assert [other.wait(60) for other in others] == [0, 0]
    assert [warm.ended(run_id) for run_id in here + elsewhere] == ["SUCCESS"] * 8
    assert len(warm.zygotes()) == 1
    assert len({zygote_of(warm, run_id) for run_id in here + elsewhere}) == 1


@pytest.mark.guarantee("F1", "R12")
def test_runs_survive_their_zygote_and_are_looked_after_by_the_next(warm: WarmInstance) -> None:
    survivor, canceled, killed_early, killed_late = (warm.asleep() for _ in range(4))
    first = zygote_of(warm, survivor)
    assert send_signal(first, signal.SIGKILL)
    wait_for(lambda: not is_alive(first))
    assert warm.health(survivor) == WorkerStatus.RUNNING
    assert warm.launcher.terminate(canceled)
    assert warm.ended(canceled) == "CANCELED"
    send_signal(warm.record(killed_early).process, signal.SIGKILL)
    wait_for(lambda: warm.health(killed_early) == WorkerStatus.FAILED)  # run monitoring would end it now
    assert warm.run(killed_early).status == dg.DagsterRunStatus.STARTED

    assert warm.ended(warm.launch("say_job")) == "SUCCESS"  # another zygote, which adopts
    assert warm.ended(killed_early) == "FAILURE"
    adopted = {event["run_id"] for event in warm.log_events("SS_LAUNCHER_RUN_ADOPTED")}
    assert {survivor, killed_late} <= adopted
    assert killed_early not in adopted
    send_signal(warm.record(killed_late).process, signal.SIGKILL)
    assert warm.ended(killed_late) == "FAILURE"
    assert "nobody saw how it ended" in warm.messages(killed_late)
    warm.wake_all()
    assert warm.ended(survivor) == "SUCCESS"
    assert warm.note(f"ended-{survivor}") == "by itself"


@pytest.mark.guarantee("F4", "R12")
def test_after_the_death_of_everything_the_health_check_tells_the_truth(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    record = warm.record(run_id)
    for process in (record.zygote, record.process):
        send_signal(process, signal.SIGKILL)
    wait_for(lambda: not is_alive(record.process))
    with warm.reopened() as restarted:
        assert warm.health(run_id, dagster=restarted) == WorkerStatus.FAILED
        assert "is gone" in (restarted.run_launcher.get_run_worker_debug_info(warm.run(run_id)) or "")
        assert restarted.run_launcher.terminate(run_id) is False
    assert warm.ended(run_id) == "FAILURE"


def test_changed_code_is_used_from_the_next_launch_on(warm: WarmInstance) -> None:
    old = warm.asleep()
    module = warm.project / "warm_code.py"
    module.write_text(module.read_text().replace("ANSWER = 42", "ANSWER = 4242"))
    new = warm.launch("say_job")
    assert warm.ended(new) == "SUCCESS"
    assert warm.note(f"said-{new}") == 4242
    assert zygote_of(warm, new) != zygote_of(warm, old)
    assert is_alive(zygote_of(warm, old))  # until its run has ended
    warm.wake_all()
    assert warm.ended(old) == "SUCCESS"
    wait_for(lambda: not is_alive(zygote_of(warm, old)))
    assert is_alive(zygote_of(warm, new))
    assert f"the code has changed: {module}" in [
        event["reason"] for event in warm.log_events("SS_LAUNCHER_ZYGOTE_RETIRED")
    ]


def test_code_that_cannot_be_imported_fails_the_run_with_its_traceback_until_it_is_mended(warm: WarmInstance) -> None:
    module = warm.project / "warm_code.py"
    good = module.read_text()
    module.write_text(good.replace("ANSWER = 42", "ANSWER = 1 / 0"))
    run_id = warm.create("say_job")
    with pytest.raises(DagsterLaunchFailedError, match="ZeroDivisionError") as caught:
        warm.dagster.launch_run(run_id, None)  # type: ignore[arg-type]
    assert "warm_code.py" in caught.value.serializable_error_info.to_string()
    assert warm.ended(run_id) == "FAILURE"
    wait_for(lambda: warm.zygotes() == [])
    module.write_text(good)
    assert warm.ended(warm.launch("say_job")) == "SUCCESS"


@pytest.mark.soak
def test_an_error_of_any_length_gets_through(tmp_path: Path) -> None:
    with (
        warm_instance(tmp_path, environment={"WARM_RAISE": "300000"}) as warm,
        pytest.raises(DagsterLaunchFailedError, match="this code cannot be imported: xxx"),
    ):
        warm.launch("say_job")


@pytest.mark.soak
def test_a_zygote_that_has_grown_is_replaced(tmp_path: Path) -> None:
    with warm_instance(tmp_path, recycle_after_mb=50, environment={"WARM_LEAK_MB": "30"}) as warm:
        runs = [warm.launch("say_job") for _ in range(3)]
        assert [warm.ended(run_id) for run_id in runs] == ["SUCCESS"] * 3
        first, second, third = (zygote_of(warm, run_id) for run_id in runs)
        assert first == second != third
        (retired,) = warm.log_events("SS_LAUNCHER_ZYGOTE_RETIRED")
        assert "memory has grown" in retired["reason"]
        wait_for(lambda: not is_alive(first))


@pytest.mark.soak
def test_a_zygote_told_to_end_waits_for_its_runs(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        run_id = warm.asleep()
        first = zygote_of(warm, run_id)
        send_signal(first, signal.SIGTERM)
        later = warm.launch("say_job")
        assert zygote_of(warm, later) != first
        assert is_alive(first)
        warm.wake_all()
        assert [warm.ended(run_id), warm.ended(later)] == ["SUCCESS", "SUCCESS"]
        wait_for(lambda: not is_alive(first))


@pytest.mark.soak
def test_a_zygote_told_to_end_interrupts_runs_that_take_too_long(tmp_path: Path) -> None:
    with warm_instance(tmp_path, drain_seconds=1) as warm:
        run_id = warm.asleep()
        send_signal(zygote_of(warm, run_id), signal.SIGTERM)
        assert warm.ended(run_id) in {"FAILURE", "CANCELED"}
        assert warm.note(f"ended-{run_id}") == "interrupted"
        wait_for(lambda: warm.zygotes() == [])


@pytest.mark.soak
def test_a_zygote_that_nothing_uses_ends(tmp_path: Path) -> None:
    with warm_instance(tmp_path, idle_seconds=1) as warm:
        run_id = warm.create("say_job")
        subprocess.run([sys.executable, "-c", LAUNCHES, run_id], check=True, timeout=60)  # and it is gone
        assert warm.ended(run_id) == "SUCCESS"
        wait_for(lambda: warm.zygotes() == [])
        assert list(warm.folder.path.glob("*.sock")) == []


@pytest.mark.soak
def test_a_zygote_whose_launcher_lives_stays_until_it_has_rested_long(tmp_path: Path) -> None:
    with warm_instance(tmp_path, idle_seconds=0, rest_seconds=3) as warm:
        run_id = warm.launch("say_job")
        assert warm.ended(run_id) == "SUCCESS"
        time.sleep(1.5)
        assert warm.zygotes() == [zygote_of(warm, run_id)]
        wait_for(lambda: warm.zygotes() == [])


@pytest.mark.soak
def test_a_zygote_whose_instance_is_removed_ends(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        run_id = warm.launch("say_job")
        assert warm.ended(run_id) == "SUCCESS"
        zygote = zygote_of(warm, run_id)
        shutil.rmtree(warm.folder.path)
        wait_for(lambda: not is_alive(zygote))
        assert warm.ended(warm.launch("say_job")) == "SUCCESS"


@pytest.mark.soak
def test_a_changed_environment_gets_a_zygote_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warm_instance(tmp_path) as warm:
        one = warm.launch("say_job")
        monkeypatch.setenv("SOME_API_KEY", "changed")
        other = warm.launch("say_job")
        assert zygote_of(warm, one) != zygote_of(warm, other)
        assert [warm.ended(one), warm.ended(other)] == ["SUCCESS", "SUCCESS"]


@pytest.mark.soak
def test_a_zygote_that_hangs_is_killed_and_the_next_launch_has_another(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        assert warm.ended(warm.launch("say_job")) == "SUCCESS"
        (hanging,) = warm.zygotes()
        os.kill(hanging.pid, signal.SIGSTOP)
        with warm.options(start_seconds=1), pytest.raises(DagsterUserCodeUnreachableError, match="not answered"):
            warm.launch("say_job")
        assert not is_alive(hanging)
        assert warm.ended(warm.launch("say_job")) == "SUCCESS"


@pytest.mark.soak
def test_an_import_that_takes_too_long_is_neither_ended_nor_left_to_the_default_launcher(tmp_path: Path) -> None:
    with warm_instance(tmp_path, environment={"WARM_SLEEP": "15"}) as warm:
        with warm.options(start_seconds=5), pytest.raises(DagsterUserCodeUnreachableError, match="not answered"):
            warm.launch("say_job")
        (importing,) = warm.zygotes()
        run_id = warm.launch("say_job")
        assert warm.ended(run_id) == "SUCCESS"
        assert zygote_of(warm, run_id) == importing


@pytest.mark.soak
def test_a_zygote_that_can_be_found_no_more_ends(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        run_id = warm.launch("say_job")
        assert warm.ended(run_id) == "SUCCESS"
        (socket_path,) = warm.folder.path.glob("*.sock")
        socket_path.unlink()
        with warm.reopened() as other:
            other.launch_run(warm.create("say_job"), None)  # type: ignore[arg-type]
        wait_for(lambda: not is_alive(zygote_of(warm, run_id)))
        assert len(warm.zygotes()) == 1


@pytest.mark.soak
def test_a_socket_whose_path_would_be_too_long_is_made_in_a_short_private_folder(tmp_path: Path) -> None:
    with warm_instance(tmp_path / ("long" * 25)) as warm:
        run_id = warm.launch("say_job")
        assert warm.ended(run_id) == "SUCCESS"
        path = warm.folder.socket(warm.record(run_id).key)
        assert path.parent != warm.folder.path
        assert path.parent.stat().st_mode & 0o777 == 0o700
    wait_for(lambda: not path.parent.exists())


@pytest.mark.soak
def test_the_command_shows_the_zygotes_and_stops_them(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        run_id = warm.asleep()
        command = [sys.executable, "-m", "ss_pipeline.launcher"]
        shown = subprocess.run([*command, "status"], capture_output=True, text=True, check=True, timeout=60).stdout
        assert shown.startswith(f"{warm.record(run_id).key} pid {zygote_of(warm, run_id).pid}: ")
        assert run_id in shown
        warm.wake_all()
        subprocess.run([*command, "stop", "--home", str(warm.home)], check=True, timeout=60)
        assert warm.zygotes() == []
        assert warm.ended(run_id) == "SUCCESS"


def test_stopping_interrupts_runs_whose_zygote_is_gone(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    assert send_signal(zygote_of(warm, run_id), signal.SIGKILL)
    wait_for(lambda: warm.zygotes() == [])
    assert Zygotes(warm.folder).stop(seconds=60)
    assert warm.note(f"ended-{run_id}") == "interrupted"
    assert warm.run(run_id).status == dg.DagsterRunStatus.FAILURE


def test_what_has_not_ended_in_time_is_killed_only_if_that_is_asked_for(warm: WarmInstance) -> None:
    run_id = warm.asleep()
    record = warm.record(run_id)
    assert not Zygotes(warm.folder).stop(seconds=0)
    assert is_alive(record.process)
    assert Zygotes(warm.folder).stop(seconds=0, kill=True)
    assert not is_alive(record.process)
    assert warm.health(run_id) == WorkerStatus.FAILED


def _may_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.soak
@pytest.mark.skipif(not _may_unshare(), reason="this user may not make pid namespaces")
def test_a_run_in_another_container_is_neither_taken_for_dead_nor_for_living_for_ever(tmp_path: Path) -> None:
    with warm_instance(tmp_path) as warm:
        run_id = warm.create("sleep_job")
        inside = [sys.executable, "-c", LAUNCHES + "import time; time.sleep(600)", run_id]
        container = subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *inside])
        warm.note(f"begun-{run_id}")
        assert warm.health(run_id) == WorkerStatus.RUNNING
        assert warm.launcher.terminate(run_id) is False
        assert "in another container" in warm.messages(run_id)
        assert warm.run(run_id).status == dg.DagsterRunStatus.STARTED
        container.kill()
        container.wait()
        wait_for(lambda: warm.health(run_id) == WorkerStatus.FAILED)


@pytest.mark.soak
def test_the_threads_of_a_memory_allocator_are_no_hindrance(tmp_path: Path) -> None:
    with warm_instance(tmp_path, preload=["pandas", "pyarrow"]) as warm:
        run_id = warm.launch("look_around_job")
        assert warm.ended(run_id) == "SUCCESS"
        assert "jemalloc_bg_thd" in warm.threads_of(zygote_of(warm, run_id))
        assert warm.note(f"facts-{run_id}")["arrow"] == 1_000_000


# --- where no warm process can be had


@pytest.mark.soak
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WARM_THREAD": "1"}, "early bird"),
        ({"WARM_EXIT": "1"}, "the zygote was lost"),
    ],
)
def test_without_a_fallback_the_run_fails_and_the_reason_is_said(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    with warm_instance(tmp_path, fallback=False, environment=environment) as warm:
        run_id = warm.create("say_job")
        with pytest.raises(DagsterLaunchFailedError, match=said):
            warm.dagster.launch_run(run_id, None)  # type: ignore[arg-type]
        assert warm.ended(run_id) == "FAILURE"
        wait_for(lambda: warm.zygotes() == [])


@pytest.mark.soak
def test_runs_that_cannot_be_forked_go_to_the_default_launcher_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"code_servers": {"wait_for_local_processes_on_shutdown": True}}
    with (
        warm_instance(tmp_path, settings=settings, environment={"WARM_THREAD": "1"}) as warm,
        _workspace(warm) as workspace,
    ):
        runs = [warm.create("say_job"), warm.create("sleep_job")]
        for run_id in runs:
            warm.dagster.launch_run(run_id, workspace)
        assert warm.ended(runs[0]) == "SUCCESS"
        warm.note(f"begun-{runs[1]}")
        assert warm.health(runs[1]) == WorkerStatus.RUNNING
        assert warm.launcher.terminate(runs[1]) is True
        assert warm.ended(runs[1]) == "CANCELED"
        said = [record for record in caplog.records if record.message == "SS_LAUNCHER_FALLBACK"]
        assert len(said) == 1
        assert "early bird" in said[0].__dict__["fields"]["reason"]
        assert said[0].__dict__["fields"]["location"] == LOCATION


# --- PostgreSQL


@pytest.mark.soak
def test_a_run_on_postgres_with_pooled_connections_bears_a_restart_of_the_server(tmp_path: Path) -> None:
    with own_postgres() as server:
        settings = {"storage": {"postgres": {"postgres_url": server.url}}}
        with warm_instance(tmp_path, settings=settings) as warm:
            run_id = warm.asleep()
            server.stop()
            server.start()
            warm.wake_all()
            assert warm.ended(run_id) == "SUCCESS"
            assert len(_sockets_of(zygote_of(warm, run_id).pid)) == 3  # it listens, and its signals wake it up


@pytest.mark.soak
@pytest.mark.guarantee("F6")
def test_a_run_lost_while_the_database_is_away_is_reported_when_it_is_back(tmp_path: Path) -> None:
    with own_postgres() as server:
        settings = {"storage": {"postgres": {"postgres_url": server.url}}}
        with warm_instance(tmp_path, settings=settings) as warm:
            run_id = warm.asleep()
            server.stop()
            send_signal(warm.record(run_id).process, signal.SIGKILL)
            wait_for(lambda: "OperationalError" in warm.log())
            server.start()
            assert warm.ended(run_id) == "FAILURE"
            assert "SIGKILL" in warm.messages(run_id)


def _sockets_of(pid: int) -> list[Path]:
    links = Path(f"/proc/{pid}/fd").iterdir()
    return [link for link in links if link.is_symlink() and str(link.readlink()).startswith("socket:")]


@contextmanager
def _workspace(warm: WarmInstance) -> Iterator[BaseWorkspaceRequestContext]:
    """The project with a code server, as the default launcher wants it."""
    target = ModuleTarget("warm_code", attribute=None, working_directory=str(warm.project), location_name=LOCATION)
    with WorkspaceProcessContext(warm.dagster, target) as context:
        yield context.create_request_context()
