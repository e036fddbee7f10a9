"""Every hostile submission goes the whole way, or is stopped with a reason, while its good neighbour is published."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ss_pipeline.job_run import JobEnded
from ss_pipeline.jobs.model import Job
from ss_pipeline.stages import decision
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline

EXPECTED = {
    "path_traversal_input": "refuse",
    "absolute_input": "refuse",
    "symlink_file": "refuse",
    "wide_csv": "survive",
    "nul_bytes_csv": "refuse",
    "invalid_utf8_csv": "survive",
    "formula_injection": "accept",
    "prompt_injection_column": "accept",
    "html_requirement": "accept",
    "json_nan": "refuse",
    "json_deep": "refuse",
    "job_id_slashes": "refuse",
    "empty_file": "refuse",
    "directory_as_file": "refuse",
    "growing_file": "wait",
    "xlsx_bomb": "refuse",
    "duplicate_job_id": "refuse",
}
"""The cases of the corpus and what each must come to; a case that is added there fails here until it is listed."""


def _worked_off(pipeline: Pipeline) -> dict[str, JobEnded]:
    """Looks at the inbox until nothing waits there any more, and works off what became a job."""
    deadline = time.monotonic() + 60
    while True:
        waiting = pipeline.take_in().waiting
        if not waiting:
            break
        assert time.monotonic() < deadline, waiting
        time.sleep(0.1)
    ids = [row.key.document_id for row in pipeline.parts.jobs.rows()]
    _, ended = pipeline.run(*ids)
    return ended


def _jobs_by_reference(pipeline: Pipeline) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for row in pipeline.parts.jobs.rows():
        job = pipeline.job(row.key.document_id)
        found.setdefault(job.client_ref or "", []).append(job)
    return found


def _reasons(pipeline: Pipeline) -> list[dict[str, str]]:
    refused = pipeline.parts.inbox.parent / "refused"
    return [json.loads(path.read_text(encoding="utf-8")) for path in refused.glob("*/reason.json")]


def test_every_case_of_the_corpus_is_listed(corpus: Path, tmp_path: Path) -> None:
    script = corpus / "hostile" / "gen_hostile_a.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    lines = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    assert {case["case"]: case["expect"] for case in map(json.loads, lines)} == EXPECTED


@pytest.mark.guarantee("A8")
@pytest.mark.parametrize("case", EXPECTED)
def test_a_hostile_submission_is_stopped_or_survived_and_its_neighbour_is_published(
    case: str, corpus: Path, tmp_path: Path
) -> None:
    script = corpus / "hostile" / "gen_hostile_a.py"
    writer = subprocess.Popen([sys.executable, str(script), str(tmp_path), "--only", case])
    inbox = tmp_path / case / "inbox"
    pipeline = a_pipeline(tmp_path / "data", inbox_dir=inbox, inbox_quiet_seconds=0.5)
    try:
        while not (inbox / "zz_good" / "request.json").exists():
            assert writer.poll() in {None, 0}
            time.sleep(0.02)
        ended = _worked_off(pipeline)
    finally:
        assert writer.wait(timeout=60) == 0
    jobs = _jobs_by_reference(pipeline)
    (good,) = jobs.pop("zz_good")
    assert good.status == "succeeded"
    others = [job for found in jobs.values() for job in found]
    _check(case, others, ended, pipeline)
    for reason in _reasons(pipeline):
        assert reason["code"]
        assert reason["todo"]
        assert "Traceback" not in reason["message"]


def _check(case: str, others: list[Job], ended: dict[str, JobEnded], pipeline: Pipeline) -> None:
    endings = [ended[job.job_id].ending for job in others]
    if case == "duplicate_job_id":  # the first is a job, the second conflicts with it
        assert endings == ["published"]
        assert [reason["code"] for reason in _reasons(pipeline)] == ["SUBMISSION_REFERENCE_CONFLICT"]
    elif EXPECTED[case] == "refuse":
        assert endings in ([], ["failed"])
        assert len(_reasons(pipeline)) + len(others) == 1
        assert all(job.failure and job.failure.todo for job in others)
    elif EXPECTED[case] in {"accept", "wait"}:
        if case == "html_requirement" and endings == ["in review"]:  # the tags make the drafter ask
            _confirm(others[0], pipeline)
        _check_content(case, pipeline.job(others[0].job_id), pipeline)
    else:
        assert endings in (["published"], ["in review"], ["failed"])


def _confirm(job: Job, pipeline: Pipeline) -> None:
    at = pipeline.parts.clock.timestamp()
    answers = {"outcome_var": "wage", "treatment_var": "educ"}
    pipeline.parts.jobs.update(job.job_id, lambda stored: decision.confirm(stored, by="ann", at=at, answers=answers))
    _, ended = pipeline.run(job.job_id, claim_id="claim_2")
    assert ended[job.job_id].ending == "published"


def _check_content(case: str, job: Job, pipeline: Pipeline) -> None:
    assert job.draft is not None
    assert job.published is not None
    assert (job.draft.outcome_var, job.draft.treatment_var) == ("wage", "educ")
    folder = job.published.folder
    report = pipeline.parts.artifacts.read("default", job.job_id, f"{folder}/report.html").decode()
    assert "<script" not in report
    assert "<img" not in report
    columns = pipeline.parts.artifacts.read("default", job.job_id, f"{folder}/columns.csv").decode("utf-8-sig")
    assert not [cell for row in csv.reader(columns.splitlines()) for cell in row if cell[:1] in set("=+@\t\r")]
    if case == "growing_file":
        profile = json.loads(pipeline.parts.artifacts.read("default", job.job_id, "artifacts/profile.json"))
        assert profile["datasets"][0]["rows"] == 600
