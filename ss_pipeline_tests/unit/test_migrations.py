"""V1 → V2 → V3: exact results, what is refused, and the laws that every document obeys."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.errors import JobDataCorruptedError
from ss_pipeline.jobs.documents import JsonObject, parse_document
from ss_pipeline.jobs.migrations import assert_supported_schema_version, migrate_payload_to_current
from ss_pipeline.jobs.model import job_from_payload
from ss_pipeline_tests.conftest import PROJECT_ROOT

FIXTURES = PROJECT_ROOT / "ss_pipeline_tests" / "fixtures"

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
UNKNOWN = st.dictionaries(
    st.text(min_size=1).filter(
        lambda key: key not in {"schema_version", "version", "runs", "artifacts_index", "trace_id"}
    ),
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6),
    max_size=5,
)
LISTS = st.lists(st.dictionaries(st.text(), SCALARS, max_size=2), max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> JsonObject:
    """Documents of every supported version, with and without what a migration fills in."""
    payload: JsonObject = draw(UNKNOWN)
    payload["schema_version"] = draw(st.sampled_from([1, 2, 3]))
    if draw(st.booleans()):
        payload |= {"runs": draw(LISTS), "artifacts_index": draw(LISTS)}
    if draw(st.booleans()):
        payload["version"] = draw(st.integers(min_value=1) | st.none()) if payload["schema_version"] < 3 else 1
    if draw(st.booleans()):
        payload["trace_id"] = draw(st.none() | st.text())
    return payload


def fixture(name: str) -> JsonObject:
    """A document of the fixtures folder."""
    return parse_document((FIXTURES / name).read_bytes())


@pytest.mark.seed("S1.1.3", "S1.1.7")
@pytest.mark.parametrize(
    ("name", "steps", "backfilled"), [("job_v1", ((1, 2), (2, 3)), True), ("job_v2", ((2, 3),), False)]
)
def test_an_older_document_becomes_exactly_this(
    name: str, steps: tuple[tuple[int, int], ...], backfilled: bool
) -> None:
    original = fixture(f"{name}.json")
    migration = migrate_payload_to_current(original)
    assert migration.payload == fixture(f"{name}_migrated.json")
    assert (migration.steps, migration.trace_id_backfilled, migration.changed) == (steps, backfilled, True)
    assert original == fixture(f"{name}.json"), "the given document was changed"
    assert job_from_payload(migration.payload).version == 1


def test_a_current_document_is_left_as_it_is() -> None:
    migration = migrate_payload_to_current(fixture("sample_job.json"))
    assert migration.payload == fixture("sample_job.json")
    assert (migration.steps, migration.changed) == ((), False)


@pytest.mark.seed("S1.1.2")
@pytest.mark.parametrize("version", [True, False, 1.0, 3.0, "1", "3", 0, 4, -1, None, [], {}, 10**40])
def test_anything_but_the_integers_one_to_three_is_no_schema_version(version: object) -> None:
    with pytest.raises(JobDataCorruptedError, match=r"is not supported \(supported: 1, 2, 3\)"):
        assert_supported_schema_version(version)
    with pytest.raises(JobDataCorruptedError, match="schema_version"):
        migrate_payload_to_current({"schema_version": version})


@pytest.mark.seed("S1.1.2")
def test_a_missing_schema_version_is_refused() -> None:
    with pytest.raises(JobDataCorruptedError, match="schema_version 'None' is not supported"):
        migrate_payload_to_current({})


@pytest.mark.seed("S1.1.2")
@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_supported_versions_are_returned(version: int) -> None:
    assert assert_supported_schema_version(version) == version


@pytest.mark.parametrize("key", ["runs", "artifacts_index"])
@pytest.mark.parametrize("value", [None, {}, "", 0, False])
def test_v1_with_something_else_than_a_list_is_refused(key: str, value: object) -> None:
    with pytest.raises(JobDataCorruptedError, match=f"{key}_not_list"):
        migrate_payload_to_current({"schema_version": 1, key: value})


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", []])
@pytest.mark.parametrize("schema_version", [1, 2])
def test_an_invalid_version_is_refused(schema_version: int, value: object) -> None:
    with pytest.raises(JobDataCorruptedError, match="version_invalid"):
        migrate_payload_to_current({"schema_version": schema_version, "version": value})


@pytest.mark.parametrize(("given_version", "version"), [({}, 1), ({"version": None}, 1), ({"version": 7}, 7)])
def test_a_missing_version_becomes_one_and_another_is_kept(given_version: JsonObject, version: int) -> None:
    assert migrate_payload_to_current({"schema_version": 2, **given_version}).payload["version"] == version


@pytest.mark.parametrize("trace", [{}, {"trace_id": None}, {"trace_id": ""}, {"trace_id": " \t"}])
@pytest.mark.parametrize("schema_version", [1, 2, 3])
def test_a_missing_trace_id_is_derived_the_same_way_by_every_loader(schema_version: int, trace: JsonObject) -> None:
    payload = {"schema_version": schema_version, "version": 1, **trace}
    loaders = [migrate_payload_to_current(json.loads(json.dumps(payload))) for _ in range(3)]
    assert len({migration.payload["trace_id"] for migration in loaders}) == 1
    assert len(loaders[0].payload["trace_id"]) == 32
    assert loaders[0].trace_id_backfilled
    assert loaders[0].changed


def test_a_trace_id_of_another_type_is_left_for_the_schema_to_refuse() -> None:
    assert migrate_payload_to_current({"schema_version": 3, "trace_id": 7}).payload["trace_id"] == 7


@pytest.mark.guarantee("R14")
@given(documents())
def test_migrating_again_changes_nothing(payload: JsonObject) -> None:
    once = migrate_payload_to_current(payload)
    twice = migrate_payload_to_current(once.payload)
    assert twice.payload == once.payload
    assert not twice.changed


@pytest.mark.guarantee("R14")
@given(documents())
def test_no_field_is_lost_or_changed_but_those_a_migration_owns(payload: JsonObject) -> None:
    migrated = migrate_payload_to_current(payload).payload
    owned = {"schema_version", "version", "trace_id"}
    assert {key: migrated[key] for key in payload if key not in owned} == {
        key: value for key, value in payload.items() if key not in owned
    }
    assert migrated["schema_version"] == 3


def test_every_document_of_the_corpus_is_read_or_refused_as_wanted(corpus: Path) -> None:
    for line in (corpus / "jobs" / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["want"] in {"ok", "reject"}:
            assert outcome((corpus / "jobs" / "docs" / row["file"]).read_bytes()) == row["want"], row["file"]


def outcome(body: bytes) -> str:
    """What reading a stored document comes to."""
    try:
        job_from_payload(migrate_payload_to_current(parse_document(body)).payload)
    except JobDataCorruptedError:
        return "reject"
    return "ok"
