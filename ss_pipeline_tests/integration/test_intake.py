"""Intake end to end on real folders: what is taken, what waits, what is refused, and what is left behind."""

import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ss_pipeline.errors import SettingsError, StoreUnavailableError, SubmissionRefusedError
from ss_pipeline.jobs.inputs import MANIFEST_PATH, InputsManifest, inputs_fingerprint
from ss_pipeline.jobs.lifecycle import history_is_intact
from ss_pipeline.jobs.requests import SubmissionRequest, parse_request
from ss_pipeline.stages.intake.stage import Accepted, IntakeReport, submit
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.submissions import AT_ONCE, WAGES, MovedClock, Trial


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


# --- accepted ---------------------------------------------------------------------------------------------------------


def test_a_complete_submission_becomes_a_job_with_its_data_files(trial: Trial) -> None:
    trial.put("wages", job_id="ref-1", priority=7, language="en", callback_url="https://example.org/hook")
    (accepted,) = trial.take_in().accepted
    (job,) = trial.jobs()
    assert accepted == Accepted("wages", "default", job.job_id, duplicate=False)
    assert (job.status, job.requirement, job.client_ref) == ("created", "Effect of educ on wage", "ref-1")
    assert (job.priority, job.language, job.callback_url) == (7, "en", "https://example.org/hook")
    assert len(job.trace_id) == 32
    assert [entry.by for entry in job.history] == ["intake"]
    assert history_is_intact(job)
    assert trial.left_in_inbox() == trial.left_on_desks() == []


def test_the_manifest_lists_each_file_under_its_content_and_original_name(trial: Trial) -> None:
    trial.put("two", files={"Löhne.CSV": WAGES, "codes.tsv": "a\tb\n1\t2\n"})
    job_id = trial.take_in().accepted[0].job_id
    manifest = trial.artifacts.read_model("default", job_id, MANIFEST_PATH, InputsManifest)
    wages, codes = manifest.datasets
    assert (wages.original_name, wages.role, wages.format) == ("Löhne.CSV", "primary_dataset", "csv")
    assert (codes.original_name, codes.role, codes.format) == ("codes.tsv", "secondary_dataset", "tsv")
    assert manifest.primary == wages
    assert wages.rel_path == f"inputs/{wages.dataset_key}.csv"
    assert trial.artifacts.read("default", job_id, wages.rel_path) == WAGES.encode()
    assert wages.sha256 == hashlib.sha256(WAGES.encode()).hexdigest()
    (job,) = trial.jobs()
    assert job.inputs is not None
    assert job.inputs.manifest_rel_path == MANIFEST_PATH
    assert job.inputs.fingerprint == inputs_fingerprint(manifest.datasets)


def test_the_receipt_names_the_job_its_inputs_and_the_files_left_out(trial: Trial) -> None:
    folder = trial.put("wages")
    (folder / "notes.txt").write_text("for myself")
    (folder / "old").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    job_id = trial.take_in().accepted[0].job_id
    receipt = json.loads((trial.root / "accepted" / "wages" / "receipt.json").read_text())
    assert (receipt["job_id"], receipt["tenant_id"], receipt["duplicate"]) == (job_id, "default", False)
    digest = hashlib.sha256(WAGES.encode()).hexdigest()
    assert receipt["inputs"] == [{"path": "data.csv", "sha256": digest, "size_bytes": len(WAGES)}]
    assert receipt["ignored"] == ["link", "notes.txt", "old"]
    assert sorted(p.name for p in (trial.root / "accepted" / "wages").iterdir()) == ["receipt.json"]
    assert b"root:" not in trial.stored_bytes()


def test_tenants_have_their_own_inboxes_jobs_references_and_receipts(trial: Trial) -> None:
    trial.put("wages", job_id="same")
    trial.put("wages", tenant="@acme", job_id="same", tenant_id="acme", requirement="Something else")
    report = trial.take_in()
    assert {(each.tenant_id, each.duplicate) for each in report.accepted} == {("default", False), ("acme", False)}
    assert {(job.tenant_id, job.client_ref) for job in trial.jobs()} == {("default", "same"), ("acme", "same")}
    assert (trial.root / "accepted" / "@acme" / "wages" / "receipt.json").is_file()
    assert (trial.root / "accepted" / "wages" / "receipt.json").is_file()


def test_a_tenant_with_many_submissions_does_not_keep_the_others_waiting(trial: Trial) -> None:
    for number in range(10):
        trial.put(f"bulk-{number}", tenant="@busy", requirement=f"Question {number}")
    trial.put("single", tenant="@small")
    report = trial.take_in(most=3)
    assert "single" in [each.name for each in report.accepted]
    assert len(report.accepted) == 3
    assert len(trial.take_in().accepted) == 8


def test_a_name_may_be_used_again_once_it_is_settled(trial: Trial) -> None:
    for number in range(3):
        trial.put("wages", requirement=f"Question {number}")
        trial.take_in()
    assert sorted(p.name for p in (trial.root / "accepted").iterdir()) == ["wages", "wages-2", "wages-3"]
    assert len(trial.jobs()) == 3


@pytest.mark.parametrize("name", ["CON", "a b", "ü", "数据", "-rf", "x" * 200, "文" * 66, "a__b", "$(id)", "n%00"])
def test_odd_names_that_are_safe_are_taken_as_they_are(trial: Trial, name: str) -> None:
    trial.put(name)
    assert [each.name for each in trial.take_in().accepted] == [name]
    assert (trial.root / "accepted" / name / "receipt.json").is_file()


@pytest.mark.guarantee("A6")
def test_names_that_differ_only_in_unicode_form_are_two_submissions(trial: Trial) -> None:
    for number, form in enumerate(("NFC", "NFD")):
        name = unicodedata.normalize(form, "café")  # type: ignore[arg-type]
        data = unicodedata.normalize(form, "é.csv")  # type: ignore[arg-type]
        trial.put(name, files={data: WAGES}, job_id=name, requirement=f"Question {number}")
    assert len(trial.take_in().accepted) == 2
    assert len({job.client_ref for job in trial.jobs()}) == 2


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "latin-1", "gb18030"])
def test_text_in_other_encodings_is_not_mistaken_for_binary(trial: Trial, encoding: str) -> None:
    trial.put("wages", files={"data.csv": WAGES.encode(encoding)})
    assert len(trial.take_in().accepted) == 1


def test_a_workbook_may_hold_nul_bytes(trial: Trial) -> None:
    trial.put("book", files={"data.xlsx": b"PK\x03\x04\x00\x00"})
    assert len(trial.take_in().accepted) == 1


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("A7")
def test_a_submission_waits_until_it_is_quiet_or_says_that_it_is_ready(trial: Trial) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=30.0)
    trial.put("quiet")
    trial.put("marked", requirement="Something else")
    first = trial.take_in()
    assert first.accepted == ()
    assert {each.name for each in first.waiting} == {"quiet", "marked"}
    assert "30 s" in first.waiting[0].reason
    (trial.inbox / "marked" / ".ready").touch()
    assert [each.name for each in trial.take_in().accepted] == ["marked"]
    trial.clock.seconds = 31
    assert [each.name for each in trial.take_in().accepted] == ["quiet"]


@pytest.mark.guarantee("A7")
def test_times_that_a_copying_tool_sets_do_not_make_a_submission_quiet(trial: Trial) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=30.0)
    folder = trial.put("copied")
    for path in (folder / "data.csv", folder / "request.json", folder):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert trial.take_in().accepted == ()
    os.utime(folder / "data.csv", (4_000_000_000, 4_000_000_000))  # and one in the future does not hold it for ever
    trial.clock.seconds = 31
    assert len(trial.take_in().accepted) == 1


@pytest.mark.guarantee("F19")
@pytest.mark.parametrize("absent", ["data.csv", "request.json"])
def test_a_submission_whose_writer_died_waits_and_is_refused_at_last(trial: Trial, absent: str) -> None:
    folder = trial.put("torn")
    (folder / absent).unlink()
    trial.clock.seconds = 3_500
    (waiting,) = trial.take_in().waiting
    assert absent in waiting.reason
    trial.clock.seconds = 3_700
    (refused,) = trial.take_in().refused
    assert refused.code == "SUBMISSION_INCOMPLETE"
    assert absent in refused.message
    assert trial.jobs() == []


@pytest.mark.guarantee("A7")
def test_a_torn_submission_that_is_completed_is_taken_whole(trial: Trial) -> None:
    folder = trial.put("torn")
    body = (folder / "request.json").read_bytes()
    (folder / "request.json").write_bytes(body[:20])
    trial.limits = replace(AT_ONCE, quiet_seconds=30.0)
    assert len(trial.take_in().waiting) == 1
    (folder / "request.json").write_bytes(body)
    (folder / ".ready").touch()
    assert len(trial.take_in().accepted) == 1


@pytest.mark.guarantee("A7")
def test_a_writer_that_drips_is_waited_for(trial: Trial) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=0.6)
    folder = trial.put("drip", files={"data.csv": "wage,educ\n"})

    def drip() -> None:
        for number in range(60):
            with (folder / "data.csv").open("a") as file:
                file.write(f"{number},{number}\n")
            time.sleep(0.02)

    writer = threading.Thread(target=drip)
    writer.start()
    _repeat_until(lambda: bool(trial.take_in().accepted))
    writer.join()
    assert trial.stored_bytes().count(b"\n59,59\n") == 1


def test_hidden_names_are_none_of_the_inbox_s_business(trial: Trial) -> None:
    trial.put(".uploading")
    (trial.inbox / ".DS_Store").touch()
    report = trial.take_in()
    assert (report.accepted, report.refused, report.waiting) == ((), (), ())
    assert (trial.inbox / ".uploading" / "data.csv").is_file()


@pytest.mark.guarantee("A7")
def test_a_submission_written_to_while_it_is_copied_is_put_back(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ss_pipeline")
    trial.put("busy")
    trial.clock = _ClockThatActs(lambda: _append(trial.inbox / ".taken"))
    (waiting,) = trial.take_in().waiting
    assert "written to" in waiting.reason
    assert trial.left_in_inbox() == ["busy"]
    assert trial.left_on_desks() == []
    assert trial.jobs() == []
    assert "SS_SUBMISSION_PUT_BACK" in [record.message for record in caplog.records]
    assert len(trial.take_in().accepted) == 1
    assert trial.stored_bytes().count(b"late,1,1") == 1


def test_a_submission_is_put_back_under_another_name_where_its_own_is_in_use_by_now(trial: Trial) -> None:
    trial.put("busy")

    def act() -> None:
        _append(trial.inbox / ".taken")
        trial.put("busy", requirement="Something else")

    trial.clock = _ClockThatActs(act)
    trial.take_in()
    assert trial.left_in_inbox() == ["busy", "busy-2"]
    assert len(trial.take_in().accepted) == 2


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("A6")
@pytest.mark.parametrize(
    ("code", "put"),
    [
        ("SUBMISSION_REQUEST_UNREADABLE", lambda t: t.put("bad", raw=b"{")),
        ("SUBMISSION_REQUEST_INVALID", lambda t: t.put("bad", requirement="")),
        ("SUBMISSION_REQUEST_INVALID", lambda t: t.put("bad", inputs=[{"path": "../../x.csv"}])),
        ("SUBMISSION_TOO_LARGE", lambda t: t.put("bad", raw=b" " * 1_000_001)),
        ("SUBMISSION_TOO_LARGE", lambda t: t.put("bad", files={"data.csv": "x" * 1_000_001})),
        ("SUBMISSION_TOO_MANY_FILES", lambda t: t.put("bad", files={f"{i}.csv": WAGES for i in range(6)})),
        ("SUBMISSION_TOO_MANY_FILES", lambda t: t.put("bad", files={f"{i}.csv": "a\n1" for i in range(200)})),
        ("SUBMISSION_TENANT_MISMATCH", lambda t: t.put("bad", tenant_id="other")),
        ("SUBMISSION_PATH_TOO_DEEP", lambda t: t.put("bad", inputs=[{"path": "in/data.csv"}])),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("bad\nname")),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("bad\\name")),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("~bad")),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("b" * 201)),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("b" * 255)),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put(os.fsdecode(b"bad\xff\xfe"))),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("@")),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("bad", tenant=os.fsdecode(b"@\xff"))),
        ("SUBMISSION_NAME_UNSAFE", lambda t: t.put("@bad", tenant="@acme")),
        ("SUBMISSION_NOT_A_FOLDER", lambda t: (t.inbox / "data.csv").write_text(WAGES)),
        ("SUBMISSION_NOT_A_FOLDER", lambda t: os.mkfifo(t.inbox / "pipe")),
        ("SUBMISSION_NOT_A_FOLDER", lambda t: (t.inbox / "link").symlink_to(t.root / "elsewhere")),
        ("SUBMISSION_NOT_A_FOLDER", lambda t: (t.inbox / "dangling").symlink_to("/nowhere")),
        ("SUBMISSION_FILE_UNSAFE", lambda t: _in_place_of_data(t).symlink_to(t.root / "elsewhere" / "secret.csv")),
        ("SUBMISSION_FILE_UNSAFE", lambda t: _in_place_of_data(t).hardlink_to(t.root / "elsewhere" / "secret.csv")),
        ("SUBMISSION_FILE_UNSAFE", lambda t: os.mkfifo(_in_place_of_data(t))),
        ("SUBMISSION_FILE_UNSAFE", lambda t: _in_place_of_data(t).mkdir()),
        ("SUBMISSION_FILE_UNSAFE", lambda t: os.mknod(_in_place_of_data(t), 0o140600)),
        ("SUBMISSION_FILE_UNSAFE", lambda t: _in_place_of_request(t).symlink_to("/etc/passwd")),
        ("SUBMISSION_FILE_UNSAFE", lambda t: os.mkfifo(_in_place_of_request(t))),
        ("SUBMISSION_FILE_UNSAFE", lambda t: _in_place_of_request(t).mkdir()),
        ("INPUT_EMPTY", lambda t: t.put("bad", files={"data.csv": ""})),
        ("INPUT_BINARY", lambda t: t.put("bad", files={"data.csv": b"a,b\n1,\x00\n"})),
        ("INPUT_BINARY", lambda t: t.put("bad", files={"data.tsv": "a\tb\n".encode("utf-16-le")})),
        ("INPUT_FORMAT_UNSUPPORTED", lambda t: t.put("bad", files={"data.pdf": "x"})),
        ("INPUT_FORMAT_UNSUPPORTED", lambda t: t.put("bad", files={"csv": "x"})),
        ("INPUT_FORMAT_UNSUPPORTED", lambda t: t.put("bad", inputs=[{"path": "request.json"}])),
    ],
)
def test_a_bad_submission_is_set_aside_with_its_reason_and_the_next_is_taken(
    trial: Trial, code: str, put: Callable[[Trial], object], caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = trial.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.csv").write_text("secret,1\n")
    (elsewhere / "request.json").write_text('{"requirement": "x", "inputs": [{"path": "secret.csv"}]}')
    put(trial)
    trial.put("good")
    report = trial.take_in()
    (refused,) = report.refused
    assert refused.code == code
    assert refused.message
    assert refused.todo
    assert [each.name for each in report.accepted] == ["good"]
    reason = json.loads((refused.folder / "reason.json").read_text())
    assert (reason["code"], reason["message"], reason["todo"]) == (code, refused.message, refused.todo)
    assert sorted(p.name for p in refused.folder.iterdir()) == ["reason.json", "submission"]
    assert refused.folder.is_relative_to(trial.root / "refused")
    assert trial.left_on_desks() == []
    assert sorted(p.name for p in elsewhere.iterdir()) == ["request.json", "secret.csv"]
    assert (elsewhere / "secret.csv").read_text() == "secret,1\n"
    assert b"secret" not in trial.stored_bytes()
    (line,) = [record for record in caplog.records if record.message == "SS_SUBMISSION_REFUSED"]
    assert line.__dict__["fields"]["code"] == code
    assert trial.take_in().refused == ()


def test_the_submission_is_moved_whole_and_its_name_is_told_as_text(trial: Trial) -> None:
    trial.put(os.fsdecode(b"bad\xff"), files={"data.csv": WAGES})
    (refused,) = trial.take_in().refused
    assert refused.name.startswith("bad")
    assert (refused.folder / "submission" / "data.csv").read_text() == WAGES
    assert json.loads((refused.folder / "reason.json").read_text())["submission"] == "bad\\xff"
    json.dumps([refused.name, str(refused.folder)], ensure_ascii=False).encode()


def test_a_tenant_s_refused_submission_lies_in_the_tenant_s_own_folder(trial: Trial) -> None:
    for _ in range(2):
        trial.put("bad", tenant="@acme", requirement="")
        trial.take_in()
    assert sorted(p.name for p in (trial.root / "refused" / "@acme").iterdir()) == ["bad", "bad-2"]


def test_a_refused_submission_can_be_corrected_and_submitted_again(trial: Trial) -> None:
    trial.put("wages", files={"data.csv": ""})
    (refused,) = trial.take_in().refused
    (refused.folder / "submission" / "data.csv").write_text(WAGES)
    (refused.folder / "submission").rename(trial.inbox / "wages")
    assert len(trial.take_in().accepted) == 1


def test_a_bad_submission_is_judged_only_when_it_is_quiet(trial: Trial) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=30.0)
    trial.put("torn", raw=b"{")
    (trial.inbox / "data.csv").write_text(WAGES)
    first = trial.take_in()
    assert first.refused == ()
    assert len(first.waiting) == 2
    trial.clock.seconds = 31
    assert len(trial.take_in().refused) == 2


@pytest.mark.parametrize("make", [lambda p: p.write_text("x"), lambda p: p.symlink_to("/nowhere/else")])
def test_an_inbox_that_is_no_folder_is_named(trial: Trial, make: Callable[[Path], object]) -> None:
    trial.inbox.rmdir()
    make(trial.inbox)
    with pytest.raises(SettingsError, match="inbox"):
        trial.take_in()


def test_a_private_folder_that_leads_elsewhere_is_not_used(trial: Trial) -> None:
    (trial.root / "elsewhere").mkdir()
    (trial.inbox / ".taken").symlink_to(trial.root / "elsewhere")
    trial.put("wages")
    with pytest.raises(SettingsError, match=r"\.taken"):
        trial.take_in()
    assert list((trial.root / "elsewhere").iterdir()) == []


def test_a_missing_inbox_is_made_and_may_itself_be_a_link(trial: Trial) -> None:
    trial.inbox.rmdir()
    assert trial.take_in().accepted == ()
    shutil.rmtree(trial.inbox)
    (trial.root / "disk").mkdir()
    trial.inbox.symlink_to(trial.root / "disk")
    trial.put("wages", tenant="@acme")
    trial.put("wages")
    assert len(trial.take_in().accepted) == 2


class Forbidding:
    """Stands in for a call of the operating system and fails for one name."""

    def __init__(self, call: Callable[..., Any], name: str, fault: OSError) -> None:
        self._call, self._name, self._fault = call, name, fault

    def __call__(self, path: Any, *rest: Any, **named: Any) -> Any:
        if isinstance(path, str | Path) and Path(path).name == self._name:
            raise self._fault
        return self._call(path, *rest, **named)


@pytest.mark.parametrize("name", ["locked", "request.json", "data.csv"])
def test_what_may_not_be_read_is_refused_once_it_is_quiet(
    trial: Trial, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=30.0)
    trial.put("locked")
    monkeypatch.setattr(os, "open", Forbidding(os.open, name, PermissionError(13, "Permission denied")))
    assert len(trial.take_in().waiting) == 1
    trial.clock.seconds = 31
    (refused,) = trial.take_in().refused
    assert refused.code == "SUBMISSION_UNREADABLE"
    assert "Permission denied" in refused.message


def test_a_medium_that_fails_for_one_submission_makes_only_that_one_wait(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "broken", "z"):
        trial.put(name, requirement=f"Question {name}")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", Forbidding(os.open, "broken", OSError(5, "Input/output error")))
        report = trial.take_in()
    assert [each.name for each in report.accepted] == ["a", "z"]
    assert [(each.name, "Input/output error" in each.reason) for each in report.waiting] == [("broken", True)]
    assert [each.name for each in trial.take_in().accepted] == ["broken"]


def test_a_submission_that_cannot_be_moved_stays_where_it_is_and_says_so(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.put("good")
    trial.put("bad", requirement="")
    for name in ("good", "bad"):
        monkeypatch.setattr(os, "rename", Forbidding(os.rename, name, OSError(16, "Device or resource busy")))
    report = trial.take_in()
    assert (report.accepted, report.refused) == ((), ())
    assert ["busy" in each.reason for each in report.waiting] == [True, True]
    assert trial.left_in_inbox() == ["bad", "good"]
    assert trial.left_on_desks() == []


def test_a_tenant_s_folder_that_cannot_be_listed_does_not_stop_the_others(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.put("wages", tenant="@acme")
    trial.put("wages")
    monkeypatch.setattr(os, "open", Forbidding(os.open, "@acme", PermissionError(13, "Permission denied")))
    report = trial.take_in()
    assert [each.tenant_id for each in report.accepted] == ["default"]
    assert "cannot be listed: Permission denied" in report.waiting[0].reason


def test_an_inbox_that_cannot_be_listed_is_named(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", Forbidding(os.open, "inbox", PermissionError(13, "Permission denied")))
    with pytest.raises(SettingsError, match="inbox cannot be used: Permission denied"):
        trial.take_in()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_private_folder_of_another_user_is_not_used(trial: Trial) -> None:
    trial.take_in()
    os.chown(trial.inbox / ".taken", 12_345, 12_345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        trial.take_in()


def test_outcomes_stay_inside_an_inbox_that_is_a_file_system_of_its_own(trial: Trial) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == trial.root.stat().st_dev:
        pytest.skip("there is no second file system to try it on")
    with tempfile.TemporaryDirectory(dir=shared) as other:
        trial.inbox.rmdir()
        trial.inbox.symlink_to(other)
        trial.put("wages")
        trial.put("bad", requirement="")
        report = trial.take_in()
        assert report.refused[0].folder == trial.inbox / ".refused" / "bad"
        assert (trial.inbox / ".accepted" / "wages" / "receipt.json").is_file()
        assert trial.take_in() == IntakeReport((), (), ())


# --- references -------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("F18")
@pytest.mark.parametrize("request_fields", [{"job_id": "same"}, {}], ids=["with a reference", "without"])
def test_a_submission_sent_a_hundred_times_is_one_job(trial: Trial, request_fields: dict[str, Any]) -> None:
    accepted: list[Accepted] = []
    for number in range(100):
        trial.put(f"copy-{number}", **request_fields)
        if number % 10 == 9:
            accepted += trial.take_in().accepted
    (job,) = trial.jobs()
    assert {each.job_id for each in accepted} == {job.job_id}
    assert sorted(each.duplicate for each in accepted) == [False] + [True] * 99
    assert len(list((trial.root / "accepted").iterdir())) == 100
    assert trial.stored_bytes().count(WAGES.encode()) == 1


@pytest.mark.guarantee("F18")
def test_equal_submissions_taken_by_several_threads_at_once_are_one_job(trial: Trial) -> None:
    for number in range(24):
        trial.put(f"copy-{number}", job_id="same")
    with ThreadPoolExecutor(4) as pool:
        reports = [future.result() for future in [pool.submit(trial.take_in) for _ in range(8)]]
    accepted = [each for report in reports for each in report.accepted]
    assert len(trial.jobs()) == 1
    assert sorted(each.name for each in accepted) == sorted(f"copy-{number}" for number in range(24))
    assert [each.duplicate for each in accepted].count(False) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"requirement": "Something else"},
        {"files": {"data.csv": WAGES + "1,1,1\n"}},
        {"files": {"other.csv": WAGES}},
        {"priority": 5},
        {"callback_url": "https://example.org"},
        {"language": "zh"},
    ],
    ids=str,
)
def test_a_reference_used_for_other_content_is_refused_and_the_first_job_stays(
    trial: Trial, other: dict[str, Any]
) -> None:
    trial.put("first", job_id="same")
    trial.take_in()
    (before,) = trial.jobs()
    trial.put("second", job_id="same", **other)
    (refused,) = trial.take_in().refused
    assert refused.code == "SUBMISSION_REFERENCE_CONFLICT"
    assert before.job_id in refused.message
    assert trial.jobs() == [before]


def test_the_order_of_files_without_roles_is_content_but_that_of_files_with_roles_is_not(trial: Trial) -> None:
    roles = [{"path": "a.csv", "role": "primary_dataset"}, {"path": "b.csv", "role": "other"}]
    files = {"a.csv": WAGES, "b.csv": "x\n1\n"}
    trial.put("one", files=files, inputs=roles)
    trial.put("two", files=files, inputs=roles[::-1])
    trial.put("three", files=files)
    trial.put("four", files=dict(reversed(files.items())))
    assert [each.duplicate for each in trial.take_in().accepted] == [False, True, False, False]


@pytest.mark.guarantee("F18")
def test_a_reference_without_its_job_is_completed_by_the_next_equal_submission(trial: Trial) -> None:
    trial.put("first", job_id="same")
    first = trial.take_in().accepted[0].job_id
    job_key = DocumentKey("jobs", "default", first)
    trial.backend.delete(job_key, expected=trial.backend.read(job_key))
    trial.put("second", job_id="same")
    assert trial.take_in().accepted[0].job_id == first
    assert [job.job_id for job in trial.jobs()] == [first]


# --- media that fail --------------------------------------------------------------------------------------------------


class FailingBackend(MemoryBackend):
    """A store that is out of order for one collection until it is repaired."""

    broken = ""

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        if key.collection == self.broken:
            raise StoreUnavailableError("no space left")
        super().create(key, body, facets)


@pytest.mark.parametrize("collection", ["references", "jobs"])
def test_a_submission_taken_while_the_store_fails_becomes_a_job_once_it_works(
    trial: Trial, collection: str, caplog: pytest.LogCaptureFixture
) -> None:
    trial.backend = backend = FailingBackend()
    backend.broken = collection
    trial.put("wages")
    for _ in range(2):
        (waiting,) = trial.take_in().waiting
        assert "no space left" in waiting.reason
    assert "SS_SUBMISSION_STALLED" in [record.message for record in caplog.records]
    backend.broken = ""
    (accepted,) = trial.take_in().accepted
    assert (accepted.name, accepted.duplicate) == ("wages", False)
    assert len(trial.jobs()) == 1
    assert trial.left_on_desks() == []


def test_a_disk_that_fails_once_at_any_write_loses_and_doubles_nothing(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    for failing in itertools.count(1):
        names = [f"good-{failing}", f"bad-{failing}"]
        trial.put(names[0], job_id=names[0])
        trial.put(names[1], requirement="")
        calls = itertools.count(1)

        def fail_once(descriptor: int, *, calls: Iterator[int] = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(5, "Input/output error")
            sync(descriptor)

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail_once)
            trial.take_in()
        trial.take_in()
        assert trial.left_in_inbox() == trial.left_on_desks() == [], f"at write {failing}"
        assert [job.client_ref for job in trial.jobs()].count(names[0]) == 1, f"at write {failing}"
        assert (trial.root / "refused" / names[1] / "submission").is_dir(), f"at write {failing}"
        if next(calls) <= failing:
            break
    assert failing > 10


def test_a_reference_that_cannot_be_read_stops_only_its_own_submission(trial: Trial) -> None:
    trial.backend.create(DocumentKey("references", "default", "torn"), b"{", Facets())
    trial.put("a", job_id="torn")
    trial.put("b")
    report = trial.take_in()
    assert [each.name for each in report.accepted] == ["b"]
    assert "torn" in report.waiting[0].reason


# --- handing in -------------------------------------------------------------------------------------------------------


def test_a_submission_handed_in_is_complete_at_once(trial: Trial) -> None:
    trial.limits = replace(AT_ONCE, quiet_seconds=3_600.0)
    source = trial.root / "wages 2024.csv"
    source.write_text(WAGES)
    folder = submit(trial.inbox, request=_request(), files={"data.csv": source}, name="from-cli", tenant_id="acme")
    assert folder == trial.inbox / "@acme" / "from-cli"
    (accepted,) = trial.take_in().accepted
    assert (accepted.name, accepted.tenant_id) == ("from-cli", "acme")


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("SUBMISSION_NAME_TAKEN", {"name": "there"}),
        ("SUBMISSION_NAME_TAKEN", {"name": "a-file"}),
        ("SUBMISSION_NAME_UNSAFE", {"name": "../x"}),
        ("SUBMISSION_NAME_UNSAFE", {"name": "@x"}),
        ("SUBMISSION_NAME_UNSAFE", {"name": ".x"}),
        ("SUBMISSION_NAME_UNSAFE", {"name": "n" * 300}),
        ("SUBMISSION_NAME_UNSAFE", {"name": "new", "tenant_id": "../x"}),
        ("SUBMISSION_INCOMPLETE", {"name": "new", "files": {}}),
        ("SUBMISSION_UNREADABLE", {"name": "new", "files": {"data.csv": Path("/nowhere.csv")}}),
    ],
)
def test_what_cannot_be_handed_in_is_refused_and_leaves_nothing(
    trial: Trial, code: str, change: dict[str, Any]
) -> None:
    there = trial.put("there")
    (trial.inbox / "a-file").touch()
    arguments = {"request": _request(), "files": {"data.csv": there / "data.csv"}, **change}
    with pytest.raises(SubmissionRefusedError) as caught:
        submit(trial.inbox, **arguments)
    assert caught.value.error_code == code
    assert sorted(p.name for p in trial.inbox.iterdir()) == ["a-file", "there"]


def test_of_many_handing_in_under_one_name_one_succeeds(trial: Trial) -> None:
    source = trial.root / "data.csv"
    source.write_text(WAGES)

    def hand_in(_: int) -> bool:
        try:
            submit(trial.inbox, request=_request(), files={"data.csv": source}, name="same")
        except SubmissionRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(hand_in, range(16))).count(True) == 1
    assert sorted(p.name for p in trial.inbox.iterdir()) == ["same"]


# --- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("A6")
def test_a_thousand_waiting_entries_cost_little(trial: Trial) -> None:
    for number in range(1_000):
        (trial.put(f"torn-{number}") / "data.csv").unlink()
    started = time.monotonic()
    report = trial.take_in()
    assert time.monotonic() - started < 3
    assert len(report.waiting) == 1_000


class _ClockThatActs(MovedClock):
    """A clock that does something the first time the stage stamps a data file: after taking, before reading."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act: Callable[[], None] | None = act

    def timestamp(self) -> str:
        act, self._act = self._act, None
        if act:
            act()
        return super().timestamp()


def _in_place_of_data(trial: Trial) -> Path:
    folder = trial.put("bad")
    (folder / "data.csv").unlink()
    return folder / "data.csv"


def _in_place_of_request(trial: Trial) -> Path:
    folder = trial.put("bad")
    (folder / "request.json").unlink()
    return folder / "request.json"


def _request() -> SubmissionRequest:
    return parse_request(b'{"requirement": "Effect of educ on wage", "inputs": [{"path": "data.csv"}]}')


def _repeat_until(done: Callable[[], bool], *, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.03)


def _append(private: Path) -> None:
    for data in private.rglob("data.csv"):
        with data.open("a") as file:
            file.write("late,1,1\n")
