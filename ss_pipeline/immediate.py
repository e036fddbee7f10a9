"""Starting a job at once, for who hands it in and waits: its run is launched by a request to Dagster's webserver.

What can be started at once is decided by the rules of the sensors: a job passes nobody who waits, takes no slot that is
not free, and stays where it is while the claim sensor is stopped. What cannot is left to the sensors, with the reason.
Without a webserver that is known to work on the same store nothing is done here at all. No dagster.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from ss_pipeline.defs.partition_keys import recorded_partition_key
from ss_pipeline.defs.tags import PARTITION_TAG, busy_with, tags_of_claim
from ss_pipeline.errors import SSError, StoreError, SubmissionRefusedError, WebserverRefusedError
from ss_pipeline.settings import Settings
from ss_pipeline.stages.claiming import Claim, claim_next, free_claims, keep_claim
from ss_pipeline.stages.intake.stage import Accepted, Refused, Waiting, take_in_one
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import job_key
from ss_pipeline.telemetry.events import emit
from ss_pipeline.webserver import Look, Webserver, address_file, announced_in, connected
from ss_pipeline.wiring import Parts

LOOP_SECONDS: Final = 5
"""Dagster's daemon comes by its sensors no more often (dagster/_daemon/sensor.py)."""
LAUNCH_SECONDS: Final = 10.0
"""A reservation lasts so long while its run is asked for: longer than the request can take, and who dies in between, or
never learns whether there is a run, delays the job by no more than this."""


@dataclass(frozen=True)
class Start:
    """What became of a job at once: the run that works on it, or that it is left to the sensors.

    `job_id` is None where the submission itself still waits for a sensor; `when` says in words when the work begins.
    """

    job_id: str | None
    run_id: str | None
    when: str


def webserver_of(settings: Settings) -> str | None:
    """The address of this pipeline's webserver: as set, or as `ss-pipeline up` has left it, while that runs.

    An address that was left by a stack with another store, inbox or artifacts is not taken.
    """
    if settings.dagster_url:
        return settings.dagster_url
    found = announced_in(address_file(settings.data_dir))
    return found.url if found and found.pipeline == settings.pipeline_id() else None


def start_submission(parts: Parts, *, name: str, tenant_id: str) -> Start:
    """Makes a job of a submission that lies in the inbox, and starts it.

    Raises:
        SubmissionRefusedError: it can never become a job; it lies among the refused ones, as if a sensor had seen it.
    """
    url = webserver_of(parts.settings)
    if url is None:
        return _left(parts, None, "no webserver of this pipeline is known here")
    try:
        outcome = take_in_one(
            parts.inbox,
            name,
            tenant_id=tenant_id,
            jobs=parts.jobs,
            artifacts=parts.artifacts,
            clock=parts.clock,
            limits=parts.intake_limits,
        )
    except SSError as error:
        return _left(parts, None, error.message)
    match outcome:
        case Accepted(job_id=job_id, duplicate=True):
            return Start(job_id, None, "not again: this job came of an equal submission")
        case Accepted(job_id=job_id):
            return start_job(job_key(job_id, tenant_id), parts=parts, url=url)
        case Refused(code=code, message=message, todo=todo):
            raise SubmissionRefusedError(message, code=code, todo=todo)
        case Waiting(reason=reason):
            return _left(parts, None, reason)
        case None:
            return _left(parts, None, "one has taken it already")


def start_job(key: DocumentKey, *, parts: Parts, url: str) -> Start:
    """Launches the run of a job that waits, if it is the next in turn and a slot is free.

    Args:
        url: The pipeline's webserver, as `webserver_of` finds it.
    """
    try:
        with connected(url) as webserver:
            look = webserver.look(most=parts.settings.claim_slots)
            claim = _claimed(key, look, parts)
            if claim is None:
                return _not_now(key, look, parts)
            return Start(key.document_id, _launched(claim, webserver, parts), "now")
    except SSError as error:
        return _left(parts, key.document_id, error.message)


def _claimed(key: DocumentKey, look: Look, parts: Parts) -> Claim | None:
    room = parts.settings.claim_slots - len(look.in_flight) if look.claims else 0
    rules = replace(parts.claim_rules, reserve_seconds=LAUNCH_SECONDS)
    busy = busy_with(look.in_flight)
    return claim_next(parts.jobs, key, room=room, rules=rules, now=parts.clock.now(), busy=busy)


def _not_now(key: DocumentKey, look: Look, parts: Parts) -> Start:
    if not look.claims:
        return _left(parts, key.document_id, "the claim sensor is stopped")
    if parts.jobs.backend.claim_of(key):
        return Start(key.document_id, None, "now: a sensor was quicker")
    full = len(look.in_flight) >= parts.settings.claim_slots
    return _left(parts, key.document_id, "no slot is free" if full else "it is not the next in turn")


def _launched(claim: Claim, webserver: Webserver, parts: Parts) -> str:
    """The run of a claim of one job. Where it is unknown whether there is one, the reservation runs out by itself."""
    job_id = claim.job_ids[0]
    try:
        partition_key = recorded_partition_key(parts.jobs, job_key(job_id, claim.tenant_id))
        tags = tags_of_claim(claim, reserved=parts.claim_rules.fairness.reserved)
        run_id = webserver.launch(partition_key, tags={**tags, PARTITION_TAG: partition_key})
    except WebserverRefusedError:
        free_claims(parts.jobs, [claim])
        raise
    emit("SS_CLAIM_LAUNCHED", claim_id=claim.claim_id, job_id=job_id, run_id=run_id)
    with suppress(StoreError):  # then a sensor may ask for a second run, and one of the two leaves the job alone
        keep_claim(parts.jobs, claim, seconds=parts.claim_rules.reserve_seconds)
    return run_id


def _left(parts: Parts, job_id: str | None, reason: str) -> Start:
    emit("SS_CLAIM_LEFT_TO_SENSOR", job_id=job_id, reason=reason)
    seconds = max(LOOP_SECONDS, parts.settings.inbox_interval_seconds)
    return Start(job_id, None, f"at the next look of the sensors, which look every {seconds} s: {reason}")
