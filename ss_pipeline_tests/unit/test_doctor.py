"""The doctor: what is missing or damaged is named with what to do about it."""

import importlib.util
import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ss_pipeline import doctor, wiring
from ss_pipeline.doctor import Finding
from ss_pipeline.settings import Settings
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import a_job

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def parts(tmp_path: Path) -> wiring.Parts:
    return wiring.light_parts(Settings(data_dir=tmp_path / "data"))


def _of(findings: list[Finding], subject: str) -> list[Finding]:
    return [finding for finding in findings if finding.subject == subject]


def test_a_new_place_is_healthy(parts: wiring.Parts) -> None:
    findings = doctor.examine(parts)
    assert [finding for finding in findings if finding.level == "problem"] == []
    assert "made when first used" in _of(findings, "inbox")[0].message
    assert _of(findings, "jobs")[0].message == "none yet"


def test_jobs_are_counted_by_status(parts: wiring.Parts) -> None:
    for i in range(2):
        parts.jobs.create(a_job(f"job_{i}"))
    parts.inbox.mkdir(parents=True)
    findings = doctor.examine(parts)
    assert _of(findings, "jobs")[0].message == "2 created"
    assert _of(findings, "inbox")[0].message == str(parts.inbox)


def test_a_store_whose_documents_have_moved_says_where_and_what_to_set(parts: wiring.Parts) -> None:
    parts.jobs.backend.seal("the redis back end")
    (finding,) = _of(doctor.examine(parts), "store")
    assert finding.level == "problem"
    assert "moved to the redis back end" in finding.message
    assert "SS_JOB_STORE_BACKEND" in finding.todo


def test_a_server_that_does_not_answer_is_a_problem_of_the_store_with_what_to_do(tmp_path: Path) -> None:
    address = f"unix://{tmp_path / 'nothing.sock'}"
    settings = Settings(
        data_dir=tmp_path, job_store_backend="redis", redis_url=SecretStr(address), job_store_patience_seconds=0
    )
    findings = doctor.examine(wiring.light_parts(settings))
    (finding,) = _of(findings, "store")
    assert _of(findings, "jobs")[0].level == "problem"
    assert (finding.level, bool(finding.todo)) == ("problem", True)


def test_a_file_in_the_place_of_a_folder_is_a_problem(parts: wiring.Parts) -> None:
    parts.inbox.parent.mkdir(parents=True)
    parts.inbox.touch()
    (finding,) = _of(doctor.examine(parts), "inbox")
    assert (finding.level, bool(finding.todo)) == ("problem", True)
    assert "no folder" in finding.message


def test_a_folder_that_cannot_be_written_is_a_problem(parts: wiring.Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.inbox.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != parts.inbox)
    (finding,) = _of(doctor.examine(parts), "inbox")
    assert finding.level == "problem"
    assert "written" in finding.message


def test_reports_on_a_remote_place_are_not_looked_for_as_a_folder(tmp_path: Path) -> None:
    local = wiring.light_parts(Settings(data_dir=tmp_path))
    remote = wiring.light_parts(Settings(data_dir=tmp_path, artifacts_url="memory://reports"))
    assert len(_of(doctor.examine(local), "artifacts")) == 1
    assert _of(doctor.examine(remote), "artifacts") == []


def test_little_space_is_a_warning(parts: wiring.Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10**9, 10**9 - 10**6, 10**6))
    (finding,) = _of(doctor.examine(parts), "disk")
    assert (finding.level, finding.message[:4]) == ("warning", "1 MB")


class _Sick(MemoryBackend):
    def check(self) -> list[str]:
        return ["the medium fails"]


def test_what_the_back_end_finds_is_a_problem(parts: wiring.Parts) -> None:
    sick = replace(parts, jobs=JobStore(_Sick()))
    assert [f.message for f in _of(doctor.examine(sick), "store")] == ["the medium fails"]


@pytest.mark.guarantee("F24")
def test_a_damaged_document_is_named_and_hides_no_other(parts: wiring.Parts) -> None:
    for job_id in ("job_damaged", "job_linked", "job_whole"):
        parts.jobs.create(a_job(job_id))
    (damaged, linked) = (
        next(parts.settings.jobs_path().rglob(f"{job_id}/job.json")) for job_id in ("job_damaged", "job_linked")
    )
    damaged.write_bytes(b"{")
    linked.unlink()
    linked.symlink_to("/etc/hostname")
    findings = doctor.examine(parts)
    problems = [finding.message for finding in findings if finding.level == "problem"]
    assert any("job_damaged" in message for message in problems)
    assert any("job_linked" in message for message in problems)
    assert _of(findings, "jobs")[0].message == "1 created"


def test_a_document_restored_from_a_backup_is_listed_again(parts: wiring.Parts) -> None:
    parts.jobs.create(a_job("job_x"))
    path = next(parts.settings.jobs_path().rglob("job.json"))
    whole = path.read_bytes()
    path.write_bytes(b"{")
    parts.jobs.relist(next(parts.jobs.rows()).key)
    path.write_bytes(whole)
    assert parts.jobs.waiting(per_group=1) == []
    findings = doctor.examine(parts)
    assert any("job_x" in finding.message and finding.level == "warning" for finding in findings)
    assert [row.key.document_id for row in parts.jobs.waiting(per_group=1)] == ["job_x"]
    assert not any(finding.level == "warning" for finding in _of(doctor.examine(parts), "job"))


def test_a_history_changed_by_hand_is_a_problem(parts: wiring.Parts) -> None:
    job = a_job("job_x")
    parts.jobs.create(job.changed(history=[job.history[0].model_copy(update={"by": "somebody else"})]))
    (finding,) = _of(doctor.examine(parts), "job")
    assert "changed by hand" in finding.message


@pytest.mark.parametrize("installed", [True, False])
def test_missing_extras_are_named(parts: wiring.Parts, monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if installed else None)
    found = _of(doctor.examine(parts), "extras")
    assert [f.message.split(" (")[0] for f in found] == (
        [] if installed else ["not installed: parquet, claude, redis, s3"]
    )
