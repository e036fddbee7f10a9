"""The observable asset `backlog`: who waits, for how long, and why. Unpartitioned; observed from the UI or a tick."""

from datetime import datetime

import dagster as dg

from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.wiring import Parts

MOST_ROWS = 200


@dg.observable_source_asset(
    name="backlog",
    group_name="fleet",
    description="Who waits, for how long, and why: every job that is neither finished nor failed.",
)
def backlog(context: dg.AssetExecutionContext, parts: dg.ResourceParam[Parts]) -> dg.ObserveResult:
    """Counts by tenant and status, and the jobs that wait longest."""
    counts = parts.jobs.backend.counts("jobs")
    open_counts = {k: n for k, n in counts.items() if k[1] not in {"succeeded", "cancelled", "failed"}}
    rows = [
        dg.TableRecord({"tenant": tenant, "status": status, "jobs": count})
        for (tenant, status), count in sorted(open_counts.items())
    ]
    total = sum(open_counts.values())
    context.log.info(f"{total} jobs are open")
    return dg.ObserveResult(
        metadata={
            "waiting": dg.MetadataValue.int(total),
            "by_status": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("nothing is open"),
            "who_waits": dg.MetadataValue.md(_table(parts)),
        }
    )


def _table(parts: Parts) -> str:
    lines = ["| job | tenant | priority | waits | phase | why |", "|---|---|---|---|---|---|"]
    now = parts.clock.now()
    for listed in parts.jobs.waiting(per_group=MOST_ROWS)[:MOST_ROWS]:
        job = parts.jobs.load(listed.key.document_id, tenant_id=listed.key.tenant_id)
        seconds = int((now - datetime.fromisoformat(job.created_at)).total_seconds())
        view = phase(job)
        lines.append(
            f"| {job.job_id} | {job.tenant_id} | {job.priority} | {seconds} s | {view.phase} | {view.reason} |"
        )
    return "\n".join(lines) if len(lines) > 2 else "Nothing waits for a run."
