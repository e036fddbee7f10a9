"""The launcher's side of the socket: finds the zygote for a set of parameters, starts one where none is, asks it.

What lives here: connecting, starting under a lock, one question and its answer, what a lost connection means. What
does not: what a zygote does (zygote.py) and what Dagster is told (run_launcher.py). Safe to use from many threads and
processes at once.
"""

import contextlib
import fcntl
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from ss_pipeline.errors import CodeNotLoadedError, LauncherBusyError, ZygoteUnreachableError, ZygoteUnsafeError
from ss_pipeline.launcher import dagster_internals
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.processes import Process, age_seconds, end_group, identify, is_alive, send_signal
from ss_pipeline.launcher.protocol import (
    MAX_ANSWER_BYTES,
    Answer,
    Condition,
    Launch,
    Launched,
    Look,
    Refused,
    Request,
    Retiring,
    read_answer,
    to_line,
)
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.launcher.start import ONE_THREAD, ZygoteStart, to_json
from ss_pipeline.telemetry.events import emit

LISTENER_FD: Final = 3
"""Where a zygote finds its listening socket."""
_BACKLOG: Final = 128
_GRACE_SECONDS: Final = 5.0
"""How long past a launch's deadline the zygote may take to refuse it."""
_HUNG_AFTER: Final = 3
"""A zygote that does not answer may be importing on a busy machine; one that is older than so many launches may take is
taken for hung."""
_POLL_SECONDS: Final = 0.02
_MOST_LOST: Final = 2
"""How often a zygote may die during one launch."""
_LOG_LINES: Final = 15
_OUR_FDS: Final = 10
"""Descriptors passed to a zygote are moved up to here first, so that none is overwritten by another's new number."""


class Zygotes:
    """The zygotes of one Dagster instance."""

    def __init__(self, folder: LauncherFolder) -> None:
        self._folder = folder
        self._records = RunRecords(folder.runs)
        self._started: set[int] = set()
        self._mutex = threading.Lock()

    def launch(self, run_id: str, start: ZygoteStart, *, seconds: float) -> Launched:
        """Forks the process of a run; returns when it is recorded.

        Raises:
            CodeNotLoadedError: importing the code location raised.
            LauncherBusyError: max_children runs live and none ended in time; or the zygote did not answer in time: it
                may still import the code, and one that may not is killed.
            ZygoteUnsafeError: the code location has threads after its import.
            ZygoteUnreachableError: no zygote came up, or it died; the run has no process.
            LauncherFolderUnsafeError: the launcher's folder is not this user's.
        """
        deadline = time.monotonic() + seconds
        lost = 0
        while True:
            try:
                answer = self._ask(start, Launch(run_id, deadline), deadline=deadline)
            except OSError as error:
                if (record := self._records.read(run_id)) is not None:
                    return Launched(run_id, record.process.pid)
                self._refuse_late(start, error, seconds=seconds)
                lost += 1
                if lost == _MOST_LOST or time.monotonic() > deadline:
                    raise self._unreachable(start, f"the zygote was lost during the launch: {error}") from error
                continue
            if isinstance(answer, Launched):
                return answer
            if not isinstance(answer, Retiring):
                raise self._refusal(start, answer)
            if time.monotonic() > deadline:
                raise LauncherBusyError(f"the zygote was being replaced: {answer.reason}")

    def conditions(self) -> Iterator[tuple[str, Process, Condition | None]]:
        """Each living zygote with its key, and how it is; None where it takes no more launches or does not answer."""
        for key, process in self._folder.zygotes():
            yield key, process, self._condition(key, process)

    def say_that_it_runs(self, record: RunRecord) -> bool:
        """Whether the run's zygote says that the run lives: for processes of other containers that share the folder."""
        condition = self._condition(record.key, record.zygote)
        return condition is not None and record.run_id in condition.running

    def stop(self, *, seconds: float, kill: bool = False) -> bool:
        """Tells all zygotes to end, which wait for their runs (drain_seconds); whether all have ended in time.

        Runs whose zygote is gone have nobody who waits for them: they are interrupted at once.

        Args:
            kill: What has not ended in time is killed, runs included. The next daemon's run monitoring fails these.
        """
        zygotes = [process for _, process in self._folder.zygotes()]
        orphans = [record.process for record in self._running() if not is_alive(record.zygote)]
        for process in (*zygotes, *orphans):
            send_signal(process, signal.SIGTERM)
        have_ended = _end_within(seconds, [*zygotes, *orphans])
        if not have_ended and kill:
            runs = [record.process for record in self._running()]
            for process in (*zygotes, *runs):
                send_signal(process, signal.SIGKILL)
            have_ended = _end_within(_GRACE_SECONDS, [*zygotes, *runs])
            for process in runs:
                end_group(process)
        self._reap()
        return have_ended

    def _running(self) -> list[RunRecord]:
        return [record for record in self._records.all() if is_alive(record.process)]

    def _condition(self, key: str, process: Process) -> Condition | None:
        try:
            with _connected(self._folder.socket(key), seconds=_GRACE_SECONDS) as connection:
                answer = _exchange(connection, Look())
        except (ConnectionError, TimeoutError, FileNotFoundError):
            return None
        return answer if isinstance(answer, Condition) and answer.pid == process.pid else None

    def _ask(self, start: ZygoteStart, request: Request, *, deadline: float) -> Answer:
        """One question.

        Raises:
            ConnectionError: the zygote went away.
            TimeoutError: it has not answered until well after the deadline.
        """
        key = start.key(_environment(start))
        with self._reached(key, start, deadline) as connection:
            connection.settimeout(max(0.0, deadline - time.monotonic()) + _GRACE_SECONDS)
            return _exchange(connection, request, outputs=isinstance(request, Launch))

    def _reached(self, key: str, start: ZygoteStart, deadline: float) -> socket.socket:
        """A connection to the zygote of this key, started if there is none."""
        self._reap()
        path = self._folder.socket(key)
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return _connected(path, seconds=_GRACE_SECONDS)
        self._folder.prepare()
        with self._folder.starting(key, deadline=deadline):
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return _connected(path, seconds=_GRACE_SECONDS)  # somebody else was first
            self._start(key, start)
            return _connected(path, seconds=_GRACE_SECONDS)

    def _start(self, key: str, start: ZygoteStart) -> None:
        """Starts a zygote that listens at once: who connects waits in the socket's queue until it is ready."""
        with ExitStack() as stack:
            listener = stack.enter_context(_listening(self._folder.socket(key)))
            parameters = stack.enter_context(tempfile.TemporaryFile())
            parameters.write(to_json(start))
            parameters.seek(0)
            log = stack.enter_context(_closed_later(self._folder.open_log(key)))
            pid = _spawn(key, start, stdin=parameters.fileno(), log=log, listener=listener.fileno())
        process = identify(pid)
        with self._mutex:
            self._started.add(pid)
        if process is not None:
            self._folder.add_zygote(key, process)
        emit("SS_LAUNCHER_ZYGOTE_STARTED", key=key, pid=pid, location=start.location, log=str(self._folder.log(key)))

    def _refuse_late(self, start: ZygoteStart, error: OSError, *, seconds: float) -> None:
        """Raises where there was no answer in time; a zygote that hangs is gone then."""
        if isinstance(error, TimeoutError):
            self._kill_hung(start, older_than=_HUNG_AFTER * seconds)
            raise LauncherBusyError(f"the zygote has not answered within {seconds:g} s") from error

    def _kill_hung(self, start: ZygoteStart, *, older_than: float) -> None:
        """Ends the zygote that listens, of those with this key the last, unless it was started but lately (seconds)."""
        key = start.key(_environment(start))
        *_, last = [None, *(process for name, process in self._folder.zygotes() if name == key)]
        if last is not None and age_seconds(last) > older_than and send_signal(last, signal.SIGKILL):
            _wait_for_end(last)

    def _reap(self) -> None:
        """Takes note of zygotes of this process that have ended, so that none stays a zombie."""
        with self._mutex:
            self._started = {pid for pid in self._started if not _has_ended(pid)}

    def _refusal(self, start: ZygoteStart, answer: Answer) -> Exception:
        if not isinstance(answer, Refused):
            return self._unreachable(start, f"the zygote answered {answer.verb}")
        if answer.code == CodeNotLoadedError.code:
            return CodeNotLoadedError(answer.message, error_info=answer.error_info or "")
        kinds: dict[str, Callable[[str], Exception]] = {
            LauncherBusyError.code: LauncherBusyError,
            ZygoteUnsafeError.code: ZygoteUnsafeError,
        }
        return kinds.get(answer.code, ZygoteUnreachableError)(answer.message)

    def _unreachable(self, start: ZygoteStart, message: str) -> ZygoteUnreachableError:
        log = self._folder.log(start.key(_environment(start)))
        last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
        return ZygoteUnreachableError("\n".join([f"{message}; its log {log} ends:", *last]))


def _environment(start: ZygoteStart) -> dict[str, str]:
    """The environment of a zygote: the launcher's own, with one thread for numeric libraries."""
    one_thread = dict.fromkeys(ONE_THREAD, "1")
    return {**os.environ, **dagster_internals.search_path_of(start.executable, os.environ), **one_thread}


def _spawn(key: str, start: ZygoteStart, *, stdin: int, log: int, listener: int) -> int:
    """A new interpreter in a session of its own. Not `subprocess`: a zygote is meant to outlive this process."""
    command = [start.executable, "-m", "ss_pipeline.launcher.zygote", str(Path(start.folder) / key)]
    with ExitStack() as stack:
        moved = [
            stack.enter_context(_closed_later(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUR_FDS)))
            for fd in (stdin, log, listener)
        ]
        places = [(moved[0], 0), (moved[1], 1), (moved[1], 2), (moved[2], LISTENER_FD)]
        return os.posix_spawn(
            start.executable,
            command,
            _environment(start),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, place) for fd, place in places],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
        )


@contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    """A socket that listens at a path, which a dead zygote may have left behind."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        yield listener


def _connected(path: Path, *, seconds: float) -> socket.socket:
    """A connection to the socket at a path, as soon as its queue has room.

    Raises:
        OSError: FileNotFoundError or ConnectionRefusedError where nobody listens, TimeoutError where the queue is full.
    """
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(str(path))
        except BlockingIOError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError("too many launches wait for the zygote") from error
            time.sleep(0.05)
        except OSError:
            connection.close()
            raise
        else:
            return connection


def _exchange(connection: socket.socket, request: Request, *, outputs: bool = False) -> Answer:
    """Sends a request, with this process's standard output and error where wanted, and reads its answer.

    Raises:
        ConnectionError: the other side closed before it had answered.
    """
    line = to_line(request)
    if outputs:
        with _own_outputs() as descriptors:
            socket.send_fds(connection, [line], descriptors)
    else:
        connection.sendall(line)
    return read_answer(_line_from(connection))


def _line_from(connection: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= MAX_ANSWER_BYTES:
        part = connection.recv(65_536)
        if not part:
            raise ConnectionResetError("the connection was closed before the answer")
        received += part
    return bytes(received)


@contextmanager
def _own_outputs() -> Iterator[list[int]]:
    """Standard output and error of this process, or /dev/null where it has closed them."""
    with ExitStack() as stack:
        null = stack.enter_context(_closed_later(os.open(os.devnull, os.O_WRONLY)))
        yield [fd if _is_open(fd) else null for fd in (1, 2)]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextmanager
def _closed_later(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _end_within(seconds: float, processes: Sequence[Process]) -> bool:
    deadline = time.monotonic() + seconds
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _wait_for_end(process: Process) -> None:
    """Returns when a killed process is gone, so that it can no longer do what it was asked for.

    Raises:
        ZygoteUnreachableError: the kernel does not end it (it hangs in a disk operation).
    """
    if not _end_within(_GRACE_SECONDS, [process]):
        raise ZygoteUnreachableError(f"the zygote, process {process.pid}, hangs and cannot be killed")
