"""From a complete submission to a job: its data files into the artifact store, its reference, its job document.

Every step can be repeated after a crash: files are named by their content, the reference and the job are created
exclusively. The reference decides the job's id, so that equal submissions meet in one job. Folders are not moved here.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    DocumentExistsError,
    DocumentNotFoundError,
    InputRefusedError,
    JobDataCorruptedError,
    JobExistsError,
    StoreError,
    SubmissionChangedError,
    SubmissionRefusedError,
)
from ss_pipeline.jobs.documents import parse_document, render_document
from ss_pipeline.jobs.inputs import (
    FORMAT_OF_SUFFIX,
    MANIFEST_PATH,
    InputDataset,
    InputsManifest,
    dataset_key,
    inputs_fingerprint,
)
from ss_pipeline.jobs.lifecycle import born
from ss_pipeline.jobs.model import InputsRef, Job
from ss_pipeline.jobs.requests import SubmissionRequest
from ss_pipeline.stages.intake.folder_safety import Signature, read_unchanged
from ss_pipeline.stages.intake.inbox import Complete
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore, job_key

REFERENCES: Final = "references"
"""Collection of {job_id, content_sha256} under the submitter's own reference, or one made from the content."""

_ATTEMPTS: Final = 5
_TEXT_FORMATS: Final = frozenset({"csv", "tsv"})
_BYTE_ORDER_MARKS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""UTF-16 and UTF-32; these hold NUL bytes by their nature."""


@dataclass(frozen=True)
class Ingested:
    """The job a submission became, or is a duplicate of, and its data files."""

    job_id: str
    duplicate: bool
    datasets: list[InputDataset]


@dataclass(frozen=True)
class Ingestion:
    """Makes jobs of complete submissions."""

    jobs: JobStore
    artifacts: ArtifactStore
    clock: Clock

    def ingest(self, folder: int, complete: Complete, *, tenant_id: str, job_id: str) -> Ingested:
        """The job of a submission: a new one under `job_id`, or the one that its reference names.

        Args:
            folder: Descriptor of the submission's folder.

        Raises:
            SubmissionRefusedError: SUBMISSION_REFERENCE_CONFLICT, or a file is unsafe.
            InputRefusedError: INPUT_BINARY.
            SubmissionChangedError: a file was written to; no job was made.
            StoreError, ArtifactError, OSError: a medium failed; call it again.
        """
        request = complete.request
        datasets = self._datasets(folder, complete)
        content = _content_sha256(request, datasets)
        reference = DocumentKey(REFERENCES, tenant_id, request.job_id or f"content-{content[:40]}")
        for _ in range(_ATTEMPTS):
            owner = self._owner(reference, content) or job_id
            if self.exists(tenant_id, owner):
                return Ingested(owner, owner != job_id, datasets)
            self._store_files(folder, complete, datasets, tenant_id=tenant_id, job_id=owner)
            if self._claim(reference, content, owner):
                return self._create(request, datasets, tenant_id=tenant_id, job_id=owner)
        raise SubmissionChangedError(f"the reference {reference.document_id!r} changes faster than it can be read")

    def exists(self, tenant_id: str, job_id: str) -> bool:
        """Whether there is a document of this job, readable or not."""
        try:
            self.jobs.backend.read(job_key(job_id, tenant_id))
        except DocumentNotFoundError:
            return False
        return True

    def datasets_of(self, tenant_id: str, job_id: str) -> list[InputDataset]:
        """The data files of a job that was made before."""
        return self.artifacts.read_model(tenant_id, job_id, MANIFEST_PATH, InputsManifest).datasets

    def _datasets(self, folder: int, complete: Complete) -> list[InputDataset]:
        at = self.clock.timestamp()
        found = []
        for index, item in enumerate(complete.request.inputs):
            body = _read_input(item.path, folder=folder, expected=complete.signatures[item.path])
            found.append(_dataset(item.path, complete.request.role_of(index), body, at))
        return found

    def _owner(self, reference: DocumentKey, content: str) -> str | None:
        """The job the reference names, if it names one; another content under it is refused."""
        try:
            body = self.jobs.backend.read(reference)
        except DocumentNotFoundError:
            return None
        owner, used_for = _read_reference(reference, body)
        if used_for == content:
            return owner
        raise SubmissionRefusedError(
            f"the reference {reference.document_id!r} was used before, with other content, for job {owner}",
            code="SUBMISSION_REFERENCE_CONFLICT",
            todo="Submit under another job_id, or leave job_id out of request.json; the first job is as it was.",
        )

    def _claim(self, reference: DocumentKey, content: str, owner: str) -> bool:
        """Whether the reference names `owner` now; False where another was quicker."""
        body = render_document({"job_id": owner, "content_sha256": content})
        try:
            self.jobs.backend.create(reference, body, Facets())
        except DocumentExistsError:
            return self.jobs.backend.read(reference) == body
        return True

    def _store_files(
        self, folder: int, complete: Complete, datasets: list[InputDataset], *, tenant_id: str, job_id: str
    ) -> None:
        for dataset in datasets:
            name = dataset.original_name
            body = _read_input(name, folder=folder, expected=complete.signatures[name])
            if hashlib.sha256(body).hexdigest() != dataset.sha256:
                raise SubmissionChangedError(f"{name} was written to while it was read")
            self.artifacts.write(tenant_id, job_id, dataset.rel_path, body)
        self.artifacts.write_model(tenant_id, job_id, MANIFEST_PATH, InputsManifest(datasets=datasets))

    def _create(
        self, request: SubmissionRequest, datasets: list[InputDataset], *, tenant_id: str, job_id: str
    ) -> Ingested:
        job = Job(
            tenant_id=tenant_id,
            job_id=job_id,
            trace_id=secrets.token_hex(16),
            status="created",
            requirement=request.requirement,
            created_at=self.clock.timestamp(),
            inputs=InputsRef(manifest_rel_path=MANIFEST_PATH, fingerprint=inputs_fingerprint(datasets)),
            priority=request.priority,
            callback_url=request.callback_url,
            client_ref=request.job_id,
            language=request.language,
        )
        try:
            self.jobs.create(born(job, by="intake"))
        except JobExistsError:  # an equal submission was quicker
            return Ingested(job_id, duplicate=True, datasets=datasets)
        return Ingested(job_id, duplicate=False, datasets=datasets)


def _read_reference(reference: DocumentKey, body: bytes) -> tuple[str, str]:
    """The job a reference names, and the sha256 of the content it was used for."""
    try:
        document = parse_document(body)
        return str(document["job_id"]), str(document["content_sha256"])
    except (JobDataCorruptedError, KeyError) as error:
        raise StoreError(
            f"the record of the reference {reference.document_id!r} cannot be read",
            code="STORE_REFERENCE_CORRUPTED",
            todo="Restore this document of the collection 'references' from a backup.",
        ) from error


def _read_input(name: str, *, folder: int, expected: Signature) -> bytes:
    body = read_unchanged(name, folder=folder, expected=expected)
    if b"\x00" in body and _format_of(name) in _TEXT_FORMATS and not body.startswith(_BYTE_ORDER_MARKS):
        raise InputRefusedError(
            f"{name} is said to be text but holds NUL bytes",
            code="INPUT_BINARY",
            todo="Export the data again as UTF-8 text (or UTF-16 with a byte-order mark), or use its true suffix.",
        )
    return body


def _dataset(name: str, role: str, body: bytes, at: str) -> InputDataset:
    sha256 = hashlib.sha256(body).hexdigest()
    key = dataset_key(sha256, role, name)
    return InputDataset.model_validate(
        {
            "dataset_key": key,
            "role": role,
            "rel_path": f"inputs/{key}{_suffix_of(name)}",
            "original_name": name,
            "size_bytes": len(body),
            "sha256": sha256,
            "fingerprint": f"sha256:{sha256}",
            "format": _format_of(name),
            "uploaded_at": at,
        }
    )


def _suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _format_of(name: str) -> str:
    return FORMAT_OF_SUFFIX[_suffix_of(name)]


def _content_sha256(request: SubmissionRequest, datasets: list[InputDataset]) -> str:
    """What makes two submissions the same: requirement, data files (name, role, bytes) and options."""
    content = {
        "requirement": request.requirement,
        "inputs": sorted([d.original_name, d.role, d.sha256] for d in datasets),
        "options": [request.priority, request.callback_url, request.language],
    }
    canonical = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
