"""Runs work on untrusted bytes in a forked child with limits, and turns whatever happens to it into a verdict.

The child inherits the loaded libraries, so starting it costs milliseconds. It hands back bytes over a pipe; nothing is
ever pickled. What the work is, is stage.py's business.
"""

import contextlib
import gc
import json
import multiprocessing
import os
import resource
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from ss_pipeline.errors import InputRefusedError, StackError
from ss_pipeline.stages.profiling.tables import ProfileLimits

MAX_ANSWER_BYTES: Final = 64_000_000
_PIECE: Final = 1 << 20
_ASKED_TO_STOP: Final = (signal.SIGTERM, signal.SIGINT)
"""Sent to whole process groups; the parent finishes its job, so the child must not die of them."""

_HEAD: Final = struct.Struct(">cQ")
"""An answer starts with its kind and the number of bytes that follow."""
_DONE, _REFUSED, _OUT_OF_MEMORY, _FAILED, _DIED = b"D", b"R", b"M", b"F", b"-"

_ONE_AT_A_TIME: Final = threading.Lock()
"""Jobs of a claim may be profiled in threads: a child started meanwhile would inherit the other's end of the pipe."""


def run_limited(work: Callable[[], bytes], *, limits: ProfileLimits) -> bytes:
    """Runs the work in a child process and returns its bytes.

    Raises:
        InputRefusedError: the work's own, or INPUT_TOO_SLOW, INPUT_TOO_MUCH_MEMORY, INPUT_UNREADABLE for a child that
            exceeded a limit, was killed or failed. The message is a predicate without the file's name.
        StackError: no child could be started; nothing is wrong with the file.
    """
    deadline = time.monotonic() + limits.wall_seconds
    process, receiver = _started(work, limits=limits)
    answer: _Answer | None = None
    try:
        answer = _received(receiver, deadline=deadline)
        if answer is not None and answer.mark == _DIED:
            _wait_for(process, seconds=max(0.0, deadline - time.monotonic()))
    finally:
        process.kill()
        _wait_for(process, seconds=None)
        os.close(receiver)
    exit_code = process.exitcode
    process.close()
    return _verdict(answer, exit_code=exit_code, limits=limits)


@dataclass(frozen=True)
class _Answer:
    mark: bytes
    content: bytes


def _started(work: Callable[[], bytes], *, limits: ProfileLimits) -> tuple[ForkProcess, int]:
    """The child, and the end of the pipe on which it answers."""
    with _ONE_AT_A_TIME, _signals_held():
        receiver, sender = os.pipe()
        multiprocessing.current_process().daemon = False  # one of Celery's is, and a daemon may have no children
        process = multiprocessing.get_context("fork").Process(target=_work_as_child, args=(work, sender, limits))
        try:
            process.start()
        except OSError as error:
            os.close(receiver)
            raise StackError(
                f"no process can be started to read data files: {error.strerror}",
                code="STACK_CHILD_NOT_STARTED",
                todo="Free memory or raise the limit of processes, then requeue the job.",
            ) from error
        finally:
            os.close(sender)
    return process, receiver


def _wait_for(process: ForkProcess, *, seconds: float | None) -> None:
    process.join(seconds)
    with _ONE_AT_A_TIME:  # another thread that starts a child may be collecting this one's exit code
        process.join(0)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Keeps the parent's signal handlers from running in the child before it ignores the signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _received(receiver: int, *, deadline: float) -> _Answer | None:
    """What the child sends; None if the time is over first."""
    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    received = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1_000):
            continue
        piece = os.read(receiver, _PIECE)
        received += piece
        if len(received) >= _HEAD.size:
            mark, size = _HEAD.unpack_from(received)
            if size > MAX_ANSWER_BYTES:
                return _Answer(_FAILED, b"an answer that is too long")
            if len(received) >= _HEAD.size + size:
                return _Answer(mark, bytes(received[_HEAD.size :]))
        if not piece:
            return _Answer(_DIED, b"")
    return None


def _verdict(answer: _Answer | None, *, exit_code: int | None, limits: ProfileLimits) -> bytes:
    if answer is None:
        raise _too_slow(f"could not be read within {limits.wall_seconds:g} s")
    if answer.mark == _DONE:
        return answer.content
    if answer.mark == _REFUSED:
        refusal = json.loads(answer.content)
        raise InputRefusedError(refusal["message"], code=refusal["code"], todo=refusal["todo"])
    if answer.mark == _FAILED:
        raise _unreadable(f"cannot be read (the reader stopped with {answer.content.decode('utf-8', 'replace')})")
    if exit_code == -signal.SIGXCPU:
        raise _too_slow(f"takes more than {limits.cpu_seconds} s of computing time to read")
    if answer.mark == _OUT_OF_MEMORY or exit_code in {-signal.SIGABRT, -signal.SIGKILL}:
        raise _too_much_memory(limits)  # what runs out of memory aborts itself, or is killed by the system
    raise _unreadable(f"cannot be read (the reader ended with exit code {exit_code})")


def _too_slow(message: str) -> InputRefusedError:
    return InputRefusedError(
        message,
        code="INPUT_TOO_SLOW",
        todo="Hand in fewer rows and columns, as CSV; or raise SS_PROFILE_CPU_SECONDS and SS_PROFILE_WALL_SECONDS.",
    )


def _too_much_memory(limits: ProfileLimits) -> InputRefusedError:
    return InputRefusedError(
        f"takes more than {limits.memory_mb:,} MB of memory to read",
        code="INPUT_TOO_MUCH_MEMORY",
        todo="Hand in fewer rows and columns, as CSV; or raise SS_PROFILE_MEMORY_MB.",
    )


def _unreadable(message: str) -> InputRefusedError:
    return InputRefusedError(
        message,
        code="INPUT_UNREADABLE",
        todo="Open the file in the program it comes from and export it again, best as CSV in UTF-8.",
    )


def _work_as_child(work: Callable[[], bytes], sender: int, limits: ProfileLimits) -> None:
    for name in _ASKED_TO_STOP:
        signal.signal(name, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_STOP)
    _let_go_of_the_parent(keep=sender)
    warnings.simplefilter(
        "ignore"
    )  # a library's notice to programmers must not refuse a file, whatever the parent's rule
    gc.freeze()  # a collection would touch, and so copy, all of the parent's objects
    with _Answering(sender) as answering:
        _limit(limits)
        answering.content = work()


def _let_go_of_the_parent(*, keep: int) -> None:
    """Closes the parent's files, sockets and locks, and silences what libraries print: it may quote the data."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(quiet, standard)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        descriptor = int(name)
        if descriptor > 2 and descriptor != keep:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is closed already
                os.close(descriptor)


def _limit(limits: ProfileLimits) -> None:
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    address_space += limits.memory_mb * 1024 * 1024
    for what, most in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        hard = bound + 1 if what == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else bound
        resource.setrlimit(what, (bound, hard))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_seconds + 1)  # ends the child where the parent was killed


@dataclass
class _Answering:
    """Sends what became of the work, whatever it was: beyond this line there is only the end of the process.

    Of an unforeseen error the type alone is sent, because its text may quote the data.
    """

    sender: int
    content: bytes = b""

    def __enter__(self) -> "_Answering":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> NoReturn:
        if error is None:
            self._send(_DONE, self.content)
        elif isinstance(error, InputRefusedError):
            self._send(_REFUSED, json.dumps(error.as_document()).encode())
        elif isinstance(error, MemoryError):
            self._send(_OUT_OF_MEMORY, b"")
        else:
            self._send(_FAILED, type(error).__name__.encode())
        os._exit(0)

    def _send(self, mark: bytes, content: bytes) -> None:
        left = memoryview(_HEAD.pack(mark, len(content)) + content)
        while left:
            left = left[os.write(self.sender, left) :]
