"""draft.json: the published draft with its decision and what the data is, for programs that read a publication."""

import json

from ss_pipeline.jobs.documents import JsonObject
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.model import Decision, Job
from ss_pipeline.jobs.profiles import DatasetProfile, JobProfile


def draft_document(job: Job, draft: Draft, decision: Decision, profile: JobProfile, next_version: int) -> JsonObject:
    """The document as JSON values; numbers that JSON has no word for (infinity) become null."""
    return {
        "draft_document_schema_version": 1,
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "version": next_version,
        "requirement": job.requirement,
        "draft": json.loads(draft.model_dump_json()),
        "draft_sha256": draft.sha256,
        "decision": json.loads(decision.model_dump_json()),
        "profile": [_dataset_summary(data) for data in profile.datasets],
    }


def _dataset_summary(data: DatasetProfile) -> JsonObject:
    columns = [
        {"name": column.name, "label": column.label, "type": column.inferred_type, "missing": column.missing}
        for column in data.columns
    ]
    return {
        "original_name": data.original_name,
        "role": data.role,
        "rows": data.rows,
        "columns_total": data.columns_total,
        "columns": columns,
    }
