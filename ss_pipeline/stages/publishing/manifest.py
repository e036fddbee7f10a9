"""The manifest of a published version, and whether what lies in its folder is what the manifest says."""

import hashlib
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import ArtifactError
from ss_pipeline.jobs.documents import is_safe_segment, render_document
from ss_pipeline.jobs.model import Job, Publication

MANIFEST_NAME: Final = "manifest.json"
CONTENT_TYPES: Final = {
    "report.html": "text/html; charset=utf-8",
    "report.md": "text/markdown; charset=utf-8",
    "draft.json": "application/json",
    "columns.csv": "text/csv; charset=utf-8",
}
"""The files a manifest lists, in order of writing."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedFile(_Part):
    """One file of the version."""

    name: str
    sha256: str
    size_bytes: int
    content_type: str


class ManifestInput(_Part):
    """One data file the version was made from."""

    original_name: str
    sha256: str
    size_bytes: int


class ManifestDecision(_Part):
    """Who let it be published."""

    by: str
    at: str
    action: str


class PublicationManifest(_Part):
    """What a version is made of and what it consists of; written last, it makes the folder complete."""

    manifest_schema_version: Literal[1] = 1
    job_id: str
    tenant_id: str
    version: int
    fence: int
    created_at: str
    draft_sha256: str
    decision: ManifestDecision
    requirement_sha256: str
    inputs: list[ManifestInput]
    files: list[PublishedFile]
    software: dict[str, str]

    def as_bytes(self) -> bytes:
        """The manifest's one byte form; `Publication.manifest_sha256` is its hash."""
        return render_document(self.model_dump(mode="json"))


def sha256_of(body: bytes) -> str:
    """The hash, as hex digits."""
    return hashlib.sha256(body).hexdigest()


def listed(files: Mapping[str, bytes]) -> list[PublishedFile]:
    """The files as a manifest lists them."""
    return [
        PublishedFile(name=name, sha256=sha256_of(body), size_bytes=len(body), content_type=CONTENT_TYPES[name])
        for name, body in files.items()
    ]


def verify_publication(job: Job, publication: Publication, *, artifacts: ArtifactStore) -> list[str]:
    """What is wrong with a published version's files, one sentence each; empty where nothing is.

    The manifest is held against the hash in the job document, every file against the manifest.
    """
    body = _read(job, publication, MANIFEST_NAME, artifacts)
    if isinstance(body, str):
        return [body]
    if sha256_of(body) != publication.manifest_sha256:
        return [f"{MANIFEST_NAME} has another hash than the job document says"]
    try:
        manifest = PublicationManifest.model_validate_json(body)
    except ValidationError:
        return [f"{MANIFEST_NAME} is not a manifest of this version of the software"]
    listed_names = {MANIFEST_NAME, *(file.name for file in manifest.files)}
    problems = [_file_problem(job, publication, file, artifacts) for file in manifest.files]
    problems += [f"{name} is not listed" for name in CONTENT_TYPES if name not in listed_names]
    there = artifacts.names(job.tenant_id, job.job_id, publication.folder)
    problems += [f"{name} does not belong to the version" for name in there if name not in listed_names]
    return [problem for problem in problems if problem]


def _file_problem(job: Job, publication: Publication, file: PublishedFile, artifacts: ArtifactStore) -> str:
    if not is_safe_segment(file.name):
        return f"{file.name!r} is no file name"
    body = _read(job, publication, file.name, artifacts)
    if isinstance(body, str):
        return body
    if len(body) != file.size_bytes:
        return f"{file.name} has {len(body)} bytes, not {file.size_bytes}"
    return "" if sha256_of(body) == file.sha256 else f"{file.name} has another hash than {MANIFEST_NAME} says"


def _read(job: Job, publication: Publication, name: str, artifacts: ArtifactStore) -> bytes | str:
    """The file, or what is wrong with it."""
    try:
        return artifacts.read(job.tenant_id, job.job_id, f"{publication.folder}/{name}")
    except ArtifactError as error:
        return f"{name}: {error.message}"
