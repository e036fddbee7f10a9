"""What is swept: partition keys of finished jobs, and Dagster's history of runs long ended. The store keeps every job.

Keys are retired every night, and at once where the set grows beyond what Dagster handles well.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final

import dagster as dg

from ss_pipeline.defs.io_manager import op_outputs_folder
from ss_pipeline.defs.partition_keys import job_of_partition
from ss_pipeline.defs.partitions import ENDED, IN_FLIGHT, JOB_PARTITIONS, keys_of_run
from ss_pipeline.errors import JobDataCorruptedError, JobNotFoundError
from ss_pipeline.jobs.lifecycle import is_claimable
from ss_pipeline.jobs.model import TERMINAL_STATUSES
from ss_pipeline.wiring import Parts

RETIRE_ABOVE: Final = 5_000
"""Partition keys from which on finished ones are retired at once: pages and ticks read the whole set."""
_RUNS_AT_ONCE: Final = 500


@dg.op(description="Takes the partition keys of finished jobs out of the set; the store keeps the jobs.")
def retire_partitions(context: dg.OpExecutionContext, parts: dg.ResourceParam[Parts]) -> None:
    """Never retires a key that a run in flight needs: deleting it would fail that run."""
    known = list(context.instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))
    runs = context.instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT))
    needed = {key for run in runs for key in keys_of_run(run.tags, known)}
    finished = [key for key in known if key not in needed and _is_finished(parts, key)]
    for key in finished:
        context.instance.delete_dynamic_partition(JOB_PARTITIONS.name or "", key)
    context.add_output_metadata({"retired": dg.MetadataValue.int(len(finished))})


@dg.op(description="Deletes Dagster's history of runs that ended long ago: events, logs, op outputs.")
def purge_runs(context: dg.OpExecutionContext, parts: dg.ResourceParam[Parts]) -> None:
    """Runs that ended more than SS_RUN_RETENTION_DAYS days ago; what they made of a job stays in the store."""
    before = parts.clock.now() - timedelta(days=parts.settings.run_retention_days)
    ended_before = dg.RunsFilter(statuses=ENDED, updated_before=before)
    purged = 0
    while runs := context.instance.get_runs(ended_before, limit=_RUNS_AT_ONCE):
        for run in runs:
            _purge(context.instance, run.run_id, parts)
        purged += len(runs)
    context.add_output_metadata({"purged": dg.MetadataValue.int(purged)})


@dg.job(executor_def=dg.in_process_executor, description="Retire the partitions of finished jobs.")
def retire_partitions_job() -> None:
    """One op."""
    retire_partitions()


@dg.job(executor_def=dg.in_process_executor, description="Delete the history of runs that ended long ago.")
def purge_runs_job() -> None:
    """One op."""
    purge_runs()


@dg.sensor(
    name="retirement_sensor",
    description=f"Has finished jobs taken out of the partition set once it holds more than {RETIRE_ABOVE} keys.",
    job=retire_partitions_job,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def retirement_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """One retirement at a time."""
    keys = len(context.instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))
    retiring = dg.RunsFilter(job_name=retire_partitions_job.name, statuses=IN_FLIGHT)
    if keys <= RETIRE_ABOVE or context.instance.get_runs_count(retiring):
        return dg.SensorResult(skip_reason=f"{keys} partition keys")
    return dg.SensorResult(run_requests=[dg.RunRequest()])


def _is_finished(parts: Parts, partition_key: str) -> bool:
    """Whether no run will want the job; one that cannot be read stays, for people to see."""
    try:
        key = job_of_partition(parts.jobs, partition_key)
        job = parts.jobs.load(key.document_id, tenant_id=key.tenant_id)
    except JobNotFoundError:
        return True
    except JobDataCorruptedError:
        return False
    return job.status in TERMINAL_STATUSES and not is_claimable(job)


def _purge(instance: dg.DagsterInstance, run_id: str, parts: Parts) -> None:
    """Deletes all there is of a run. What is deleted last is the run itself: until then it is found again."""
    outputs = op_outputs_folder(parts) / run_id
    if outputs.exists():
        outputs.fs.rm(outputs.path, recursive=True)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    for suffix in ("", "-wal", "-shm"):  # on SQLite each run has an event log of its own, which Dagster only empties
        Path(instance.root_directory, "history", "runs", f"{run_id}.db{suffix}").unlink(missing_ok=True)
