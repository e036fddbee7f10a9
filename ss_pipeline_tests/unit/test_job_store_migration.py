"""Older documents on any back end: migrated at the first load, once, under everybody's eyes, and put back if asked."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from ss_pipeline.errors import DocumentNotFoundError, JobDataCorruptedError, JobNotFoundError, JobRollbackRefusedError
from ss_pipeline.jobs.documents import job_folder, render_document
from ss_pipeline.jobs.migrations import Migration
from ss_pipeline.jobs.model import Job
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import ORIGINALS, JobStore, facets_of_body, facets_of_job, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.store_contract import STANDS, Stand

FIXTURES = PROJECT_ROOT / "ss_pipeline_tests" / "fixtures"
ID = "job_0123456789abcdef"


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path, facets_of=facets_of_body) as stand:
        yield stand


@pytest.fixture
def store(stand: Stand) -> JobStore:
    return JobStore(stand.backend)


def older(version: int, job_id: str = ID) -> bytes:
    """A document of schema 1 or 2 with fields nobody knows, written as the original system did."""
    payload = json.loads((FIXTURES / f"job_v{version}.json").read_bytes())
    return json.dumps({**payload, "job_id": job_id}, ensure_ascii=False, indent=2, sort_keys=True).encode()


def put(store: JobStore, body: bytes, job_id: str = ID) -> DocumentKey:
    key = job_key(job_id)
    store.backend.create(key, body, facets_of_body(key, body))
    return key


@pytest.mark.seed("S1.1.4")
@pytest.mark.seed("S1.1.6")
@pytest.mark.parametrize(("version", "steps"), [(1, [(1, 2), (2, 3)]), (2, [(2, 3)])])
def test_the_first_load_stores_the_current_schema_and_reports_each_step_once(
    store: JobStore, version: int, steps: list[tuple[int, int]]
) -> None:
    key = put(store, older(version))
    with recorded_events() as tape:
        job = store.load(ID)
        assert store.load(ID) == job
    migrated = tape.of("SS_JOB_JSON_SCHEMA_MIGRATED")
    assert migrated == [{"job_id": ID, "from_version": old, "to_version": new} for old, new in steps]
    now = json.loads(store.backend.read(key))
    assert (now["schema_version"], now["version"], now["trace_id"]) == (3, job.version, job.trace_id)
    check_kept(json.loads(older(version)), now)
    assert store.backend.read(DocumentKey(ORIGINALS, "default", ID)) == older(version)


@pytest.mark.seed("S1.1.6")
def test_a_missing_trace_id_is_filled_in_once_and_reported(store: JobStore) -> None:
    put(store, older(1))
    with recorded_events() as tape:
        assert store.load(ID).trace_id == store.load(ID).trace_id
    assert len(tape.of("SS_JOB_TRACE_ID_BACKFILLED")) == 1


def test_planning_a_migration_writes_nothing(store: JobStore) -> None:
    key = put(store, older(1))
    plan = store.plan_migration(key)
    assert (plan.steps, plan.changed, plan.corrupted) == (((1, 2), (2, 3)), True, None)
    assert store.backend.read(key) == older(1)
    broken = put(store, b"{}", "job_broken0000000000")
    assert store.plan_migration(broken).corrupted


def test_an_older_job_of_a_sealed_store_is_read_and_left_as_it_is(store: JobStore) -> None:
    key = put(store, older(1))
    store.backend.seal("the next store")
    with recorded_events() as tape:
        assert store.load(ID).version == 1
    assert store.backend.read(key) == older(1)
    assert store.backend.page(ORIGINALS) == []
    assert tape.events == []


@pytest.mark.seed("S1.1.4")
def test_four_threads_that_load_first_see_one_trace_id(store: JobStore) -> None:
    ids = [f"job_{number:016d}" for number in range(150)]
    for job_id in ids:
        put(store, older(1, job_id), job_id)
    barrier = Barrier(4)

    def load(job_id: str) -> str:
        barrier.wait()
        return store.load(job_id).trace_id

    with ThreadPoolExecutor(4) as threads, recorded_events() as tape:
        seen = [{trace_id.result() for trace_id in [threads.submit(load, job_id) for _ in range(4)]} for job_id in ids]
    assert {len(trace_ids) for trace_ids in seen} == {1}
    assert len(tape.of("SS_JOB_JSON_SCHEMA_MIGRATED")) == 2 * 150


class BlindJobStore(JobStore):
    """A broken twin: its load writes the migrated document over whatever is stored by then."""

    def _write_back(self, key: DocumentKey, body: bytes, job: Job, migration: Migration) -> bool:
        del body
        time.sleep(0.001)
        now = self.backend.read(key)
        self.backend.replace(key, render_document(migration.payload), facets_of_job(job), expected=now)
        return True


def lost_saves(store: JobStore, *, rounds: int) -> int:
    """Rounds of four loaders and one saver on a fresh v1 document after which the acknowledged save is gone."""
    barrier = Barrier(5)

    def load(job_id: str) -> None:
        barrier.wait()
        store.load(job_id)

    def save(job_id: str) -> Job:
        barrier.wait()
        return store.update(job_id, lambda job: job.changed(priority=7))

    lost = 0
    with ThreadPoolExecutor(5) as threads:
        for job_id in (f"job_{number:016d}" for number in range(rounds)):
            put(store, older(1, job_id), job_id)
            loads = [threads.submit(load, job_id) for _ in range(4)]
            saved = threads.submit(save, job_id).result()
            for done in loads:
                done.result()
            lost += store.load(job_id) != saved
    return lost


@pytest.mark.guarantee("R14")
def test_a_load_never_undoes_an_acknowledged_save(store: JobStore) -> None:
    assert lost_saves(store, rounds=100) == 0


@pytest.mark.guarantee("R14")
def test_a_store_whose_load_writes_blindly_is_caught() -> None:
    assert lost_saves(BlindJobStore(MemoryBackend()), rounds=20) > 0


def test_a_job_deleted_while_it_is_migrated_is_not_found() -> None:
    class DeletingBackend(MemoryBackend):
        """The document is deleted while its original is put aside."""

        def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
            super().create(key, body, facets)
            if key.collection == ORIGINALS:
                self.delete(job_key(ID), expected=body)

    store = JobStore(DeletingBackend())
    put(store, older(1))
    with pytest.raises(JobNotFoundError):
        store.load(ID)


# --- rolling back ----------------------------------------------------------------------------------------------------


@pytest.mark.seed("S1.1.8")
def test_migrated_jobs_are_rolled_back_byte_for_byte(store: JobStore) -> None:
    bodies: dict[str, bytes] = {}
    for number in range(200):
        job_id = f"job_{number:016d}"
        current = render_document(a_job(job_id).as_payload())
        bodies[job_id] = current if number % 3 == 0 else older(number % 3, job_id) + b"\n" * (number % 5)
        put(store, bodies[job_id], job_id)
    for job_id in bodies:
        store.load(job_id)
    rolled_back = [store.roll_back(job_key(job_id)) for job_id in bodies]
    assert rolled_back == [number % 3 != 0 for number in range(200)]
    assert {job_id: store.backend.read(job_key(job_id)) for job_id in bodies} == bodies
    assert store.backend.page(ORIGINALS) == []


@pytest.mark.seed("S1.1.8")
def test_a_job_saved_since_its_migration_is_not_rolled_back(store: JobStore) -> None:
    key = put(store, older(1))
    saved = store.save(store.load(ID).changed(priority=1))
    with pytest.raises(JobRollbackRefusedError):
        store.roll_back(key)
    assert store.load(ID) == saved


def test_a_rollback_is_repeatable_and_followed_by_a_new_migration(store: JobStore) -> None:
    key = put(store, older(1))
    first = store.load(ID)
    assert store.roll_back(key)
    assert not store.roll_back(key)
    assert store.load(ID) == first
    store.backend.replace(key, older(1), Facets(), expected=store.backend.read(key))  # a rollback killed halfway
    assert store.roll_back(key)
    with pytest.raises(DocumentNotFoundError):
        store.backend.read(DocumentKey(ORIGINALS, "default", ID))


def test_originals_of_an_earlier_migration_give_way(store: JobStore) -> None:
    key = put(store, older(1))
    store.load(ID)
    store.backend.replace(key, older(2), Facets(), expected=store.backend.read(key))  # put back by hand
    store.load(ID)
    assert store.roll_back(key)
    assert store.backend.read(key) == older(2)


# --- real documents --------------------------------------------------------------------------------------------------


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[JobStore]:
    with STANDS["file"](tmp_path, facets_of=facets_of_body) as stand:
        yield JobStore(stand.backend)


@dataclass(frozen=True)
class Dropped:
    """A document that another program put into the file store's folder."""

    store: JobStore
    path: Path
    job_id: str
    tenant_id: str

    def load(self) -> Job | None:
        """The job; None where it is refused, its file then being unchanged."""
        raw = self.path.read_bytes()
        try:
            return self.store.load(self.job_id, tenant_id=self.tenant_id)
        except JobDataCorruptedError:
            assert self.path.read_bytes() == raw
            return None


def dropped(store: JobStore, root: Path, job_id: str, raw: bytes, *, base: bytes) -> Dropped:
    """Puts `raw` where the job of the document `base` belongs: its tenant is part of the place, not of the content."""
    try:
        tenant_id = json.loads(base).get("tenant_id", "default")
    except (ValueError, AttributeError, RecursionError):
        tenant_id = "default"
    tenant_id = tenant_id if tenant_id == "tenant-a" else "default"
    path = root / job_folder(tenant_id, job_id) / "job.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return Dropped(store, path, job_id, tenant_id)


def lines_of(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


@pytest.mark.seed("S1.1.4")
@pytest.mark.guarantee("F24")
def test_every_document_of_the_corpus_loads_or_is_refused_untouched(
    corpus: Path, file_store: JobStore, tmp_path: Path
) -> None:
    wanted = {"ok": {"ok"}, "reject": {"refused"}, "reject_preferred": {"refused"}, "either": {"ok", "refused"}}
    wrong = []
    rows = lines_of(corpus / "jobs" / "manifest.jsonl")
    for row in rows:
        raw = (corpus / "jobs" / "docs" / row["file"]).read_bytes()
        document = dropped(file_store, tmp_path / "jobs", row["job_id"], raw, base=raw)
        if ("ok" if document.load() else "refused") not in wanted[row["want"]]:
            wrong.append((row["file"], row["want"]))
    assert wrong == []
    assert len(rows) >= 170


@pytest.mark.seed("S1.1.3")
@pytest.mark.guarantee("R14")
def test_three_thousand_mutated_documents_load_or_are_refused_untouched(
    corpus: Path, file_store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # what survives a power cut is not asked here
    made = tmp_path / "made"
    generator = corpus / "jobs" / "gen_jobs.py"
    subprocess.run([sys.executable, generator, made, "--n", "3000", "--seed", "20261"], check=True)
    wrong = []
    for row in lines_of(made / "manifest.jsonl"):
        raw, base = (made / row["file"]).read_bytes(), (corpus / "jobs" / "docs" / row["base"]).read_bytes()
        document = dropped(file_store, tmp_path / "jobs", row["job_id"], raw, base=base)
        job = document.load()
        if row["verdict"] not in {"either", "ok" if job else "reject"}:
            wrong.append(row)
        if job:
            stored = document.path.read_bytes()
            check_kept(json.loads(raw), json.loads(stored))
            assert document.load() == job
            assert document.path.read_bytes() == stored
    assert wrong == []


def check_kept(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Only the fields a migration sets differ."""
    assert after["schema_version"] == 3
    assert after["version"] >= 1
    assert isinstance(after.get("runs", []), list)  # a V3 document may leave them out
    assert isinstance(after.get("artifacts_index", []), list)
    set_here = {"schema_version", "version", "runs", "artifacts_index", "trace_id"}
    assert {name: value for name, value in after.items() if name not in set_here} == {
        name: value for name, value in before.items() if name not in set_here
    }
