"""The files of deploy/celery: what they share with the other instance, and that Celery and Dagster know them."""

import runpy
from typing import Any, Final

import pytest
import yaml
from celery.app.defaults import SETTING_KEYS
from dagster._config import process_config, resolve_to_config_type
from dagster_celery.launcher import CeleryRunLauncher

from ss_pipeline_tests.conftest import PROJECT_ROOT

DEPLOY: Final = PROJECT_ROOT / "deploy"
ADDRESSES: Final = ("DAGSTER_CELERY_BROKER_URL", "DAGSTER_CELERY_BACKEND_URL")


def instance(name: str) -> dict[str, Any]:
    """The settings of an instance."""
    settings: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return settings


def test_the_instance_differs_from_that_on_postgresql_in_the_launcher_and_in_the_time_a_run_may_take() -> None:
    celery, postgres = instance("celery/dagster.yaml"), instance("dagster.postgres.yaml")
    assert celery.pop("run_launcher") != postgres.pop("run_launcher")
    here, there = celery["run_monitoring"], postgres["run_monitoring"]
    assert here.pop("start_timeout_seconds") > there.pop("start_timeout_seconds")
    assert here.pop("max_runtime_seconds") < there.pop("max_runtime_seconds")
    assert celery == postgres


def test_the_launcher_takes_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ADDRESSES:
        monkeypatch.setenv(name, "redis://broker")
    config = instance("celery/dagster.yaml")["run_launcher"]["config"]
    checked = process_config(resolve_to_config_type(CeleryRunLauncher.config_type()), config)
    assert checked.errors is None or checked.errors == []
    assert checked.value is not None
    assert checked.value["broker"] == checked.value["backend"] == "redis://broker"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings of the workers."""
    for name in ADDRESSES:
        monkeypatch.setenv(name, f"redis://{name}")
    module = runpy.run_path(str(DEPLOY / "celery" / "dagster_celery_config.py"))
    return {name: value for name, value in module.items() if not name.startswith("_") and name != "os"}


def test_a_worker_loads_what_the_warm_launchers_zygote_loads(worker: dict[str, Any]) -> None:
    preload = instance("dagster.postgres.yaml")["run_launcher"]["config"]["preload"]
    assert worker["include"] == ["ss_pipeline.definitions", *preload]


def test_the_settings_of_the_workers_are_celerys_and_name_the_same_addresses(worker: dict[str, Any]) -> None:
    assert worker.keys() <= SETTING_KEYS
    assert [worker["broker_url"], worker["result_backend"]] == [f"redis://{name}" for name in ADDRESSES]
