"""From waiting jobs to run requests: how many runs there is room for, and what each asks Dagster for.

Who is next is stages/claiming.py's decision.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import dagster as dg

from ss_pipeline.defs.jobs import process_jobs
from ss_pipeline.defs.partition_keys import partition_key_of, recorded_partition_key
from ss_pipeline.defs.partitions import ENDED, IN_FLIGHT, JOB_PARTITIONS
from ss_pipeline.defs.tags import RANGE_END_TAG, RANGE_START_TAG, busy_with, tags_of_claim
from ss_pipeline.errors import SSError
from ss_pipeline.stages.claiming import Claim, ClaimRules, free_claims, make_claims
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.wiring import Parts

SPARE_RUNS: Final = 2
"""Runs queued beyond the slots at least, so that no slot waits for a tick."""
SPARE_PER_SLOT: Final = 4
"""Runs queued beyond the slots at most, for each slot; more would make the order in the queue stale."""
LOOP_SECONDS: Final = 5.0
"""Dagster's daemon looks at sensors no more often than this (dagster/_daemon/sensor.py)."""


def request_runs(instance: dg.DagsterInstance, parts: Parts) -> dg.SensorResult:
    """Reserves what waits, as far as there is room, and requests a run for each claim."""
    in_flight = instance.get_runs(dg.RunsFilter(job_name=process_jobs.name, statuses=IN_FLIGHT))
    known = set(instance.get_dynamic_partitions(JOB_PARTITIONS.name or ""))
    rules, now = parts.claim_rules, parts.clock.now()
    slots = parts.settings.claim_slots
    claims = make_claims(
        parts.jobs,
        room=slots + _spare(instance, parts, slots=slots, now=now) - len(in_flight),
        rules=rules,
        now=now,
        shareable=lambda key: partition_key_of(key) not in known,
        busy=busy_with([run.tags for run in in_flight]),
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
    ended = instance.get_runs_count(dg.RunsFilter(job_name=process_jobs.name, statuses=ENDED, updated_after=since))
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
    tags = tags_of_claim(claim, reserved=rules.fairness.reserved)
    if len(keys) == 1:
        return dg.RunRequest(run_key=claim.claim_id, partition_key=keys[0], tags=tags)
    return dg.RunRequest(run_key=claim.claim_id, tags=tags | {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]})
