"""`make demo` as a newcomer sees it: ten real submissions through daemon, sensors and queue."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ss_pipeline_tests.conftest import PROJECT_ROOT

pytestmark = pytest.mark.stack


def test_the_demo_publishes_eight_asks_about_one_and_refuses_one(tmp_path: Path) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "ss_pipeline.cli", "demo", "--data", str(tmp_path / "demo"), "--json"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(printed.stdout[printed.stdout.index("[\n") :])
    assert sorted(row["phase"] for row in rows) == ["in review", *["published"] * 8, "refused"]
    for row in rows:
        if row["phase"] == "published":
            assert Path(row["detail"]).read_text(encoding="utf-8").casefold().startswith("<!doctype html>")
    (asked,) = [row["detail"] for row in rows if row["phase"] == "in review"]
    assert "confirm job_" in asked
    assert "--answer outcome_var=…" in asked
    (refused,) = [row["detail"] for row in rows if row["phase"] == "refused"]
    assert refused.startswith("INPUT_EMPTY")
