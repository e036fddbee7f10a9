"""The publication stage: from a decided draft to the files of an immutable version, and the pointer to the current.

The files are written here, each version into a folder of its own, the manifest last; nothing points to them until the
caller commits the returned `Publication` into the job document by compare-and-set. What a report says is view.py's
business, how it looks the templates'.
"""

import logging
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import ArtifactNotFoundError, PublicationError
from ss_pipeline.jobs.documents import render_document
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.inputs import MANIFEST_PATH, InputDataset, InputsManifest
from ss_pipeline.jobs.model import Decision, Job, Publication, publication_folder
from ss_pipeline.jobs.profiles import DataSample, JobProfile
from ss_pipeline.stages.publishing.analysis import analysis_of
from ss_pipeline.stages.publishing.checks import DECISION_CHECK, Check, checks_before_publishing
from ss_pipeline.stages.publishing.columns_csv import columns_csv
from ss_pipeline.stages.publishing.draft_document import draft_document
from ss_pipeline.stages.publishing.manifest import (
    MANIFEST_NAME,
    ManifestDecision,
    ManifestInput,
    PublicationManifest,
    listed,
    sha256_of,
    verify_publication,
)
from ss_pipeline.telemetry.events import emit

__all__ = [
    "CURRENT_PATH",
    "REPORT_FILES",
    "Check",
    "checks_before_publishing",
    "prepare_publication",
    "verify_publication",
    "write_current",
]

REPORT_FILES: Final = ("report.html", "report.md", "draft.json", "columns.csv", "manifest.json")
CURRENT_PATH: Final = "publications/current.json"


def prepare_publication(
    job: Job,
    *,
    profile: JobProfile,
    sample: DataSample | None,
    artifacts: ArtifactStore,
    fence: int,
    clock: Clock,
) -> Publication:
    """Writes the files of the job's next version and returns the record of it, for the caller to commit.

    The same job, profile, sample and fence again write nothing and return the same record.

    Raises:
        PublicationError: PUBLICATION_DRAFT_MISSING, PUBLICATION_DECISION_MISSING, PUBLICATION_CHECK_FAILED (naming
            the check), or PUBLICATION_FOLDER_TAKEN (the version's folder holds other content).
        ArtifactError: the medium failed; what was written is no version without its manifest.
    """
    draft, decision = _decided_draft(job, profile)
    next_version = job.published.version + 1 if job.published else 1
    folder = publication_folder(version=next_version, fence=fence)
    inputs = _inputs(job, artifacts)
    files = _files(job, draft, decision, profile, sample, inputs, next_version)
    manifest = PublicationManifest(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        version=next_version,
        fence=fence,
        created_at=_created_before(job, folder, artifacts) or clock.timestamp(),
        draft_sha256=draft.sha256,
        decision=ManifestDecision(by=decision.by, at=decision.at, action=decision.action),
        requirement_sha256=sha256_of((job.requirement or "").encode()),
        inputs=[ManifestInput.model_validate(item, from_attributes=True) for item in inputs],
        files=listed(files),
        software={"ss_pipeline": _software_version()},
    )
    _write_once(job, folder, {**files, MANIFEST_NAME: manifest.as_bytes()}, artifacts)
    return Publication(
        version=next_version,
        manifest_sha256=sha256_of(manifest.as_bytes()),
        at=manifest.created_at,
        fence=fence,
        draft_sha256=draft.sha256,
    )


def write_current(job: Job, *, artifacts: ArtifactStore) -> bool:
    """Makes publications/current.json say what the job document says; True if it had to be written.

    The pointer is derived: missing or pointing elsewhere than to the newest committed version, it is repaired.
    """
    newest = job.published
    if newest is None:
        return False
    wanted = _pointer(newest)
    found = _read_or_none(job, CURRENT_PATH, artifacts)
    if found == wanted:
        return False
    artifacts.write(job.tenant_id, job.job_id, CURRENT_PATH, wanted)
    before = _pointer(job.publications[-2]) if len(job.publications) > 1 else None
    if found != before:
        emit("SS_PUBLICATION_CURRENT_REPAIRED", level=logging.WARNING, job_id=job.job_id, version=newest.version)
    return True


def _decided_draft(job: Job, profile: JobProfile) -> tuple[Draft, Decision]:
    """The draft and its decision, if both may be published."""
    failed = [check for check in checks_before_publishing(job, profile) if check.blocking and not check.passed]
    if failed or job.draft is None or job.decision is None:
        error = _refusal(job, failed)
        emit(
            "SS_PUBLICATION_REFUSED",
            level=logging.WARNING,
            job_id=job.job_id,
            code=error.error_code,
            checks=[check.name for check in failed],
        )
        raise error
    return job.draft, job.decision


def _refusal(job: Job, failed: list[Check]) -> PublicationError:
    if job.draft is None:
        return PublicationError(f"job {job.job_id!r} has no draft to publish", code="PUBLICATION_DRAFT_MISSING")
    undecided = next((check for check in failed if check.name == DECISION_CHECK), None)
    if undecided:
        return PublicationError(
            f"job {job.job_id!r} needs a new decision: {undecided.message}",
            code="PUBLICATION_DECISION_MISSING",
            todo=f"Decide on the present draft: ss-pipeline confirm {job.job_id}",
        )
    found = "; ".join(f"{check.name}: {check.message}" for check in failed)
    return PublicationError(f"job {job.job_id!r} must not be published: {found}", code="PUBLICATION_CHECK_FAILED")


def _files(
    job: Job,
    draft: Draft,
    decision: Decision,
    profile: JobProfile,
    sample: DataSample | None,
    inputs: list[InputDataset],
    next_version: int,
) -> dict[str, bytes]:
    """The version's files but its manifest, in order of writing; none of them depends on the time of writing."""
    from ss_pipeline.stages.publishing.plots import draw_plots  # noqa: PLC0415 - matplotlib costs 0.4 s to import
    from ss_pipeline.stages.publishing.report import render_html, render_markdown  # noqa: PLC0415
    from ss_pipeline.stages.publishing.view import ReportParts, make_report  # noqa: PLC0415
    from ss_pipeline.stages.publishing.wording import WORDS, language_of  # noqa: PLC0415

    language = language_of(job)
    analysis = analysis_of(draft, profile)
    parts = ReportParts(
        job=job,
        draft=draft,
        decision=decision,
        profile=profile,
        analysis=analysis,
        inputs=inputs,
        version=next_version,
        software=f"ss_pipeline {_software_version()}",
        language=language,
        words=WORDS[language],
    )
    report = make_report(parts, draw_plots(analysis, sample, parts.words))
    return {
        "report.html": render_html(report),
        "report.md": render_markdown(report),
        "draft.json": render_document(draft_document(job, draft, decision, profile, next_version)),
        "columns.csv": columns_csv(profile, roles=analysis.roles),
    }


def _inputs(job: Job, artifacts: ArtifactStore) -> list[InputDataset]:
    """The data files as the inputs' manifest lists them; none where there is no manifest (imported jobs)."""
    path = (job.inputs.manifest_rel_path if job.inputs else None) or MANIFEST_PATH
    try:
        return artifacts.read_model(job.tenant_id, job.job_id, path, InputsManifest).datasets
    except ArtifactNotFoundError:
        return []


def _created_before(job: Job, folder: str, artifacts: ArtifactStore) -> str | None:
    """When the version in this folder was made, if it is complete; then its files are compared, not written."""
    body = _read_or_none(job, f"{folder}/{MANIFEST_NAME}", artifacts)
    if body is None:
        return None
    try:
        return PublicationManifest.model_validate_json(body).created_at
    except ValueError as error:
        raise _taken(job, folder, MANIFEST_NAME) from error


def _write_once(job: Job, folder: str, files: dict[str, bytes], artifacts: ArtifactStore) -> None:
    """Writes what is missing of these files, in order; a file that is there must be the same already."""
    found = {name: _read_or_none(job, f"{folder}/{name}", artifacts) for name in files}
    for name, body in files.items():
        if found[name] not in {None, body}:
            raise _taken(job, folder, name)
    for name, body in files.items():
        if found[name] is None:
            artifacts.write(job.tenant_id, job.job_id, f"{folder}/{name}", body)


def _taken(job: Job, folder: str, name: str) -> PublicationError:
    return PublicationError(
        f"job {job.job_id!r}: {folder}/{name} exists with other content; a published version is never changed",
        code="PUBLICATION_FOLDER_TAKEN",
        todo=f"Requeue the job, so that a new run writes its own folder: ss-pipeline retry {job.job_id}",
    )


def _pointer(publication: Publication) -> bytes:
    fields = {"version": publication.version, "folder": publication.folder, "at": publication.at}
    return render_document({**fields, "manifest_sha256": publication.manifest_sha256})


def _read_or_none(job: Job, path: str, artifacts: ArtifactStore) -> bytes | None:
    try:
        return artifacts.read(job.tenant_id, job.job_id, path)
    except ArtifactNotFoundError:
        return None


@cache
def _software_version() -> str:
    try:
        return version("ss-pipeline")
    except PackageNotFoundError:
        return "unknown"
