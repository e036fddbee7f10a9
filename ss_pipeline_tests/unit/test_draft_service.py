"""Drafting as a service: job and profile in, with the rules as drafter, the stored draft out."""

import asyncio
import hashlib
import logging

import pytest

from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.llm.rules.client import RuleDrafter
from ss_pipeline.stages.drafting.stage import draft_job
from ss_pipeline_tests.builders import CREATED_AT, a_job
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.profiles import a_profile

pytestmark = pytest.mark.seed("S1.3.2")


def draft(job: Job, profile: JobProfile | None = None) -> Draft:
    return asyncio.run(draft_job(job, profile=profile or a_profile(), client=RuleDrafter(), clock=StandingClock()))


def test_a_clear_job_gets_a_draft_that_may_be_confirmed_automatically() -> None:
    drafted = draft(a_job())

    assert (drafted.outcome_var, drafted.treatment_var, drafted.controls) == ("wage", "educ", ["exper"])
    assert (drafted.decision, drafted.drafter, drafted.revision) == ("auto_freeze", "rules/1", 1)
    assert not drafted.needs_answers()


def test_an_unclear_job_gets_a_draft_that_waits_for_a_person() -> None:
    drafted = draft(a_job(requirement="Please look at this."))

    assert drafted.decision == "require_confirm"
    assert [unknown.field for unknown in drafted.blocking_unknowns()] == ["outcome_var", "treatment_var"]


def test_the_draft_carries_the_originals_fields_about_columns() -> None:
    drafted = draft(a_job(), a_profile("wage; educ; exper"))

    key = {"dataset_key": "ds_0000000000000001", "role": "primary_dataset"}
    assert drafted.column_candidates == ["wage", "educ", "exper"]
    assert drafted.column_candidates_v2[0] == {**key, "name": "wage"}
    assert drafted.column_name_normalizations[0] == {**key, "original_name": "wage", "normalized_name": "c"}
    assert drafted.variable_types[0] == {"name": "wage", "inferred_type": "number"}
    assert drafted.data_sources == [{**key, "original_name": "data.csv", "format": "csv"}]
    assert drafted.draft_preview_schema_version == 2


def test_the_drafts_id_is_made_of_time_and_text() -> None:
    drafted = draft(a_job())

    digest = hashlib.sha256(f"{CREATED_AT}:{drafted.text}".encode()).hexdigest()
    assert (drafted.created_at, drafted.draft_id) == (CREATED_AT, f"draft_{digest[:16]}")


def test_drafting_again_makes_the_next_revision() -> None:
    first = draft(a_job())

    assert draft(a_job(draft=first.model_dump())).revision == 2


def test_the_same_job_is_drafted_to_the_same_hash() -> None:
    assert draft(a_job()).sha256 == draft(a_job()).sha256


def test_a_draft_survives_its_way_through_the_job_document() -> None:
    job = a_job().changed(draft=draft(a_job()))

    assert Job.model_validate(job.as_payload()).draft == job.draft


def test_the_draft_is_told_as_an_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ss_pipeline"):
        draft(a_job())

    assert [record.message for record in caplog.records] == ["SS_DRAFT_CREATED"]
