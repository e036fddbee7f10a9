"""A process right after the fork: what it must undo of the zygote before it may work for itself, and how it ends.

Everything a process has from its parent and must not share is undone here: session, descriptors, signal handlers,
standard streams, random state, byte code, environment. What lives here: this, for the children of a zygote, and the
task of a run. The other task, reporting, is in reports.py.
"""

import atexit
import contextlib
import os
import random
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ss_pipeline.launcher import dagster_internals
from ss_pipeline.launcher.processes import name_this_process
from ss_pipeline.launcher.records import RunRecords

STOPPING: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that a zygote handles its own way and that are held back while it forks."""


@dataclass(frozen=True)
class Inheritance:
    """What a child of the zygote must let go and gets back.

    Args:
        release: Closes everything the zygote has open for itself.
        handlers: The signal handlers from before the zygote's own.
        environment: Variables to set (or, None, to remove).
    """

    release: Callable[[], None]
    handlers: Mapping[signal.Signals, Any]
    environment: Mapping[str, str | None]


@dataclass(frozen=True)
class Task:
    """What a child does.

    Args:
        work: True is exit status 0; False, or an error, is 1.
        name: What `ps -o comm` shows.
        outputs: Where its standard output and error go.
    """

    work: Callable[[], bool]
    name: str
    outputs: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Run:
    """One run to execute.

    Args:
        gate: A pipe (read end, write end) that the zygote closes, at the latest by dying, when the run is recorded.
    """

    run_id: str
    records: RunRecords
    instance: str
    repository: dagster_internals.ReconstructableRepository
    pooled: bool
    gate: tuple[int, int] = (-1, -1)


def fork(task: Task, inheritance: Inheritance) -> int:
    """Forks a process that does the task and ends; returns its pid.

    The caller has one thread. Signals are held back until the child has the handlers it should have.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        _flush()
        pid = os.fork()
        if pid == 0:
            _be_a_child(task, inheritance, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def execute(run: Run) -> bool:
    """Executes the run; whether its result is stored, or somebody else has launched it."""
    if not _is_recorded(run):
        return True
    is_stored = dagster_internals.execute_run(
        run.run_id, instance=run.instance, repository=run.repository, pooled=run.pooled
    )
    if is_stored:
        run.records.settle(run.run_id)
    return is_stored


def _is_recorded(run: Run) -> bool:
    """Waits until the zygote has recorded the run, or died; whether this process is the recorded one."""
    reader, writer = run.gate
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    record = run.records.read(run.run_id)
    return record is not None and record.process.pid == os.getpid()


def _be_a_child(task: Task, inheritance: Inheritance, mask: Iterable[int]) -> NoReturn:
    """Nothing that happens here reaches the zygote's frames below: this function does not return."""
    status = 1
    try:
        _start_afresh(task, inheritance)
        with dagster_internals.capture_interrupts():
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if task.work():
                status = 0
    finally:
        _leave(status)


def _start_afresh(task: Task, inheritance: Inheritance) -> None:
    signal.set_wakeup_fd(-1)
    for number, handler in inheritance.handlers.items():
        signal.signal(number, handler)
    os.setsid()
    for descriptor, place in zip(task.outputs, (1, 2), strict=True):
        os.dup2(descriptor, place)
    inheritance.release()
    name_this_process(task.name)
    _set_environment(inheritance.environment)
    sys.dont_write_bytecode = True  # a thousand runs would write the same files; the zygote has written its own
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _set_environment(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _leave(status: int) -> NoReturn:
    """Ends this process as the interpreter would, without the zygote's frames below: exit hooks run, streams flush."""
    try:
        if status and sys.exc_info()[0] is not None:
            traceback.print_exc()
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads, as at any exit
        atexit._run_exitfuncs()  # noqa: SLF001 - what the run's code has registered; os._exit leaves it out
        _flush()
    finally:
        os._exit(status)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError):  # a full disk, a reader that is gone, a stream that was closed
        sys.stdout.flush()
        sys.stderr.flush()
