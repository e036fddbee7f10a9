"""The values for the Dagster chart: what they have in common with dagster.yaml, their names, and the check of them.

The chart's own files are not part of this project: `SS_HELM_SCHEMA` names its values.schema.json where there is one.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from ss_pipeline.settings import Settings
from ss_pipeline_tests.conftest import PROJECT_ROOT

FOLDER: Final = PROJECT_ROOT / "deploy" / "kubernetes"
VALUES: Final[dict[str, Any]] = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))
INSTANCE: Final[dict[str, Any]] = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
DAEMON: Final[dict[str, Any]] = VALUES["dagsterDaemon"]
LAUNCH_RETRIES: Final = {"max_user_code_failure_retries", "user_code_failure_retry_delay"}
CODE: Final[dict[str, Any]] = VALUES["dagster-user-deployments"]["deployments"][0]


def snake(part: Any) -> Any:
    """The same with names as in dagster.yaml: maxConcurrentRuns is max_concurrent_runs there."""
    if isinstance(part, list):
        return [snake(item) for item in part]
    if not isinstance(part, dict) or "applyLimitPerUniqueValue" in part:
        return part
    return {re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found[0].lower()}", k): snake(v) for k, v in part.items()}


def check(schema: Path, *values: Path) -> subprocess.CompletedProcess[str]:
    """Runs the check as a person does."""
    command = [sys.executable, str(FOLDER / "check_values.py"), str(schema), *map(str, values)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("here", "there", "differs"),
    [
        (DAEMON["runCoordinator"]["config"]["queuedRunCoordinator"], INSTANCE["run_queue"], LAUNCH_RETRIES),
        (VALUES["concurrency"]["runs"], INSTANCE["concurrency"]["runs"], {"max_concurrent_runs"}),
        (DAEMON["runMonitoring"], INSTANCE["run_monitoring"], {"start_timeout_seconds", "max_resume_run_attempts"}),
        (DAEMON["runRetries"], INSTANCE["run_retries"], set()),
        (DAEMON["sensors"], INSTANCE["sensors"], set()),
        (DAEMON["schedules"], INSTANCE["schedules"], set()),
        (VALUES["retention"]["schedule"], INSTANCE["retention"]["schedule"], set()),
        (VALUES["telemetry"], INSTANCE["telemetry"], set()),
        (VALUES["additionalInstanceConfig"]["nux"], INSTANCE["nux"], set()),
    ],
    ids=["queue", "limits", "monitoring", "retries", "sensors", "schedules", "retention", "telemetry", "nux"],
)
def test_the_values_say_what_dagster_yaml_says_but_for_what_the_page_explains(
    here: dict[str, Any], there: dict[str, Any], differs: set[str]
) -> None:
    values = snake(here)
    assert {name for name in values.keys() | there.keys() if values.get(name) != there.get(name)} == differs


def test_the_ticks_of_sensors_are_kept_as_long_as_in_dagster_yaml() -> None:
    kept = VALUES["retention"]["sensor"]["purgeAfterDays"]
    assert kept == INSTANCE["retention"]["sensor"]["purge_after_days"] | {"started": -1}


def test_the_claim_sensor_hands_out_as_many_runs_as_there_are_slots() -> None:
    assert int(CODE["env"]["SS_CLAIM_SLOTS"]) == VALUES["concurrency"]["runs"]["maxConcurrentRuns"]


def test_every_variable_is_a_setting_and_the_settings_are_valid() -> None:
    names = {f"SS_{name.upper()}": name for name in Settings.model_fields}
    given = {names[variable]: value for variable, value in CODE["env"].items()}
    settings = Settings(**given, job_store_postgres_dsn="postgresql://from/the-secret")
    assert settings.artifacts_location().startswith(CODE["volumeMounts"][0]["mountPath"])
    assert all(isinstance(value, str) for value in CODE["env"].values())


def test_no_secret_stands_in_the_values() -> None:
    text = (FOLDER / "values.yaml").read_text(encoding="utf-8")
    assert re.findall(r"(?i)(?:password|token|dsn|api_?key):\s*\S+", text) == []
    assert VALUES["generatePostgresqlPasswordSecret"] is False


def test_all_containers_have_one_image_and_dagster_finds_its_driver() -> None:
    assert CODE["image"] == DAEMON["image"] == VALUES["dagsterWebserver"]["image"]
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def test_runs_have_the_memory_that_reading_a_file_may_take() -> None:
    limit = re.fullmatch(r"(\d+)Gi", CODE["resources"]["limits"]["memory"])
    assert limit is not None
    assert int(limit[1]) * 1_024 >= Settings().profile_memory_mb + 512


@pytest.mark.skipif("SS_HELM_SCHEMA" not in os.environ, reason="SS_HELM_SCHEMA does not name the chart's schema")
def test_the_charts_schema_accepts_the_values() -> None:
    checked = check(Path(os.environ["SS_HELM_SCHEMA"]))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


SCHEMA: Final = {
    "type": "object",
    "required": ["image", "slots"],
    "properties": {
        "image": {
            "anyOf": [
                {
                    "type": "object",
                    "required": ["tag"],
                    "additionalProperties": False,
                    "properties": {"tag": {"type": "string"}},
                },
                {"type": "null"},
            ]
        },
        "slots": {"type": "integer"},
        "probe": {"$ref": "https://elsewhere.invalid/definitions.json#/probe"},
    },
}


@pytest.mark.parametrize(
    ("values", "faults"),
    [
        ("slots: 3", ""),
        ("image: {tag: '1'}\nprobe: {seconds: 3}", ""),
        ("slots: many", "$.slots: 'many' is not of type 'integer'"),
        ("slots: null", "$: 'slots' is a required property"),
        ("image: {tag: 1}", "$.image.tag: 1 is not of type 'string'"),
        ("image: {tog: '1'}", "$.image: Additional properties are not allowed ('tog' was unexpected)"),
    ],
)
def test_the_check_says_what_is_wrong_with_values_laid_over_the_charts_own(
    tmp_path: Path, values: str, faults: str
) -> None:
    (tmp_path / "values.schema.json").write_text(json.dumps(SCHEMA))
    (tmp_path / "values.yaml").write_text("slots: 1\nimage: {tag: latest}\n")
    (tmp_path / "mine.yaml").write_text(values)
    checked = check(tmp_path / "values.schema.json", tmp_path / "mine.yaml")
    assert checked.returncode == bool(faults)
    assert checked.stdout == (f"{tmp_path / 'mine.yaml'}: {faults}\n" if faults else "")
