"""The draft stage against drafters that answer badly."""

import asyncio
import logging
from typing import Any

import pytest

from ss_pipeline.errors import DraftError
from ss_pipeline.jobs.drafts import Draft, DraftAnswer, Stage1Question
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import DataQualityWarning, JobProfile
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.stages.drafting.stage import draft_job
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.profiles import a_column, a_dataset, a_profile


class Answering(LLMClient):
    """A drafter that gives one answer and keeps what it was asked."""

    def __init__(self, **fields: Any) -> None:
        values = {"draft_text": "A plan.", "outcome_var": "wage", "treatment_var": "educ", "method": "ols"}
        self._answer = DraftAnswer.model_validate({**values, **fields})
        self.requests: list[DraftRequest] = []

    @property
    def name(self) -> str:
        return "fake/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        self.requests.append(request)
        return self._answer


def draft(client: LLMClient, *, job: Job | None = None, profile: JobProfile | None = None) -> Draft:
    return asyncio.run(draft_job(job or a_job(), profile=profile or a_profile(), client=client, clock=StandingClock()))


@pytest.mark.parametrize("requirement", [None, "", "  \n\t"])
def test_a_job_without_a_requirement_is_refused_before_anyone_is_asked(requirement: str | None) -> None:
    client = Answering()

    with pytest.raises(DraftError) as refused:
        draft(client, job=a_job(requirement=requirement))

    assert refused.value.error_code == "DRAFT_REQUIREMENT_MISSING"
    assert client.requests == []


@pytest.mark.guarantee("L3")
@pytest.mark.parametrize(
    "fields",
    [
        {"outcome_var": "salary"},
        {"treatment_var": "salary"},
        {"controls": ["exper", "salary"]},
        {"time_var": "salary"},
        {"entity_var": "salary"},
        {"cluster_var": "salary"},
        {"fixed_effects": ["salary"]},
        {"instrument_var": "salary"},
        {"interaction_terms": ["educ#salary"]},
        {"outcome_var": "Wage", "controls": ["salary"]},
    ],
)
def test_a_column_that_is_not_there_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(DraftError, match=r"salary|Wage") as refused:
        draft(Answering(**fields))

    assert refused.value.error_code == "DRAFT_UNKNOWN_COLUMN"


def test_a_refusal_is_told_as_an_event_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ss_pipeline"), pytest.raises(DraftError):
        draft(Answering(outcome_var="salary"))

    (told,) = caplog.records
    assert (told.message, told.levelname) == ("SS_DRAFT_REFUSED", "WARNING")
    assert told.__dict__["fields"]["code"] == "DRAFT_UNKNOWN_COLUMN"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"treatment_var": "wage"}, "wage"),
        ({"controls": ["wage"]}, "wage"),
        ({"controls": ["exper", "educ"]}, "educ"),
        ({"controls": ["exper", "tenure", "exper"]}, "exper"),
    ],
)
def test_a_column_in_two_roles_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(DraftError, match=f"'{named}'") as refused:
        draft(Answering(**fields))

    assert refused.value.error_code == "DRAFT_INVALID"


def test_a_column_of_another_data_set_may_be_named() -> None:
    second = a_dataset([a_column("rainfall")], key="ds_0000000000000002", role="secondary_dataset")
    profile = JobProfile(job_id="job", datasets=[second, a_profile().primary])

    drafted = draft(Answering(controls=["rainfall"]), profile=profile)

    assert drafted.controls == ["rainfall"]
    assert drafted.column_candidates[0] == "wage"


@pytest.mark.parametrize(
    ("fields", "open_fields"),
    [
        ({"outcome_var": None}, ["outcome_var"]),
        ({"treatment_var": None}, ["treatment_var"]),
        ({"treatment_var": None, "method": "descriptive"}, []),
    ],
)
def test_a_missing_role_never_passes_without_a_person(fields: dict[str, Any], open_fields: list[str]) -> None:
    drafted = draft(Answering(**fields))

    assert [unknown.field for unknown in drafted.blocking_unknowns()] == open_fields
    assert drafted.decision == ("require_confirm" if open_fields else "auto_freeze")


def test_a_question_makes_the_draft_wait() -> None:
    question = Stage1Question(question_id="q1", question_text="Which year?", question_type="single_choice")

    assert draft(Answering(stage1_questions=[question])).decision == "require_confirm"


def test_at_most_three_hundred_columns_are_listed_and_the_named_ones_are_among_them() -> None:
    columns = [a_column(f"v{number}") for number in range(1_200)]
    profile = JobProfile(job_id="job", datasets=[a_dataset([*columns, a_column("wage"), a_column("educ")])])

    drafted = draft(Answering(), profile=profile)

    assert len(drafted.column_candidates) == len(drafted.variable_types) == 300
    assert {"wage", "educ"} <= set(drafted.column_candidates)


def test_what_is_known_about_the_data_is_passed_on() -> None:
    warning = DataQualityWarning(type="missing_values", message="half of wage is missing")
    profile = JobProfile(job_id="job", datasets=[a_dataset([a_column("wage"), a_column("educ")], warnings=[warning])])
    client = Answering()

    drafted = draft(client, job=a_job(language="zh"), profile=profile)

    assert drafted.data_quality_warnings == [warning]
    assert client.requests[0].language == "zh"
