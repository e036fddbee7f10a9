"""The verbs `ss-pipeline ledger …`: which calls were made, what they cost, and a draft made again from the record.

Thin shells over llm/call_records.py and llm/costs.py. None of them asks a model anything.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer

from ss_pipeline import console, wiring
from ss_pipeline.errors import DraftError, LLMRefusedError
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.jobs.profiles import PROFILE_PATH, JobProfile
from ss_pipeline.llm.call_records import CallRecord, records
from ss_pipeline.llm.costs import GROUPS, CostGroup, Costs, costs_by
from ss_pipeline.settings import load_settings
from ss_pipeline.stages.drafting.stage import draft_job
from ss_pipeline.telemetry.json_logs import log_to_stderr

app = typer.Typer(help="Calls to language models: which there were, and what they cost.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
OneTenant = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's.")]
Since = Annotated[str, typer.Option("--since", help="Only from this day on (UTC): 2026-01-31.")]


@app.command("list")
def list_calls(
    tenant: OneTenant = None,
    job: Annotated[str | None, typer.Option("--job", help="Only what this job asked.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="intent, settled, failed or unknown.")] = None,
    since: Since = "",
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 50,
    json_: Json = False,
) -> None:
    """List the questions that were asked, newest first."""
    wanted = {"job_id": job, "state": state}
    with _parts() as parts:
        found = [
            record
            for record in records(parts.jobs.backend, tenant_id=tenant)
            if record.asked_at >= since
            and all(value in (None, getattr(record, field)) for field, value in wanted.items())
        ]
    newest = sorted(found, key=lambda record: record.asked_at, reverse=True)[:limit]
    if json_:
        console.print_json([record.model_dump() for record in newest])
        return
    columns = ["key", "asked", "job", "what", "model", "state", "tokens", "cost", "unknown"]
    console.print_table("Calls", columns, [_row(record) for record in newest])


@app.command("show")
def show_call(
    key: Annotated[str, typer.Argument(help="The question's key, or how it begins.")],
    tenant: OneTenant = None,
    json_: Json = False,
) -> None:
    """Show one record: who asked, what it took, what was answered."""
    with _parts() as parts:
        found = [record for record in records(parts.jobs.backend, tenant_id=tenant) if record.key.startswith(key)]
        if not found:
            raise LLMRefusedError(
                f"no call has a key that begins with {key!r}",
                code="LLM_NOT_ON_RECORD",
                todo="ss-pipeline ledger list",
            )
        record = found[0]
        folder = parts.artifacts.location(record.tenant_id, record.job_id, f"artifacts/llm/{record.call_id}")
    if json_:
        console.print_json({**record.model_dump(), "trace": folder})
        return
    fields = record.model_dump(exclude={"answer", "expected", "schema_version"})
    answer = record.answer
    took = {"tokens": answer.usage.tokens, "cost": answer.usage.cost, "seconds": answer.seconds} if answer else {}
    console.print_fields(record.key[:12], {**fields, **took, "trace": folder})
    console.print_list("Answer:", [answer.text] if answer else [])


@app.command("cost")
def show_cost(
    by: Annotated[
        list[str] | None, typer.Option("--by", help="day, model, tenant, state or prompt; more than one is a table.")
    ] = None,
    tenant: OneTenant = None,
    since: Since = "",
    json_: Json = False,
) -> None:
    """Add up what calls took and cost. Models without a price are counted, and said so: their cost is not known."""
    groups = [_group(name) for name in by or ["day"]]
    with _parts() as parts:
        found = (record for record in records(parts.jobs.backend, tenant_id=tenant) if record.asked_at >= since)
        costs = costs_by(found, *groups)
    rows = [dict(zip(groups, under, strict=True)) | vars(sums) for under, sums in costs.items()]
    if json_:
        console.print_json(rows)
        return
    columns = [*groups, "asked", "calls", "in", "out", "cost", "no price", "unknown"]
    console.print_table("Costs", columns, [(*under, *_sums(sums)) for under, sums in costs.items()])


@app.command("replay")
def replay_draft(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose job.")] = DEFAULT_TENANT,
    json_: Json = False,
) -> None:
    """Make a job's draft again from the answers on record, without a call, and compare it with the one it has."""
    with _parts() as parts:
        job = parts.jobs.load(job_id, tenant_id=tenant)
        if job.draft is None:
            raise DraftError(f"job {job_id!r} has no draft", code="DRAFT_MISSING")
        profile = parts.artifacts.read_model(tenant, job_id, PROFILE_PATH, JobProfile)
        client = wiring.recorded_drafter(parts)
        replayed = asyncio.run(draft_job(job, profile=profile, client=client, clock=parts.clock))
    kept, made = (draft.model_dump(exclude={"created_at", "draft_id", "revision"}) for draft in (job.draft, replayed))
    different = sorted(name for name in kept.keys() | made.keys() if kept.get(name) != made.get(name))
    if json_:
        console.print_json({"job_id": job_id, "same": not different, "different": different, "draft": made})
    else:
        console.print_fields(job_id, {"drafter": replayed.drafter, "differs in": ", ".join(different) or "nothing"})
        console.print_list("Draft:", [replayed.text])
    if different:
        raise typer.Exit(1)


@contextmanager
def _parts() -> Iterator[wiring.Parts]:
    log_to_stderr("WARNING")
    with closing(wiring.light_parts(load_settings())) as parts:
        yield parts


def _group(name: str) -> CostGroup:
    for group in GROUPS:
        if group == name:
            return group
    raise typer.BadParameter(f"--by is one of {', '.join(GROUPS)}")


def _row(record: CallRecord) -> tuple[Any, ...]:
    usage = record.answer.usage if record.answer else None
    cost = "" if usage is None else "no price" if usage.cost is None else f"{usage.cost:.6f}"
    what = f"{record.operation} ({record.prompt_version})"
    tokens = "" if usage is None else usage.tokens
    state = f"{record.state} {record.code or ''}".strip()
    name = f"{record.provider}/{record.model}"
    return record.key[:12], record.asked_at[:19], record.job_id, what, name, state, tokens, cost, record.unknowns or ""


def _sums(sums: Costs) -> tuple[Any, ...]:
    unknown = f"{sums.unknowns} (up to {sums.unknown_cost:.6f})" if sums.unknowns else ""
    return (
        sums.questions,
        sums.calls,
        sums.input_tokens,
        sums.output_tokens,
        f"{sums.cost:.6f}",
        sums.unpriced or "",
        unknown,
    )
