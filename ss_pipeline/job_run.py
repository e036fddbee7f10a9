"""One leased job on its way through the stages: each stage made or found finished, each step saved under the fence.

Every method leaves the store in a state from which another run can go on. Which jobs, in what order, and the lease
itself are claim_run.py's business. No dagster.
"""

import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, TypeAlias, TypeVar

from pydantic import BaseModel

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    ArtifactCorruptedError,
    ArtifactNotFoundError,
    ClaimLostError,
    DraftError,
    InputRefusedError,
    JobNotFoundError,
    JobVersionConflictError,
    LLMBudgetError,
    PublicationError,
    SSError,
    StaleFenceError,
)
from ss_pipeline.jobs.inputs import InputsManifest
from ss_pipeline.jobs.lifecycle import hold_reason, is_decided, owes_publication, transition
from ss_pipeline.jobs.model import ArtifactKind, ArtifactRef, FailureRecord, Job, JobStatus, Parked, Publication
from ss_pipeline.jobs.profiles import PROFILE_PATH, SAMPLE_PATH, DataSample, JobProfile
from ss_pipeline.llm.base import LLMClient
from ss_pipeline.llm.policies import ReviewPolicy
from ss_pipeline.llm.traces import trace_files
from ss_pipeline.stages import decision
from ss_pipeline.stages.drafting.stage import draft_job
from ss_pipeline.stages.profiling.stage import ProfileLimits, profile_job
from ss_pipeline.stages.publishing.stage import prepare_publication, write_current
from ss_pipeline.store.base import DocumentKey, Fence
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.telemetry.events import emit

Model = TypeVar("Model", bound=BaseModel)

REPORT_KINDS: Final[dict[str, ArtifactKind]] = {
    "report.html": "publish.html",
    "report.md": "publish.markdown",
    "draft.json": "publish.draft",
    "columns.csv": "publish.columns",
    "manifest.json": "publish.manifest",
}
"""The files of a publication and their kinds in the job's artifact index."""


class Stage(StrEnum):
    """The five things made of a job, in order; each is a Dagster asset of the same name."""

    SUBMISSION = "submission"
    JOB_RECORD = "job_record"
    INPUT_PROFILE = "input_profile"
    ANALYSIS_DRAFT = "analysis_draft"
    PUBLICATION = "publication"


ALL_STAGES = frozenset(Stage)

Ending: TypeAlias = Literal["published", "in review", "remade", "parked", "failed", "skipped", "released"]


@dataclass(frozen=True)
class WorkParts:
    """The concrete parts and limits a run works with; made by wiring.py."""

    jobs: JobStore
    artifacts: ArtifactStore
    client: LLMClient
    clock: Clock
    profile_limits: ProfileLimits
    review_policy: ReviewPolicy
    lease_seconds: float
    heartbeat_seconds: float
    max_attempts: int
    tenant_reviews: Mapping[str, ReviewPolicy] = field(default_factory=dict)

    def review_policy_of(self, tenant_id: str) -> ReviewPolicy:
        """The tenant's own, or the one for all."""
        return self.tenant_reviews.get(tenant_id, self.review_policy)


@dataclass(frozen=True)
class StageDone:
    """A stage's result for one job: made in `seconds`, or found finished (`reused`)."""

    stage: Stage
    job: Job
    result: BaseModel
    seconds: float
    reused: bool


@dataclass(frozen=True)
class JobEnded:
    """How a job left the run. `code` and `message` say why where it was not published."""

    job_id: str
    tenant_id: str
    ending: Ending
    code: str = ""
    message: str = ""


class JobWorker:
    """Works on one leased job; `job` is always what the store holds."""

    def __init__(self, parts: WorkParts, key: DocumentKey, fence: Fence, *, owner: str) -> None:
        self._parts = parts
        self._key = key
        self._fence = fence
        self._owner = owner
        self._job: Job | None = None

    @property
    def job(self) -> Job:
        """The job as last loaded or saved."""
        if self._job is None:
            raise JobNotFoundError(self._key.document_id, tenant_id=self._key.tenant_id)
        return self._job

    def open(self) -> str | None:
        """Loads the job, migrating its document; a failed one is requeued, since running it again asks for that.

        One that was parked is no longer: its time has come, or somebody asked for it.

        Returns:
            Why nothing may be done with it (cancelled, held), or None.
        """
        reason = self._why_not_wanted()
        if reason is None and self.job.status == "failed":
            self._save(decision.retry(self.job, by=self._owner, at=self._parts.clock.timestamp()))
        elif reason is None and self.job.parked:
            self._save(self.job.changed(parked=None))
        return reason

    async def go_on(self) -> AsyncIterator[StageDone]:
        """All stages in turn, as far as the job can go now; finished ones are reported from the store."""
        yield self.submission()
        yield self.job_record()
        yield self.input_profile(again=self.job.status == "created")
        yield await self.analysis_draft(again=self.job.status == "created")
        if is_decided(self.job):
            yield self.publication()

    async def make_again(self, stages: frozenset[Stage]) -> AsyncIterator[StageDone]:
        """Exactly these stages, made again from what the stages before them left in the store."""
        if Stage.SUBMISSION in stages:
            yield self.submission()
        if Stage.JOB_RECORD in stages:
            yield self.job_record()
        if Stage.INPUT_PROFILE in stages:
            yield self.input_profile(again=True)
        if Stage.ANALYSIS_DRAFT in stages:
            yield await self.analysis_draft(again=True)
        if Stage.PUBLICATION in stages:
            yield self.publication()

    def submission(self) -> StageDone:
        """The ingested data files: their manifest, as intake wrote it."""
        started = time.perf_counter()
        path = self.job.inputs.manifest_rel_path if self.job.inputs else None
        if path is None:
            raise InputRefusedError(f"job {self.job.job_id!r} has no data files", code="INPUT_MISSING")
        return self._done(Stage.SUBMISSION, self._read(path, InputsManifest), started, reused=True)

    def job_record(self) -> StageDone:
        """The job's document at the current schema."""
        return self._done(Stage.JOB_RECORD, self.job, time.perf_counter(), reused=True)

    def input_profile(self, *, again: bool) -> StageDone:
        """The profile of the data files."""
        started = time.perf_counter()
        kept = None if again else self._kept_profile()
        profile = kept or profile_job(self.job, artifacts=self._parts.artifacts, limits=self._parts.profile_limits)
        return self._done(Stage.INPUT_PROFILE, profile, started, reused=kept is not None)

    async def analysis_draft(self, *, again: bool) -> StageDone:
        """The draft, decided by policy where nothing blocks; the one stage that waits for others, a model's answer."""
        started = time.perf_counter()
        if again:
            self._refuse_redrafting()
            profile = self._read(PROFILE_PATH, JobProfile)
            draft = await draft_job(self.job, profile=profile, client=self._parts.client, clock=self._parts.clock)
            self._store_draft(self.job.changed(draft=draft, decision=None, failure=None))
        if self.job.draft is None:
            raise DraftError(f"job {self.job.job_id!r} has no draft", code="DRAFT_MISSING")
        return self._done(Stage.ANALYSIS_DRAFT, self.job.draft, started, reused=not again)

    def publication(self) -> StageDone:
        """The published version: an existing one of the same draft, or a new one."""
        started = time.perf_counter()
        newest = self.job.published
        if newest and self.job.draft and newest.draft_sha256 == self.job.draft.sha256:
            write_current(self.job, artifacts=self._parts.artifacts)
            return self._done(Stage.PUBLICATION, newest, started, reused=True)
        self._refuse_undecided()
        self._mark_running()
        publication = prepare_publication(
            self.job,
            profile=self._read(PROFILE_PATH, JobProfile),
            sample=self._read(SAMPLE_PATH, DataSample),
            artifacts=self._parts.artifacts,
            fence=self._fence.number,
            clock=self._parts.clock,
        )
        self._commit(publication)
        return self._done(Stage.PUBLICATION, publication, started, reused=False)

    def finish(self, not_wanted: str | None = None) -> JobEnded:
        """Ends the job and its lease where nothing failed.

        What was committed stands, even if the lease cannot be given back: then it runs out by itself.

        Args:
            not_wanted: Why nothing was done with the job, as `open` said.
        """
        ended = self._not_wanted(not_wanted) if not_wanted else self._ended_well()
        try:
            self._parts.jobs.backend.complete(self._key, self._fence)
        except SSError as error:
            self._emit_lost(error)
        return ended

    def _ended_well(self) -> JobEnded:
        job = self.job
        if decision.awaits_decision(job):
            emit("SS_DECISION_WAITING", job_id=job.job_id)
            questions = "; ".join(decision.open_questions(job.draft).values()) if job.draft else ""
            return JobEnded(job.job_id, job.tenant_id, "in review", "DECISION_AWAITED", questions)
        return JobEnded(job.job_id, job.tenant_id, "published" if job.status == "succeeded" else "remade")

    def give_up(self, error: SSError, *, keep_status: bool = False) -> JobEnded:
        """Ends the job after a fault: a passing one gives the claim back, a lasting one fails the job with its reason.

        A budget that is used up is neither: the job is parked until it resets, and its attempts start anew.

        A job that is finished or in review keeps its status, and so does any with `keep_status` (single stages were
        asked for again, and that was refused or failed); the outcome alone is then "failed". A job that another run
        has by now, or that a person cancelled meanwhile, is left alone. Raises nothing: where the store refuses that,
        too, its refusal is the outcome, and the lease runs out by itself.
        """
        try:
            return self._given_up(error, keep_status=keep_status)
        except SSError as refusal:
            try:
                return self._given_up(refusal, keep_status=True)
            except SSError as again:
                return self._outcome("released", again)

    def _given_up(self, error: SSError, *, keep_status: bool) -> JobEnded:
        backend = self._parts.jobs.backend
        if isinstance(error, StaleFenceError | ClaimLostError):
            self._emit_lost(error)
            return self._outcome("skipped", error)
        if isinstance(error, JobVersionConflictError) and (reason := self._why_not_wanted()):
            backend.complete(self._key, self._fence)
            return self._not_wanted(reason)
        if error.retryable:
            backend.release(self._key, self._fence, refund=False)
            return self._outcome("released", error)
        if isinstance(error, LLMBudgetError) and self.job.status == "created":
            self._park(error)
            backend.complete(self._key, self._fence)
            return self._outcome("parked", error)
        if self._job is None:
            self._parts.jobs.relist(self._key)
        elif not keep_status:
            self._fail(error)
        backend.complete(self._key, self._fence)
        return self._outcome("failed", error)

    def _park(self, error: LLMBudgetError) -> None:
        parked = Parked(until=error.resets_at, reason=error.error_code)
        self._save(self.job.changed(parked=parked, updated_at=self._parts.clock.timestamp()))
        emit("SS_JOB_PARKED", job_id=self.job.job_id, until=parked.until, reason=parked.reason)

    def _fail(self, error: SSError) -> None:
        at = self._parts.clock.timestamp()
        failure = FailureRecord(code=error.error_code, message=error.message, at=at, todo=error.todo)
        if owes_publication(self.job):  # its decision is void, or the next claim would only fail again
            self._save(self.job.changed(failure=failure, decision=None, updated_at=at))
        elif self.job.status not in {"succeeded", "draft_ready"}:
            self._save(self._moved(self.job.changed(failure=failure), "failed", reason=error.error_code))

    def _why_not_wanted(self) -> str | None:
        """Loads the job; why nothing may be done with it, or None."""
        self._job = self._parts.jobs.load(self._key.document_id, tenant_id=self._key.tenant_id)
        return "cancelled" if self._job.status == "cancelled" else hold_reason(self._job)

    def _not_wanted(self, reason: str) -> JobEnded:
        return JobEnded(self._key.document_id, self._key.tenant_id, "skipped", "CLAIM_NOT_WANTED", reason)

    def _outcome(self, ending: Ending, error: SSError) -> JobEnded:
        return JobEnded(self._key.document_id, self._key.tenant_id, ending, error.error_code, error.message)

    def _emit_lost(self, error: SSError) -> None:
        emit(
            "SS_CLAIM_LOST",
            level=logging.WARNING,
            job_id=self._key.document_id,
            claim_id=self._fence.claim_id,
            code=error.error_code,
        )

    def _store_draft(self, drafted: Job) -> None:
        traces = trace_files(self._parts.artifacts, tenant_id=drafted.tenant_id, job_id=drafted.job_id)
        job = self._with_artifacts(drafted, {PROFILE_PATH: "profile.json", SAMPLE_PATH: "profile.sample", **traces})
        job = job if job.status == "succeeded" else self._moved(job, "draft_ready")
        at = self._parts.clock.timestamp()
        decided = decision.decide_by_policy(job, policy=self._parts.review_policy_of(job.tenant_id), at=at)
        if decided.decision:
            emit("SS_DECISION_TAKEN", job_id=job.job_id, by=decided.decision.by, action=decided.decision.action)
        self._save(self._moved(decided, "running") if decided.status == "confirmed" else decided)

    def _mark_running(self) -> None:
        if self.job.status in {"confirmed", "queued"}:
            self._save(self._moved(self.job, "running"))

    def _moved(self, job: Job, target: JobStatus, *, reason: str | None = None) -> Job:
        """The job in the target status, through the statuses between; a finished job stays as it is."""
        at = self._parts.clock.timestamp()
        if job.status == "succeeded":
            return job.changed(updated_at=at)
        steps: list[JobStatus] = [target]
        if target in {"running", "succeeded", "failed"} and job.status in {"confirmed", "queued"}:
            between: list[JobStatus] = ["queued", "running"]
            steps = between[0 if job.status == "confirmed" else 1 :] + ([] if target == "running" else [target])
        for step in steps:
            job = transition(job, step, at=at, by=self._owner, reason=reason if step == target else None)
        return job

    def _save(self, job: Job) -> Job:
        self._job = self._parts.jobs.save(job, fence=self._fence)
        return self._job

    def _refuse_redrafting(self) -> None:
        if self.job.status in {"confirmed", "queued", "running"}:
            raise DraftError(
                f"job {self.job.job_id!r} is {self.job.status}: its confirmed draft is not replaced",
                code="DRAFT_LOCKED",
                todo="Let it be published first; then a new revision can be drafted.",
            )

    def _refuse_undecided(self) -> None:
        if not is_decided(self.job):
            raise PublicationError(
                f"job {self.job.job_id!r} has no decision on its present draft",
                code="PUBLICATION_DECISION_MISSING",
                todo=f"Decide first: ss-pipeline confirm {self.job.job_id}",
            )

    def _commit(self, publication: Publication) -> None:
        """The one commit of a publication: the compare-and-set of the job document; `current` is derived from it."""
        published = self.job.changed(publications=[*self.job.publications, publication], failure=None)
        files = {f"{publication.folder}/{name}": kind for name, kind in REPORT_KINDS.items()}
        self._save(self._moved(self._with_artifacts(published, files), "succeeded"))
        write_current(self.job, artifacts=self._parts.artifacts)
        emit("SS_PUBLICATION_COMMITTED", job_id=self.job.job_id, version=publication.version)

    def _kept_profile(self) -> JobProfile | None:
        """The profile of an earlier run, if it and its sample are there and whole."""
        try:
            self._read(SAMPLE_PATH, DataSample)
            return self._read(PROFILE_PATH, JobProfile)
        except (ArtifactNotFoundError, ArtifactCorruptedError):
            return None

    def _read(self, path: str, kind: type[Model]) -> Model:
        return self._parts.artifacts.read_model(self._key.tenant_id, self._key.document_id, path, kind)

    def _with_artifacts(self, job: Job, kinds: dict[str, ArtifactKind]) -> Job:
        at = self._parts.clock.timestamp()
        known = {ref.rel_path for ref in job.artifacts_index}
        new = [
            ArtifactRef(kind=kind, rel_path=path, created_at=at) for path, kind in kinds.items() if path not in known
        ]
        return job.changed(artifacts_index=[*job.artifacts_index, *new])

    def _done(self, stage: Stage, result: BaseModel, started: float, *, reused: bool) -> StageDone:
        return StageDone(stage, self.job, result, time.perf_counter() - started, reused)
