"""Sensors: what starts by itself. Each is a thin shell around a stage function; correctness comes from the store.

`inbox_sensor` makes jobs of submissions and, in the same tick, runs for them; `claim_sensor` makes runs for all waiting
jobs (drafting and, once a draft is confirmed, publishing); `failed_run_sensor` gives back what a run that never began
had reserved. How claims become run requests is run_requests.py; `retirement_sensor` is in retention.py.
"""

import dagster as dg

from ss_pipeline.defs.jobs import process_jobs
from ss_pipeline.defs.partition_keys import job_of_partition
from ss_pipeline.defs.partitions import JOB_PARTITIONS, keys_of_run
from ss_pipeline.defs.retention import retirement_sensor
from ss_pipeline.defs.run_requests import request_runs
from ss_pipeline.defs.tags import CLAIM_TAG
from ss_pipeline.settings import Settings
from ss_pipeline.stages.intake.stage import take_in
from ss_pipeline.wiring import Parts


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors, at the intervals the settings ask for; all run from the start."""
    return [_inbox_sensor(settings), _claim_sensor(settings), failed_run_sensor, retirement_sensor]


def _inbox_sensor(settings: Settings) -> dg.SensorDefinition:
    @dg.sensor(
        name="inbox_sensor",
        description="Turns complete submissions of the inbox folder into jobs; refuses bad ones with a reason.",
        job=process_jobs,
        minimum_interval_seconds=settings.inbox_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def inbox_sensor(context: dg.SensorEvaluationContext, parts: dg.ResourceParam[Parts]) -> dg.SensorResult:
        report = take_in(
            parts.inbox, jobs=parts.jobs, artifacts=parts.artifacts, clock=parts.clock, limits=parts.intake_limits
        )
        for refused in report.refused:
            context.log.warning(f"refused {refused.name}: {refused.code}: {refused.message}")
        for accepted in report.accepted:
            context.log.info(f"accepted {accepted.name} as {accepted.job_id}")
        if report.accepted and not _is_stopped("claim_sensor", context.instance):
            return request_runs(context.instance, parts)  # nobody waits for another sensor's tick
        counts = f"{len(report.accepted)} accepted, {len(report.refused)} refused, {len(report.waiting)} incomplete"
        return dg.SensorResult(skip_reason=counts)

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
        return request_runs(context.instance, parts)

    return claim_sensor


def _is_stopped(sensor_name: str, instance: dg.DagsterInstance) -> bool:
    """Whether a person stopped a sensor; one that was never touched runs."""
    states = instance.all_instigator_state() if instance.schedule_storage else []
    return any(state.instigator_name == sensor_name and state.status.value == "STOPPED" for state in states)


@dg.run_failure_sensor(
    name="failed_run_sensor",
    description="Gives back the jobs that a failed run had reserved and never began.",
    minimum_interval_seconds=2,  # a tick takes five runs, and a database that crashes fails many at once
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
