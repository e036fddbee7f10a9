"""The five partitioned assets of a job, as one multi_asset, and the observable backlog.

The body only turns what claim_run.py says into Dagster events. Why one step: in a chain of separate asset steps one
bad job of a claim would block or skip all others (FACTS on many partitions in one run). Add a new asset of a job as a
spec here and a stage in job_run.py; anything computed belongs in stages/.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import dagster as dg

from ss_pipeline.claim_run import work_off
from ss_pipeline.defs.checks import CHECK_SPECS, check_evaluations
from ss_pipeline.defs.metadata import stage_metadata
from ss_pipeline.defs.partition_keys import job_of_partition, partition_key_of
from ss_pipeline.defs.partitions import JOB_PARTITIONS
from ss_pipeline.defs.tags import CLAIM_TAG
from ss_pipeline.job_run import JobEnded, Stage, StageDone, WorkParts
from ss_pipeline.stages.publishing.markdown import escape
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import job_key

GROUP = "jobs"

_DESCRIPTIONS: dict[Stage, str] = {
    Stage.SUBMISSION: "The data files as they were handed in, with hashes. Made by the inbox sensor or `submit`.",
    Stage.JOB_RECORD: "The job's document at the current schema (V1 and V2 are migrated), with its history.",
    Stage.INPUT_PROFILE: "What the data is: columns, types, statistics, warnings.",
    Stage.ANALYSIS_DRAFT: "The proposed analysis: outcome, treatment, controls, method, text, open questions.",
    Stage.PUBLICATION: "One immutable version: report.html, report.md, draft.json, columns.csv, manifest.json.",
}
_KINDS: dict[Stage, set[str]] = {
    Stage.SUBMISSION: {"file"},
    Stage.JOB_RECORD: {"json"},
    Stage.INPUT_PROFILE: {"pandas"},
    Stage.ANALYSIS_DRAFT: {"json"},
    Stage.PUBLICATION: {"html"},
}


def _specs() -> list[dg.AssetSpec]:
    stages = list(Stage)
    return [
        dg.AssetSpec(
            stage.value,
            deps=[stages[position - 1].value] if position else [],
            description=_DESCRIPTIONS[stage],
            skippable=True,
            group_name=GROUP,
            kinds=_KINDS[stage],
            partitions_def=JOB_PARTITIONS,
        )
        for position, stage in enumerate(stages)
    ]


@dg.multi_asset(
    name="job_pipeline",
    specs=_specs(),
    check_specs=CHECK_SPECS,
    partitions_def=JOB_PARTITIONS,
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def job_pipeline(
    context: dg.AssetExecutionContext, work: dg.ResourceParam[WorkParts]
) -> Iterator[dg.AssetMaterialization]:
    """Works off one claim: for each job of the run the stages in turn, as far as the job can go.

    One run of one partition is the normal case; a run over a range works off a claim of several jobs. All five assets
    selected = go on from where each job stands; fewer = make exactly these again.
    """
    stages = frozenset(Stage(key.to_user_string()) for key in context.selected_asset_keys)
    claim_id = context.run.tags.get(CLAIM_TAG) or f"run_{context.run.run_id}"
    endings: list[JobEnded] = []
    for tenant_id, keys in _by_tenant([job_of_partition(work.jobs, key) for key in context.partition_keys]):
        job_ids = [key.document_id for key in keys]
        for event in work_off(
            job_ids,
            tenant_id=tenant_id,
            claim_id=claim_id,
            owner=f"run:{context.run.run_id}",
            parts=work,
            stages=stages,
        ):
            if isinstance(event, StageDone):
                yield _materialization(event, work)
                _log_checks(context, event, work)
            else:
                endings.append(event)
    _report(context, endings)


def _materialization(done: StageDone, work: WorkParts) -> dg.AssetMaterialization:
    key = job_key(done.job.job_id, done.job.tenant_id)
    return dg.AssetMaterialization(
        done.stage.value,
        partition=partition_key_of(key),
        metadata=stage_metadata(done, artifacts=work.artifacts),
    )


def _log_checks(context: dg.AssetExecutionContext, done: StageDone, work: WorkParts) -> None:
    partition = partition_key_of(job_key(done.job.job_id, done.job.tenant_id))
    for evaluation in check_evaluations(done, partition=partition, artifacts=work.artifacts):
        context.log_event(evaluation)


def _report(context: dg.AssetExecutionContext, endings: Sequence[JobEnded]) -> None:
    """Says how each job left the run; the run fails, for good, if one of them failed."""
    for ended in endings:
        context.log.info(" ".join(f"{ended.job_id}: {ended.ending} {ended.code} {ended.message}".split()))
    failed = [ended for ended in endings if ended.ending in {"failed", "released"}]
    if failed:
        reasons = "\n".join(f"- {escape(e.job_id)} {escape(e.code)}: {escape(e.message)}" for e in failed)
        raise dg.Failure(
            description=f"{len(failed)} of {len(endings)} jobs failed: " + "; ".join(f"{e.code}" for e in failed),
            metadata={"failed_jobs": dg.MetadataValue.md(reasons), "jobs": len(endings), "failed": len(failed)},
            allow_retries=False,
        )


def _by_tenant(keys: Sequence[DocumentKey]) -> list[tuple[str, list[DocumentKey]]]:
    """The jobs grouped by tenant, in order; claims hold one tenant, a hand-made range may hold several."""
    return [(tenant, list(group)) for tenant, group in groupby(keys, key=lambda key: key.tenant_id)]
