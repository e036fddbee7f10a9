"""The command line, run in this process with the arguments a person types."""

import getpass
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ss_pipeline import cli, demo, local_stack
from ss_pipeline.store.jobs import job_key
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline, a_pipeline, wages_csv
from ss_pipeline_tests.typed import Run, typist
from ss_pipeline_tests.webservers import FakeWebserver, a_webserver


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


@pytest.fixture
def run(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SS_DATA_DIR", str(pipeline.parts.settings.data_dir))
    return typist(monkeypatch, capsys)


def test_a_submission_typed_in_is_taken_from_the_inbox(run: Run, pipeline: Pipeline, tmp_path: Path) -> None:
    data = tmp_path / "wages.csv"
    data.write_text(wages_csv(), encoding="utf-8")
    submitted = run("submit", "Effect of educ on wage, controlling for exper", str(data), "--ref", "r-1", "--json")
    assert submitted.status == 0
    assert Path(submitted.document["folder"]).is_dir()
    (accepted,) = pipeline.take_in().accepted
    listed = run("list", "--json").document
    assert [(row["job_id"], row["phase"], row["client_ref"]) for row in listed] == [(accepted.job_id, "waiting", "r-1")]
    assert accepted.job_id in run("list").out


def test_a_submission_typed_in_beside_a_running_stack_has_its_run_at_once(
    run: Run, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "wages.csv"
    data.write_text(wages_csv(), encoding="utf-8")
    with a_webserver(FakeWebserver()) as fake:
        monkeypatch.setenv("SS_DAGSTER_URL", fake.url)
        submitted = run("submit", "Effect of educ on wage", str(data), "--json").document
        shown = run("submit", "Effect of exper on wage", str(data)).out
    assert (submitted["run_id"], submitted["when"]) == ("run-1", "now")
    assert pipeline.job(submitted["job_id"]).requirement == "Effect of educ on wage"
    assert "run-1" in shown
    assert "ss-pipeline why job_" in shown


def test_a_missing_file_is_named(run: Run) -> None:
    outcome = run("submit", "anything", "nowhere.csv", "--json")
    assert outcome.status == 1
    assert outcome.document["error"]["code"] == "SUBMISSION_FILE_MISSING"
    assert "nowhere.csv" in outcome.document["error"]["message"]


def test_a_bad_request_is_refused_before_it_reaches_the_inbox(run: Run, pipeline: Pipeline, tmp_path: Path) -> None:
    data = tmp_path / "wages.csv"
    data.write_text(wages_csv(), encoding="utf-8")
    outcome = run("submit", " ", str(data), "--json")
    assert outcome.document["error"]["code"] == "SUBMISSION_REQUEST_INVALID"
    assert not list(pipeline.parts.inbox.glob("*"))


def test_show_why_and_list_tell_where_a_job_stands(run: Run, pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    assert run("why", job_id, "--json").document["position"] == "1 of 1"
    pipeline.run(job_id)
    shown = run("show", job_id)
    assert "report.html" in shown.out
    assert "succeeded" in shown.out
    assert run("show", job_id, "--json").document["status"] == "succeeded"
    assert "published" in run("why", job_id).out
    assert run("list", "--status", "created", "--json").document == []


def test_a_question_is_shown_and_answered(run: Run, pipeline: Pipeline) -> None:
    job_id = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    pipeline.run(job_id)
    assert "in review" in run("show", job_id).out
    unanswered = run("confirm", job_id, "--json")
    assert (unanswered.status, unanswered.document["error"]["code"]) == (1, "DECISION_BLOCKED")
    assert "--answer outcome_var=" in unanswered.document["error"]["todo"]
    answered = run(
        "confirm", job_id, "--answer", "outcome_var=wage", "--answer", "treatment_var=educ", "--by", "ann", "--json"
    )
    assert (answered.status, answered.document["status"]) == (0, "confirmed")
    late = run("confirm", job_id, "--json")
    assert late.document["error"]["code"] == "DECISION_NOT_AWAITED"


def test_a_draft_is_sent_back_with_a_note(run: Run, pipeline: Pipeline) -> None:
    job_id = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    pipeline.run(job_id)
    assert run("confirm", job_id, "--send-back").status == 2
    assert run("confirm", job_id, "--send-back", "--note", "use logs", "--json").document["status"] == "created"


def test_a_failed_job_is_retried_and_a_waiting_one_cancelled(run: Run, pipeline: Pipeline) -> None:
    failed = pipeline.a_job("bad", csv="wage,educ\n")
    pipeline.run(failed)
    assert "failed" in run("why", failed).out
    assert run("retry", failed, "--json").document["status"] == "created"
    assert run("cancel", failed, "--json").document["status"] == "cancelled"
    again = run("cancel", failed, "--json")
    assert again.status == 0
    assert run("retry", failed).status == 1


def test_an_imported_job_is_released_by_adopt(run: Run, pipeline: Pipeline) -> None:
    imported = a_job("job_imported").model_copy(update={"status": "queued", "history": []})
    pipeline.parts.jobs.create(imported)
    assert "adopt" in run("why", "job_imported", "--json").document["next"]
    assert run("adopt", "job_imported", "--json").status == 0
    assert "adopt" not in run("why", "job_imported", "--json").document["next"]


@pytest.mark.seed("S1.1.8")
def test_a_store_is_migrated_and_rolled_back_byte_for_byte(run: Run, pipeline: Pipeline) -> None:
    folder = pipeline.parts.settings.jobs_path() / "ab" / "job_abcd"
    folder.mkdir(parents=True)
    fields = b'"schema_version": 1, "job_id": "job_abcd", "status": "created", "created_at": "2026-01-06"'
    original = b'{ "requirement": null, ' + fields + b"}"
    (folder / "job.json").write_bytes(original)
    outcomes = {
        flag: [(row["job_id"], row["outcome"]) for row in run("migrate", flag, "--json").document]
        for flag in ("--dry-run", "--apply", "--rollback")
    }
    assert outcomes == {
        "--dry-run": [("job_abcd", "to_migrate")],
        "--apply": [("job_abcd", "migrated")],
        "--rollback": [("job_abcd", "rolled_back")],
    }
    assert (folder / "job.json").read_bytes() == original
    assert run("migrate", "--apply", "--rollback").status == 2
    assert "to_migrate" in run("migrate").out


def test_an_unknown_job_is_one_readable_block(run: Run) -> None:
    outcome = run("show", "job_nowhere")
    assert outcome.status == 1
    assert "JOB_NOT_FOUND" in outcome.err
    assert "What to do" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_wrong_setting_names_its_variable(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_CLAIM_MAX_JOBS", "many")
    outcome = run("list", "--json")
    assert outcome.document["error"]["code"] == "SETTINGS_INVALID"
    assert "SS_CLAIM_MAX_JOBS" in outcome.document["error"]["message"]


def test_a_malformed_answer_is_a_usage_error(run: Run, pipeline: Pipeline) -> None:
    job_id = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    pipeline.run(job_id)
    assert run("confirm", job_id, "--answer", "wage").status == 2


def test_the_doctor_finds_nothing_in_a_healthy_store_and_names_a_corrupt_job(run: Run, pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    assert run("doctor").status == 0
    path = next(pipeline.parts.settings.jobs_path().rglob("job.json"))
    path.write_bytes(b"{")
    outcome = run("doctor", "--json")
    assert outcome.status == 1
    assert any(f["level"] == "problem" and job_id in f["message"] for f in outcome.document)


@pytest.mark.guarantee("F24")
def test_a_damaged_document_is_a_row_of_the_list_and_hides_no_other(run: Run, pipeline: Pipeline) -> None:
    damaged, whole = pipeline.a_job("a"), pipeline.a_job("b", requirement="Effect of exper on wage")
    next(pipeline.parts.settings.jobs_path().rglob(f"{damaged}/job.json")).write_bytes(b"{")
    listed = run("list", "--json")
    assert listed.status == 0
    assert {row["job_id"]: row["phase"] for row in listed.document} == {damaged: "unreadable", whole: "waiting"}
    assert "unreadable" in run("list").out
    assert run("show", damaged, "--json").document["error"]["code"] == "JOB_DATA_CORRUPTED"
    assert run("why", whole).status == 0


def test_a_job_that_a_run_works_on_is_drafting_everywhere_and_one_reserved_for_a_run_waits(
    run: Run, pipeline: Pipeline
) -> None:
    job_id = pipeline.a_job()
    backend = pipeline.parts.jobs.backend
    backend.reserve([job_key(job_id)], claim_id="claim_1", ttl=60)
    assert run("why", job_id, "--json").document["phase"] == "waiting"
    assert "claim_1 (reserved" in run("why", job_id, "--json").document["held by"]
    backend.lease([job_key(job_id)], claim_id="claim_1", owner="run:1", ttl=60)
    assert run("why", job_id, "--json").document["phase"] == "drafting"
    assert [row["phase"] for row in run("list", "--json").document] == ["drafting"]
    assert "drafting" in run("show", job_id).out


def test_a_status_that_does_not_exist_is_a_usage_error_that_names_those_that_do(run: Run) -> None:
    outcome = run("list", "--status", "published")
    assert outcome.status == 2
    assert "succeeded" in outcome.err


def test_the_position_is_that_of_the_tenants_own_job_in_the_order_of_claims(run: Run, pipeline: Pipeline) -> None:
    for tenant, priority in (("aaa", -5), ("zzz", 50)):
        created_at = pipeline.parts.clock.timestamp()  # an older one would have aged to the highest priority
        pipeline.parts.jobs.create(a_job("job_same", tenant_id=tenant, priority=priority, created_at=created_at))
    positions = [run("why", "job_same", "--tenant", name, "--json").document["position"] for name in ("zzz", "aaa")]
    assert positions == ["1 of 2", "2 of 2"]


def test_without_a_login_name_the_command_asks_who_decides(
    run: Run, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    job_id = pipeline.a_job()
    outcome = run("cancel", job_id)
    assert (outcome.status, "--by" in outcome.err) == (2, True)
    assert run("cancel", job_id, "--by", "ann", "--json").document["status"] == "cancelled"


def test_what_a_submitter_wrote_cannot_steer_the_terminal(run: Run, pipeline: Pipeline) -> None:
    pipeline.parts.jobs.create(a_job("job_hostile", requirement="wage\x1b]0;owned\x07 \x9b2J [red]on educ[/red]"))
    for shown in (run("show", "job_hostile").out, run("list").out):
        assert not {"\x1b]", "\x07", "\x9b"} & {shown[i : i + n] for n in (1, 2) for i in range(len(shown))}
        assert "[red]" in shown


def test_up_on_a_port_that_is_taken_starts_nothing(run: Run, pipeline: Pipeline) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        outcome = run("up", "--port", port)
    assert outcome.status == 1
    assert port in outcome.err
    assert not (pipeline.parts.settings.data_dir / "dagster").exists()


def test_up_gives_the_stack_the_places_of_the_settings_from_wherever_it_is_started(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import json, os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))"
    seen, printing = tmp_path / "seen", [sys.executable, "-c", code]
    monkeypatch.setattr(local_stack, "development_command", lambda _, port: [*printing, str(seen), str(port)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SS_INBOX_DIR", "in")
    monkeypatch.setenv("SS_JOBS_DIR", "docs")
    monkeypatch.setenv("SS_ARTIFACTS_URL", "memory://reports")
    outcome = run("up", "--port", "0")
    assert "STACK_DIED" in outcome.err
    environment = json.loads(seen.read_text(encoding="utf-8"))
    assert environment["SS_INBOX_DIR"] == str(tmp_path / "in")
    assert environment["SS_JOBS_DIR"] == str(tmp_path / "docs")
    assert environment["SS_ARTIFACTS_URL"] == "memory://reports"


class _AnswersAtOnce:
    """Stands in for the page of the UI, and for a person who presses Ctrl-C as soon as it is there."""

    def __init__(self, *, interrupts: bool) -> None:
        self._interrupts = interrupts

    def __call__(self, _url: str, *, process: subprocess.Popen[bytes], **_: object) -> None:
        really_wait = process.wait

        def wait(timeout: float | None = None) -> int:
            if self._interrupts:
                self._interrupts = False
                raise KeyboardInterrupt
            return really_wait(timeout)

        process.wait = wait  # type: ignore[method-assign]


@pytest.mark.stack
@pytest.mark.parametrize(
    ("interrupts", "code", "status"), [(True, "import time; time.sleep(60)", 0), (False, "raise SystemExit(3)", 1)]
)
def test_up_says_where_things_are_until_ctrl_c_or_until_a_process_dies(
    run: Run, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, interrupts: bool, code: str, status: int
) -> None:
    monkeypatch.setattr(local_stack, "development_command", lambda _, port: [sys.executable, "-c", code, str(port)])
    monkeypatch.setattr(local_stack, "wait_for_page", _AnswersAtOnce(interrupts=interrupts))
    outcome = run("up", "--port", "0")
    assert outcome.status == status
    assert str(pipeline.parts.inbox) in outcome.out
    assert ("stopping" in outcome.out) is interrupts
    assert ("status 3" in outcome.err) is not interrupts


def test_the_demo_prints_its_rows_as_a_table_or_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda _: [demo.DemoRow("01-wages", "job_x", "failed", 1.0, "a reason")])
    assert "01-wages: a reason" in run("demo").out
    assert run("demo", "--json").document[0]["detail"] == "a reason"


def test_sigterm_ends_a_command_with_the_usual_status() -> None:
    with pytest.raises(SystemExit) as ended:
        cli._stop(15, None)
    assert ended.value.code == 143


def test_light_verbs_import_neither_pandas_nor_dagster() -> None:
    code = "import sys, ss_pipeline.cli; print([m for m in ('pandas', 'dagster', 'matplotlib') if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
