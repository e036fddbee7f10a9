"""The partition set `jobs`: which runs need keys of it. How a job's key is named is partition_keys.py."""

from collections.abc import Mapping, Sequence
from typing import Final

import dagster as dg

from ss_pipeline.defs.tags import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG

JOB_PARTITIONS: Final = dg.DynamicPartitionsDefinition(name="jobs")

IN_FLIGHT: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of runs that still need their partition keys."""
ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
"""Statuses of runs that do no more."""


def keys_of_run(tags: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """The partition keys of a run by its tags: one, or a range of the known keys."""
    if PARTITION_TAG in tags:
        return [tags[PARTITION_TAG]]
    start, end = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if start not in known or end not in known:
        return []
    return list(known[known.index(start) : known.index(end) + 1])
