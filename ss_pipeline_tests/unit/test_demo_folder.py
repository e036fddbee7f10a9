"""The demo empties its folder; here is what it must never empty, and what its rows say."""

import json
from pathlib import Path

import pytest

from ss_pipeline import demo, local_stack, wiring
from ss_pipeline.errors import StackError
from ss_pipeline.stages import decision
from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline, a_pipeline


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands the demo starts; nothing is really started: each dies at once."""
    commands: list[str] = []

    def dies(home: local_stack.StackHome) -> list[str]:
        commands.append(str(home.data))
        return ["false"]

    monkeypatch.setattr(demo, "daemon_command", dies)
    return commands


@pytest.mark.parametrize("content", ["thesis.docx", "jobs"])
def test_a_folder_that_no_demo_made_is_not_emptied(tmp_path: Path, started: list[str], content: str) -> None:
    (tmp_path / content).touch()
    with pytest.raises(StackError, match=str(tmp_path)) as caught:
        demo.run_demo(tmp_path)
    assert "--data" in caught.value.todo
    assert (tmp_path / content).exists()
    assert started == []


def test_a_folder_of_an_earlier_demo_or_an_empty_one_is_used(tmp_path: Path, started: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(StackError) as caught:
            demo.run_demo(tmp_path)
        assert caught.value.error_code == "STACK_DIED"
        (tmp_path / "left over").touch()
    assert started == [str(tmp_path)] * 2


def test_the_demo_stays_in_its_folder_whatever_the_users_settings_say(
    tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    for name in ("SS_JOBS_DIR", "SS_INBOX_DIR", "SS_ARTIFACTS_URL"):
        monkeypatch.setenv(name, str(real))
    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "memory")
    seen: set[Path] = set()

    def looked_at(name: str, parts: wiring.Parts, *_: object) -> demo.DemoRow:
        seen.add(parts.settings.jobs_path())
        return demo.DemoRow(name, "", "in the inbox", None, "")

    monkeypatch.setattr(demo, "_row", looked_at)
    with pytest.raises(StackError):
        demo.run_demo(tmp_path / "demo")
    assert started
    assert seen == {tmp_path / "demo" / "jobs"}
    assert not real.exists()
    assert (tmp_path / "demo" / "inbox").is_dir()


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path)


def _row(pipeline: Pipeline, name: str) -> demo.DemoRow:
    return demo._row(name, pipeline.parts, pipeline.parts.settings.data_dir, 0.0)


def test_a_row_follows_its_submission_from_the_inbox_to_the_report(pipeline: Pipeline) -> None:
    pipeline.hand_in("wages")
    assert _row(pipeline, "wages").phase == "in the inbox"
    (accepted,) = pipeline.take_in().accepted
    assert (_row(pipeline, "wages").job_id, _row(pipeline, "wages").phase) == (accepted.job_id, "waiting")
    pipeline.run(accepted.job_id)
    row = _row(pipeline, "wages")
    assert (row.phase, Path(row.detail).name) == ("published", "report.html")
    assert row.seconds is not None


def test_a_row_of_a_waiting_draft_says_how_to_answer_and_one_of_a_cancelled_job_why(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job("ask", requirement=AMBIGUOUS_REQUIREMENT)
    pipeline.run(job_id)
    row = _row(pipeline, "ask")
    assert row.phase == "in review"
    assert f"confirm {job_id} --answer outcome_var=…" in row.detail
    at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.update(job_id, lambda job: decision.cancel(job, by="ann", at=at))
    assert _row(pipeline, "ask").detail == "a person cancelled it"


@pytest.mark.guarantee("F24")
def test_a_damaged_document_is_a_failed_row_and_ends_no_demo(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job("wages")
    next(pipeline.parts.settings.jobs_path().rglob("job.json")).write_bytes(b"{")
    row = _row(pipeline, "wages")
    assert (row.job_id, row.phase) == (job_id, "failed")
    assert "corrupted" in row.detail


def test_a_submission_whose_job_is_not_stored_yet_is_still_in_the_inbox(pipeline: Pipeline) -> None:
    receipt = pipeline.parts.settings.data_dir / "accepted" / "early" / "receipt.json"
    receipt.parent.mkdir(parents=True)
    receipt.write_text(json.dumps({"job_id": "job_soon"}), encoding="utf-8")
    assert _row(pipeline, "early").phase == "in the inbox"


def test_the_results_are_shown_with_where_to_look_and_what_to_do(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.a_job("wages")
    pipeline.hand_in("empty", csv="")
    pipeline.take_in()
    rows = [_row(pipeline, "wages"), _row(pipeline, "empty"), demo.DemoRow("x", "", "failed", None, "a reason")]
    demo.show_results(rows, Path("var/demo"))
    shown = capsys.readouterr().out
    for text in ("Refused", "INPUT_EMPTY", "Failed", "x: a reason", "1 waiting", "SS_DATA_DIR=var/demo make up"):
        assert text in shown
    assert demo.as_documents(rows)[2]["detail"] == "a reason"
    assert demo._describe(rows) == "1 waiting"
    assert demo._describe(rows[2:]) == "done"
