"""Which file a document is: the folders of the file store, how they are walked, and what is refused in them.

    <root>/<shard>/<job_id>/job.json                    jobs of the default tenant (CONTRACT 3.1)
    <root>/tenants/<tenant>/<shard>/<job_id>/job.json   jobs of the others
    <root>/<job_id>/job.json                            written by older systems; read and written in place
    <root>/collections/<collection>/<tenant>/<2 hex>/<id>.json    everything else

Beside `job.json`: `job.json.lock` and `claim.json`. Beside `<id>.json`: `<id>.claim`, and one `.lock` for the folder.
Writing is durable.py's business, claims are file_claims.py's, listing is file_index.py's.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.errors import StorePathUnsafeError
from ss_pipeline.jobs.documents import is_safe_segment, job_folder
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.store.base import DocumentKey

_JOBS: Final = "jobs"
_DOCUMENT: Final = "job.json"
_RESERVED: Final = frozenset({"tenants", "collections"})


@dataclass(frozen=True)
class Place:
    """The files of one document: itself, its claim record, and the lock both are changed under."""

    document: Path
    claim: Path
    lock: Path

    @property
    def folder(self) -> Path:
        """The folder all three are in."""
        return self.document.parent


@dataclass(frozen=True)
class ShardFolder:
    """A folder whose entries are jobs of one tenant."""

    tenant_id: str
    path: Path
    is_top_level: bool
    """Whether it is directly under the root, where it may be a job of an older system itself."""


@dataclass(frozen=True)
class JobFolder:
    """A folder that is, or is about to be, a job's."""

    key: DocumentKey
    path: Path

    @property
    def document(self) -> Path:
        """Where its document is, if there is one."""
        return self.path / _DOCUMENT


class FileLayout:
    """The places of all documents below one root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, key: DocumentKey) -> Place:
        """Where a document is or would be created.

        Raises:
            StorePathUnsafeError: the name is unsafe, or a symbolic link leads out of the root.
        """
        for segment in (key.collection, key.tenant_id, key.document_id):
            if not is_safe_segment(segment):
                raise StorePathUnsafeError(f"{segment!r} cannot be part of a document's path")
        if key.collection == _JOBS:
            return self._inside(_job_place(self.root / job_folder(key.tenant_id, key.document_id)))
        shard = hashlib.sha256(key.document_id.encode()).hexdigest()[:2]
        folder = self.root / "collections" / key.collection / key.tenant_id / shard
        name = key.document_id
        return self._inside(Place(folder / f"{name}.json", folder / f"{name}.claim", folder / ".lock"))

    def existing(self, key: DocumentKey) -> Place | None:
        """Where a document is, also where an older system put it; None where there is none.

        Raises:
            StorePathUnsafeError: as for `place`, or what is there is no regular file.
        """
        place = self.place(key)
        if _is_there(place.document):
            return place
        if key.collection == _JOBS and key.tenant_id == DEFAULT_TENANT:
            older = _job_place(self.root / key.document_id)
            if _is_there(older.document):
                return self._inside(older)
        return None

    def documents(self) -> Iterator[DocumentKey]:
        """The keys of all documents there are; each may appear twice where old and new places hold the same job."""
        for shard in self.shards():
            yield from (job.key for job in self.jobs_in(shard) if job.document.is_file())
        for path in (self.root / "collections").glob("*/*/*/*.json"):
            collection, tenant_id, _, name = path.relative_to(self.root / "collections").parts
            yield DocumentKey(collection, tenant_id, name.removesuffix(".json"))

    def folders(self) -> Iterator[Path]:
        """The root and every folder that documents are written into, also those without any."""
        yield self.root
        for shard in self.shards():
            yield from (job.path for job in self.jobs_in(shard))
        yield from (self.root / "collections").glob("*/*/*")

    def shards(self) -> Iterator[ShardFolder]:
        """Every folder that may hold jobs."""
        for folder in _folders(self.root):
            if folder.name not in _RESERVED:
                yield ShardFolder(DEFAULT_TENANT, folder, is_top_level=True)
        for tenant in _folders(self.root / "tenants"):
            yield from (ShardFolder(tenant.name, folder, is_top_level=False) for folder in _folders(tenant))

    def jobs_in(self, shard: ShardFolder) -> Iterator[JobFolder]:
        """The job folders in a folder; those in a place where no load would look for them are left out."""
        if shard.is_top_level and (shard.path / _DOCUMENT).is_file():
            yield JobFolder(DocumentKey(_JOBS, DEFAULT_TENANT, shard.path.name), shard.path)
        for folder in _folders(shard.path):
            if self.root / job_folder(shard.tenant_id, folder.name) == folder:
                yield JobFolder(DocumentKey(_JOBS, shard.tenant_id, folder.name), folder)

    def _inside(self, place: Place) -> Place:
        real_root = os.path.realpath(self.root)
        real = os.path.realpath(place.folder)
        if os.path.commonpath((real_root, real)) != real_root:
            raise StorePathUnsafeError(f"{place.folder} leads out of the jobs folder through a symbolic link")
        return place


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        StorePathUnsafeError: it is a link, a pipe or another thing that is no regular file.
        OSError: it cannot be read; FileNotFoundError where there is none.
    """
    if path.is_symlink():
        raise StorePathUnsafeError(f"{path} is a symbolic link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, opened with flags pathlib does not offer
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StorePathUnsafeError(f"{path} is not a regular file")
        return file.read()


def _is_there(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISREG(mode):
        raise StorePathUnsafeError(f"{path} is not a regular file")
    return True


def _job_place(folder: Path) -> Place:
    return Place(folder / _DOCUMENT, folder / "claim.json", folder / f"{_DOCUMENT}.lock")


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in a folder whose names are safe, sorted; none where it does not exist."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return
    yield from (folder / name for name in names if is_safe_segment(name))
