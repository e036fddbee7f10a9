"""Files written so that a power cut leaves the old or the new content, never a part (guarantees R1, R2).

Order: write a temporary file, fsync it, rename it, fsync the directory; each newly made parent directory too.
"""

import os
import secrets
from pathlib import Path
from typing import Final

TEMPORARY_PREFIX: Final = ".tmp-"
"""Names of unfinished files start so; a sweep at start removes what a killed process left."""


def write_file(path: Path, body: bytes) -> None:
    """Writes a file atomically and durably, making its folder if needed; an existing file is replaced.

    Raises:
        OSError: the medium failed; an existing file is as it was and no temporary file is left behind.
    """
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        _write_and_sync(temporary, body)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path, body: bytes) -> None:
    """Like `write_file`, but only where nothing is: of many creators exactly one succeeds.

    Raises:
        FileExistsError: the name is taken.
        OSError: the medium failed; nothing was created.
    """
    make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        _write_and_sync(temporary, body)
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Makes a folder and its missing parents, each durably entered into the one above."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_and_sync(path: Path, body: bytes) -> None:
    with path.open("xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
