"""What the file system says, in the store's words: faults, what to do about them, and probes for the doctor."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ss_pipeline import durable
from ss_pipeline.errors import DocumentNotFoundError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey

_ADVICE: Final = {
    errno.ENOSPC: "The disk is full. Free space and try again; nothing was changed.",
    errno.EDQUOT: "The disk quota is used up. Free space and try again; nothing was changed.",
    errno.EACCES: "Give this user read and write permission on the jobs folder and try again; nothing was changed.",
    errno.EPERM: "Give this user read and write permission on the jobs folder and try again; nothing was changed.",
    errno.EROFS: "The file system is read-only. Mount it for writing and try again; nothing was changed.",
    errno.EIO: "The disk reports errors. Check the kernel's log and the disk before trying again.",
    errno.EMFILE: "Too many open files. Raise the limit (ulimit -n) and try again; nothing was changed.",
}
_FULL_SHARE: Final = 0.9
_FULL_BYTES: Final = 5 * 2**30
"""The disk is reported as nearly full where 90 % are used (F9) and less than this is left."""


@contextmanager
def named_faults(what: DocumentKey | str) -> Iterator[None]:
    """Turns what the file system says into the store's errors: nothing there, or unavailable and what to do."""
    name = what if isinstance(what, str) else what.name
    try:
        yield
    except FileNotFoundError as error:
        raise DocumentNotFoundError(f"there is no {name}") from error
    except OSError as error:
        todo = _ADVICE.get(error.errno or 0)
        raise StoreUnavailableError(f"{name}: {error.strerror or error}", todo=todo) from error


def try_writing(root: Path) -> str | None:
    """Writes and removes a file; a sentence says why documents cannot be written, if so."""
    probe = root / f"{durable.TEMPORARY_PREFIX}probe-{os.getpid()}"
    try:
        durable.write_file(probe, b"")
        probe.unlink()
    except OSError as error:
        return f"the jobs folder {root} cannot be written: {error.strerror}"
    return None


def space_problems(root: Path) -> Iterator[str]:
    """A sentence where the disk is nearly full."""
    usage = shutil.disk_usage(root)
    if usage.used / usage.total >= _FULL_SHARE and usage.free < _FULL_BYTES:
        yield f"the disk of {root} is nearly full: {usage.free // 2**20} MiB are left"
