"""Fault: processes load an older job at once while another saves it, and documents hold what nobody foresaw. Promise
(R14): no acknowledged save is lost, all see one trace id, the original bytes are kept, what is unknown is left alone.

The default sizes are those of a CI run; `-m soak` runs the full ones.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ss_pipeline.errors import DocumentNotFoundError, JobDataCorruptedError
from ss_pipeline.jobs.documents import JsonObject
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import ORIGINALS, JobStore, facets_of_body, job_key
from ss_pipeline_tests.builders import CREATED_AT
from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address
from ss_pipeline_tests.store_contract import STANDS
from ss_pipeline_tests.unit.test_job_store_migration import check_kept

# --- many at once ----------------------------------------------------------------------------------------------------


def race(address: str, *, rounds: int, kind: str = "real") -> Found:
    module = "ss_pipeline_tests.reliability.migration_races"
    return forking.run(module, "loads_against_saves", address=address, loaders=4, rounds=rounds, kind=kind)


@pytest.fixture(params=SHARED)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with an_address(request.param, tmp_path) as address:
        yield address


@pytest.mark.seed("S1.1.4")
@pytest.mark.guarantee("R14")
@pytest.mark.parametrize("rounds", [100, pytest.param(500, marks=pytest.mark.soak)])
def test_four_processes_that_load_undo_no_save_of_a_fifth(address: str, rounds: int) -> None:
    found = race(address, rounds=rounds)
    assert found.pop("loaded_before") > 0, "no load came before its save: this was no race"
    assert found == {"saved": rounds, "lost": 0, "trace_ids": 1, "originals_kept": True, "listed": rounds}


@pytest.mark.guarantee("R14")
def test_a_load_that_writes_back_without_comparing_is_caught(address: str) -> None:
    assert race(address, rounds=30, kind="blind")["lost"] > 0


# --- documents of any content ----------------------------------------------------------------------------------------

ANY_JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
UNKNOWN: Final = st.dictionaries(st.text(min_size=1).map("x_{}".format), ANY_JSON, max_size=4)
IDS: Final = count(1)
SIZES: Final = settings(max_examples=60, derandomize=True, database=None, deadline=None)


@pytest.fixture(params=sorted(STANDS))
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobStore]:
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)  # power cuts are test_power_cut.py's
    with STANDS[request.param](tmp_path, facets_of=facets_of_body) as stand:
        yield JobStore(stand.backend)


@st.composite
def older_documents(draw: st.DrawFn) -> JsonObject:
    """Documents of schema 1 and 2 that a job can be made of."""
    payload: JsonObject = {
        **draw(UNKNOWN),
        "job_id": f"job_{next(IDS):016d}",
        "schema_version": draw(st.sampled_from([1, 2])),
        "status": draw(st.sampled_from(["created", "draft_ready", "running", "succeeded", "failed"])),
        "created_at": CREATED_AT,
    }
    optional: dict[str, Any] = {
        "requirement": st.none() | st.text(),
        "trace_id": st.none() | st.text(),
        "version": st.none() | st.integers(1, 2**63 - 2),
        "runs": st.just([]),
        "artifacts_index": st.just([]),
    }
    return payload | {name: draw(values) for name, values in optional.items() if draw(st.booleans())}


def put(store: JobStore, payload: JsonObject) -> tuple[DocumentKey, bytes]:
    key, body = job_key(payload["job_id"]), json.dumps(payload, ensure_ascii=False).encode()
    store.backend.create(key, body, facets_of_body(key, body))
    return key, body


def original_of(store: JobStore, key: DocumentKey) -> bytes:
    return store.backend.read(DocumentKey(ORIGINALS, key.tenant_id, key.document_id))


@pytest.mark.guarantee("R14")
def test_any_older_document_is_migrated_once_keeps_what_is_unknown_and_can_be_put_back(store: JobStore) -> None:
    @SIZES
    @given(older_documents())
    def holds(payload: JsonObject) -> None:
        key, body = put(store, payload)
        job = store.load(key.document_id)
        migrated = store.backend.read(key)
        assert store.load(key.document_id) == job
        assert store.backend.read(key) == migrated
        check_kept(payload, json.loads(migrated))
        assert original_of(store, key) == body
        assert store.roll_back(key)
        assert store.backend.read(key) == body
        assert store.load(key.document_id) == job

    holds()


@pytest.mark.guarantee("R14")
@pytest.mark.guarantee("F25")
def test_a_document_of_a_schema_that_is_not_known_is_refused_by_every_operation_and_never_written(
    store: JobStore,
) -> None:
    @SIZES
    @given(older_documents(), st.integers(min_value=4) | st.integers(max_value=0) | ANY_JSON.filter(_is_no_integer))
    def holds(payload: JsonObject, schema: object) -> None:
        key, body = put(store, {**payload, "schema_version": schema})
        with pytest.raises(JobDataCorruptedError):
            store.load(key.document_id)
        with pytest.raises(JobDataCorruptedError):
            store.update(key.document_id, lambda job: job.changed(priority=1))
        assert store.plan_migration(key).corrupted
        assert not store.roll_back(key)
        assert store.backend.read(key) == body
        with pytest.raises(DocumentNotFoundError):
            original_of(store, key)

    holds()


def _is_no_integer(value: object) -> bool:
    return type(value) is not int
