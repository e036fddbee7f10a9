"""Sensors: what starts by itself. Each is a thin shell around a stage function; correctness comes from the store.

`inbox_sensor` makes jobs of submissions, `claim_sensor` makes runs for waiting jobs (drafting and, once a draft is
confirmed, publishing), `failed_run_sensor` gives back what a run that never began had reserved.
"""

from collections import Counter
from collections.abc import Sequence

import dagster as dg

from ss_pipeline.defs.jobs import process_jobs
from ss_pipeline.defs.partitions import (
    IN_FLIGHT,
    JOB_PARTITIONS,
    job_of_partition,
    keys_of_run,
    partition_key_of,
    recorded_partition_key,
)
from ss_pipeline.defs.tags import (
    CLAIM_TAG,
    CLASS_TAG,
    NOT_CLASS_TAG,
    PRIORITY_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    TENANT_TAG,
)
from ss_pipeline.errors import SSError
from ss_pipeline.jobs.fairness import CLASS_ORDER, Busy
from ss_pipeline.settings import Settings
from ss_pipeline.stages.claiming import Claim, ClaimRules, free_claims, make_claims
from ss_pipeline.stages.intake.stage import take_in
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.wiring import Parts

SPARE_RUNS = 2
"""Runs queued beyond the slots, so that a slot never waits for a tick; more would make the order stale."""


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors, at the intervals the settings ask for; all run from the start."""
    return [_inbox_sensor(settings), _claim_sensor(settings), failed_run_sensor]


def _inbox_sensor(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="inbox_sensor",
        description="Turns complete submissions of the inbox folder into jobs; refuses bad ones with a reason.",
        minimum_interval_seconds=settings.inbox_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def inbox_sensor(context: dg.SensorEvaluationContext, parts: dg.ResourceParam[Parts]) -> dg.SkipReason:
        report = take_in(
            parts.inbox, jobs=parts.jobs, artifacts=parts.artifacts, clock=parts.clock, limits=parts.intake_limits
        )
        for refused in report.refused:
            context.log.warning(f"refused {refused.name}: {refused.code}: {refused.message}")
        for accepted in report.accepted:
            context.log.info(f"accepted {accepted.name} as {accepted.job_id}")
        counts = f"{len(report.accepted)} accepted, {len(report.refused)} refused, {len(report.waiting)} incomplete"
        return dg.SkipReason(counts)

    return inbox_sensor


def _claim_sensor(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="claim_sensor",
        description="Reserves waiting jobs, most urgent first, and requests a run for each claim.",
        job=process_jobs,
        minimum_interval_seconds=settings.claim_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def claim_sensor(context: dg.SensorEvaluationContext, parts: dg.ResourceParam[Parts]) -> dg.SensorResult:
        in_flight = context.instance.get_runs(dg.RunsFilter(job_name=process_jobs.name, statuses=IN_FLIGHT))
        room = parts.settings.claim_slots + SPARE_RUNS - len(in_flight)
        known = set(context.instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))

        def is_new(key: DocumentKey) -> bool:
            return partition_key_of(key) not in known

        busy = Busy(
            tenants=Counter(run.tags.get(TENANT_TAG, "") for run in in_flight),
            classes={name: sum(run.tags.get(CLASS_TAG) == name for run in in_flight) for name in CLASS_ORDER},
        )
        rules, now = parts.claim_rules, parts.clock.now()
        claims = make_claims(parts.jobs, room=room, rules=rules, now=now, shareable=is_new, busy=busy)
        if not claims:
            return dg.SensorResult(skip_reason=f"nothing waits, or no room ({len(in_flight)} runs in flight)")
        keys = _recorded_keys(parts.jobs, claims)
        new = [key for group in keys for key in group if key not in known]
        return dg.SensorResult(
            run_requests=[_run_request(claim, group, rules) for claim, group in zip(claims, keys, strict=True)],
            dynamic_partitions_requests=[JOB_PARTITIONS.build_add_request(new)] if new else [],
        )

    return claim_sensor


def _recorded_keys(jobs: JobStore, claims: Sequence[Claim]) -> list[list[str]]:
    """The partition keys of each claim; where they cannot be recorded there will be no run, so the jobs are freed."""
    try:
        return [
            [recorded_partition_key(jobs, job_key(id_, claim.tenant_id)) for id_ in claim.job_ids] for claim in claims
        ]
    except SSError:
        free_claims(jobs, claims)
        raise


def _run_request(claim: Claim, keys: Sequence[str], rules: ClaimRules) -> dg.RunRequest:
    """One run for a claim: its partition, or the contiguous range of the keys added in this very tick."""
    tags = {
        CLAIM_TAG: claim.claim_id,
        TENANT_TAG: claim.tenant_id,
        CLASS_TAG: claim.priority_class,
        PRIORITY_TAG: str(claim.priority),
        **{NOT_CLASS_TAG + name: "true" for name in rules.fairness.reserved if name != claim.priority_class},
    }
    if len(keys) == 1:
        return dg.RunRequest(run_key=claim.claim_id, partition_key=keys[0], tags=tags)
    return dg.RunRequest(run_key=claim.claim_id, tags=tags | {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]})


@dg.run_failure_sensor(
    name="failed_run_sensor",
    description="Gives back the jobs that a failed run had reserved and never began.",
    minimum_interval_seconds=5,  # a tick takes five runs, and a database that crashes fails many at once
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def failed_run_sensor(context: dg.RunFailureSensorContext, parts: dg.ResourceParam[Parts]) -> None:
    """Only reservations are freed; a lease ends by itself when its run stops beating."""
    tags = context.dagster_run.tags
    claim_id = tags.get(CLAIM_TAG)
    if claim_id is None:
        return
    known = list(context.instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))
    keys = [job_of_partition(parts.jobs, key) for key in keys_of_run(tags, known)]
    parts.jobs.backend.cancel_reservation(keys, claim_id=claim_id)
