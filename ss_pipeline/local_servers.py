"""PostgreSQL and Redis on this machine, for trials and tests: started for the length of a block, on Unix sockets only.

No port is opened and no password is needed: nobody but the user who starts a server (and root) may enter its folder.
Where their programs come from is local_programs' business, which servers a stack needs is up's.
"""

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from ss_pipeline.durable import sync_folder
from ss_pipeline.errors import StackError
from ss_pipeline.local_programs import postgres_program, redis_program

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_NOBODY: Final = 65534
"""PostgreSQL refuses to run as root, so for root it runs as this user."""
_LONGEST_SOCKET_PATH: Final = 107
"""In bytes: what the kernel's address of a Unix socket holds."""


class LocalServer(ABC):
    """A server process with its data in one folder, which outlives the process.

    Args:
        folder: Its data and log, for it alone; made where missing, and closed to other users.
        options: Settings of the server, over those given here.
    """

    name: str
    socket_name: str

    def __init__(self, folder: Path, options: Mapping[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptor: int | None = None
        self._log_start = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect; the same after every start."""

    @property
    def log_file(self) -> Path:
        """What the server prints."""
        return self.folder / "server.log"

    @property
    def socket_folder(self) -> Path:
        """Where the socket is: the server's folder, or a short one below the temporary folder if that one cannot be."""
        if _is_socket_path(self.folder / self.socket_name):
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"ss-pipeline-{digest}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._process is None:
            raise StackError(f"{self.name} was not started", code="STACK_DIED")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process that was started here lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server on what its folder holds; returns once it answers. Does nothing if it runs.

        Raises:
            StackError: STACK_NOT_INSTALLED, STACK_FOLDER_UNUSABLE, STACK_PATH_TOO_LONG, STACK_DIED or STACK_TOO_SLOW,
                the last two with the end of its log.
        """
        if self.is_running:
            return
        self._make_folders()
        deadline = time.monotonic() + _START_SECONDS
        with self._folder_held_open(), ExitStack() as undo:
            undo.callback(self.kill)  # a start that fails or is interrupted leaves no process behind
            self.prepare()
            while not self._started_once(deadline):
                time.sleep(0.1)
            undo.pop_all()

    def stop(self) -> None:
        """Stops the server in order; kills it after 30 s, or when the waiting is cut short."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL, with whatever it was doing."""
        self._end(signal.SIGKILL)

    @abstractmethod
    def prepare(self) -> None:
        """Makes what the server needs in its folder before it starts."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether clients can connect now."""

    def user(self) -> int | None:
        """The user that the server runs as, if it is another than the one who starts it."""
        return None

    def may_be_tried_again(self, last_words: str) -> bool:
        """Whether a start that failed with these lines in the log may succeed a moment later."""
        return False

    def as_seen_by_server(self, path: Path) -> Path:
        """A path of or below the folder, for the server's own programs.

        Another user may not be let into the folders above, as below /root. A descriptor that is handed down leads past
        them, so that the data can lie where the user put them.
        """
        if self.user() is None:
            return path
        return Path(f"/proc/self/fd/{self._descriptor}") / path.relative_to(self.folder)

    def how_to_run(self) -> dict[str, Any]:
        """How the server's programs are run: arguments of `subprocess.Popen`."""
        user = self.user()
        as_user = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        handed_down = () if self._descriptor is None else (self._descriptor,)
        environment = os.environ | {"LC_ALL": "C"}  # their messages are read here
        return {"cwd": self.folder, "stdin": subprocess.DEVNULL, "env": environment, "pass_fds": handed_down} | as_user

    def _make_folders(self) -> None:
        socket_path = self.socket_folder / self.socket_name
        if not _is_socket_path(socket_path):
            raise StackError(
                f"the path of the socket {socket_path} has a comma or more than {_LONGEST_SOCKET_PATH} bytes",
                code="STACK_PATH_TOO_LONG",
                todo="Set TMPDIR to a folder with a short path.",
            )
        _make_private(self.folder.resolve(), owner=self.user())
        if self.socket_folder != self.folder:
            _make_private(self.socket_folder, owner=self.user())

    @contextmanager
    def _folder_held_open(self) -> Iterator[None]:
        self._descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield
        finally:
            os.close(self._descriptor)
            self._descriptor = None

    def _started_once(self, deadline: float) -> bool:
        """Whether one start succeeded; False if another try may succeed (`may_be_tried_again`)."""
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, start_new_session=True, **self.how_to_run()
            )
        while self._process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > deadline:
                raise self._failed("did not answer in time", code="STACK_TOO_SLOW")
            time.sleep(0.02)
        if time.monotonic() > deadline or not self.may_be_tried_again(self._last_words()):
            raise self._failed("did not start", code="STACK_DIED")
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
            finally:
                process.kill()
                process.wait()
        if self.socket_folder != self.folder:
            with suppress(OSError):  # a killed server leaves its socket there; the next start takes it over
                self.socket_folder.rmdir()

    def _failed(self, what: str, *, code: str) -> StackError:
        return StackError(f"{self.name} {what}; {self.log_file} ends:\n{self._last_words()}", code=code)

    def _last_words(self) -> str:
        """The end of what the server has printed since it was last started."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")[-1_000:].strip()


class PostgresServer(LocalServer):
    """PostgreSQL with one database, `postgres`, and a superuser of that name."""

    name = "PostgreSQL"
    socket_name = ".s.PGSQL.5432"

    @property
    def url(self) -> str:
        """Where SQLAlchemy connects."""
        return f"postgresql+psycopg2://postgres@/postgres?host={quote(str(self.socket_folder))}&port=5432"

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Makes the database on the first start; one that was not finished is begun anew."""
        if self._data.is_dir():
            return
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [self._program("initdb"), "-D", str(self.as_seen_by_server(unfinished)), "-U", "postgres"]
        done = subprocess.run(
            [*command, "--auth=trust", "--encoding=UTF8", "--no-locale"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self.how_to_run(),
        )
        if done.returncode:
            raise StackError(f"PostgreSQL could not make its files:\n{done.stdout.strip()[-1_000:]}", code="STACK_DIED")
        unfinished.rename(self._data)
        sync_folder(self.folder)

    def command(self) -> Sequence[str]:
        """The server on its data, without a network."""
        in_folder = self.socket_folder == self.folder
        sockets = str(self.as_seen_by_server(self.folder) if in_folder else self.socket_folder)
        options = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": '"{}"'.format(sockets.replace('"', '""')),
            "max_connections": "200",
            **self.options,
        }
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.as_seen_by_server(self._data)), *given]

    def answers(self) -> bool:
        """Whether the server has written that it is ready."""
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and int(lines[0]) == self.pid and lines[7].strip() == "ready"

    def user(self) -> int | None:
        """Nobody, for root."""
        return _NOBODY if os.geteuid() == 0 else None

    def may_be_tried_again(self, last_words: str) -> bool:
        """After a crash, the server's own children outlive it for a moment."""
        return "pre-existing shared memory block" in last_words

    def _program(self, name: str) -> str:
        return postgres_program(name, for_every_user=self.user() is not None)


class RedisServer(LocalServer):
    """Redis with an append-only file and without eviction, as the store needs it."""

    name = "Redis"
    socket_name = "redis.sock"

    @property
    def url(self) -> str:
        """Where redis-py connects."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def _socket(self) -> Path:
        return self.socket_folder / self.socket_name

    def prepare(self) -> None:
        """Removes what a killed server left of its socket.

        Raises:
            StackError: STACK_DIED; another process has a server in this folder, and two would spoil the data.
        """
        if self.answers():
            raise StackError(f"another Redis runs in {self.folder}", code="STACK_DIED", todo="Stop that one first.")
        self._socket.unlink(missing_ok=True)

    def command(self) -> Sequence[str]:
        """The server on its data, without a network."""
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
        return [redis_program("redis-server"), *given]

    def answers(self) -> bool:
        """Whether it answers a PING; not while it loads its data."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.settimeout(1.0)
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")
            except OSError:
                return False


def _is_socket_path(path: Path) -> bool:
    """Whether clients can find a socket there: libpq takes a comma for the end of a path."""
    return len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH and "," not in str(path)


def _make_private(folder: Path, *, owner: int | None) -> None:
    """Makes a folder that only its owner may enter; takes one that is there, but no other user's and no link.

    Raises:
        StackError: STACK_FOLDER_UNUSABLE.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), owner}:
            raise PermissionError(0, "it belongs to another user")
        folder.chmod(0o700)
        if owner is not None:
            os.chown(folder, owner, owner)
    except OSError as error:
        raise StackError(
            f"{folder} cannot be the folder of a server: {error.strerror}",
            code="STACK_FOLDER_UNUSABLE",
            todo="Use another folder, or correct its owner.",
        ) from error
