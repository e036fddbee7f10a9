"""Run tags, each with its reason. Tags are readable by everyone who sees the UI: they hold ids only."""

from typing import Final

CLAIM_TAG: Final = "ss/claim"
"""The claim a run works off. dagster.yaml limits runs in flight by this tag; its value finds the reservation."""

TENANT_TAG: Final = "ss/tenant"
"""Whose jobs: dagster.yaml may limit each tenant's runs by it."""

CLASS_TAG: Final = "ss/class"
"""The priority class of the claim; the claim sensor counts what is in flight by it."""

NOT_CLASS_TAG: Final = "ss/not-"
"""With a class behind it: the run is of another one. dagster.yaml keeps slots free for a class by limiting it."""

PRIORITY_TAG: Final = "dagster/priority"
"""Read by the run queue: higher first."""

PARTITION_TAG: Final = "dagster/partition"
"""The partition key of a run of one job."""

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
"""The contiguous range of partition keys of a claim of several jobs."""
