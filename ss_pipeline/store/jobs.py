"""The job store: jobs as typed documents on any back end. Written once; back ends know only bytes.

`load` migrates older documents and writes them back by compare-and-set on the raw bytes, keeping the original bytes
for a rollback; `save` is a compare-and-set on `version`. Which status follows which is jobs/lifecycle.py's business.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    JobDataCorruptedError,
    JobExistsError,
    JobIllegalTransitionError,
    JobNotFoundError,
    JobRollbackRefusedError,
    JobVersionConflictError,
    StoreSealedError,
)
from ss_pipeline.jobs.documents import is_safe_segment, moment_of, parse_document, render_document
from ss_pipeline.jobs.fairness import due_at
from ss_pipeline.jobs.lifecycle import is_claimable
from ss_pipeline.jobs.migrations import Migration, migrate_payload_to_current
from ss_pipeline.jobs.model import DEFAULT_TENANT, Job, job_from_payload
from ss_pipeline.store.base import Backend, DocumentKey, Facets, Fence, Listed
from ss_pipeline.telemetry.events import emit

JOBS: Final = "jobs"
ORIGINALS: Final = "originals"
"""Bytes of job documents from before their migration, under the job's own id."""

_LOAD_ATTEMPTS: Final = 20
_UPDATE_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class MigrationPlan:
    """What migrating one stored job would do: its steps, or the reason why it cannot be read."""

    key: DocumentKey
    steps: tuple[tuple[int, int], ...] = ()
    changed: bool = False
    corrupted: str | None = None


@dataclass(frozen=True)
class MigrationOutcome:
    """What became of one stored job in `migrate_all`."""

    key: DocumentKey
    outcome: Literal["current", "to_migrate", "migrated", "corrupted", "not_migrated", "rolled_back", "saved_since"]
    detail: str = ""


def job_key(job_id: str, tenant_id: str = DEFAULT_TENANT) -> DocumentKey:
    """The key of a job's document."""
    return DocumentKey(JOBS, tenant_id, job_id)


def facets_of_job(job: Job) -> Facets:
    """What a job is listed and queued by."""
    not_before = moment_of(job.parked.until).timestamp() if job.parked else 0.0
    return Facets(
        status=job.status,
        priority=job.priority,
        created_at=job.created_at,
        waiting=is_claimable(job),
        not_before=not_before,
        due_at=due_at(job.created_at, priority=job.priority),
    )


def facets_of_body(key: DocumentKey, body: bytes) -> Facets:
    """The facets of a stored document, for back ends that rebuild an index; unreadable ones get status "corrupted"."""
    if key.collection != JOBS:
        return Facets()
    try:
        return facets_of_job(_read_job(key, body)[0])
    except JobDataCorruptedError:
        return Facets(status="corrupted")


class JobStore:
    """Jobs of all tenants on one back end."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def create(self, job: Job) -> Job:
        """Stores a new job.

        Raises:
            JobExistsError: the id is taken; the stored job is as it was.
        """
        payload = job.as_payload()
        job_from_payload(payload)
        try:
            self.backend.create(_key_of(job), render_document(payload), facets_of_job(job))
        except DocumentExistsError as error:
            raise JobExistsError(job.job_id, tenant_id=job.tenant_id) from error
        emit("SS_JOB_CREATED", job_id=job.job_id, tenant_id=job.tenant_id)
        return job

    def load(self, job_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Job:
        """The stored job at the current schema; an older document is migrated and written back.

        The write-back never overwrites another's save: it replaces exactly the bytes it read, else reads again. A
        sealed store is read without it.

        Raises:
            JobNotFoundError: no such job of this tenant.
            JobDataCorruptedError: the document cannot be read; its bytes are left alone.
        """
        key = _checked_key(job_id, tenant_id)
        for _ in range(_LOAD_ATTEMPTS):
            body = self._read(key)
            job, migration = self._read_logged(key, body)
            if not migration.changed or self._write_back(key, body, job, migration):
                return job
        raise DocumentChangedError(f"job {job_id!r} changes faster than it can be read")

    def save(self, job: Job, *, fence: Fence | None = None) -> Job:
        """Stores a changed job: a compare-and-set on `version`, bound to a claim's fence where one is given.

        Returns:
            The job as stored, with the next version.

        Raises:
            JobVersionConflictError: the stored version is not `job.version`.
            JobNotFoundError, JobDataCorruptedError, StaleFenceError: nothing was written.
        """
        key = _key_of(job)
        saved = job.changed(version=job.version + 1)
        payload = saved.as_payload()
        job_from_payload(payload)
        body = render_document(payload)
        for _ in range(_LOAD_ATTEMPTS):
            stored = self._read(key)
            before = _read_job(key, stored)[0]
            if before.version != job.version:
                raise _conflict(job, before.version)
            if self._replaced(key, body, saved, expected=stored, fence=fence):
                _emit_status_changes(before, saved)
                return saved
        raise DocumentChangedError(f"job {job.job_id!r} changes faster than it can be saved")

    def update(
        self, job_id: str, change: Callable[[Job], Job], *, tenant_id: str = DEFAULT_TENANT, fence: Fence | None = None
    ) -> Job:
        """Loads a job, changes it and saves it, again on what is stored then if another save came in between.

        A change that returns the same job saves nothing.
        """
        for _ in range(_UPDATE_ATTEMPTS):
            job = self.load(job_id, tenant_id=tenant_id)
            changed = _changed_legally(job, change)
            if changed == job:
                return job
            with suppress(JobVersionConflictError):
                return self.save(changed, fence=fence)
        return self.save(_changed_legally(self.load(job_id, tenant_id=tenant_id), change), fence=fence)

    def rows(
        self, *, tenant_id: str | None = None, status: str | None = None, limit: int | None = None
    ) -> Iterator[Listed]:
        """Every job's key and facets in key order, read page by page; at most `limit`."""
        after: DocumentKey | None = None
        left = limit
        while left is None or left > 0:
            size = 500 if left is None else min(500, left)
            page = self.backend.page(JOBS, tenant_id=tenant_id, status=status, after=after, limit=size)
            yield from page
            if len(page) < size:
                return
            after = page[-1].key
            left = None if left is None else left - len(page)

    def relist(self, key: DocumentKey) -> None:
        """Has a document that another program changed listed as what it is now; its bytes stay as they are.

        One that cannot be understood any more is listed as "corrupted" from then on, and waits for no run.
        """
        with suppress(JobNotFoundError, DocumentChangedError):  # whoever changed it meanwhile has listed it, too
            body = self._read(key)
            self.backend.replace(key, body, facets_of_body(key, body), expected=body)

    def waiting(self, *, per_group: int) -> list[Listed]:
        """Who is next: the first of each tenant and priority class that no claim holds."""
        return self.backend.heads(JOBS, per_group=per_group)

    def plan_migration(self, key: DocumentKey) -> MigrationPlan:
        """What loading this job would change; writes nothing."""
        try:
            migration = _read_job(key, self._read(key))[1]
        except JobDataCorruptedError as error:
            return MigrationPlan(key, corrupted=error.reason)
        return MigrationPlan(key, steps=migration.steps, changed=migration.changed)

    def migrate_all(self, mode: Literal["dry_run", "apply", "roll_back"]) -> list[MigrationOutcome]:
        """Every stored job: what its migration would do, did, or undid. One bad document does not stop the rest."""
        act = {"dry_run": self._planned, "apply": self._migrated, "roll_back": self._rolled_back}[mode]
        return [act(row.key) for row in list(self.rows())]

    def _planned(self, key: DocumentKey) -> MigrationOutcome:
        plan = self.plan_migration(key)
        if plan.corrupted:
            return MigrationOutcome(key, "corrupted", plan.corrupted)
        steps = ", ".join(f"{a} → {b}" for a, b in plan.steps)
        return MigrationOutcome(key, "to_migrate" if plan.changed else "current", steps)

    def _migrated(self, key: DocumentKey) -> MigrationOutcome:
        planned = self._planned(key)
        if planned.outcome != "to_migrate":
            return planned
        self.load(key.document_id, tenant_id=key.tenant_id)
        return MigrationOutcome(key, "migrated", planned.detail)

    def _rolled_back(self, key: DocumentKey) -> MigrationOutcome:
        try:
            return MigrationOutcome(key, "rolled_back" if self.roll_back(key) else "not_migrated")
        except JobRollbackRefusedError as error:
            return MigrationOutcome(key, "saved_since", error.message)

    def roll_back(self, key: DocumentKey) -> bool:
        """Puts a migrated document back to its original bytes; False where none are kept.

        Raises:
            JobRollbackRefusedError: the job was saved since its migration.
        """
        kept = DocumentKey(ORIGINALS, key.tenant_id, key.document_id)
        try:
            original = self.backend.read(kept)
        except DocumentNotFoundError:
            return False
        stored = self._read(key)
        if stored != original:
            job, migration = _read_job(key, original)
            if stored != render_document(migration.payload):
                raise JobRollbackRefusedError(f"job {key.document_id!r} was saved after its migration")
            try:
                self.backend.replace(key, original, facets_of_job(job), expected=stored)
            except DocumentChangedError as error:
                raise JobRollbackRefusedError(f"job {key.document_id!r} was saved meanwhile") from error
        with suppress(DocumentNotFoundError):  # another rollback has just done the same
            self.backend.delete(kept, expected=original)
        emit("SS_JOB_JSON_ROLLED_BACK", job_id=key.document_id, tenant_id=key.tenant_id)
        return True

    def _read(self, key: DocumentKey) -> bytes:
        try:
            return self.backend.read(key)
        except DocumentNotFoundError as error:
            raise JobNotFoundError(key.document_id, tenant_id=key.tenant_id) from error

    def _replaced(self, key: DocumentKey, body: bytes, job: Job, *, expected: bytes, fence: Fence | None) -> bool:
        """False where the bytes changed meanwhile: to another version, or by a migration, which keeps the version."""
        try:
            self.backend.replace(key, body, facets_of_job(job), expected=expected, fence=fence)
        except DocumentChangedError:
            return False
        except DocumentNotFoundError as error:
            raise JobNotFoundError(key.document_id, tenant_id=key.tenant_id) from error
        return True

    def _read_logged(self, key: DocumentKey, body: bytes) -> tuple[Job, Migration]:
        try:
            return _read_job(key, body)
        except JobDataCorruptedError as error:
            emit(_corruption_event(error), level=logging.ERROR, job_id=key.document_id, reason=error.reason)
            raise

    def _write_back(self, key: DocumentKey, body: bytes, job: Job, migration: Migration) -> bool:
        try:
            self._keep_original(key, body)
            self.backend.replace(key, render_document(migration.payload), facets_of_job(job), expected=body)
        except (DocumentChangedError, DocumentNotFoundError):  # saved, rolled back or deleted meanwhile: read again
            return False
        except StoreSealedError:  # its successor migrates it
            return True
        _emit_migration(key, migration)
        return True

    def _keep_original(self, key: DocumentKey, body: bytes) -> None:
        kept = DocumentKey(ORIGINALS, key.tenant_id, key.document_id)
        try:
            self.backend.create(kept, body, Facets())
        except DocumentExistsError:
            before = self.backend.read(kept)
            if before != body:  # left by an earlier migration that was rolled back by hand
                self.backend.replace(kept, body, Facets(), expected=before)


def _read_job(key: DocumentKey, body: bytes) -> tuple[Job, Migration]:
    try:
        migration = migrate_payload_to_current(parse_document(body))
        job = job_from_payload(migration.payload)
    except JobDataCorruptedError as error:
        raise JobDataCorruptedError(error.reason, job_id=key.document_id) from error
    if (job.tenant_id, job.job_id) != (key.tenant_id, key.document_id):
        says = f"it says it is job {job.job_id!r} of tenant {job.tenant_id!r}"
        raise JobDataCorruptedError(says, job_id=key.document_id)
    return job, migration


def _changed_legally(job: Job, change: Callable[[Job], Job]) -> Job:
    try:
        return change(job)
    except JobIllegalTransitionError as error:
        emit(
            "SS_JOB_ILLEGAL_TRANSITION",
            level=logging.WARNING,
            job_id=job.job_id,
            from_status=error.from_status,
            to_status=error.to_status,
        )
        raise


def _key_of(job: Job) -> DocumentKey:
    return job_key(job.job_id, job.tenant_id)


def _checked_key(job_id: str, tenant_id: str) -> DocumentKey:
    if not (is_safe_segment(job_id) and is_safe_segment(tenant_id)):
        raise JobNotFoundError(job_id, tenant_id=tenant_id)
    return job_key(job_id, tenant_id)


def _conflict(job: Job, actual: int) -> JobVersionConflictError:
    emit(
        "SS_JOB_JSON_VERSION_CONFLICT",
        level=logging.WARNING,
        job_id=job.job_id,
        expected_version=job.version,
        actual_version=actual,
    )
    return JobVersionConflictError(job.job_id, expected_version=job.version, actual_version=actual)


def _corruption_event(error: JobDataCorruptedError) -> str:
    if error.reason.startswith("schema_version"):
        return "SS_JOB_JSON_SCHEMA_VERSION_UNSUPPORTED"
    return "SS_JOB_JSON_CORRUPTED" if error.reason.startswith("not ") else "SS_JOB_JSON_INVALID"


def _emit_migration(key: DocumentKey, migration: Migration) -> None:
    for from_version, to_version in migration.steps:
        emit("SS_JOB_JSON_SCHEMA_MIGRATED", job_id=key.document_id, from_version=from_version, to_version=to_version)
    if migration.trace_id_backfilled:
        emit("SS_JOB_TRACE_ID_BACKFILLED", job_id=key.document_id, trace_id=migration.payload["trace_id"])


def _emit_status_changes(before: Job, after: Job) -> None:
    for entry in after.history[len(before.history) :]:
        emit(
            "SS_JOB_STATUS_CHANGED",
            job_id=after.job_id,
            tenant_id=after.tenant_id,
            from_status=entry.from_status,
            to_status=entry.to_status,
            reason=entry.reason,
        )
