"""Schedules: sweeping only. What is urgent does not wait for cron."""

import dagster as dg

from ss_pipeline.defs import ops, retention

SCHEDULES = [
    dg.ScheduleDefinition(
        name="retire_partitions_nightly",
        job=retention.retire_partitions_job,
        cron_schedule="15 3 * * *",
        description="Takes finished jobs out of the partition set, so that pages and ticks stay quick.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
    dg.ScheduleDefinition(
        name="purge_runs_nightly",
        job=retention.purge_runs_job,
        cron_schedule="45 3 * * *",
        description="Deletes the history of runs that ended more than SS_RUN_RETENTION_DAYS days ago.",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
    dg.ScheduleDefinition(
        name="verify_publications_weekly",
        job=ops.verify_publications_job,
        cron_schedule="30 4 * * 0",
        description="Compares every published file with its manifest.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    ),
]
