"""A model's answer: what is taken, what is not, and whether its numbers are those of the data."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from ss_pipeline.errors import DraftError
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.llm.answers import answer_schema, parse_answer
from ss_pipeline.llm.base import DraftRequest
from ss_pipeline.llm.grounding import ungrounded
from ss_pipeline_tests.profiles import a_column, a_dataset, a_profile

WHOLE: dict[str, Any] = {
    "draft_text": "Wages are regressed on education.",
    "outcome_var": "wage",
    "treatment_var": "educ",
    "controls": ["exper"],
    "method": "ols",
    "time_var": None,
    "entity_var": None,
    "cluster_var": None,
    "instrument_var": None,
    "fixed_effects": [],
    "interaction_terms": [],
    "analysis_hints": ["Look at outliers."],
    "open_unknowns": [{"field": "controls", "description": "Which?", "impact": "low", "candidates": ["tenure"]}],
}


def an_answer(**fields: Any) -> str:
    return json.dumps({**WHOLE, **fields})


def a_request(requirement: str = "Does educ raise wage since 1976?", profile: JobProfile | None = None) -> DraftRequest:
    return DraftRequest("job_abcdefghijklmnop", "default", requirement, None, profile or a_profile())


def a_known_profile() -> JobProfile:
    """526 rows, as the wage data of the textbook."""
    wage = a_column("wage", label="average hourly earnings").model_copy(
        update={"count": 520, "missing": 6, "min": 0.53, "max": 24.98, "mean": 5.896103, "std": 3.693, "distinct": 241}
    )
    year = a_column("year").model_copy(update={"min": 1976.0, "max": 1987.0, "mean": 1981.5})
    other = a_column("height").model_copy(update={"mean": 171.25})
    dataset = a_dataset([wage, a_column("educ"), year, other]).model_copy(update={"rows": 526})
    return JobProfile(job_id="job_abcdefghijklmnop", datasets=[dataset])


def test_a_whole_answer_becomes_a_draft() -> None:
    draft = parse_answer(an_answer()).as_draft(str)

    assert (draft.outcome_var, draft.treatment_var, draft.controls, draft.method) == ("wage", "educ", ["exper"], "ols")
    assert [(unknown.field, unknown.blocks) for unknown in draft.open_unknowns] == [("controls", False)]


def test_a_fence_of_markdown_around_it_is_taken_off() -> None:
    assert parse_answer(f"```json\n{an_answer()}\n```\n") == parse_answer(an_answer())


def test_real_names_of_columns_are_put_back_and_prose_keeps_its_placeholders() -> None:
    text = an_answer(outcome_var="[EMAIL_1]", controls=["[EMAIL_1]_2"], draft_text="About [EMAIL_1].")

    draft = parse_answer(text).as_draft(lambda name: name.replace("[EMAIL_1]", "a@example.org"))

    assert (draft.outcome_var, draft.controls) == ("a@example.org", ["a@example.org_2"])
    assert draft.draft_text == "About [EMAIL_1]."


@pytest.mark.guarantee("L1", "L3")
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "not one JSON object"),
        ("Sure! Here it is.", "not one JSON object"),
        (an_answer()[:-5], "not one JSON object"),
        (an_answer() + an_answer(), "not one JSON object"),
        ("[]", "valid dictionary"),
        ("null", "valid dictionary"),
        ("[" * 100_000, "nested too deeply"),
        ('{"draft_text": NaN}', "NaN is no JSON"),
        ('{"draft_text": "a", "draft_text": "b"}', "twice"),
        ("x" * 100_001, "more than 100000"),
        (an_answer(draft_text=""), "draft_text"),
        (an_answer(draft_text="x" * 4_001), "draft_text"),
        (an_answer(draft_text="\ud800"), "draft_text"),
        (an_answer(method="magic"), "method"),
        (an_answer(outcome_var=7), "outcome_var"),
        (an_answer(controls="exper"), "controls"),
        (an_answer(controls=["c"] * 51), "controls"),
        (an_answer(status="succeeded"), "status"),
        (an_answer(callback_url="https://evil.example"), "callback_url"),
        (an_answer(tenant_id="other"), "tenant_id"),
        (an_answer(decision="approve"), "decision"),
        (an_answer(open_unknowns=[{**WHOLE["open_unknowns"][0], "blocking": False}]), "blocking"),
        (an_answer(open_unknowns=[{**WHOLE["open_unknowns"][0], "impact": "none"}]), "impact"),
    ],
)
def test_anything_else_is_refused_with_its_fault_named(text: str, fault: str) -> None:
    with pytest.raises(DraftError, match=fault) as refused:
        parse_answer(text)

    assert refused.value.error_code == "DRAFT_INVALID"
    assert len(refused.value.message) < 3_000


def test_the_schema_asks_for_all_members_and_allows_no_other() -> None:
    schema = answer_schema()

    assert set(schema["required"]) == set(schema["properties"]) == WHOLE.keys()
    assert schema["additionalProperties"] is schema["$defs"]["Unknown"]["additionalProperties"] is False


def test_the_schema_is_that_of_the_prompt_version() -> None:
    """The schema is part of a question's key: where it changes, nothing on record is found again. See draft/1."""
    text = json.dumps(answer_schema(), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "feb9b48b3f22b0c6"


@pytest.mark.parametrize(
    "text",
    [
        "Nothing is quoted.",
        "The 526 rows are used.",
        "Mean wage is 5.90, from 0.53 to 24.98.",
        "Mean wage is about 5.9 with a deviation of 3.69.",
        "There are 526 rows and 241 different wages; 6 are missing (1.1%).",
        "We need 95% confidence and p < 0.05 with 3 controls.",
        "It covers 1976 to 1987, as asked since 1976.",
        "平均工资为5.90元，样本量为526，缺失1.1%。",
        "R2, 2SLS and x_999 are no numbers; neither is COVID-19x.",
        "About 530 rows.",
    ],
)
def test_numbers_of_the_profile_and_the_requirement_are_grounded(text: str) -> None:
    answer = DraftAnswer(draft_text=text, outcome_var="wage", time_var="year")

    assert ungrounded(answer, a_request(profile=a_known_profile())) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Mean wage is 6.90.", ["6.90"]),
        ("The 527 rows are used.", ["527"]),
        ("Mean wage is 5.8.", ["5.8"]),
        ("It covers 1975 to 1987.", ["1975"]),
        ("31% are missing.", ["31%"]),
        ("平均工资为15.9元，样本量为1,526。", ["15.9", "1,526"]),
        ("About 600 rows, 1.2万 in all.", ["600", "1.2万"]),
        ("People are 171.25 tall.", ["171.25"]),
    ],
)
def test_numbers_from_nowhere_are_named(text: str, numbers: list[str]) -> None:
    """The last one is the mean of a column that neither the draft nor its text names."""
    answer = DraftAnswer(draft_text=text, outcome_var="wage", time_var="year")

    assert ungrounded(answer, a_request(profile=a_known_profile())) == numbers


def test_a_number_may_be_that_of_a_column_that_the_text_names() -> None:
    answer = DraftAnswer(draft_text="The mean of height is 171.25.", outcome_var="wage")

    assert ungrounded(answer, a_request(profile=a_known_profile())) == []


def test_a_requirement_may_be_quoted() -> None:
    request = replace(a_request(), requirement="Compare 4321 firms before and after 2.5 million in aid.")
    answer = DraftAnswer(draft_text="The 4321 firms are compared; aid is 2,500,000.")

    assert ungrounded(answer, request) == []
