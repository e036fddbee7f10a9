"""Code locations that differ from the production one (ss_pipeline.definitions) in exactly what a way measures.

Dagster calls one of these functions, in the code server and in each process that runs jobs (`attribute:` in the
workspace). One process never loads two of them.
"""

from functools import cache

import dagster as dg

from ss_pipeline.bench import trivial as trivial_stages


@cache
def trivial() -> dg.Definitions:
    """The definitions over stages that do next to nothing; the overview that the UI would show is not drawn either."""
    from ss_pipeline.defs import metadata

    trivial_stages.install()
    vars(metadata)["overview_png"] = lambda _profile, _sample: b""
    return _definitions()


@cache
def usual() -> dg.Definitions:
    """The definitions with Dagster's default executor, which starts a process for each step of a run."""
    _use_multiprocess_executor()
    return _definitions()


@cache
def trivial_usual() -> dg.Definitions:
    """Both."""
    _use_multiprocess_executor()
    return trivial()


def _use_multiprocess_executor() -> None:
    """Before the sensors are imported, which hold the job."""
    from ss_pipeline.defs import jobs

    job = jobs.process_jobs
    vars(jobs)["process_jobs"] = dg.define_asset_job(
        job.name, selection=job.selection, executor_def=dg.multiprocess_executor
    )


def _definitions() -> dg.Definitions:
    from ss_pipeline.definitions import defs

    return defs
