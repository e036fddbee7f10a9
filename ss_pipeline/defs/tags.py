"""Run tags, each with its reason, and what they say of a claim and of the runs in flight. No dagster.

Tags are readable by everyone who sees the UI: they hold ids only.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ss_pipeline.jobs.fairness import CLASS_ORDER, Busy
from ss_pipeline.stages.claiming import Claim

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


def tags_of_claim(claim: Claim, *, reserved: Iterable[str]) -> dict[str, str]:
    """The tags of the run that works a claim off, but for those of its partitions.

    Args:
        reserved: The classes that have slots of their own.
    """
    return {
        CLAIM_TAG: claim.claim_id,
        TENANT_TAG: claim.tenant_id,
        CLASS_TAG: claim.priority_class,
        PRIORITY_TAG: str(claim.priority),
        **{NOT_CLASS_TAG + name: "true" for name in reserved if name != claim.priority_class},
    }


def busy_with(runs: Sequence[Mapping[str, str]]) -> Busy:
    """How many runs are in flight by tenant and class, from the tags of each."""
    return Busy(
        tenants=Counter(tags.get(TENANT_TAG, "") for tags in runs),
        classes={name: sum(tags.get(CLASS_TAG) == name for tags in runs) for name in CLASS_ORDER},
    )
