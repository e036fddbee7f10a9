"""The job document: every field's rule, unknown fields kept, what a copy may change, drafts and their hash."""

from typing import Any

import pytest

from ss_pipeline.errors import JobDataCorruptedError
from ss_pipeline.jobs.documents import JsonObject, parse_document, render_document
from ss_pipeline.jobs.drafts import Draft, DraftAnswer, OpenUnknown, Stage1Question, draft_id
from ss_pipeline.jobs.model import (
    JOB_ID_PATTERN,
    JOB_SCHEMA_VERSION_CURRENT,
    JOB_SCHEMA_VERSION_V1,
    JOB_SCHEMA_VERSION_V2,
    JOB_SCHEMA_VERSION_V3,
    JOB_STATUSES,
    SUPPORTED_JOB_SCHEMA_VERSIONS,
    TERMINAL_STATUSES,
    PriorityClass,
    Publication,
    job_from_payload,
)
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.fakes import StandingClock

SAMPLE = (PROJECT_ROOT / "ss_pipeline_tests" / "fixtures" / "sample_job.json").read_bytes()
MINIMAL: JsonObject = {
    "schema_version": 3,
    "job_id": "job_abcdefghijklmnop",
    "trace_id": "t",
    "status": "created",
    "created_at": "2026-01-06T12:00:00+00:00",
}
ARTIFACT: JsonObject = {"kind": "plan.json", "rel_path": "artifacts/plan.json"}
RUN: JsonObject = {"run_id": "r", "attempt": 1, "status": "running"}
PUBLICATION: JsonObject = {"version": 1, "manifest_sha256": "m", "at": "t", "fence": 2, "draft_sha256": "d"}
DECISION: JsonObject = {"action": "approve", "by": "policy:auto", "at": "t", "draft_sha256": "d"}
DRAFT: JsonObject = {"text": "OLS", "created_at": "2026-01-06T12:00:00+00:00"}


@pytest.mark.seed("S1.1.1")
def test_the_schema_versions_have_the_names_of_the_seed() -> None:
    versions = (JOB_SCHEMA_VERSION_V1, JOB_SCHEMA_VERSION_V2, JOB_SCHEMA_VERSION_V3)
    assert versions == (1, 2, 3) == SUPPORTED_JOB_SCHEMA_VERSIONS
    assert JOB_SCHEMA_VERSION_CURRENT == JOB_SCHEMA_VERSION_V3


def test_the_smallest_document_has_the_defaults_of_the_contract() -> None:
    job = job_from_payload(MINIMAL)
    assert (job.version, job.tenant_id, job.priority, job.attempts) == (1, "default", 0, 0)
    assert (job.runs, job.artifacts_index, job.history, job.publications) == ([], [], [], [])
    assert (job.draft, job.decision, job.published, job.held, job.parked) == (None, None, None, None, None)


@pytest.mark.seed("S1.3.1")
def test_the_sample_job_is_read_and_written_without_a_loss() -> None:
    before = parse_document(SAMPLE)
    job = job_from_payload(before)
    after = job.as_payload()
    assert contained(before, after)
    assert job_from_payload(parse_document(render_document(after))) == job


def contained(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole`, at the same place."""
    if isinstance(part, dict):
        return all(key in whole and contained(value, whole[key]) for key, value in part.items())
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(contained, part, whole))
    return bool(part == whole)


@pytest.mark.seed("S1.2.2")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "3"),
        ("version", 0),
        ("version", -1),
        ("version", True),
        ("version", 1.0),
        ("version", "1"),
        ("version", None),
        ("version", 2**63),
        ("tenant_id", ""),
        ("tenant_id", ".."),
        ("tenant_id", None),
        ("job_id", "a/b"),
        ("job_id", ".."),
        ("job_id", 7),
        ("job_id", None),
        ("trace_id", ""),
        ("trace_id", "  "),
        ("trace_id", 7),
        ("status", "dead"),
        ("status", "Created"),
        ("status", None),
        ("requirement", 7),
        ("created_at", "yesterday"),
        ("created_at", None),
        ("created_at", 0),
        ("scheduled_at", 0),
        ("confirmation", []),
        ("confirmation", {"variable_corrections": {"a": 1}}),
        ("inputs", "inputs/manifest.json"),
        ("inputs", {"manifest_rel_path": "../manifest.json"}),
        ("inputs", {"manifest_rel_path": "/manifest.json"}),
        ("inputs", {"fingerprint": 5}),
        ("draft", {"text": "no time"}),
        ("draft", {**DRAFT, "controls": "experience"}),
        ("draft", {**DRAFT, "column_candidates": ["c"] * 301}),
        ("draft", {**DRAFT, "revision": 0}),
        ("draft", {**DRAFT, "open_unknowns": [{"field": "f", "description": "d"}]}),
        ("llm_plan", []),
        ("selected_template_id", 5),
        ("output_formats", ["exe"]),
        ("runs", None),
        ("runs", {}),
        ("runs", [{**RUN, "attempt": "1"}]),
        ("runs", [{"run_id": "r"}]),
        ("artifacts_index", None),
        ("artifacts_index", [{**ARTIFACT, "kind": "virus.exe"}]),
        ("artifacts_index", [{**ARTIFACT, "rel_path": "../../etc/passwd"}]),
        ("artifacts_index", [{**ARTIFACT, "rel_path": "~/x"}]),
        ("artifacts_index", [{**ARTIFACT, "meta": []}]),
        ("auth_token", 5),
        ("priority", 101),
        ("priority", -101),
        ("priority", True),
        ("priority", "5"),
        ("callback_url", 5),
        ("decision", {**DECISION, "action": "perhaps"}),
        ("decision", {"action": "approve"}),
        ("publications", [{**PUBLICATION, "version": 0}]),
        ("publications", [{**PUBLICATION, "fence": "2"}]),
        ("deliveries", [1]),
        ("parked", {"until": "tomorrow"}),
        ("failure", {"code": "X"}),
        ("attempts", -1),
        ("history", [{"at": "t"}]),
        ("held", False),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(JobDataCorruptedError) as caught:
        job_from_payload({**MINIMAL, field: value})
    assert field in caught.value.reason


@pytest.mark.parametrize("field", ["job_id", "trace_id", "status", "created_at"])
def test_a_missing_field_is_refused_by_name(field: str) -> None:
    with pytest.raises(JobDataCorruptedError, match=f"{field}: Field required"):
        job_from_payload({key: value for key, value in MINIMAL.items() if key != field})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requirement", None),
        ("requirement", ""),
        ("job_id", "legacy id of 2019"),
        ("created_at", "2026-01-06"),
        ("inputs", {"manifest_rel_path": None}),
        ("output_formats", ["csv", "log", "do"]),
        ("priority", -100),
        ("priority", 100),
        ("version", 2**63 - 1),
        ("runs", [RUN]),
        ("artifacts_index", [ARTIFACT]),
        ("decision", DECISION),
        ("publications", [PUBLICATION]),
    ],
)
def test_a_value_at_the_edge_of_its_rule_is_kept(field: str, value: object) -> None:
    assert contained({field: value}, job_from_payload({**MINIMAL, field: value}).as_payload())


@pytest.mark.seed("S1.1.3")
def test_fields_nobody_here_knows_are_kept_at_every_level() -> None:
    unknown = {"from": "a later version", "n": [1, None, {"deep": True}]}
    payload = {
        **MINIMAL,
        "unknown": unknown,
        "inputs": {"unknown": unknown},
        "draft": {**DRAFT, "unknown": unknown},
        "runs": [{**RUN, "unknown": unknown}],
        "artifacts_index": [{**ARTIFACT, "unknown": unknown}],
        "publications": [{**PUBLICATION, "unknown": unknown}],
    }
    job = job_from_payload(payload)
    assert contained(payload, job.as_payload())
    assert contained(payload, job.changed(version=2, priority=5).as_payload() | {"version": 1, "priority": 0})


def test_a_copy_leaves_the_original_alone_and_cannot_change_the_status() -> None:
    job = a_job()
    assert (job.changed(priority=7).priority, job.priority) == (7, 0)
    with pytest.raises(TypeError, match=r"lifecycle\.transition"):
        job.changed(status="succeeded")


@pytest.mark.parametrize(
    ("priority", "priority_class"),
    [(-100, "low"), (-1, "low"), (0, "normal"), (9, "normal"), (10, "high"), (100, "high")],
)
def test_priorities_fall_into_three_classes(priority: int, priority_class: PriorityClass) -> None:
    assert a_job(priority=priority).priority_class == priority_class


def test_the_newest_publication_is_the_published_one_and_its_folder_names_version_and_fence() -> None:
    older, newer = (Publication.model_validate({**PUBLICATION, "version": v, "fence": v + 5}) for v in (1, 2))
    published = a_job(publications=[older, newer]).published
    assert published == newer
    assert published.folder == "publications/v2-f7"


@pytest.mark.guarantee("A3")
def test_ids_made_here_match_the_pattern() -> None:
    assert JOB_ID_PATTERN.match(StandingClock().new_job_id())
    assert not JOB_ID_PATTERN.match("job_UPPER_CASE_IS_NOT")


def test_the_statuses_are_the_originals_seven_and_cancelled() -> None:
    assert JOB_STATUSES == (
        "created", "draft_ready", "confirmed", "queued", "running", "succeeded", "failed", "cancelled",
    )  # fmt: skip
    assert {"succeeded", "cancelled"} == TERMINAL_STATUSES


@pytest.mark.parametrize(
    ("impact", "blocking", "blocks"),
    [
        ("low", None, False),
        ("medium", False, False),
        ("medium", True, True),
        ("high", None, True),
        ("critical", False, True),
        ("of a later version", None, False),
    ],
)
def test_an_unknown_blocks_if_it_says_so_or_its_impact_is_high(
    impact: str, blocking: bool | None, blocks: bool
) -> None:
    unknown = OpenUnknown(field="f", description="d", impact=impact, blocking=blocking)
    draft = Draft(text="t", created_at="t", open_unknowns=[unknown])
    assert unknown.blocks is blocks
    assert draft.blocking_unknowns() == ([unknown] if blocks else [])
    assert draft.needs_answers() is blocks


def test_a_question_needs_an_answer() -> None:
    question = Stage1Question(question_id="q", question_text="Which?", question_type="single_choice")
    assert Draft(text="t", created_at="t", stage1_questions=[question]).needs_answers()


def test_a_draft_has_another_hash_as_soon_as_anything_in_it_is_another() -> None:
    draft = Draft.model_validate(DRAFT)
    again = Draft.model_validate(draft.model_dump(mode="json"))
    assert draft.sha256 == again.sha256
    others = {"text": "OLS!", "controls": ["x"], "revision": 2, "unknown": 1}
    hashes = {Draft.model_validate({**DRAFT, name: value}).sha256 for name, value in others.items()}
    assert len(hashes | {draft.sha256}) == len(others) + 1


def test_an_answer_names_each_column_once_in_order_of_first_mention() -> None:
    answer = DraftAnswer(
        draft_text="t",
        outcome_var="wage",
        treatment_var="educ",
        controls=["exper", "wage"],
        fixed_effects=["year"],
        interaction_terms=["educ#female"],
        entity_var="id",
    )
    assert answer.columns_named() == ["wage", "educ", "id", "exper", "year", "female"]


def test_the_id_of_a_draft_is_the_originals() -> None:
    assert draft_id("2026-01-06", "text") == "draft_fd3dd9f11cc03bd9"
