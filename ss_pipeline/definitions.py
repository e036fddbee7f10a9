"""What Dagster loads: `defs`, the one module-level definition, and its builder for tests.

Add new definitions in defs/, one file per Dagster word; here they are only put together.
"""

from collections.abc import Mapping

import dagster as dg

from ss_pipeline import wiring
from ss_pipeline.defs.assets import job_pipeline
from ss_pipeline.defs.backlog import backlog
from ss_pipeline.defs.io_manager import build_io_manager
from ss_pipeline.defs.jobs import FLEET_JOBS, observe_backlog, process_jobs
from ss_pipeline.defs.resources import build_resources
from ss_pipeline.defs.schedules import SCHEDULES
from ss_pipeline.defs.sensors import build_sensors
from ss_pipeline.settings import Settings, load_settings


def build_definitions(settings: Settings, *, overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """All definitions for these settings.

    Args:
        overrides: Resources that replace the built ones by name (`parts`, `work`, `io_manager`): tests swap parts.

    Raises:
        SettingsError: drafting is set up in a way that could only fail at the first job.
    """
    wiring.import_drafters(settings)
    resources: dict[str, object] = {**build_resources(settings), "io_manager": build_io_manager()}
    return dg.Definitions(
        assets=[job_pipeline, backlog],
        jobs=[process_jobs, observe_backlog, *FLEET_JOBS],
        sensors=build_sensors(settings),
        schedules=SCHEDULES,
        resources=resources | dict(overrides or {}),
        executor=dg.in_process_executor,
    )


defs = build_definitions(load_settings())
