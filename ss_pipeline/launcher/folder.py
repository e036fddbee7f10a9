"""The launcher's private folder in the instance's local storage: where zygotes are found and runs are recorded.

    <DAGSTER_HOME>/warm_launcher/      0700, of the user that runs Dagster
        <key>.sock                     where the zygote listens (in /tmp where the path would be too long for a socket)
        <key>.<pid>.json               which process it is
        <key>.lock                     held while one is started
        <key>.log                      what it and the import of the code write
        runs/<run id>.jsonl            the process of a run, how it ended (records.py)

What lives here: these paths, the care that nobody else can use them, and the lock.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from ss_pipeline.errors import LauncherFolderUnsafeError, ZygoteUnreachableError
from ss_pipeline.launcher.processes import Process, is_alive

NAME: Final = "warm_launcher"
_LONGEST_SOCKET_PATH: Final = 107
"""Bytes that the kernel keeps of a socket's path, its closing zero left out."""
_LOG_BYTES: Final = 1_000_000
_POLL_SECONDS: Final = 0.02
_PROCESS: Final = TypeAdapter(Process)


@dataclass(frozen=True)
class LauncherFolder:
    """The folder of one Dagster instance; `prepare` makes it."""

    path: Path

    @classmethod
    def of(cls, root: str) -> "LauncherFolder":
        """The folder in an instance's root folder (DAGSTER_HOME)."""
        return cls(Path(root).absolute() / NAME)

    @property
    def runs(self) -> Path:
        """Where runs are recorded."""
        return self.path / "runs"

    def prepare(self) -> None:
        """Makes the folders where they are missing, and makes sure that they are ours alone.

        Raises:
            LauncherFolderUnsafeError: another user's, or no folder.
        """
        for folder in (self.path, self.runs, self._sockets):
            _make_private(folder)

    def socket(self, key: str) -> Path:
        """Where the zygote of this key listens."""
        return self._sockets / f"{key}.sock"

    def log(self, key: str) -> Path:
        """What the zygote of this key writes."""
        return self.path / f"{key}.log"

    def open_log(self, key: str) -> int:
        """A descriptor to write the log to; a log that has grown long is begun anew."""
        path = self.log(key)
        longer = path.exists() and path.stat().st_size > _LOG_BYTES
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | (os.O_TRUNC if longer else 0)
        return os.open(path, flags, 0o600)

    def zygotes(self) -> list[tuple[str, Process]]:
        """The zygotes started here that live, retiring ones included, with their keys; oldest first."""
        found = [(path.name.split(".")[0], _read_process(path)) for path in self.path.glob("*.json")]
        living = [(key, process) for key, process in found if process is not None and is_alive(process)]
        return sorted(living, key=lambda pair: pair[1].started)

    def add_zygote(self, key: str, process: Process) -> None:
        """Says which process was started for a key, and forgets those that are gone."""
        for path in self.path.glob(f"{key}.*.json"):
            if (earlier := _read_process(path)) is None or not is_alive(earlier):
                path.unlink(missing_ok=True)
        temporary = self.path / f"{key}.{process.pid}.tmp"
        temporary.write_bytes(_PROCESS.dump_json(process))
        temporary.replace(temporary.with_suffix(".json"))

    def remove_zygote(self, key: str, process: Process) -> None:
        """Forgets a zygote that ends; a folder in /tmp that was made for sockets goes with the last one."""
        (self.path / f"{key}.{process.pid}.json").unlink(missing_ok=True)
        if self._sockets != self.path:
            with suppress(OSError):  # another one's socket is there
                self._sockets.rmdir()

    @contextmanager
    def starting(self, key: str, *, deadline: float) -> Iterator[None]:
        """Held by the one that may start the zygote of this key; `deadline` is of `time.monotonic`.

        Raises:
            ZygoteUnreachableError: another process holds it for longer than that.
        """
        descriptor = os.open(self.path / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise ZygoteUnreachableError("another process has been starting the zygote for too long")
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    @property
    def _sockets(self) -> Path:
        longest_name = "/" + "0" * KEY_LENGTH + ".sock"
        if len(os.fsencode(self.path)) + len(longest_name) <= _LONGEST_SOCKET_PATH:
            return self.path
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path("/tmp") / f"{NAME}_{os.geteuid()}_{digest}"  # noqa: S108 - made private, and checked to be ours


KEY_LENGTH: Final = 16


def _make_private(folder: Path) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        status = folder.lstat()
    except OSError as error:
        raise LauncherFolderUnsafeError(f"{folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise LauncherFolderUnsafeError(f"{folder} is not a folder of this user")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def _read_process(path: Path) -> Process | None:
    try:
        return _PROCESS.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
