"""The observable asset `backlog`: who waits, for how long, and why. Unpartitioned; observed from the UI or a tick."""

from datetime import datetime

import dagster as dg

from ss_pipeline.errors import SSError
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.stages.claiming import foremost_at, in_turn, seconds_since
from ss_pipeline.stages.publishing.markdown import escape
from ss_pipeline.store.base import DocumentKey
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
    """The jobs that wait for a run, in the order in which they come."""
    now = parts.clock.now()
    keys = in_turn(parts.jobs, parts.claim_rules, now=now, per_group=MOST_ROWS)[:MOST_ROWS]
    heading = "| position | job | tenant | priority | waits | foremost from | phase | why |\n" + "|---" * 8 + "|\n"
    lines = [_line(position, key, parts, now) for position, key in enumerate(keys, start=1)]
    return heading + "\n".join(lines) if lines else "Nothing waits for a run."


def _line(position: int, key: DocumentKey, parts: Parts, now: datetime) -> str:
    """One waiting job; one that cannot be read is shown with the reason, so that it hides no other."""
    cells: list[object] = [position, key.document_id, key.tenant_id]
    try:
        job = parts.jobs.load(key.document_id, tenant_id=key.tenant_id)
    except SSError as error:
        cells += ["", "", "", "unreadable", error.message]
    else:
        view = phase(job)
        waits = f"{seconds_since(job.created_at, now):.0f} s"
        foremost = foremost_at(job.created_at, priority=job.priority)
        cells += [job.priority, waits, f"{foremost:%H:%M:%S}", view.phase, view.reason]
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"
