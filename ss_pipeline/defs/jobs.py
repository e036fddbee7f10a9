"""Jobs: `process_jobs` over the five assets of a job, and the op jobs of the fleet (defs/ops.py,
defs/retention.py, defs/store_ops.py)."""

import dagster as dg

from ss_pipeline.defs import ops, retention, store_ops
from ss_pipeline.defs.assets import job_pipeline
from ss_pipeline.defs.backlog import backlog

process_jobs = dg.define_asset_job(
    "process_jobs",
    selection=dg.AssetSelection.assets(job_pipeline),
    description="Works off a claim: one partition, or a range of them. The claim sensor launches it.",
    executor_def=dg.in_process_executor,
)

observe_backlog = dg.define_asset_job(
    "observe_backlog",
    selection=dg.AssetSelection.assets(backlog.key),
    description="Looks who waits, for how long, and why.",
    executor_def=dg.in_process_executor,
)

FLEET_JOBS = [
    ops.process_job.to_job(
        name="process_job",
        description="One job, step by step: ingest, migrate, profile, draft, publish. For looking closely.",
        executor_def=dg.in_process_executor,
    ),
    ops.migrate_store_job,
    ops.decide_job,
    retention.retire_partitions_job,
    retention.purge_runs_job,
    ops.verify_publications_job,
    store_ops.copy_store_job,
]
"""Jobs launched by people from the launchpad, or by a schedule."""
