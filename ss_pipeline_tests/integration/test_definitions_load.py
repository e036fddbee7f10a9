"""Dagster loads the definitions, and they are what docs and deployment say."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import yaml
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME

from ss_pipeline import immediate
from ss_pipeline.definitions import build_definitions
from ss_pipeline.defs import run_requests
from ss_pipeline.settings import Settings
from ss_pipeline_tests.conftest import PROJECT_ROOT


def _definitions(tmp_path: Path) -> dg.Definitions:
    return build_definitions(Settings(data_dir=tmp_path))


def test_the_five_assets_follow_each_other(tmp_path: Path) -> None:
    graph = _definitions(tmp_path).resolve_asset_graph()
    order = ["submission", "job_record", "input_profile", "analysis_draft", "publication"]
    for before, after in itertools.pairwise(order):
        assert graph.get(dg.AssetKey(after)).parent_keys == {dg.AssetKey(before)}
    assert dg.AssetKey("backlog") in graph.get_all_asset_keys()


def test_every_definition_is_described(tmp_path: Path) -> None:
    definitions = _definitions(tmp_path)
    repository = definitions.get_repository_def()
    assert all(job.description for job in repository.get_all_jobs() if not job.name.startswith("__"))
    assert all(sensor.description for sensor in repository.sensor_defs)
    assert all(schedule.description for schedule in repository.schedule_defs)


def test_nothing_uses_the_pickling_io_manager(tmp_path: Path) -> None:
    resources = _definitions(tmp_path).get_repository_def().get_top_level_resources()
    assert "io_manager" in resources


def test_dagster_yaml_allows_as_many_runs_as_the_claim_sensor_makes(tmp_path: Path) -> None:
    instance = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    assert instance["concurrency"]["runs"]["max_concurrent_runs"] == Settings(data_dir=tmp_path).claim_slots


def test_no_sensor_that_somebody_waits_for_leaves_out_a_look_of_the_daemon(tmp_path: Path) -> None:
    """A sensor as often as the daemon looks counts as too early every second time: its last tick began a bit late."""
    intervals = {sensor.name: sensor.minimum_interval_seconds or 0 for sensor in _sensors(tmp_path)}
    for name in ("inbox_sensor", "claim_sensor", "failed_run_sensor"):
        assert intervals[name] <= MIN_INTERVAL_LOOP_TIME - 3
    assert immediate.LOOP_SECONDS == run_requests.LOOP_SECONDS == MIN_INTERVAL_LOOP_TIME


def _sensors(tmp_path: Path) -> Sequence[dg.SensorDefinition]:
    return _definitions(tmp_path).get_repository_def().sensor_defs
