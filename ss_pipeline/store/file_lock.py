"""Locks between processes, on files: held by the kernel, so that a killed holder frees them (seed S1.2.1).

flock belongs to the open file, which a forked child shares. So what is held is written down, and a child lets go of
what it inherited: else a child that lives on would keep the lock of a parent that was killed.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ss_pipeline.errors import StoreLockedError

_POLL_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
"""Pauses between two tries; the last one repeats. flock itself knows no timeout."""

_OPEN: Final[set[int]] = set()
"""Descriptors of lock files open in this process."""


@contextmanager
def exclusive_lock(path: Path, *, timeout: float = 10.0) -> Iterator[None]:
    """Holds the lock file at `path`, made if missing, against every other process and thread.

    Args:
        timeout: How long to wait for another holder, in seconds; 0 tries once.

    Raises:
        StoreLockedError: another holder did not let go in time.
        OSError: the lock file cannot be opened; FileNotFoundError where its folder is missing.
    """
    descriptor = _acquired(path, time.monotonic() + timeout)
    try:
        yield
    finally:
        close_lock(descriptor)


def open_lock(path: Path) -> int:
    """Opens a lock file, made if missing, without locking it; `close_lock` closes it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    _OPEN.add(descriptor)
    return descriptor


def close_lock(descriptor: int) -> None:
    """Lets go of a lock and closes its file; nothing where a fork took it away."""
    if descriptor in _OPEN:
        _OPEN.discard(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def hold(descriptor: int, *, shared: bool, deadline: float, what: str) -> None:
    """Locks an open lock file, shared or exclusively, trying until `deadline` (of `time.monotonic`).

    Raises:
        StoreLockedError: another holder did not let go in time; `what` names the thing.
    """
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    tries = 0
    while True:
        try:
            fcntl.flock(descriptor, kind)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StoreLockedError(f"another process holds the lock {what}") from error
            time.sleep(_POLL_SECONDS[min(tries, len(_POLL_SECONDS) - 1)])
            tries += 1
        else:
            return


def let_go(descriptor: int) -> None:
    """Unlocks an open lock file and keeps it open."""
    if descriptor in _OPEN:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _acquired(path: Path, deadline: float) -> int:
    """The open, locked file; opened anew where the file was removed while waiting (its lock would bind nobody)."""
    while True:
        descriptor = open_lock(path)
        try:
            hold(descriptor, shared=False, deadline=deadline, what=path.name)
            if _is_at(descriptor, path):
                return descriptor
        except (StoreLockedError, OSError):
            close_lock(descriptor)
            raise
        close_lock(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _close_inherited() -> None:
    for descriptor in _OPEN:
        os.close(descriptor)
    _OPEN.clear()


os.register_at_fork(after_in_child=_close_inherited)
