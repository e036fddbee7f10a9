"""The example submissions: they parse, are small, and their files are listed with a licence that allows them here."""

import re
import shutil
from pathlib import Path

import pytest

from ss_pipeline.jobs.inputs import FORMAT_OF_SUFFIX
from ss_pipeline.jobs.requests import SubmissionRequest, parse_request
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.pipeline import a_pipeline

EXAMPLES = PROJECT_ROOT / "examples"
SUBMISSIONS = sorted(path for path in (EXAMPLES / "inbox").iterdir() if path.is_dir())
LICENCES = {"public domain", "CC0 1.0", "BSD-3-Clause", "MIT"}
EMPTY_ON_PURPOSE = "10-weather-export"
AMBIGUOUS_ON_PURPOSE = "07-penguin-differences"
DRAFTED = {
    "01-household-food-spending": ("food_expenditure", "household_income"),
    "02-doctor-visits-coinsurance": ("mdvis", "lncoins"),
    "03-firm-investment": ("总投资", "市场价值"),
    "04-penguin-body-mass": ("body_mass_g", "flipper_length_mm"),
    "05-diabetes-progression": ("疾病进展", "体重指数"),
    "06-poverty-and-crime": ("violent_crime_rate", "poverty_rate"),
    AMBIGUOUS_ON_PURPOSE: (None, None),
    "08-education-income": ("income", "educ"),
    "09-consumption-income": ("实际消费支出", "实际可支配收入"),
}
"""Outcome and treatment of each example that becomes a job."""
MAX_TOTAL_BYTES = 1_500_000

each_submission = pytest.mark.parametrize("folder", SUBMISSIONS, ids=lambda folder: folder.name)


def _request(folder: Path) -> SubmissionRequest:
    return parse_request((folder / "request.json").read_bytes())


def _listed_sources() -> dict[tuple[str, str], str]:
    """(submission, file) → licence, from the first table of SOURCES.md."""
    text = (EXAMPLES / "SOURCES.md").read_text(encoding="utf-8").split("## What was changed")[0]
    rows = re.findall(r"^\| ([\w-]+) \| `([^`]+)` \| .* \| ([^|]+) \|$", text, flags=re.MULTILINE)
    return {(submission, file): licence.strip() for submission, file, licence in rows}


def test_there_are_ten_submissions() -> None:
    assert len(SUBMISSIONS) == 10


@each_submission
def test_a_submission_is_its_request_and_the_files_it_names(folder: Path) -> None:
    named = {item.path for item in _request(folder).inputs}
    assert {path.name for path in folder.iterdir()} == named | {"request.json"}


@each_submission
def test_every_data_file_has_a_format_that_needs_no_extra(folder: Path) -> None:
    formats = {FORMAT_OF_SUFFIX[Path(item.path).suffix] for item in _request(folder).inputs}
    assert formats <= {"csv", "tsv", "excel", "dta", "sav"}


@each_submission
def test_every_data_file_is_listed_with_a_licence_that_allows_redistribution(folder: Path) -> None:
    listed = _listed_sources()
    licences = {listed.get((folder.name, item.path)) for item in _request(folder).inputs}
    assert licences <= LICENCES


@each_submission
def test_every_submission_is_in_the_readme_of_the_examples(folder: Path) -> None:
    assert f"| {folder.name} |" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_nothing_is_listed_that_is_not_there() -> None:
    there = {(folder.name, item.path) for folder in SUBMISSIONS for item in _request(folder).inputs}
    assert set(_listed_sources()) == there


def test_only_the_failed_export_is_empty() -> None:
    empty = {path.parent.name for path in EXAMPLES.rglob("*") if path.is_file() and not path.stat().st_size}
    assert empty == {EMPTY_ON_PURPOSE}


def test_the_examples_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < MAX_TOTAL_BYTES


def test_requirements_come_in_both_languages() -> None:
    chinese = [folder for folder in SUBMISSIONS if re.search(r"[一-鿿]", _request(folder).requirement)]
    assert len(chinese) == 4


def test_one_submission_has_a_primary_and_a_secondary_file() -> None:
    roles = [[request.role_of(i) for i in range(len(request.inputs))] for request in map(_request, SUBMISSIONS)]
    assert [r for r in roles if len(r) > 1] == [["primary_dataset", "secondary_dataset"]]


def test_eight_are_published_one_waits_for_a_person_and_one_is_refused(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path)
    shutil.copytree(EXAMPLES / "inbox", pipeline.parts.inbox)
    report = pipeline.take_in()
    assert [(refused.name, refused.code) for refused in report.refused] == [(EMPTY_ON_PURPOSE, "INPUT_EMPTY")]
    names = {accepted.job_id: accepted.name for accepted in report.accepted}
    _, ended = pipeline.run(*names)
    endings = {names[job_id]: end.ending for job_id, end in ended.items()}
    assert endings == {name: "in review" if name == AMBIGUOUS_ON_PURPOSE else "published" for name in DRAFTED}
    drafts = {name: pipeline.job(job_id).draft for job_id, name in names.items()}
    assert {name: (draft.outcome_var, draft.treatment_var) for name, draft in drafts.items() if draft} == DRAFTED
