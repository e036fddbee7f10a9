"""What a materialization shows in the UI: previews, tables, plots and links, made from a stage's result.

Add here what a person wants to see on the partition page. Nothing here computes results.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import dagster as dg
from pydantic import BaseModel

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import ArtifactError
from ss_pipeline.job_run import Stage, StageDone
from ss_pipeline.jobs.drafts import Draft, DraftOrigin
from ss_pipeline.jobs.inputs import InputsManifest
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.jobs.model import Job, Publication
from ss_pipeline.jobs.profiles import SAMPLE_PATH, ColumnProfile, DataSample, JobProfile
from ss_pipeline.stages.publishing.markdown import escape, quoted
from ss_pipeline.stages.publishing.plots import overview_png

Model = TypeVar("Model", bound=BaseModel)
Metadata = Mapping[str, dg.MetadataValue[Any]]

MAX_TABLE_ROWS: Final = 60


def stage_metadata(done: StageDone, *, artifacts: ArtifactStore) -> Metadata:
    """The metadata of one stage's materialization. A file that cannot be shown does not undo the stage."""
    try:
        shown = _OF_STAGE[done.stage](done.result, done.job, artifacts)
    except ArtifactError as error:
        shown = {"preview": dg.MetadataValue.text(f"cannot be shown: {error.message}")}
    return {
        **shown,
        "phase": dg.MetadataValue.text(phase(done.job, claimed=True).phase),
        "seconds": dg.MetadataValue.float(round(done.seconds, 4)),
        "reused": dg.MetadataValue.bool(done.reused),
    }


def _submission(result: BaseModel, job: Job, _artifacts: ArtifactStore) -> dict[str, Any]:
    manifest = _as(result, InputsManifest)
    records = [
        dg.TableRecord({"file": d.original_name, "role": d.role, "format": d.format, "bytes": d.size_bytes})
        for d in manifest.datasets
    ]
    return {
        "preview": dg.MetadataValue.md(quoted(job.requirement or "(no requirement)")),
        "inputs": dg.MetadataValue.table(records),
        "fingerprint": dg.MetadataValue.text(job.inputs.fingerprint or "" if job.inputs else ""),
    }


def _job_record(_result: BaseModel, job: Job, _artifacts: ArtifactStore) -> dict[str, Any]:
    records = [
        dg.TableRecord({"at": e.at, "from": e.from_status, "to": e.to_status, "by": e.by, "reason": e.reason or ""})
        for e in job.history
    ]
    return {
        "status": dg.MetadataValue.text(job.status),
        "version": dg.MetadataValue.int(job.version),
        "schema_version": dg.MetadataValue.int(job.schema_version),
        "history": dg.MetadataValue.table(records) if records else dg.MetadataValue.text("imported: no history"),
    }


def _profile(result: BaseModel, job: Job, artifacts: ArtifactStore) -> dict[str, Any]:
    profile = _as(result, JobProfile)
    primary = profile.primary
    warnings = [w for d in profile.datasets for w in d.warnings]
    lines = [f"- **{escape(w.severity)}** {escape(w.message)}" for w in warnings[:MAX_TABLE_ROWS]]
    return {
        "preview": dg.MetadataValue.md("\n".join(lines) or "No warnings."),
        "columns": dg.MetadataValue.table([_column_record(c) for c in primary.columns[:MAX_TABLE_ROWS]]),
        "plot": dg.MetadataValue.md(_plot(profile, job, artifacts)),
        "dagster/row_count": dg.MetadataValue.int(primary.rows),
        "columns_total": dg.MetadataValue.int(primary.columns_total),
        "warnings": dg.MetadataValue.int(len(warnings)),
    }


def _draft(result: BaseModel, job: Job, _artifacts: ArtifactStore) -> dict[str, Any]:
    draft = _as(result, Draft)
    open_lines = [u.description for u in draft.open_unknowns] + [q.question_text for q in draft.stage1_questions]
    decision = job.decision
    decided = f"{decision.action} by {decision.by} at {decision.at}" if decision else "waits for a person"
    return {
        "preview": dg.MetadataValue.md(_draft_preview(draft)),
        "drafter": dg.MetadataValue.text(draft.drafter or "imported"),
        "revision": dg.MetadataValue.int(draft.revision),
        "decision": dg.MetadataValue.text(decided),
        "open_questions": dg.MetadataValue.md("\n".join(f"- {escape(line)}" for line in open_lines) or "None."),
        **_origin(draft.origin),
    }


def _origin(origin: DraftOrigin | None) -> dict[str, Any]:
    """Which models were asked for the draft; nothing where none was."""
    if origin is None:
        return {}
    return {
        "asked": dg.MetadataValue.text(", ".join(origin.asked)),
        "prompt_versions": dg.MetadataValue.text(", ".join(origin.prompt_versions)),
        "input_tokens": dg.MetadataValue.int(origin.input_tokens),
        "output_tokens": dg.MetadataValue.int(origin.output_tokens),
        "ledger_keys": dg.MetadataValue.text("\n".join(origin.ledger_keys)),
        "fallback": dg.MetadataValue.text(origin.fallback_code or "none"),
    }


def _publication(result: BaseModel, job: Job, artifacts: ArtifactStore) -> dict[str, Any]:
    publication = _as(result, Publication)
    folder = publication.folder
    report = artifacts.location(job.tenant_id, job.job_id, f"{folder}/report.html")
    preview = artifacts.read(job.tenant_id, job.job_id, f"{folder}/report.md").decode()
    return {
        "preview": dg.MetadataValue.md(preview[:20_000]),
        "report": dg.MetadataValue.path(report) if artifacts.is_local else dg.MetadataValue.url(report),
        "version": dg.MetadataValue.int(publication.version),
        "manifest_sha256": dg.MetadataValue.text(publication.manifest_sha256),
    }


_OF_STAGE: Final[dict[Stage, Callable[[BaseModel, Job, ArtifactStore], dict[str, Any]]]] = {
    Stage.SUBMISSION: _submission,
    Stage.JOB_RECORD: _job_record,
    Stage.INPUT_PROFILE: _profile,
    Stage.ANALYSIS_DRAFT: _draft,
    Stage.PUBLICATION: _publication,
}


def _plot(profile: JobProfile, job: Job, artifacts: ArtifactStore) -> str:
    sample = artifacts.read_model(job.tenant_id, job.job_id, SAMPLE_PATH, DataSample)
    png = overview_png(profile, sample)
    return f"![distributions](data:image/png;base64,{base64.b64encode(png).decode()})"


def _column_record(column: ColumnProfile) -> dg.TableRecord:
    return dg.TableRecord(
        {
            "column": column.name,
            "label": column.label,
            "type": column.inferred_type,
            "count": column.count,
            "missing": column.missing,
            "distinct": column.distinct,
            "mean": "" if column.mean is None else f"{column.mean:.6g}",
            "min": "" if column.min is None else str(column.min),
            "max": "" if column.max is None else str(column.max),
        }
    )


def _draft_preview(draft: Draft) -> str:
    rows = [
        ("outcome", draft.outcome_var),
        ("treatment", draft.treatment_var),
        ("controls", ", ".join(draft.controls)),
        ("method", draft.method),
    ]
    table = "\n".join(f"| {name} | {escape(value or '–')} |" for name, value in rows)
    return f"{escape(draft.text)}\n\n| role | value |\n|---|---|\n{table}"


def _as(result: BaseModel, kind: type[Model]) -> Model:
    if not isinstance(result, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(result).__name__}")
    return result
