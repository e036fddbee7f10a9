"""What dagster.yaml tells the warm launcher to import beforehand is what a run would otherwise import late."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from ss_pipeline_tests.conftest import PROJECT_ROOT

PROGRAM = """
import importlib, json, os, sys
from pathlib import Path
import dagster as dg
from ss_pipeline.definitions import build_definitions
from ss_pipeline.launcher.dagster_internals import IMPORTED_BY_RUNS
from ss_pipeline_tests.pipeline import a_pipeline

for name in (*IMPORTED_BY_RUNS, *sys.argv[2:]):
    importlib.import_module(name)
import ss_pipeline.definitions
pipeline = a_pipeline(Path(sys.argv[1]))
job_id = pipeline.a_job()
job = build_definitions(pipeline.parts.settings).resolve_job_def("process_jobs")
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    instance.add_dynamic_partitions("jobs", [job_id])
    known = set(sys.modules)
    assert job.execute_in_process(instance=instance, partition_key=job_id).success
    print(json.dumps(sorted(sys.modules.keys() - known)))
assert pipeline.job(job_id).status == "succeeded"
"""
BEFORE_THE_LAUNCH = {
    "dagster._core.execution.execute_in_process",
    "dagster._core.instance.runs",
    "dagster._core.instance.runs.run_domain",
}
"""Who makes a run imports these, not the run."""


def preload_of(settings: str) -> list[str]:
    """The modules that these settings of an instance name."""
    found: list[str] = yaml.safe_load((PROJECT_ROOT / settings).read_text())["run_launcher"]["config"]["preload"]
    return found


def test_a_run_imports_nothing_that_its_zygote_could_have_imported(tmp_path: Path) -> None:
    preload = preload_of("dagster.yaml")
    assert preload == preload_of("deploy/dagster.postgres.yaml")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), *preload],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    imported = json.loads(done.stdout.splitlines()[-1])
    assert set(imported) - BEFORE_THE_LAUNCH == set()
