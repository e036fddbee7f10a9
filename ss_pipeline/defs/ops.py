"""Ops: `process_job`, the stages as separate steps for one job, and the fleet's administrative ops.

Every op is a thin shell over the same functions that the assets, the CLI and the sensors use.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import dagster as dg

from ss_pipeline.claim_run import not_leased
from ss_pipeline.defs.metadata import stage_metadata
from ss_pipeline.defs.partition_keys import recorded_partition_key
from ss_pipeline.errors import SSError
from ss_pipeline.job_run import JobWorker, StageDone, WorkParts
from ss_pipeline.jobs.lifecycle import is_decided
from ss_pipeline.jobs.model import DEFAULT_TENANT, Job
from ss_pipeline.stages import decision
from ss_pipeline.stages.publishing.stage import verify_publication, write_current
from ss_pipeline.store.base import DocumentKey, Fence
from ss_pipeline.store.jobs import job_key
from ss_pipeline.wiring import Parts


class OneJob(dg.Config):
    """Which job to work on."""

    job_id: str
    tenant_id: str = DEFAULT_TENANT


@dg.op(description="Leases the job and shows its data files.")
def ingest(context: dg.OpExecutionContext, config: OneJob, work: dg.ResourceParam[WorkParts]) -> dict[str, Any]:
    """Leases the job for this run; fails if there is no such job, or if another claim holds it."""
    key = job_key(config.job_id, config.tenant_id)
    claim_id = f"run_{context.run_id}"
    lease = work.jobs.backend.lease([key], claim_id=claim_id, owner=f"run:{context.run_id}", ttl=_ttl(work))
    if key not in lease.fences:
        ended = not_leased(key, work)
        raise dg.Failure(description=f"{ended.code}: {ended.message}", allow_retries=False)
    ticket = {
        "job_id": config.job_id,
        "tenant_id": config.tenant_id,
        "claim_id": claim_id,
        "fence": lease.fences[key].number,
    }
    _step(context, ticket, work, lambda worker: worker.submission())
    return ticket


@dg.op(description="Brings the job's document to the current schema.")
def migrate(
    context: dg.OpExecutionContext, ticket: dict[str, Any], work: dg.ResourceParam[WorkParts]
) -> dict[str, Any]:
    """The document is migrated as it is loaded; this step shows it."""
    _step(context, ticket, work, lambda worker: worker.job_record())
    return ticket


@dg.op(description="Profiles the data files.")
def profile(
    context: dg.OpExecutionContext, ticket: dict[str, Any], work: dg.ResourceParam[WorkParts]
) -> dict[str, Any]:
    """Profiles the data files in a child process with limits."""
    _step(context, ticket, work, lambda worker: worker.input_profile(again=True))
    return ticket


@dg.op(description="Drafts the analysis; confirms it by policy where nothing blocks.")
def draft(context: dg.OpExecutionContext, ticket: dict[str, Any], work: dg.ResourceParam[WorkParts]) -> dict[str, Any]:
    """Drafts a job that has no draft yet; a later one is shown as it is."""
    _step(
        context, ticket, work, lambda worker: asyncio.run(worker.analysis_draft(again=worker.job.status == "created"))
    )
    return ticket


@dg.op(description="Publishes a confirmed draft; one in review waits for a person.")
def publish(context: dg.OpExecutionContext, ticket: dict[str, Any], work: dg.ResourceParam[WorkParts]) -> str:
    """Publishes, and gives the job back; returns how it left the run."""
    worker = _step(context, ticket, work, lambda opened: opened.publication() if is_decided(opened.job) else None)
    ended = worker.finish()
    context.log.info(f"{ended.job_id}: {ended.ending} {ended.message}")
    return ended.ending


@dg.graph(description="One job, step by step.")
def process_job() -> None:
    """Ingest → migrate → profile → draft → publish, over the same functions as the assets."""
    publish(draft(profile(migrate(ingest()))))


class MigrateStore(dg.Config):
    """What to do with stored jobs of older schemas."""

    mode: Literal["dry_run", "apply", "roll_back"] = "dry_run"


@dg.op(description="Migrates every stored job to the current schema, or shows or undoes it.")
def migrate_store(context: dg.OpExecutionContext, config: MigrateStore, parts: dg.ResourceParam[Parts]) -> None:
    """Reports how many documents need, got or lost the migration."""
    outcomes = [o.outcome for o in parts.jobs.migrate_all(config.mode)]
    counts: dict[str, int] = {name: outcomes.count(name) for name in set(outcomes)}
    context.add_output_metadata({name: dg.MetadataValue.int(count) for name, count in sorted(counts.items())})


class Decide(dg.Config):
    """A person's decision on drafts in review."""

    job_ids: list[str]
    by: str
    tenant_id: str = DEFAULT_TENANT
    action: Literal["confirm", "send_back"] = "confirm"
    answers: dict[str, str] = {}
    note: str = ""


@dg.op(description="Confirms drafts in review, or sends them back.")
def decide(context: dg.OpExecutionContext, config: Decide, parts: dg.ResourceParam[Parts]) -> None:
    """Each job is decided on its own; refused ones are named at the end and fail the run."""
    refused: list[str] = []
    for job_id in config.job_ids:
        try:
            parts.jobs.update(job_id, lambda job: _decided(job, config, parts), tenant_id=config.tenant_id)
            context.log.info(f"{job_id}: {config.action} by {config.by}")
        except SSError as error:
            refused.append(f"{job_id}: {error.error_code}: {error.message}")
    if refused:
        raise dg.Failure(description="; ".join(refused), allow_retries=False)


@dg.op(description="Compares every published file with its manifest, and repairs pointers to the current version.")
def verify_publications(context: dg.OpExecutionContext, work: dg.ResourceParam[WorkParts]) -> None:
    """Fails if a published file is missing or was changed, or a job cannot be read, naming it."""
    problems = [problem for row in work.jobs.rows(status="succeeded") for problem in _problems(row.key, work)]
    context.add_output_metadata({"problems": dg.MetadataValue.int(len(problems))})
    if problems:
        raise dg.Failure(description="; ".join(problems[:20]), allow_retries=False)


@dg.job(executor_def=dg.in_process_executor, description="Migrate all stored jobs (dry run, apply, roll back).")
def migrate_store_job() -> None:
    """One op."""
    migrate_store()


@dg.job(executor_def=dg.in_process_executor, description="Confirm drafts in review, or send them back.")
def decide_job() -> None:
    """One op."""
    decide()


@dg.job(executor_def=dg.in_process_executor, description="Check every published file against its manifest.")
def verify_publications_job() -> None:
    """One op."""
    verify_publications()


def _step(
    context: dg.OpExecutionContext,
    ticket: dict[str, Any],
    work: WorkParts,
    stage: Callable[[JobWorker], StageDone | None],
) -> JobWorker:
    """One stage under the ticket's fence; a fault fails the job with its reason and the run with it."""
    key = job_key(ticket["job_id"], ticket["tenant_id"])
    fence = Fence(ticket["claim_id"], ticket["fence"])
    worker = JobWorker(work, key, fence, owner=ticket["claim_id"].replace("run_", "run:", 1))
    try:
        reason = worker.open()
        done = stage(worker) if reason is None else None
    except SSError as error:
        ended = worker.give_up(error)
        raise dg.Failure(description=f"{ended.code}: {ended.message}", allow_retries=False) from error
    if reason:
        worker.finish(reason)
        raise dg.Failure(description=f"job {ticket['job_id']!r} is not to be worked on: {reason}", allow_retries=False)
    if done:
        partition = recorded_partition_key(work.jobs, key)
        metadata = stage_metadata(done, artifacts=work.artifacts)
        context.log_event(dg.AssetMaterialization(done.stage.value, partition=partition, metadata=metadata))
    return worker


def _ttl(work: WorkParts) -> float:
    """Steps do not heartbeat: the lease covers the longest step, profiling, twice over."""
    return max(work.lease_seconds, 2 * work.profile_limits.wall_seconds) * 5


def _decided(job: Job, config: Decide, parts: Parts) -> Job:
    at = parts.clock.timestamp()
    if config.action == "confirm":
        return decision.confirm(job, by=config.by, at=at, answers=config.answers, note=config.note or None)
    return decision.send_back(job, by=config.by, at=at, note=config.note)


def _problems(key: DocumentKey, work: WorkParts) -> list[str]:
    """What is wrong with a job's published files; its pointer to the current version is repaired."""
    try:
        job = work.jobs.load(key.document_id, tenant_id=key.tenant_id)
        write_current(job, artifacts=work.artifacts)
        return [
            f"{job.job_id} v{publication.version}: {problem}"
            for publication in job.publications
            for problem in verify_publication(job, publication, artifacts=work.artifacts)
        ]
    except SSError as error:
        return [f"{key.document_id}: {error.error_code}: {error.message}"]
