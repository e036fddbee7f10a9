"""Files written so that a power cut leaves the old or the new content, never a part (guarantees R1, R2).

Order: write a temporary file, fsync it, rename it, fsync the directory; each newly made parent directory too.
A failed fsync is never repeated on the same descriptor: the kernel may have dropped the data and say yes (F10).
"""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

TEMPORARY_PREFIX: Final = ".tmp-"
"""Names of unfinished files start so; `sweep` removes what a killed process left."""


def write_file(path: Path, body: bytes, *, synced: bool = True, private: bool = False) -> None:
    """Writes a file atomically and durably, making its folder if needed; an existing file is replaced.

    Args:
        synced: False leaves out the fsync of the directory: a power cut may bring the old content back, but still
            never leaves a part.
        private: Nobody but its owner may read or write it (mode 0600).

    Raises:
        OSError: the medium failed and no temporary file is left behind. An existing file is as it was, unless it was
            the fsync of the directory that failed: then the new content is there, but may not survive a power cut.
    """
    make_folder(path.parent)
    temporary = _temporary_beside(path)
    try:
        with _written(temporary, body, mode=0o600 if private else 0o666):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if synced:
        sync_folder(path.parent)


def create_file(path: Path, body: bytes) -> None:
    """Like `write_file`, but only where nothing is: of many creators exactly one succeeds.

    Raises:
        FileExistsError: the name is taken.
        OSError: the medium failed; nothing was created.
    """
    make_folder(path.parent)
    temporary = _temporary_beside(path)
    try:
        with _written(temporary, body):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    try:
        sync_folder(path.parent)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, each durably entered into the one above."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, *, older_than: float) -> list[str]:
    """Removes unfinished files of killed writers from a folder (not below it); returns their names.

    A living writer holds a lock on its file until the rename, so its file is never removed.

    Args:
        older_than: Least age, in seconds; it covers the moment in which a writer has made its file but no lock yet.
    """
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(TEMPORARY_PREFIX)]
    return sorted(name for name in names if _swept(folder / name, older_than=older_than))


def _temporary_beside(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")


@contextmanager
def _written(path: Path, body: bytes, *, mode: int = 0o666) -> Iterator[None]:
    """The file, written and synced; its lock is held until the block (which gives it its name) ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor: pathlib opens no file with a mode of its own
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
        yield


def _swept(path: Path, *, older_than: float) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone by now (its writer was alive and renamed it), or a link that is not ours
        return False
    try:
        if time.time() - os.fstat(descriptor).st_mtime < older_than:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True
