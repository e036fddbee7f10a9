"""The whole stack as a user starts it: `ss-pipeline up`, a submission dropped in the inbox, the UI in a browser."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Response, expect

from ss_pipeline import wiring
from ss_pipeline.defs.tags import PARTITION_TAG
from ss_pipeline.jobs.model import Job
from ss_pipeline.settings import Settings
from ss_pipeline.webserver import address_file
from ss_pipeline_tests.browser import a_browser
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.pipeline import Pipeline, wages_csv
from ss_pipeline_tests.stacks import free_port, wait_for

pytestmark = pytest.mark.stack
CLI = [sys.executable, "-m", "ss_pipeline.cli"]
ASSETS = ["submission", "job_record", "input_profile", "analysis_draft", "publication"]
SENSOR_TAG = "dagster/sensor_name"
"""Which sensor asked for a run."""
STARTED_SECONDS = 120
PUBLISHED_SECONDS = 45
"""From the drop into the inbox to the published report, as promised."""
PATIENCE = 3 if os.environ.get("PYTEST_XDIST_WORKER") else 1
"""Other tests share the two cores; the promise itself is for a machine of one's own."""


PAGE_MS = 60_000 * PATIENCE


@dataclass(frozen=True)
class Stack:
    """A running stack: its UI, its pipeline, and one job that it published by itself."""

    url: str
    pipeline: Pipeline
    job: Job
    published_after: float


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    data = tmp_path_factory.mktemp("stack")
    parts = wiring.light_parts(Settings(data_dir=data))
    pipeline = Pipeline(parts, wiring.work_parts(parts))
    port = free_port()
    environment = os.environ | {"SS_DATA_DIR": str(data)}
    with (data / "up.log").open("wb") as log:
        process = subprocess.Popen(
            [*CLI, "up", "--port", str(port)], env=environment, cwd=PROJECT_ROOT, stdout=log, stderr=log
        )
        try:
            wait_for(lambda: b"press Ctrl-C" in (data / "up.log").read_bytes(), STARTED_SECONDS)
            pipeline.hand_in("wages")
            dropped = time.monotonic()
            wait_for(lambda: bool(list(parts.jobs.rows(status="succeeded"))), PUBLISHED_SECONDS * PATIENCE)
            took = time.monotonic() - dropped
            (row,) = parts.jobs.rows()
            yield Stack(f"http://127.0.0.1:{port}", pipeline, pipeline.job(row.key.document_id), took)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 143
    assert not address_file(data).exists()
    assert _processes_naming(str(data)) == []


def test_a_submission_is_published_without_a_click(stack: Stack) -> None:
    assert stack.job.status == "succeeded"
    assert stack.published_after < PUBLISHED_SECONDS * PATIENCE


def test_the_partition_pages_are_green_with_preview_table_and_plot(stack: Stack, page: Page, tmp_path: Path) -> None:
    for asset in ASSETS:
        page.goto(f"{stack.url}/assets/{asset}?view=partitions&partition={stack.job.job_id}")
        expect(page.get_by_text("Materialized", exact=True).first).to_be_visible(timeout=PAGE_MS)
        expect(page.get_by_text("Failed (0)")).to_be_visible()
        page.screenshot(path=tmp_path / f"{asset}.png")
    page.goto(f"{stack.url}/assets/input_profile?view=partitions&partition={stack.job.job_id}")
    expect(page.get_by_role("cell", name="educ", exact=True)).to_be_visible(timeout=PAGE_MS)
    expect(page.get_by_text("preview", exact=True)).to_be_visible()
    row = page.get_by_role("row").filter(has_text=re.compile("^plot"))
    row.get_by_text("[Show Markdown]").click()
    plot = page.locator("img[alt=distributions]")
    expect(plot).to_be_visible()
    assert plot.evaluate("image => image.naturalWidth") > 300


def test_one_asset_of_one_job_is_made_again_from_the_ui(stack: Stack, page: Page) -> None:
    page.goto(f"{stack.url}/assets/input_profile?view=partitions&partition={stack.job.job_id}")
    expect(page.get_by_text("View all historical events (1)")).to_be_visible(timeout=PAGE_MS)
    page.get_by_text("Materialize…").first.click()
    with page.expect_response(_answers_a_launch, timeout=PAGE_MS) as launched:
        page.get_by_role("button", name="Launch 1 run").click()
    run_id = _launched_run(launched.value)
    wait_for(lambda: _run_status(stack.url, run_id) == "SUCCESS", 90 * PATIENCE)
    page.reload()
    expect(page.get_by_text("View all historical events (2)")).to_be_visible(timeout=PAGE_MS)
    assert stack.pipeline.job(stack.job.job_id).publications == stack.job.publications


def test_a_waiting_draft_is_published_after_its_confirmation(stack: Stack) -> None:
    job_id = stack.pipeline.a_job("ambiguous", requirement="Please tell us something interesting about this.")
    wait_for(lambda: stack.pipeline.job(job_id).status == "draft_ready", 90 * PATIENCE)
    data = str(stack.pipeline.parts.settings.data_dir)
    answers = ["--answer", "outcome_var=wage", "--answer", "treatment_var=educ"]
    printed = subprocess.run(
        [*CLI, "confirm", job_id, *answers, "--json"],
        env=os.environ | {"SS_DATA_DIR": data},
        capture_output=True,
        check=True,
    )
    assert json.loads(printed.stdout)["status"] == "confirmed"
    wait_for(lambda: stack.pipeline.job(job_id).status == "succeeded", 90 * PATIENCE)


@pytest.mark.guarantee("R6")
def test_a_job_that_is_typed_in_has_its_one_run_without_a_sensor(stack: Stack) -> None:
    for attempt in range(5):  # a sensor that looks in the very moment may be quicker
        submitted = _typed_in(stack, f"Effect of exper on wage, question {attempt}")
        if submitted["job_id"] is None:
            continue
        job = _published(stack, submitted["job_id"])
        (run,) = _runs_of(stack.url, job.job_id)
        assert len(job.publications) == 1
        if SENSOR_TAG not in run["tags"]:
            assert submitted["run_id"] in {run["runId"], None}, (
                "None where the answer came later than the command waits"
            )
            return
    pytest.fail("five times in a row a sensor was quicker")


@pytest.mark.guarantee("R10")
def test_a_job_whose_webserver_cannot_be_reached_has_its_one_run_from_the_sensor(stack: Stack) -> None:
    nobody = {"SS_DAGSTER_URL": f"http://127.0.0.1:{free_port()}"}
    submitted = _typed_in(stack, "Effect of educ on exper", **nobody)
    assert (submitted["run_id"], "at the next look of the sensors" in submitted["when"]) == (None, True)
    job = _published(stack, submitted["job_id"])
    (run,) = _runs_of(stack.url, job.job_id)
    assert run["tags"][SENSOR_TAG] == "claim_sensor"
    assert len(job.publications) == 1


@pytest.fixture
def page() -> Iterator[Page]:
    with a_browser() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 1000})
        page.set_default_timeout(PAGE_MS)
        yield page


def _answers_a_launch(response: Response) -> bool:
    """The mutation, which the page sends after some queries; leaving the page before it would launch nothing."""
    return '"query":"mutation Launch' in (response.request.post_data or "")


def _launched_run(response: Response) -> str:
    found = re.search(r'"(?:runId|id)":"([0-9a-f-]{36})"', response.text())
    assert found, response.text()
    return found[1]


def _typed_in(stack: Stack, requirement: str, **environment: str) -> dict[str, Any]:
    """What `ss-pipeline submit` says of the first job's data with another requirement."""
    settings = stack.pipeline.parts.settings
    data = settings.data_dir / "typed.csv"
    data.write_text(wages_csv(), encoding="utf-8")
    places = os.environ | {"SS_DATA_DIR": str(settings.data_dir)}
    command = [*CLI, "submit", requirement, str(data), "--json"]
    printed = subprocess.run(command, env=places | environment, capture_output=True, check=True)
    submitted: dict[str, Any] = json.loads(printed.stdout)
    return submitted


def _published(stack: Stack, job_id: str) -> Job:
    wait_for(lambda: stack.pipeline.job(job_id).status == "succeeded", 90 * PATIENCE)
    return stack.pipeline.job(job_id)


def _runs_of(url: str, job_id: str) -> list[dict[str, Any]]:
    """The runs of a job's partition, each with its tags as a mapping."""
    runs = "runsOrError(filter: $filter) { ... on Runs { results { runId tags { key value } } } }"
    answer = _asked(
        url, f"query($filter: RunsFilter) {{ {runs} }}", filter={"tags": [{"key": PARTITION_TAG, "value": job_id}]}
    )
    found = answer["runsOrError"]["results"]
    return [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]


def _run_status(url: str, run_id: str) -> str:
    query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
    return str(_asked(url, query, id=run_id)["runOrError"]["status"])


def _asked(url: str, query: str, **variables: object) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{url}/graphql", body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        data: dict[str, Any] = json.load(response)["data"]
        return data


def _processes_naming(text: str) -> list[str]:
    """Command lines of living processes that name a folder: what a stack left behind."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found
