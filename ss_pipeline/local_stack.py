"""Dagster on this machine: starts the daemon (and the UI) as child processes and stops what it started.

It prepares DAGSTER_HOME from the project's files. It does not import dagster: everything goes through the
commands that the installation provides.
"""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from ss_pipeline.errors import StackError
from ss_pipeline.settings import Settings, load_settings

STOP_GRACE_SECONDS: Final = 20.0
LOOPBACK: Final = "127.0.0.1"
LAUNCHER_FOLDER: Final = "warm_launcher"
"""Where, in DAGSTER_HOME, the warm launcher keeps what it must find again; not imported, since it brings dagster."""


@dataclass(frozen=True)
class StackHome:
    """The folders of a local stack.

    Args:
        project: Where dagster.yaml and workspace.yaml are.
        dagster_home: DAGSTER_HOME: runs, events, schedules.
        data: SS_DATA_DIR: inbox, job documents, artifacts.
        instance: The settings of the Dagster instance, a file of the project.
    """

    project: Path
    dagster_home: Path
    data: Path
    instance: str = "dagster.yaml"

    @property
    def log_file(self) -> Path:
        """Where the processes write."""
        return self.dagster_home / "stack.log"

    def prepare(self) -> None:
        """Makes the folders and puts the settings of the instance into DAGSTER_HOME."""
        for folder in (self.dagster_home, self.data, self.data / "inbox"):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.project / self.instance, self.dagster_home / "dagster.yaml")


def find_project() -> Path:
    """The folder that holds dagster.yaml and workspace.yaml: this one, or the one the package lies in.

    Raises:
        StackError: STACK_PROJECT_MISSING.
    """
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (folder / "dagster.yaml").is_file() and (folder / "workspace.yaml").is_file():
            return folder
    raise StackError(
        "neither this folder nor the package's holds dagster.yaml and workspace.yaml",
        code="STACK_PROJECT_MISSING",
        todo="Run the command in a clone of the project.",
    )


def daemon_command(home: StackHome) -> list[str]:
    """The daemon alone: sensors, schedules, run queue."""
    return [_executable("dagster-daemon"), "run", "-w", str(home.project / "workspace.yaml")]


def development_command(home: StackHome, *, port: int) -> list[str]:
    """UI and daemon, on loopback only: OSS Dagster has no login."""
    workspace = str(home.project / "workspace.yaml")
    return [_executable("dagster"), "dev", "-w", workspace, "-h", LOOPBACK, "-p", str(port)]


def isolated_settings(data: Path, **overrides: object) -> Settings:
    """Settings with every place below `data`, whatever places the environment names."""
    places = {"data_dir": data, "inbox_dir": None, "jobs_dir": None, "artifacts_url": None}
    return load_settings(**places, job_store_backend="file", job_store_mirror=None, **overrides)


def check_port_free(port: int) -> None:
    """Raises:
    StackError: something listens there already; its page would be taken for ours.
    """
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError as error:
        raise StackError(
            f"port {port} of {LOOPBACK} cannot be used: {error.strerror}",
            todo="Stop what listens there (an earlier `up`?), or choose another port with --port.",
        ) from error


@contextmanager
def running(
    home: StackHome, command: list[str], *, isolated: bool = False, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command of the stack for the length of the block, in a process group of its own.

    On leaving, the group gets SIGTERM, and SIGKILL after 20 s or when it is left in a hurry; then the runs, which
    outlive the daemon that launched them, are ended likewise.

    Args:
        environment: Variables besides those of this process.
        isolated: Without any setting (SS_…) of this process's environment: for stacks that must not touch the user's.
    """
    home.prepare()
    with home.log_file.open("ab") as log:
        process = _start(
            command, log, cwd=home.project, environment=_environment(home, isolated) | dict(environment or {})
        )
        patience = 0.0
        try:
            yield process
        finally:
            try:
                stop(process)
                patience = STOP_GRACE_SECONDS
            finally:  # left in a hurry where a second Ctrl-C cut the waiting short
                stop_runs(home, log, seconds=patience)


def wait_for_page(url: str, *, process: subprocess.Popen[bytes], home: StackHome, seconds: float) -> None:
    """Returns once the page answers.

    Raises:
        StackError: STACK_DIED or STACK_TOO_SLOW, naming the log file.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        check_alive(process, home)
        if _answers(url):
            return
        time.sleep(0.3)
    raise StackError(f"{url} did not answer within {seconds:.0f} s; see {home.log_file}", code="STACK_TOO_SLOW")


def check_alive(process: subprocess.Popen[bytes], home: StackHome) -> None:
    """Raises:
    StackError: STACK_DIED where the process has ended.
    """
    if process.poll() is not None:
        raise StackError(
            f"a process of the stack ended with status {process.returncode}; see {home.log_file}", code="STACK_DIED"
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the process and what it started."""
    try:
        _signal_group(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_SECONDS
        while _group_lives(process) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.1)
    finally:  # also where a second Ctrl-C cuts the waiting short
        _signal_group(process, signal.SIGKILL)
        process.wait()


def stop_runs(home: StackHome, log: IO[bytes], *, seconds: float) -> None:
    """Ends the launcher's processes and the runs that are left, by force after so many seconds."""
    if not (home.dagster_home / LAUNCHER_FOLDER).is_dir():
        return
    options = ["--home", str(home.dagster_home.absolute()), "--seconds", f"{seconds:g}", "--kill"]
    command = [sys.executable, "-m", "ss_pipeline.launcher", "stop", *options]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False)


def _environment(home: StackHome, isolated: bool) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if isolated:
        inherited = {name: value for name, value in inherited.items() if not name.upper().startswith("SS_")}
    return inherited | {
        "DAGSTER_HOME": str(home.dagster_home.absolute()),
        "SS_DATA_DIR": str(home.data.absolute()),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _start(command: list[str], log: IO[bytes], *, cwd: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_heed_signals,  # noqa: PLW1509 - sets two handlers, nothing that a thread could hold
    )


def _heed_signals() -> None:
    """In the child: a shell that starts us in the background has SIGINT ignored, and Dagster takes SIGTERM likewise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _executable(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise StackError(
            f"the command {name} is not installed", code="STACK_NOT_INSTALLED", todo="Install the project: make demo"
        )
    return found


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - always http on loopback
            return bool(response.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError):
        return False


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
