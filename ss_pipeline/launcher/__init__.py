"""The warm run launcher, for any Dagster project: each run in a process of its own, forked instead of started.

Dagster loads it by the name of this package: `run_launcher: {module: ss_pipeline.launcher, class: WarmRunLauncher}`.
Nothing here knows the rest of ss_pipeline but errors and telemetry. docs/warm-launcher.md says how it works.
"""

from ss_pipeline.launcher.run_launcher import WarmRunLauncher

__all__ = ["WarmRunLauncher"]
