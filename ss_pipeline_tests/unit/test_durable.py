"""Durable files: old or new, never a part, and nothing left behind."""

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest

from ss_pipeline import durable


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class FailingFsync:
    """os.fsync that fails at the given calls, counted from 1, of files or of folders."""

    def __init__(self, *, folders: bool, at: set[int]) -> None:
        self._real = os.fsync
        self._folders = folders
        self._at = at
        self.calls = 0

    def __call__(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == self._folders:
            self.calls += 1
            if self.calls in self._at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real(descriptor)


@pytest.mark.seed("S1.2.5")
def test_a_file_is_written_and_replaced_with_its_folders_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    durable.write_file(path, b"old")
    durable.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@pytest.mark.guarantee("R2")
def test_a_write_that_need_not_last_syncs_its_content_and_not_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, folders = FailingFsync(folders=False, at=set()), FailingFsync(folders=True, at=set())

    def fsync(descriptor: int) -> None:
        files(descriptor)
        folders(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    durable.write_file(tmp_path / "file", b"new", synced=False)
    assert (names(tmp_path), files.calls, folders.calls) == (["file"], 1, 0)


@pytest.mark.seed("S1.2.8")
def test_create_is_exclusive_and_leaves_the_first(tmp_path: Path) -> None:
    durable.create_file(tmp_path / "file", b"first")
    with pytest.raises(FileExistsError):
        durable.create_file(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


@pytest.mark.guarantee("R2")
def test_the_file_is_synced_before_it_is_named_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, order = tmp_path / "new folder" / "file", []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        where = Path(f"/proc/self/fd/{descriptor}").readlink()
        order.append((kind, where == tmp_path, path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    durable.write_file(path, b"body")
    assert order == [("folder", True, False), ("file", False, False), ("folder", False, True)]


@pytest.mark.guarantee("F10")
def test_a_failed_fsync_of_the_file_keeps_the_old_content_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    durable.write_file(path, b"old")
    failing = FailingFsync(folders=False, at={1})
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output error"):
        durable.write_file(path, b"new")
    assert (path.read_bytes(), names(tmp_path), failing.calls) == (b"old", ["file"], 1)


@pytest.mark.parametrize("folders", [False, True])
def test_a_create_that_cannot_be_synced_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, folders: bool
) -> None:
    monkeypatch.setattr(os, "fsync", FailingFsync(folders=folders, at={1}))
    with pytest.raises(OSError, match="Input/output error"):
        durable.create_file(tmp_path / "file", b"new")
    assert names(tmp_path) == []


@pytest.mark.guarantee("R1")
def test_the_sweep_removes_what_dead_writers_left_and_nothing_else(tmp_path: Path) -> None:
    for name in (".tmp-dead", ".tmp-young", ".tmp-written", "job.json"):
        (tmp_path / name).write_bytes(b"part")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "job.json")
    for name in (".tmp-dead", ".tmp-written", "job.json"):
        os.utime(tmp_path / name, (time.time() - 120,) * 2)
    with (tmp_path / ".tmp-written").open("rb") as writing:
        fcntl.flock(writing, fcntl.LOCK_EX)
        assert durable.sweep(tmp_path, older_than=60) == [".tmp-dead"]
    assert names(tmp_path) == [".tmp-link", ".tmp-written", ".tmp-young", "job.json"]
    assert durable.sweep(tmp_path, older_than=0) == [".tmp-written", ".tmp-young"]


def test_a_file_being_written_holds_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, swept = os.fsync, []

    def fsync(descriptor: int) -> None:
        swept.append(durable.sweep(tmp_path, older_than=0))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    durable.write_file(tmp_path / "file", b"body")
    assert swept == [[], []]
    assert (tmp_path / "file").read_bytes() == b"body"
