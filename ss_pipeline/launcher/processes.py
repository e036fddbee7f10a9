"""Processes told apart for sure: a pid alone is used again, a pid with its start time, boot and namespace is not.

What lives here: who a process is, whether it lives, signals that reach it and no other, what it weighs. What does not:
what a process means to the launcher. Linux only: /proc and pidfd.
"""

import contextlib
import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

_ENDED: Final = frozenset("ZX")
"""States of a process that has ended, whether or not its parent has asked how."""
_MEGABYTE: Final = 1024 * 1024
_SAFE_THREADS: Final = frozenset({"jemalloc_bg_thd"})
"""jemalloc (in pyarrow, which pandas imports, and in polars) takes its locks before a fork and starts anew after it."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Process:
    """One process, for as long as this machine is up.

    Args:
        started: Clock ticks between the boot and its start.
        boot: The kernel's id of this boot.
        namespace: The pid namespace in which `pid` holds.
    """

    pid: int
    started: int
    boot: str
    namespace: str


def can_fork() -> bool:
    """Whether this platform has what the launcher needs: fork, /proc and pidfd."""
    if sys.platform != "linux" or not Path("/proc/self/stat").exists():
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a sandbox that knows no pidfd
        return False
    return True


def identify(pid: int) -> Process | None:
    """The process of this pid; None where there is none or it has ended."""
    fields = _stat(pid)
    if fields is None or fields[0] in _ENDED:
        return None
    return _process(pid, fields)


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return _process(pid, _stat(pid) or [])


def is_alive(process: Process) -> bool:
    """Whether it still runs: not so after a reboot, nor where another process has its pid now."""
    return identify(process.pid) == process


def age_seconds(process: Process) -> float:
    """How long ago it was started."""
    up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return up - process.started / os.sysconf("SC_CLK_TCK")


def is_in_sight(process: Process) -> bool:
    """Whether this process could see it if it lived: not so where it is in another container."""
    return process.namespace == _namespace()


def open_pidfd(process: Process) -> int | None:
    """A descriptor that becomes readable when the process ends; None where it has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return None
    if is_alive(process):
        return descriptor
    os.close(descriptor)
    return None


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Sends a signal to this process and no other; False where it has ended."""
    descriptor = open_pidfd(process)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_group(leader: Process) -> None:
    """Kills what is left of the process group of a leader that has ended: programs that it started.

    A group keeps its number from being used again, so that it is still that of the leader.
    """
    is_of_now = leader.boot == _boot() and is_in_sight(leader)
    if is_of_now and identify(leader.pid) is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)


def other_threads() -> list[str]:
    """The kernel's names of all threads of this process but the main one, those that Python does not know of included.

    Left out are threads of a memory allocator that looks after itself at a fork.
    """
    main = str(os.getpid())
    others = [number for number in os.listdir("/proc/self/task") if number != main]  # noqa: PTH208 - before every fork
    names = [Path(f"/proc/self/task/{number}/comm").read_text(encoding="utf-8").strip() for number in others]
    return [name for name in names if name not in _SAFE_THREADS]


def resident_megabytes() -> float:
    """Memory of this process that lies in RAM, shared pages included."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE


def close_inherited(*, keep: int) -> None:
    """Closes what the parent left open across exec, but the standard streams and one more.

    Python itself opens nothing that survives an exec, so what does is none of this process's own.
    """
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        descriptor = int(name)
        with contextlib.suppress(OSError):  # the one that lists the folder is gone by now
            if descriptor > 2 and descriptor != keep and os.get_inheritable(descriptor):
                os.close(descriptor)


def name_this_process(name: str) -> None:
    """Sets the name that `ps -o comm` and `top` show; at most 15 characters are kept."""
    Path("/proc/self/comm").write_text(name, encoding="utf-8")


def _process(pid: int, fields: list[str]) -> Process:
    return Process(pid=pid, started=int(fields[19]), boot=_boot(), namespace=_namespace())


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/<pid>/stat from the state on; the command before it may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@cache
def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the link's text is no path
