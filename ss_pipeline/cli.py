"""The command line `ss-pipeline`: one verb a function, thin shells over the stages and the store.

Every verb takes `--json`. Errors are one readable block with the code and what to do; the exit status is 1 for
those, 2 for wrong usage. Verbs that only read or change documents import neither pandas nor dagster.
"""

import getpass
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from ss_pipeline import cli_ledger, cli_store, console, demo, doctor, immediate, wiring
from ss_pipeline.errors import SSError, SubmissionRefusedError
from ss_pipeline.jobs.lifecycle import adopt as adopted
from ss_pipeline.jobs.lifecycle import is_claimable, phase
from ss_pipeline.jobs.model import DEFAULT_TENANT, JOB_STATUSES, Job
from ss_pipeline.jobs.requests import parse_request
from ss_pipeline.settings import load_settings
from ss_pipeline.stages import decision
from ss_pipeline.stages.claiming import foremost_at, in_turn
from ss_pipeline.stages.intake.stage import submit as hand_in
from ss_pipeline.store.base import DocumentKey, Listed
from ss_pipeline.store.jobs import job_key
from ss_pipeline.telemetry.json_logs import log_to_stderr
from ss_pipeline.up import run_up

app = typer.Typer(
    help="Plain-language analysis requests become reviewed, published drafts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cli_ledger.app, name="ledger")
app.add_typer(cli_store.app, name="store")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Whose job.")]
JobId = Annotated[str, typer.Argument(help="The job's id.")]
By = Annotated[str | None, typer.Option("--by", help="Who decides; default: your login name.")]
Note = Annotated[str | None, typer.Option("--note", help="A note kept with the decision.")]


LISTED_STATUSES = (*JOB_STATUSES, "corrupted")


def main() -> None:
    """Runs the command line; the entry point of the package."""
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _stop)
    try:
        app()
    except SSError as error:
        console.print_error(error, as_json="--json" in sys.argv)
        sys.exit(1)


@app.command("demo")
def run_demo(
    data: Annotated[Path, typer.Option(help="Folder of the demo; it is emptied first.")] = Path("var/demo"),
    json_: Json = False,
) -> None:
    """Run ten real submissions through the inbox, the sensors, the queue and the daemon; then stop everything."""
    rows = demo.run_demo(data)
    if json_:
        console.print_json(demo.as_documents(rows))
    else:
        demo.show_results(rows, data)


@app.command("up")
def start_up(
    port: Annotated[int, typer.Option(help="Port of the UI on loopback.")] = 3000,
    postgres: Annotated[
        bool,
        typer.Option(
            "--postgres",
            help="Keep Dagster's history and the jobs in PostgreSQL: in the one at SS_JOB_STORE_POSTGRES_DSN, "
            "else in one that is started with its data in <SS_DATA_DIR>/postgres.",
        ),
    ] = False,
) -> None:
    """Start the Dagster UI and daemon with all sensors on, watching the inbox, until Ctrl-C."""
    run_up(port=port, postgres=postgres)


@app.command()
def submit(
    requirement: Annotated[str, typer.Argument(help="What should be analysed, in your words.")],
    files: Annotated[list[Path], typer.Argument(help="Data files; the first is the primary data set.")],
    name: Annotated[str | None, typer.Option(help="Name of the submission; default: made from the first file.")] = None,
    ref: Annotated[str | None, typer.Option(help="Your own reference: the same one is never processed twice.")] = None,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher is sooner.")] = 0,
    language: Annotated[str | None, typer.Option(help="Language of the draft, such as en or zh.")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    json_: Json = False,
) -> None:
    """Put a submission into the inbox and, where the pipeline runs here, start its job at once."""
    parts = _parts()
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise SubmissionRefusedError(f"no such file: {', '.join(missing)}", code="SUBMISSION_FILE_MISSING")
    wanted = {"job_id": ref, "language": language}
    asked = {
        "requirement": requirement,
        "inputs": [{"path": file.name} for file in files],
        "priority": priority,
        **{field: value for field, value in wanted.items() if value is not None},
    }
    request = parse_request(json.dumps(asked).encode())
    folder = hand_in(
        parts.inbox,
        request=request,
        files={file.name: file for file in files},
        name=name or f"{files[0].stem}-{parts.clock.new_job_id()[4:10]}",
        tenant_id=tenant,
    )
    start = immediate.start_submission(parts, name=folder.name, tenant_id=tenant)
    if json_:
        console.print_json({"submission": folder.name, "folder": str(folder), "tenant_id": tenant, **vars(start)})
        return
    where = {"folder": folder} if start.job_id is None else {"job": start.job_id, "run": start.run_id}
    look = "ss-pipeline list" if start.job_id is None else f"ss-pipeline why {start.job_id}"
    console.print_fields("submitted", {**where, "starts": start.when, "next": look})


@app.command("list")
def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's jobs.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 50,
    json_: Json = False,
) -> None:
    """List jobs with their phase and what comes next, newest first."""
    parts = _parts()
    if status and status not in LISTED_STATUSES:
        raise typer.BadParameter(f"--status is one of {', '.join(LISTED_STATUSES)}")
    found = list(parts.jobs.rows(tenant_id=tenant, status=status))
    newest = sorted(found, key=lambda row: row.facets.created_at, reverse=True)[:limit]
    rows = [_listed_row(listed, parts) for listed in newest]
    if json_:
        console.print_json(rows)
        return
    shown = [(row["job_id"], row["phase"], row["created_at"][5:16], row["requirement"]) for row in rows]
    columns = ["job_id", "phase", "created", "requirement"]
    console.print_table(f"{len(rows)} of {len(found)} jobs", columns, shown, one_line=True)


@app.command()
def show(job_id: JobId, tenant: Tenant = DEFAULT_TENANT, json_: Json = False) -> None:
    """Show a job: its draft, questions, decision, publication and history."""
    parts = _parts()
    job = parts.jobs.load(job_id, tenant_id=tenant)
    if json_:
        console.print_json(job.as_payload())
        return
    console.print_fields(job.job_id, _summary(job, claimed=_is_worked_on(job_key(job_id, tenant), parts)))
    if job.published:
        report = f"{job.published.folder}/report.html"
        console.print_list("Report", [parts.artifacts.location(tenant, job_id, report)])
    if job.history:
        rows = [(e.at[:19], e.from_status, e.to_status, e.by, e.reason or "") for e in job.history]
        console.print_table("History", ["at", "from", "to", "by", "reason"], rows)


@app.command()
def why(job_id: JobId, tenant: Tenant = DEFAULT_TENANT, json_: Json = False) -> None:
    """Say where a job stands, why, and what comes next."""
    parts = _parts()
    job = parts.jobs.load(job_id, tenant_id=tenant)
    claim = parts.jobs.backend.claim_of(job_key(job_id, tenant))
    view = phase(job, claimed=claim is not None and claim.state == "leased")
    holder = claim and (claim.owner or claim.claim_id)
    fields: dict[str, Any] = {
        "phase": view.phase,
        "status": job.status,
        "why": view.reason,
        "next": view.next_step,
        "held by": f"{holder} ({claim.state}, {claim.expires_in:.0f} s left)" if claim else None,
        "attempts": parts.jobs.backend.attempts_of(job_key(job_id, tenant)),
        "position": _position(job, parts),
        "foremost from": _foremost(job, parts),
    }
    if json_:
        console.print_json({"job_id": job_id, **fields})
    else:
        console.print_fields(job_id, fields)


@app.command()
def confirm(
    job_id: JobId,
    answer: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, once for each open question.")] = None,
    note: Note = None,
    by: By = None,
    send_back: Annotated[bool, typer.Option("--send-back", help="Do not publish: draft again (needs --note).")] = False,
    tenant: Tenant = DEFAULT_TENANT,
    json_: Json = False,
) -> None:
    """Confirm a draft in review, answering its questions; or send it back to drafting."""
    parts = _parts()
    who, answers = _who(by), _answers(answer or [])
    if send_back and not note:
        raise typer.BadParameter("--send-back needs --note: what should be different?")

    def change(job: Job) -> Job:
        at = parts.clock.timestamp()
        if send_back:
            return decision.send_back(job, by=who, at=at, note=note or "")
        return decision.confirm(job, by=who, at=at, answers=answers, note=note)

    _change(parts, job_id, tenant, change, json_=json_)


@app.command()
def retry(job_id: JobId, by: By = None, tenant: Tenant = DEFAULT_TENANT, json_: Json = False) -> None:
    """Requeue a failed job, or let a parked one go on at once."""
    parts = _parts()
    who = _who(by)
    _change(parts, job_id, tenant, lambda job: decision.retry(job, by=who, at=parts.clock.timestamp()), json_=json_)


@app.command()
def cancel(job_id: JobId, by: By = None, tenant: Tenant = DEFAULT_TENANT, json_: Json = False) -> None:
    """Cancel a job for good; what was published stays."""
    parts = _parts()
    who = _who(by)
    _change(parts, job_id, tenant, lambda job: decision.cancel(job, by=who, at=parts.clock.timestamp()), json_=json_)


@app.command()
def adopt(job_id: JobId, by: By = None, tenant: Tenant = DEFAULT_TENANT, json_: Json = False) -> None:
    """Release an imported job for work."""
    parts = _parts()
    who = _who(by)
    _change(parts, job_id, tenant, lambda job: adopted(job, at=parts.clock.timestamp(), by=who), json_=json_)


@app.command("migrate")
def migrate_store(
    apply: Annotated[bool, typer.Option("--apply", help="Migrate every document; the originals are kept.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put the original bytes back.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done (the default).")] = False,
    json_: Json = False,
) -> None:
    """Bring every stored job to the current schema: dry run, apply, or roll back."""
    if apply + rollback + dry_run > 1:
        raise typer.BadParameter("choose one of --dry-run, --apply and --rollback")
    outcomes = _parts().jobs.migrate_all("apply" if apply else "roll_back" if rollback else "dry_run")
    if json_:
        console.print_json(
            [
                {"job_id": o.key.document_id, "tenant_id": o.key.tenant_id, "outcome": o.outcome, "detail": o.detail}
                for o in outcomes
            ]
        )
        return
    counts = {name: sum(o.outcome == name for o in outcomes) for name in dict.fromkeys(o.outcome for o in outcomes)}
    console.print_table("Migration", ["outcome", "jobs"], list(counts.items()))
    trouble = [(o.key.document_id, o.outcome, o.detail) for o in outcomes if o.outcome in {"corrupted", "saved_since"}]
    if trouble:
        console.print_table("Left alone", ["job", "outcome", "why"], trouble)


@app.command("doctor")
def run_doctor(json_: Json = False) -> None:
    """Look for what is missing or stuck; exit status 1 if something does not work."""
    findings = doctor.examine(_parts())
    if json_:
        console.print_json([vars(finding) for finding in findings])
    else:
        rows = [(f.subject, f.level, f.message, f.todo) for f in findings]
        console.print_table("Doctor", ["subject", "level", "finding", "what to do"], rows)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _stop(number: int, _frame: object) -> NoReturn:
    """A signal (or a closed terminal) ends the command through its `finally` blocks: what it started is stopped."""
    sys.exit(128 + number)


def _parts() -> wiring.Parts:
    log_to_stderr("WARNING")
    return wiring.light_parts(load_settings())


def _change(parts: wiring.Parts, job_id: str, tenant: str, change: Any, *, json_: bool) -> None:
    job = parts.jobs.update(job_id, change, tenant_id=tenant)
    if json_:
        console.print_json(console.job_row(job))
    else:
        console.print_fields(job.job_id, {k: v for k, v in console.job_row(job).items() if k != "job_id"})


def _who(by: str | None) -> str:
    try:
        return by or getpass.getuser()
    except (KeyError, OSError) as error:  # a user id without a name, as in containers
        raise typer.BadParameter("your login has no name here: say who you are with --by") from error


def _listed_row(listed: Listed, parts: wiring.Parts) -> dict[str, Any]:
    """A row of `list`; a job that cannot be read hides no other."""
    key = listed.key
    try:
        job = parts.jobs.load(key.document_id, tenant_id=key.tenant_id)
    except SSError as error:
        created_at = listed.facets.created_at
        return console.unreadable_row(key.document_id, tenant_id=key.tenant_id, created_at=created_at, error=error)
    return console.job_row(job, claimed=_is_worked_on(key, parts))


def _is_worked_on(key: DocumentKey, parts: wiring.Parts) -> bool:
    """Whether a run has the job; one that is only reserved for a run still waits."""
    claim = parts.jobs.backend.claim_of(key)
    return claim is not None and claim.state == "leased"


def _answers(pairs: list[str]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    wrong = [name for name, equals, value in split if not (name and equals and value)]
    if wrong:
        raise typer.BadParameter(f"--answer takes NAME=VALUE, not {wrong[0]!r}")
    return {name: value for name, _, value in split}


def _summary(job: Job, *, claimed: bool) -> dict[str, object]:
    view = phase(job, claimed=claimed)
    draft = job.draft
    return {
        "phase": view.phase,
        "why": view.reason,
        "next": view.next_step,
        "requirement": shorten(job.requirement or "", 400),
        "draft": draft.text if draft else None,
        "outcome": draft.outcome_var if draft else None,
        "treatment": draft.treatment_var if draft else None,
        "controls": ", ".join(draft.controls) if draft else None,
        "method": draft.method if draft else None,
        "questions": "\n".join(decision.open_questions(draft).values()) if draft else None,
        "decision": f"{job.decision.action} by {job.decision.by} at {job.decision.at[:19]}" if job.decision else None,
        "version": job.version,
    }


def shorten(text: str, most: int) -> str:
    """The text, cut to at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _position(job: Job, parts: wiring.Parts) -> str | None:
    turns = in_turn(parts.jobs, parts.claim_rules, now=parts.clock.now(), per_group=1_000)
    key = job_key(job.job_id, job.tenant_id)
    return f"{turns.index(key) + 1} of {len(turns)}" if key in turns else None


def _foremost(job: Job, parts: wiring.Parts) -> str | None:
    """From when on no job that comes later is taken before this one; None where it does not wait for a run."""
    if not is_claimable(job):
        return None
    at = foremost_at(job.created_at, priority=job.priority)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at > parts.clock.now() else "now"


if __name__ == "__main__":
    main()
