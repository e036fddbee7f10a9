"""Reading folders that others can write to while we read: by descriptor, never through a link, only plain files.

Lives here: opening, kinds of entries, what tells that a file changed. Which files a submission needs, and what happens
to a submission that is unsafe, is not decided here (inbox.py, stage.py).
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.errors import SubmissionChangedError, SubmissionRefusedError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a file",
}


@dataclass(frozen=True)
class Signature:
    """What stays the same while nobody touches a file; the times are nanoseconds since 1970."""

    inode: int
    links: int
    size: int
    mtime_ns: int
    ctime_ns: int


def signature_of(seen: os.stat_result) -> Signature:
    """The signature of a file as it was seen."""
    return Signature(seen.st_ino, seen.st_nlink, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def kind_of(seen: os.stat_result) -> str:
    """What an entry is, in words: "a symbolic link"."""
    return _KINDS.get(stat.S_IFMT(seen.st_mode), "a special file")


@contextmanager
def opened_folder(path: str | Path, *, parent: int | None = None) -> Iterator[int]:
    """A descriptor of a folder, closed at the end.

    Args:
        path: Its path, or its name in the folder `parent` is a descriptor of. Its last part is not followed.

    Raises:
        SubmissionRefusedError: SUBMISSION_NOT_A_FOLDER.
        OSError: it is gone or cannot be opened.
    """
    try:
        descriptor = os.open(path, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise not_a_folder(os.stat(path, dir_fd=parent, follow_symlinks=False)) from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def not_a_folder(seen: os.stat_result) -> SubmissionRefusedError:
    """The refusal of an entry of the inbox that is no folder."""
    return SubmissionRefusedError(
        f"this is {kind_of(seen)}; a submission is a folder",
        code="SUBMISSION_NOT_A_FOLDER",
        todo="Make a folder in the inbox that holds request.json and the data files themselves.",
    )


def unreadable(what: str, error: OSError) -> SubmissionRefusedError:
    """The refusal of what the pipeline's user may not read."""
    return SubmissionRefusedError(
        f"{what} cannot be read: {error.strerror}",
        code="SUBMISSION_UNREADABLE",
        todo="Give the pipeline's user the right to read the folder and its files, and submit again.",
    )


def check_plain(seen: os.stat_result, *, name: str) -> None:
    """Refuses what is not a regular file with exactly one name.

    Raises:
        SubmissionRefusedError: SUBMISSION_FILE_UNSAFE.
    """
    if stat.S_ISREG(seen.st_mode) and seen.st_nlink <= 1:
        return
    what = f"{kind_of(seen)}, not a regular file"
    if stat.S_ISREG(seen.st_mode):
        what = "a file that has a second name elsewhere (a hard link)"
    raise SubmissionRefusedError(
        f"{name} is {what}", code="SUBMISSION_FILE_UNSAFE", todo=f"Put a plain copy of {name} into the submission."
    )


def read_unchanged(name: str, *, folder: int, expected: Signature) -> bytes:
    """All bytes of a plain file that is, before and after reading, as it was seen.

    Args:
        folder: Descriptor of the folder it is in.
        expected: How it was seen; also bounds what is read.

    Raises:
        SubmissionChangedError: it is another file by now, or was written to.
        SubmissionRefusedError: SUBMISSION_FILE_UNSAFE or SUBMISSION_UNREADABLE.
        OSError: the medium failed.
    """
    descriptor = _open_plain(name, folder=folder)
    with os.fdopen(descriptor, "rb") as file:
        _check_same(os.fstat(descriptor), expected, name=name)
        body = file.read(expected.size + 1)
        _check_same(os.fstat(descriptor), expected, name=name)
    if len(body) != expected.size:
        raise SubmissionChangedError(f"{name} was written to while it was read")
    return body


def _open_plain(name: str, *, folder: int) -> int:
    try:
        check_plain(os.stat(name, dir_fd=folder, follow_symlinks=False), name=name)
        return os.open(name, _FILE, dir_fd=folder)
    except PermissionError as error:
        raise unreadable(name, error) from error
    except FileNotFoundError as error:
        raise SubmissionChangedError(f"{name} was removed while it was read") from error
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # became a link or a socket since the line before
            raise SubmissionChangedError(f"{name} was replaced while it was read") from error
        raise


def _check_same(seen: os.stat_result, expected: Signature, *, name: str) -> None:
    if not stat.S_ISREG(seen.st_mode) or signature_of(seen) != expected:
        raise SubmissionChangedError(f"{name} was written to while it was read")
