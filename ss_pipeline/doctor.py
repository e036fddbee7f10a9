"""`ss-pipeline doctor`: is everything in place, and is anything stuck? Each finding says what to do."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ss_pipeline.errors import SSError, StoreSealedError
from ss_pipeline.jobs.lifecycle import history_is_intact
from ss_pipeline.jobs.model import Job
from ss_pipeline.store.base import Listed
from ss_pipeline.wiring import Parts

LOW_DISK_BYTES: Final = 500_000_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `ok`, `warning` (works, but look) or `problem` (does not work)."""

    subject: str
    level: Literal["ok", "warning", "problem"]
    message: str
    todo: str = ""


def examine(parts: Parts) -> list[Finding]:
    """Looks at the folders, the disk, the back end, every job document, and the optional packages."""
    checks: list[Callable[[Parts], list[Finding]]] = [_folders, _disk, _backend, _jobs, _packages]
    return [finding for check in checks for finding in check(parts)]


def _folders(parts: Parts) -> list[Finding]:
    folders = {"inbox": parts.inbox}
    if "file" in {parts.settings.job_store_backend, parts.settings.job_store_mirror}:
        folders["job documents"] = parts.settings.jobs_path()
    if parts.artifacts.is_local:
        folders["artifacts"] = Path(parts.settings.artifacts_location())
    return [_folder(subject, folder) for subject, folder in folders.items()]


def _folder(subject: str, folder: Path) -> Finding:
    if not folder.exists():
        return Finding(subject, "ok", f"{folder} is not there yet; it is made when first used")
    if not folder.is_dir():
        return Finding(subject, "problem", f"{folder} is no folder", "Move it away, or set another folder.")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Finding(subject, "problem", f"{folder} cannot be read or written", "Correct its owner or permissions.")
    return Finding(subject, "ok", str(folder))


def _disk(parts: Parts) -> list[Finding]:
    folder = next(
        p for p in [parts.settings.data_dir.absolute(), *parts.settings.data_dir.absolute().parents] if p.exists()
    )
    free = shutil.disk_usage(folder).free
    if free < LOW_DISK_BYTES:
        return [Finding("disk", "warning", f"{free // 1_000_000} MB are free at {folder}", "Free some space.")]
    return [Finding("disk", "ok", f"{free // 1_000_000_000} GB are free at {folder}")]


def _backend(parts: Parts) -> list[Finding]:
    backend, mirror = parts.jobs.backend, parts.settings.job_store_mirror
    name = f"{parts.settings.job_store_backend} back end" + (f", mirrored to {mirror}" if mirror else "")
    try:
        problems, successor = backend.check(), backend.sealed_for()
    except SSError as error:
        return [Finding("store", "problem", error.message, error.todo)]
    if successor is not None:
        sealed = StoreSealedError(successor)
        return [Finding("store", "problem", f"{name}: {sealed.message}", sealed.todo)]
    if not problems:
        return [Finding("store", "ok", name)]
    return [Finding("store", "problem", problem, "See docs/storage.md.") for problem in problems]


def _jobs(parts: Parts) -> list[Finding]:
    counts: dict[str, int] = {}
    findings: list[Finding] = []
    try:
        rows = list(parts.jobs.rows())
    except SSError as error:
        return [Finding("jobs", "problem", error.message, error.todo)]
    for row in rows:
        try:
            job = parts.jobs.load(row.key.document_id, tenant_id=row.key.tenant_id)
            findings.extend([*_of_job(job), *_listed_again(row, parts)])
        except SSError as error:
            findings.append(Finding("job", "problem", error.message, error.todo))
            continue
        counts[job.status] = counts.get(job.status, 0) + 1
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none yet"
    return [Finding("jobs", "ok", summary), *findings]


def _of_job(job: Job) -> list[Finding]:
    if not history_is_intact(job):
        return [Finding("job", "problem", f"{job.job_id}: its history was changed by hand", "Compare with a backup.")]
    return []


def _listed_again(row: Listed, parts: Parts) -> list[Finding]:
    """A document that was damaged and is whole again (restored from a backup) waits for its run again."""
    if row.facets.status != "corrupted":
        return []
    parts.jobs.relist(row.key)
    return [Finding("job", "warning", f"{row.key.document_id} was damaged and is whole again; it goes on from now")]


def _packages(_parts: Parts) -> list[Finding]:
    optional = {"pyarrow": "parquet", "anthropic": "claude", "redis": "redis", "s3fs": "s3"}
    missing = [extra for module, extra in optional.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return []
    return [Finding("extras", "ok", "not installed: " + ", ".join(missing) + " (pip install 'ss-pipeline[…]')")]
