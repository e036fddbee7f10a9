"""From waiting jobs to run requests: how many runs there is room for, and what each asks Dagster for.

Who is next is stages/claiming.py's decision.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from ss_pipeline.defs.jobs import process_jobs
from ss_pipeline.defs.partitions import IN_FLIGHT, JOB_PARTITIONS, partition_key_of, recorded_partition_key
from ss_pipeline.defs.tags import (
    CLAIM_TAG,
    CLASS_TAG,
    NOT_CLASS_TAG,
    PRIORITY_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    TENANT_TAG,
)
from ss_pipeline.errors import SSError
from ss_pipeline.jobs.fairness import CLASS_ORDER, Busy
from ss_pipeline.stages.claiming import Claim, ClaimRules, free_claims, make_claims
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.wiring import Parts

SPARE_RUNS: Final = 2
"""Runs queued beyond the slots at least, so that no slot waits for a tick."""
SPARE_PER_SLOT: Final = 4
"""Runs queued beyond the slots at most, for each slot; more would make the order in the queue stale."""
LOOP_SECONDS: Final = 5.0
"""Dagster's daemon looks at sensors no more often than this (dagster/_daemon/sensor.py)."""

_ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def request_runs(instance: dg.DagsterInstance, parts: Parts) -> dg.SensorResult:
    """Reserves what waits, as far as there is room, and requests a run for each claim."""
    in_flight = instance.get_runs(dg.RunsFilter(job_name=process_jobs.name, statuses=IN_FLIGHT))
    known = set(instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))
    rules, now = parts.claim_rules, parts.clock.now()
    slots = parts.settings.claim_slots
    busy = Busy(
        tenants=Counter(run.tags.get(TENANT_TAG, "") for run in in_flight),
        classes={name: sum(run.tags.get(CLASS_TAG) == name for run in in_flight) for name in CLASS_ORDER},
    )
    claims = make_claims(
        parts.jobs,
        room=slots + _spare(instance, parts, slots=slots, now=now) - len(in_flight),
        rules=rules,
        now=now,
        shareable=lambda key: partition_key_of(key) not in known,
        busy=busy,
    )
    if not claims:
        return dg.SensorResult(skip_reason=f"nothing waits, or no room ({len(in_flight)} runs in flight)")
    keys = _recorded_keys(parts.jobs, claims)
    new = [key for group in keys for key in group if key not in known]
    return dg.SensorResult(
        run_requests=[_run_request(claim, group, rules) for claim, group in zip(claims, keys, strict=True)],
        dynamic_partitions_requests=[JOB_PARTITIONS.build_add_request(new)] if new else [],
    )


def _spare(instance: dg.DagsterInstance, parts: Parts, *, slots: int, now: datetime) -> int:
    """Runs to queue beyond the slots: twice what ended since the last tick, so that short runs last until the next."""
    since = now - timedelta(seconds=max(LOOP_SECONDS, parts.settings.claim_interval_seconds))
    ended = instance.get_runs_count(dg.RunsFilter(job_name=process_jobs.name, statuses=_ENDED, updated_after=since))
    return max(SPARE_RUNS, min(2 * ended, SPARE_PER_SLOT * slots))


def _recorded_keys(jobs: JobStore, claims: Sequence[Claim]) -> list[list[str]]:
    """The partition keys of each claim; where they cannot be recorded there will be no run, so the jobs are freed."""
    try:
        return [
            [recorded_partition_key(jobs, job_key(id_, claim.tenant_id)) for id_ in claim.job_ids] for claim in claims
        ]
    except SSError:
        free_claims(jobs, claims)
        raise


def _run_request(claim: Claim, keys: Sequence[str], rules: ClaimRules) -> dg.RunRequest:
    """One run for a claim: its partition, or the contiguous range of the keys added in this very tick."""
    tags = {
        CLAIM_TAG: claim.claim_id,
        TENANT_TAG: claim.tenant_id,
        CLASS_TAG: claim.priority_class,
        PRIORITY_TAG: str(claim.priority),
        **{NOT_CLASS_TAG + name: "true" for name in rules.fairness.reserved if name != claim.priority_class},
    }
    if len(keys) == 1:
        return dg.RunRequest(run_key=claim.claim_id, partition_key=keys[0], tags=tags)
    return dg.RunRequest(run_key=claim.claim_id, tags=tags | {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]})
