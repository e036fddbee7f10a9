"""The observable asset `backlog`: who waits, for how long, and why. Unpartitioned; observed from the UI or a tick."""

from datetime import UTC, datetime

import dagster as dg

from ss_pipeline.errors import SSError
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.stages.publishing.markdown import escape
from ss_pipeline.store.base import Listed
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
    heading = "| job | tenant | priority | waits | phase | why |\n|---|---|---|---|---|---|\n"
    lines = [_line(listed, parts) for listed in parts.jobs.waiting(per_group=MOST_ROWS)[:MOST_ROWS]]
    return heading + "\n".join(lines) if lines else "Nothing waits for a run."


def _line(listed: Listed, parts: Parts) -> str:
    """One waiting job; one that cannot be read is shown with the reason, so that it hides no other."""
    try:
        view = phase(parts.jobs.load(listed.key.document_id, tenant_id=listed.key.tenant_id))
        shown, why = str(view.phase), view.reason
    except SSError as error:
        shown, why = "unreadable", error.message
    waits = f"{_age_seconds(listed.facets.created_at, parts):.0f} s"
    cells = [listed.key.document_id, listed.key.tenant_id, listed.facets.priority, waits, shown, why]
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"


def _age_seconds(created_at: str, parts: Parts) -> float:
    """Since when; imported jobs may carry a time without offset, which is UTC, as everywhere in documents."""
    created = datetime.fromisoformat(created_at)
    return (parts.clock.now() - (created if created.tzinfo else created.replace(tzinfo=UTC))).total_seconds()
