"""Settings of the Celery workers, found by `dagster_celery.app` under this name on PYTHONPATH (README.md).

What lives here: Celery's own settings, under Celery's own names. The launcher's are in dagster.yaml, those of the
pipeline in docs/configuration.md.
"""

import os

broker_url = os.environ["DAGSTER_CELERY_BROKER_URL"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND_URL"]
broker_connection_retry_on_startup = True

include = [
    "ss_pipeline.definitions",
    "ss_pipeline.llm.rules.client",
    "ss_pipeline.stages.publishing.report",
    "matplotlib.backends.backend_svg",
    "multiprocessing.popen_fork",
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PpmImagePlugin",
]
"""Imported once, by the worker; the processes of the runs are forked from it and have it already. As the warm
launcher's `preload` in dagster.yaml."""

worker_max_tasks_per_child = 1
"""A process of its own for each run."""

worker_disable_prefetch = True
"""A worker takes a run when it has a process for it; otherwise runs would wait behind others while a worker is idle."""

result_expires = 7200
"""Seconds. Run monitoring reads the state of a task while its run is at work; nobody does afterwards."""
