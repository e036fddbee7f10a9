"""Resources: thin factories of plain objects, so that assets and ops never see Dagster's resource classes.

`parts` is what intake, claims and decisions need; `work` is what a run needs on top (it imports pandas). Both are
closed after use: a code server makes new ones for every tick, and open ones would use up its descriptors.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ss_pipeline import wiring
from ss_pipeline.settings import Settings
from ss_pipeline.telemetry.json_logs import log_to_stderr


def build_resources(settings: Settings) -> dict[str, dg.ResourceDefinition]:
    """The resources by name; their parts are made when a run, tick or load needs them."""

    def make_parts(_context: dg.InitResourceContext) -> Iterator[wiring.Parts]:
        with _opened(settings) as parts:
            yield parts

    def make_work(_context: dg.InitResourceContext) -> Iterator[object]:
        with _opened(settings) as parts:
            yield wiring.work_parts(parts)

    return {
        "parts": dg.ResourceDefinition(make_parts, description="Stores, inbox and limits, chosen by the settings."),
        "work": dg.ResourceDefinition(make_work, description="What a run works with: stores, drafter, limits."),
    }


@contextmanager
def _opened(settings: Settings) -> Iterator[wiring.Parts]:
    log_to_stderr(settings.log_level)
    parts = wiring.light_parts(settings)
    try:
        yield parts
    finally:
        parts.close()
