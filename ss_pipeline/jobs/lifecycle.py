"""How a job may change: the one table of statuses, its only writer, and the phase people see.

`transition` is the only function that writes `status`. Each change is recorded in the job's own history, hash-chained.
Which fault leads to which status is decided by the stages; which code means what is docs/life-of-a-job.md's table.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ss_pipeline.errors import JobIllegalTransitionError
from ss_pipeline.jobs.model import HistoryEntry, Job, JobStatus

TRANSITIONS: Final[dict[JobStatus, frozenset[JobStatus]]] = {
    "created": frozenset({"draft_ready", "failed", "cancelled"}),
    "draft_ready": frozenset({"confirmed", "created", "cancelled"}),
    "confirmed": frozenset({"queued", "cancelled"}),
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "queued", "cancelled"}),
    "failed": frozenset({"queued", "created", "cancelled"}),
    "succeeded": frozenset(),
    "cancelled": frozenset(),
}
"""From each status, where a job may go. The original's seven statuses, `cancelled`, and four arrows of our own:
created → failed, failed → created (drafting again), draft_ready → created (sent back), running → queued (released)."""

CLAIMABLE_STATUSES: Final[tuple[JobStatus, ...]] = ("created", "confirmed", "queued", "running")
"""Statuses in which a job without a live claim is worked on: drafting for the first, publication for the others."""

Phase: TypeAlias = Literal[
    "waiting", "drafting", "in review", "publishing", "published", "parked", "failed", "cancelled"
]


CREATED_HERE: Final = "new"
"""`from_status` of the first history entry of a job that this pipeline created."""


@dataclass(frozen=True)
class PhaseView:
    """What a person is shown: the phase, why, and what comes next."""

    phase: Phase
    reason: str
    next_step: str


def transition(job: Job, to_status: JobStatus, *, at: str, by: str, reason: str | None = None) -> Job:
    """The job in another status, with the change in its history. The same status again changes nothing.

    Args:
        at: When, ISO 8601 UTC.
        by: Who: `policy:auto`, a person's name, or `run:<run id>`.
        reason: A reason code (docs/life-of-a-job.md).

    Raises:
        JobIllegalTransitionError: where the table has no such arrow.
    """
    if to_status == job.status:
        return job
    if to_status not in TRANSITIONS[job.status]:
        raise JobIllegalTransitionError(job.job_id, from_status=job.status, to_status=to_status)
    entry = _chained(job, at=at, by=by, from_status=job.status, to_status=to_status, reason=reason)
    return job.model_copy(update={"status": to_status, "updated_at": at, "history": [*job.history, entry]})


def born(job: Job, *, by: str) -> Job:
    """A new job with its first history entry; a job without any was imported."""
    entry = _chained(job, at=job.created_at, by=by, from_status=CREATED_HERE, to_status=job.status, reason=None)
    return job.model_copy(update={"updated_at": job.created_at, "history": [entry]})


def adopt(job: Job, *, at: str, by: str) -> Job:
    """An imported job, released for work."""
    entry = _chained(job, at=at, by=by, from_status=job.status, to_status=job.status, reason="adopted")
    return job.model_copy(update={"held": None, "updated_at": at, "history": [*job.history, entry]})


def hold_reason(job: Job) -> str | None:
    """Why the job is not to be worked on until it is adopted, or None (DESIGN §10.11).

    A job that was imported (no history) past its confirmation may be in another system's hands.
    """
    if job.held:
        return job.held
    if not job.history and job.status in {"confirmed", "queued", "running"}:
        return f"imported while it was {job.status}"
    return None


def is_decided(job: Job) -> bool:
    """Whether the job's present draft has an approving decision."""
    if job.draft is None or job.decision is None or job.decision.action == "send_back":
        return False
    return job.decision.draft_sha256 == job.draft.sha256


def owes_publication(job: Job) -> bool:
    """Whether a published job has a newer draft that is decided on and not published yet."""
    newest = job.published.draft_sha256 if job.published else None
    return job.status == "succeeded" and is_decided(job) and job.draft is not None and job.draft.sha256 != newest


def is_claimable(job: Job) -> bool:
    """Whether a run has something to do for the job, if no claim holds it."""
    return (job.status in CLAIMABLE_STATUSES or owes_publication(job)) and hold_reason(job) is None


def history_is_intact(job: Job) -> bool:
    """Whether every history entry hashes to what it says and follows the one before."""
    prev = ""
    for entry in job.history:
        if entry.prev != prev or entry.hash != _entry_hash(entry):
            return False
        prev = entry.hash
    return True


def phase(job: Job, *, claimed: bool = False) -> PhaseView:
    """The phase of a job; `claimed` says whether a run works on it now."""
    if job.failure and job.status == "failed":
        todo = job.failure.todo or f"requeue it: ss-pipeline retry {job.job_id}"
        return PhaseView("failed", f"{job.failure.code}: {job.failure.message}", todo)
    if job.parked and job.status not in {"succeeded", "cancelled"}:
        return PhaseView("parked", job.parked.reason, f"goes on by itself after {job.parked.until}")
    held = hold_reason(job)
    if held and job.status not in {"succeeded", "cancelled"}:
        return PhaseView("waiting", f"held: {held}", f"release it: ss-pipeline adopt {job.job_id}")
    return _phase_of_status(job, claimed=claimed)


def _phase_of_status(job: Job, *, claimed: bool) -> PhaseView:
    if job.status == "created" and claimed:
        return PhaseView("drafting", "a run works on it", "a draft")
    publishing = PhaseView("publishing", "the draft is confirmed", "the report is published")
    views: dict[JobStatus, PhaseView] = {
        "created": PhaseView("waiting", "no run has claimed it yet", "a run claims it"),
        "draft_ready": PhaseView("in review", _review_reason(job), f"decide: ss-pipeline confirm {job.job_id}"),
        "confirmed": publishing,
        "queued": publishing,
        "running": publishing,
        "succeeded": _phase_of_finished(job),
        "failed": PhaseView("failed", "no reason was recorded", f"requeue it: ss-pipeline retry {job.job_id}"),
        "cancelled": PhaseView("cancelled", "a person cancelled it", "nothing: it is done"),
    }
    return views[job.status]


def _phase_of_finished(job: Job) -> PhaseView:
    """Published; a newer draft than the published one is named with what it waits for."""
    if job.published is None:
        return PhaseView("published", "published elsewhere", "nothing: it is done")
    version = f"version {job.published.version}"
    if job.draft is None or job.draft.sha256 == job.published.draft_sha256:
        return PhaseView("published", version, "nothing: it is done")
    if is_decided(job):
        return PhaseView("published", f"{version}; a new revision is confirmed", "a run publishes the new revision")
    failed = f" (publishing it failed: {job.failure.message})" if job.failure else ""
    reason = f"{version}; a new revision waits for a decision{failed}"
    return PhaseView("published", reason, f"decide: ss-pipeline confirm {job.job_id}")


def _review_reason(job: Job) -> str:
    if job.draft is None:
        return "the draft waits for a person"
    blocking = [unknown.description for unknown in job.draft.blocking_unknowns()]
    questions = [question.question_text for question in job.draft.stage1_questions]
    return "; ".join(questions + blocking) or "the draft waits for a person"


def _chained(job: Job, *, at: str, by: str, from_status: str, to_status: str, reason: str | None) -> HistoryEntry:
    prev = job.history[-1].hash if job.history else ""
    entry = HistoryEntry(at=at, by=by, from_status=from_status, to_status=to_status, reason=reason, prev=prev, hash="")
    return entry.model_copy(update={"hash": _entry_hash(entry)})


def _entry_hash(entry: HistoryEntry) -> str:
    content = json.dumps(entry.model_dump(exclude={"hash"}), ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
