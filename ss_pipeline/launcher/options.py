"""What can be set for the launcher in dagster.yaml, and the description that Dagster shows for it.

run_launcher:
  module: ss_pipeline.launcher
  class: WarmRunLauncher
  config: {max_children: 16}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import dagster as dg

from ss_pipeline.errors import LauncherOptionError

_DESCRIPTIONS: Final = {
    "max_children": "Runs of one code location that may live at the same time. A launch beyond it waits for a place"
    " for start_seconds and is then refused.",
    "recycle_after_mb": "A zygote whose own memory has grown by this many MB since it was ready starts no more runs and"
    " is replaced. 0: never.",
    "drain_seconds": "How long a zygote that gets SIGTERM waits for its runs before it sends them SIGTERM too.",
    "idle_seconds": "A zygote without runs ends when the processes that used it are gone and it was unused this long.",
    "rest_seconds": "The same while a process that used it lives: the memory of a rarely used code location is freed.",
    "start_seconds": "How long one launch may take: starting the zygote, importing the code, waiting for a place.",
    "preload": "Modules to import before the code location: what its ops import late, each run would import anew.",
    "watch": "Patterns of files besides Python modules that the code location reads when it is imported, relative to"
    " the folder Dagster runs in. A change replaces the zygote, as a change of a module does.",
    "pooled_connections": "Keep the connections to Dagster's databases (PostgreSQL, or SQLite's files) open, in a run"
    " for its length and in the process that launches. Without it Dagster opens a new one for each statement.",
    "fallback": "Use the default launcher where no warm one can be had (no fork, code on another machine, the zygote"
    " does not start). false: such runs fail.",
}


@dataclass(frozen=True)
class LauncherOptions:
    """The options with their defaults; times in seconds. Descriptions: `config_schema`."""

    max_children: int = 64
    recycle_after_mb: int = 500
    drain_seconds: int = 30
    idle_seconds: int = 60
    rest_seconds: int = 3600
    start_seconds: int = 120
    preload: Sequence[str] = ()
    watch: Sequence[str] = ()
    pooled_connections: bool = True
    fallback: bool = True

    def __post_init__(self) -> None:
        least = {"max_children": 1, "start_seconds": 1}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < least.get(field.name, 0):
                raise LauncherOptionError(f"{field.name} is {value}; it must be at least {least.get(field.name, 0)}")


def config_schema() -> dict[str, dg.Field]:
    """The options as Dagster reads them from dagster.yaml."""
    return {field.name: _field(field.name, field.default) for field in fields(LauncherOptions)}


def read_options(config: Mapping[str, Any]) -> LauncherOptions:
    """The options from what Dagster has read.

    Raises:
        LauncherOptionError: a number is out of range.
    """
    return LauncherOptions(**config)


def _field(name: str, default: object) -> dg.Field:
    kinds = {bool: dg.BoolSource, int: dg.IntSource}
    kind = kinds.get(type(default), dg.Array(dg.StringSource))
    value = list(default) if isinstance(default, tuple) else default
    return dg.Field(kind, is_required=False, default_value=value, description=_DESCRIPTIONS[name])
