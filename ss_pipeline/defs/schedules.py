"""Schedules: sweeping only. What is urgent does not wait for cron."""

import dagster as dg

from ss_pipeline.defs import ops

SCHEDULES = [
    dg.ScheduleDefinition(
        name="retire_partitions_nightly",
        job=ops.retire_partitions_job,
        cron_schedule="15 3 * * *",
        description="Takes finished jobs out of the partition set, so that it stays below 10,000 keys.",
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
