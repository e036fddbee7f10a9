"""The artifact store: the same on a local folder and on fsspec, inside the job's folder, faults named."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from pydantic import BaseModel

from ss_pipeline import durable
from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ArtifactPathUnsafeError,
    ArtifactUnavailableError,
)

JOB = "job_abcdefghijklmnop"
ODD_IDS = ["[a...b]", "a,b", "a?b#c", "100%", "%2e%2e", "a:b", "C:", "s3:x", "任务", "a b", "<img src=x>"]


class _Note(BaseModel):
    text: str


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "local":
        yield ArtifactStore(str(tmp_path))
        return
    yield ArtifactStore(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


def test_a_file_is_written_replaced_and_listed(store: ArtifactStore) -> None:
    assert not store.exists("default", JOB, "a/b.txt")
    store.write("default", JOB, "a/b.txt", b"old")
    store.write("default", JOB, "a/b.txt", b"new")
    store.write("default", JOB, "a/a.txt", b"")
    assert store.exists("default", JOB, "a/b.txt")
    assert store.read("default", JOB, "a/b.txt") == b"new"
    assert store.names("default", JOB, "a") == ["a.txt", "b.txt"]
    assert store.names("default", JOB, "nowhere") == []


def test_tenants_with_the_same_job_id_do_not_see_each_others_files(store: ArtifactStore) -> None:
    store.write("default", JOB, "a.txt", b"ours")
    store.write("acme", JOB, "a.txt", b"theirs")
    assert (store.read("default", JOB, "a.txt"), store.read("acme", JOB, "a.txt")) == (b"ours", b"theirs")
    with pytest.raises(ArtifactNotFoundError):
        store.read("other", JOB, "a.txt")


@pytest.mark.parametrize("job_id", ODD_IDS)
def test_an_imported_id_is_a_folder_name_whatever_it_looks_like(store: ArtifactStore, job_id: str) -> None:
    store.write("default", job_id, "x/y.txt", b"1")
    assert store.read("default", job_id, "x/y.txt") == b"1"
    assert store.names("default", job_id, "x") == ["y.txt"]
    assert job_id in store.location("default", job_id, "x/y.txt")


def test_where_a_file_is_is_said_for_people_and_for_readers_of_local_files(tmp_path: Path) -> None:
    local, remote = ArtifactStore(str(tmp_path)), ArtifactStore("memory://reports")
    assert (local.is_local, remote.is_local) == (True, False)
    path = local.local_path("default", JOB, "a.txt")
    assert path is not None
    assert path.is_relative_to(tmp_path)
    assert local.location("default", JOB, "a.txt") == str(path)
    assert remote.local_path("default", JOB, "a.txt") is None
    assert remote.location("default", JOB, "a.txt").startswith("memory://")


@pytest.mark.guarantee("A6")
@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up", "a/../../up", "~/x", "a\\b", "a\0b"])
def test_a_path_out_of_the_jobs_folder_is_refused_everywhere(store: ArtifactStore, path: str) -> None:
    for use in (
        lambda: store.read("default", JOB, path),
        lambda: store.write("default", JOB, path, b""),
        lambda: store.exists("default", JOB, path),
        lambda: store.names("default", JOB, path),
        lambda: store.location("default", JOB, path),
        lambda: store.local_path("default", JOB, path),
    ):
        with pytest.raises(ArtifactPathUnsafeError):
            use()


def test_models_travel_as_json_and_what_is_none_is_called_corrupted(store: ArtifactStore) -> None:
    store.write_model("default", JOB, "note.json", _Note(text="总分"))
    assert "总分".encode() in store.read("default", JOB, "note.json")
    assert store.read_model("default", JOB, "note.json", _Note) == _Note(text="总分")
    store.write("default", JOB, "note.json", b"{")
    with pytest.raises(ArtifactCorruptedError, match=r"note.json.*_Note"):
        store.read_model("default", JOB, "note.json", _Note)
    with pytest.raises(ArtifactNotFoundError, match="nowhere"):
        store.read_model("default", JOB, "nowhere.json", _Note)


@pytest.mark.guarantee("F9", "F10")
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_fault_of_the_medium_is_passing_and_says_what_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(_path: Path, _body: bytes, *, private: bool) -> None:
        del private
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(durable, "write_file", fails)
    with pytest.raises(ArtifactUnavailableError, match=os.strerror(number)) as caught:
        ArtifactStore(str(tmp_path)).write("default", JOB, "a.txt", b"1")
    assert caught.value.retryable


def test_a_fault_without_a_text_of_the_system_is_named_by_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: Path, _body: bytes, *, private: bool) -> None:
        del private
        raise OSError("the bucket is locked")

    monkeypatch.setattr(durable, "write_file", fails)
    with pytest.raises(ArtifactUnavailableError, match="the bucket is locked"):
        ArtifactStore(str(tmp_path)).write("default", JOB, "a.txt", b"1")


def test_a_folder_in_the_place_of_a_file_is_lasting_damage_and_not_tried_for_ever(store: ArtifactStore) -> None:
    store.write("default", JOB, "a/b.txt", b"1")
    with pytest.raises(ArtifactCorruptedError, match="'a'"):
        store.read("default", JOB, "a")


def test_a_file_in_the_place_of_a_folder_is_lasting_damage(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path))
    store.write("default", JOB, "a", b"1")
    with pytest.raises(ArtifactCorruptedError):
        store.write("default", JOB, "a/b.txt", b"1")
    with pytest.raises(ArtifactCorruptedError):
        store.names("default", JOB, "a")
