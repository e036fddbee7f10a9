"""Builders of valid values, so that a test names only what matters to it."""

from typing import Any

from ss_pipeline.jobs.lifecycle import born
from ss_pipeline.jobs.model import Job

CREATED_AT = "2026-01-06T12:00:00.000000+00:00"


def a_job(job_id: str = "job_abcdefghijklmnop", **fields: Any) -> Job:
    """A job as intake creates it, with other field values where given."""
    values: dict[str, Any] = {
        "job_id": job_id,
        "trace_id": "0" * 32,
        "status": "created",
        "requirement": "Does education raise wages? Control for experience.",
        "created_at": CREATED_AT,
        **fields,
    }
    return born(Job.model_validate(values), by="test")
