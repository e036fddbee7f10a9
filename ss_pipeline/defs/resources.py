"""Resources: thin factories of plain objects, so that assets and ops never see Dagster's resource classes.

`parts` is what intake, claims and decisions need; `work` is what a run needs on top (it imports pandas).
"""

import dagster as dg

from ss_pipeline import wiring
from ss_pipeline.settings import Settings
from ss_pipeline.telemetry.json_logs import log_to_stderr


def build_resources(settings: Settings) -> dict[str, dg.ResourceDefinition]:
    """The resources by name; their parts are made when a run, tick or load needs them."""

    def make_parts(_context: dg.InitResourceContext) -> wiring.Parts:
        log_to_stderr(settings.log_level)
        return wiring.light_parts(settings)

    def make_work(_context: dg.InitResourceContext) -> object:
        log_to_stderr(settings.log_level)
        return wiring.work_parts(wiring.light_parts(settings))

    return {
        "parts": dg.ResourceDefinition(make_parts, description="Stores, inbox and limits, chosen by the settings."),
        "work": dg.ResourceDefinition(make_work, description="What a run works with: stores, drafter, limits."),
    }
