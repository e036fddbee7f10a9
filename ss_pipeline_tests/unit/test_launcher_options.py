"""The launcher's options as dagster.yaml gives them, and the key that tells zygotes apart."""

import json
from dataclasses import fields, replace
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ss_pipeline.errors import LauncherOptionError
from ss_pipeline.launcher import WarmRunLauncher
from ss_pipeline.launcher.options import LauncherOptions, config_schema
from ss_pipeline.launcher.start import ZygoteStart, from_json, numeric_threads, to_json
from ss_pipeline_tests.conftest import PROJECT_ROOT

START = ZygoteStart(
    folder="/home/warm_launcher",
    executable="/usr/bin/python3",
    repository="{}",
    load_data=None,
    instance="{}",
    location="here",
    working_folder="/work",
    numeric_threads=numeric_threads(),
    max_children=64,
    recycle_after_mb=500,
    drain_seconds=30,
    idle_seconds=60,
    rest_seconds=3600,
    preload=("pandas",),
    watch=(),
    pooled_connections=True,
)


def instance_with(folder: Path, config: object) -> dg.DagsterInstance:
    """An instance whose dagster.yaml has this configuration of the launcher."""
    launcher = {"module": "ss_pipeline.launcher", "class": "WarmRunLauncher", "config": config}
    (folder / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}, "run_launcher": launcher}))
    return dg.DagsterInstance.from_config(str(folder))


def test_without_a_word_the_defaults_hold(tmp_path: Path) -> None:
    with instance_with(tmp_path, {}) as instance:
        assert isinstance(instance.run_launcher, WarmRunLauncher)
        assert instance.run_launcher._options == LauncherOptions(preload=[], watch=[])


def test_every_option_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHILDREN", "7")
    config = {
        "max_children": {"env": "CHILDREN"},
        "recycle_after_mb": 0,
        "drain_seconds": 1,
        "idle_seconds": 2,
        "rest_seconds": 3,
        "start_seconds": 4,
        "preload": ["numpy"],
        "watch": ["sql/*.sql"],
        "pooled_connections": False,
        "fallback": False,
    }
    assert config.keys() == {field.name for field in fields(LauncherOptions)}
    with instance_with(tmp_path, config) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        assert launcher._options == LauncherOptions(**{**config, "max_children": 7})  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{"max_childs": 1}, {"max_children": "many"}, {"preload": "numpy"}])
def test_what_is_no_option_is_refused_by_dagster(tmp_path: Path, config: object) -> None:
    with instance_with(tmp_path, config) as instance, pytest.raises(dg.DagsterInvalidConfigError):
        _ = instance.run_launcher


@pytest.mark.parametrize("option", [{"max_children": 0}, {"start_seconds": 0}, {"idle_seconds": -1}])
def test_numbers_out_of_range_are_refused(option: dict[str, int]) -> None:
    with pytest.raises(LauncherOptionError, match="must be at least"):
        LauncherOptions(**option)  # type: ignore[arg-type]


def test_the_docs_have_every_option_as_dagster_shows_it() -> None:
    lines = (PROJECT_ROOT / "docs" / "warm-launcher.md").read_text(encoding="utf-8").splitlines()
    for name, field in config_schema().items():
        assert f"| `{name}` | {json.dumps(field.default_value)} | {field.description} |" in lines
        assert (field.description or "").endswith(".")


def test_what_a_zygote_is_started_with_comes_through() -> None:
    assert from_json(to_json(START)) == START


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "{1}"},
        {"instance": "{1}"},
        {"load_data": "{1}"},
        {"executable": "/opt/python"},
        {"working_folder": "/elsewhere"},
        {"location": "there"},
        {"max_children": 1},
        {"numeric_threads": {"OMP_NUM_THREADS": "4"}},
    ],
)
def test_whatever_makes_runs_differ_makes_another_key(change: dict[str, object]) -> None:
    assert replace(START, **change).key({}) != START.key({})  # type: ignore[arg-type]


def test_the_environment_is_part_of_the_key_but_for_what_tells_one_service_s_processes_apart() -> None:
    assert START.key({"A": "1"}) != START.key({"A": "2"})
    assert START.key({"A": "1", "SHLVL": "1"}) == START.key({"SHLVL": "2", "A": "1"})
    assert len(START.key({})) == 16
