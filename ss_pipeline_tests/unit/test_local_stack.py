"""The local stack: found, started with the right environment, watched, and stopped with all it started."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ss_pipeline import local_stack
from ss_pipeline.errors import StackError
from ss_pipeline.launcher import folder
from ss_pipeline.local_stack import StackHome
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.stacks import free_port

STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
started = subprocess.Popen([sys.executable, "-c", child])
pathlib.Path(sys.argv[1]).write_text(str(started.pid))
time.sleep(60)
"""
PRINTS_ENVIRONMENT = "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))"


@pytest.fixture
def home(tmp_path: Path) -> StackHome:
    return StackHome(project=PROJECT_ROOT, dagster_home=tmp_path / "data" / "dagster", data=tmp_path / "data")


def _command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", code, *map(str, arguments)]


def _lives(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _wait_for_file(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def test_the_launcher_is_looked_for_where_it_keeps_its_things() -> None:
    assert local_stack.LAUNCHER_FOLDER == folder.NAME


def test_the_project_is_this_folder_or_the_one_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_stack.find_project() == PROJECT_ROOT
    for name in ("dagster.yaml", "workspace.yaml"):
        (tmp_path / name).touch()
    assert local_stack.find_project() == tmp_path


def test_without_a_project_the_error_says_where_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local_stack, "__file__", str(tmp_path / "site-packages" / "ss_pipeline" / "local_stack.py"))
    with pytest.raises(StackError) as caught:
        local_stack.find_project()
    assert caught.value.error_code == "STACK_PROJECT_MISSING"
    assert "clone" in caught.value.todo


def test_commands_are_those_beside_the_interpreter_and_bind_loopback(home: StackHome) -> None:
    daemon, development = local_stack.daemon_command(home), local_stack.development_command(home, port=3123)
    assert Path(daemon[0]).parent == Path(sys.executable).parent
    assert development[development.index("-h") + 1] == "127.0.0.1"
    assert development[development.index("-p") + 1] == "3123"


def test_a_command_that_is_not_installed_is_named(
    home: StackHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="dagster-daemon") as caught:
        local_stack.daemon_command(home)
    assert caught.value.error_code == "STACK_NOT_INSTALLED"


def test_the_folders_are_made_and_dagster_is_configured(home: StackHome) -> None:
    home.prepare()
    home.prepare()
    assert (home.data / "inbox").is_dir()
    assert (home.dagster_home / "dagster.yaml").read_bytes() == (PROJECT_ROOT / "dagster.yaml").read_bytes()


def test_another_instance_takes_the_place_of_the_embedded_one(home: StackHome) -> None:
    home.prepare()
    name = "deploy/dagster.postgres.yaml"
    replace(home, instance=name).prepare()
    assert (home.dagster_home / "dagster.yaml").read_bytes() == (PROJECT_ROOT / name).read_bytes()


def test_isolated_settings_name_no_place_of_the_user_and_bring_nothing_to_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SS_JOBS_DIR", "/of/the/user")
    monkeypatch.setenv("SS_REDIS_URL", "redis://of-the-user")
    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "redis")
    monkeypatch.setenv("SS_JOB_STORE_MIRROR", "file")
    settings = local_stack.isolated_settings(tmp_path)
    assert settings.jobs_path() == tmp_path / "jobs"
    assert (settings.job_store_backend, settings.job_store_mirror) == ("file", None)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_stack_gets_its_folders_and_an_isolated_one_none_of_the_users_settings(
    home: StackHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    monkeypatch.setenv("SS_JOBS_DIR", "/somewhere/real")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    command = _command(PRINTS_ENVIRONMENT, tmp_path / "seen")
    with local_stack.running(home, command, isolated=isolated, environment={"SS_CLAIM_MAX_JOBS": "3"}) as process:
        process.wait(timeout=20)
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["DAGSTER_HOME"] == str(home.dagster_home)
    assert seen["SS_DATA_DIR"] == str(home.data)
    assert seen["SS_CLAIM_MAX_JOBS"] == "3"
    assert "PYTHONDONTWRITEBYTECODE" not in seen
    assert ("SS_JOBS_DIR" in seen) is not isolated


def test_stopping_kills_a_stubborn_process_and_what_it_started(
    home: StackHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_stack, "STOP_GRACE_SECONDS", 0.3)
    with local_stack.running(home, _command(STUBBORN, tmp_path / "pid")) as process:
        child = int(_wait_for_file(tmp_path / "pid"))
        assert _lives(child)
    assert process.returncode == -signal.SIGKILL
    _wait_until_gone(child)


def test_an_impatient_second_interrupt_leaves_nothing_running(
    home: StackHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with local_stack.running(home, _command(STUBBORN, tmp_path / "pid")) as process:
        child = int(_wait_for_file(tmp_path / "pid"))
        monkeypatch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            local_stack.stop(process)
        monkeypatch.undo()
    _wait_until_gone(child)


def test_stopping_what_has_ended_does_nothing(home: StackHome) -> None:
    with local_stack.running(home, _command("pass")) as process:
        process.wait(timeout=20)
    local_stack.stop(process)
    assert process.returncode == 0


class _Page(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    made = HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def living(home: StackHome) -> Iterator[subprocess.Popen[bytes]]:
    with local_stack.running(home, _command("import time; time.sleep(60)")) as process:
        yield process


def test_what_is_started_can_be_stopped_also_where_a_shell_in_the_background_ignores_signals(home: StackHome) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with local_stack.running(home, _command("import time; time.sleep(60)")) as process:
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert process.returncode == -signal.SIGTERM


def test_waiting_ends_when_the_page_answers(
    home: StackHome, server: HTTPServer, living: subprocess.Popen[bytes]
) -> None:
    local_stack.wait_for_page(f"http://127.0.0.1:{server.server_port}", process=living, home=home, seconds=10)


def test_a_page_that_does_not_come_is_said_with_the_log(home: StackHome, living: subprocess.Popen[bytes]) -> None:
    with pytest.raises(StackError, match=r"stack\.log") as caught:
        local_stack.wait_for_page(f"http://127.0.0.1:{free_port()}", process=living, home=home, seconds=0.1)
    assert caught.value.error_code == "STACK_TOO_SLOW"


def test_a_process_that_died_while_waiting_is_said_with_its_status_and_the_log(home: StackHome) -> None:
    with local_stack.running(home, _command("raise SystemExit(7)")) as process:
        process.wait(timeout=20)
        with pytest.raises(StackError, match=r"status 7.*stack\.log") as caught:
            local_stack.wait_for_page(f"http://127.0.0.1:{free_port()}", process=process, home=home, seconds=10)
    assert caught.value.error_code == "STACK_DIED"


def test_something_else_on_the_port_that_speaks_no_http_is_no_page(
    home: StackHome, living: subprocess.Popen[bytes]
) -> None:
    def talk(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=talk, args=(listening,))
        thread.start()
        with pytest.raises(StackError) as caught:
            local_stack.wait_for_page(
                f"http://127.0.0.1:{listening.getsockname()[1]}", process=living, home=home, seconds=0.1
            )
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert caught.value.error_code == "STACK_TOO_SLOW"


def test_a_port_that_is_taken_is_said_before_anything_is_started(server: HTTPServer) -> None:
    with pytest.raises(StackError, match=str(server.server_port)) as caught:
        local_stack.check_port_free(server.server_port)
    assert "--port" in caught.value.todo
    local_stack.check_port_free(free_port())


def test_a_process_group_of_its_own_keeps_ctrl_c_for_the_command(living: subprocess.Popen[bytes]) -> None:
    assert os.getpgid(living.pid) == living.pid != os.getpgid(0)
