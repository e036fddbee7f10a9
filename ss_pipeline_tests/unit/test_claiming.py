"""The claiming stage: waiting jobs reserved for runs to come, and given back where no run will come."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import pytest

from ss_pipeline.errors import StoreUnavailableError
from ss_pipeline.jobs.documents import render_document
from ss_pipeline.jobs.fairness import FairnessRules
from ss_pipeline.stages.claiming import (
    TURNS,
    Claim,
    ClaimRules,
    claim_next,
    foremost_at,
    free_claims,
    in_turn,
    keep_claim,
    make_claims,
)
from ss_pipeline.store.base import DocumentKey, Facets, Listed
from ss_pipeline.store.jobs import JobStore, facets_of_body, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import CREATED_AT, a_job

RULES = ClaimRules(fairness=FairnessRules(max_jobs=3), reserve_seconds=60)
NOW = datetime.fromisoformat(CREATED_AT)


class _Counting(MemoryBackend):
    """Counts how often it is asked for attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def attempts_of(self, key: DocumentKey) -> int:
        self.asked += 1
        return super().attempts_of(key)


@pytest.fixture
def jobs() -> JobStore:
    return JobStore(MemoryBackend())


def _add(jobs: JobStore, job_id: str, **fields: object) -> DocumentKey:
    job = jobs.create(a_job(job_id, **fields))
    return job_key(job_id, job.tenant_id)


def _claims(jobs: JobStore, *, room: int, new: bool = True) -> list[Claim]:
    return make_claims(jobs, room=room, rules=RULES, now=NOW, shareable=lambda _: new)


def test_claimed_jobs_are_reserved_and_not_claimed_again(jobs: JobStore) -> None:
    keys = [_add(jobs, f"j{i}") for i in range(5)]
    claims = _claims(jobs, room=2)
    assert [claim.job_ids for claim in claims] == [("j0", "j1", "j2"), ("j3", "j4")]
    views = [jobs.backend.claim_of(key) for key in keys]
    assert [view and (view.state, view.claim_id) for view in views] == [
        ("reserved", claims[0 if i < 3 else 1].claim_id) for i in range(5)
    ]
    assert _claims(jobs, room=2) == []


@pytest.mark.parametrize("room", [0, -3])
def test_without_room_nothing_is_reserved(jobs: JobStore, room: int) -> None:
    key = _add(jobs, "j0")
    assert _claims(jobs, room=room) == []
    assert jobs.backend.claim_of(key) is None


@pytest.mark.guarantee("R8")
def test_a_job_that_was_tried_before_shares_its_run_with_nobody(jobs: JobStore) -> None:
    keys = [_add(jobs, f"j{i}") for i in range(3)]
    lease = jobs.backend.lease(keys[1:2], claim_id="killed", owner="run:1", ttl=60)
    jobs.backend.release(keys[1], lease.fences[keys[1]], refund=False)
    assert [claim.job_ids for claim in _claims(jobs, room=1)] == [("j0", "j2")]
    assert [claim.job_ids for claim in _claims(jobs, room=1)] == [("j1",)]


def test_a_job_that_was_tried_before_is_first_among_others_at_the_latest_when_they_are_done(jobs: JobStore) -> None:
    keys = [_add(jobs, f"j{i}") for i in range(3)]
    lease = jobs.backend.lease(keys[:1], claim_id="killed", owner="run:1", ttl=60)
    jobs.backend.release(keys[0], lease.fences[keys[0]], refund=False)
    assert [claim.job_ids for claim in _claims(jobs, room=1)] == [("j0",)]


def test_what_was_tried_is_asked_of_those_only_who_would_share_a_run() -> None:
    backend = _Counting()
    jobs = JobStore(backend)
    for i in range(40):
        _add(jobs, f"j{i:02d}")
    rules = ClaimRules(fairness=FairnessRules(max_jobs=10), reserve_seconds=60)
    (claim,) = make_claims(jobs, room=1, rules=rules, now=NOW, shareable=lambda _: True)
    assert (len(claim.job_ids), backend.asked) == (10, 10)


def test_jobs_with_a_partition_already_get_a_run_each(jobs: JobStore) -> None:
    for i in range(4):
        _add(jobs, f"j{i}")
    assert [claim.job_ids for claim in _claims(jobs, room=2, new=False)] == [("j0",), ("j1",)]


def test_a_claim_carries_its_tenant_class_and_highest_priority(jobs: JobStore) -> None:
    for i, priority in enumerate([10, 50, 11]):
        _add(jobs, f"j{i}", tenant_id="acme", priority=priority)
    (claim,) = _claims(jobs, room=1)
    assert (claim.tenant_id, claim.priority_class, claim.priority) == ("acme", "high", 50)
    assert claim.job_ids == ("j1", "j2", "j0")


class _TakenMeanwhile(MemoryBackend):
    """Another sensor reserves a job between the look at the backlog and the reservation."""

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        found = super().heads(collection, per_group=per_group)
        super().reserve([found[0].key], claim_id="rival", ttl=60)
        return found


@pytest.mark.guarantee("R10", "F21")
def test_what_a_rival_reserved_meanwhile_is_left_out() -> None:
    jobs = JobStore(_TakenMeanwhile())
    for i in range(2):
        _add(jobs, f"j{i}")
    assert [claim.job_ids for claim in _claims(jobs, room=2)] == [("j1",)]


class _FailsAtTheSecond(MemoryBackend):
    """A store that fails between the claims of one tick."""

    reserved = 0

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        self.reserved += 1
        if self.reserved == 2:
            raise StoreUnavailableError("no space left on device")
        return super().reserve(keys, claim_id=claim_id, ttl=ttl)


def test_where_the_store_fails_between_two_claims_no_job_stays_reserved_without_a_run() -> None:
    jobs = JobStore(_FailsAtTheSecond())
    keys = [_add(jobs, f"j{i}") for i in range(2)]
    with pytest.raises(StoreUnavailableError):
        _claims(jobs, room=2)
    assert [jobs.backend.claim_of(key) for key in keys] == [None, None]


def test_freed_claims_wait_again_but_a_lease_stays(jobs: JobStore) -> None:
    keys = [_add(jobs, f"j{i}") for i in range(2)]
    claims = _claims(jobs, room=2)
    jobs.backend.lease(keys[:1], claim_id=claims[0].claim_id, owner="run:1", ttl=60)
    free_claims(jobs, claims)
    views = [jobs.backend.claim_of(key) for key in keys]
    assert [view and view.state for view in views] == ["leased", None]


@pytest.mark.seed("S3.3.1")
def test_the_turn_of_each_waiting_job_follows_class_priority_and_age_not_the_names_of_tenants(jobs: JobStore) -> None:
    low = _add(jobs, "low", tenant_id="aaa", priority=-5)
    usual = _add(jobs, "usual", tenant_id="bbb")
    urgent = _add(jobs, "urgent", tenant_id="zzz", priority=50)
    assert in_turn(jobs, RULES, now=NOW, per_group=10) == [urgent, usual, low]


# --- turns and age -------------------------------------------------------------------------------------------------


@pytest.mark.guarantee("R9")
def test_the_turns_of_tenants_are_remembered_from_one_look_to_the_next(jobs: JobStore) -> None:
    for number in range(20):
        _add(jobs, f"a{number:02d}", tenant_id="a")
        _add(jobs, f"b{number:02d}", tenant_id="b")
    served = [_claims(jobs, room=1, new=False)[0].tenant_id for _ in range(10)]
    assert served in (["a", "b"] * 5, ["b", "a"] * 5)


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"clock": "soon"}', b"\xff"])
def test_turns_that_cannot_be_understood_count_as_none(jobs: JobStore, kept: bytes) -> None:
    jobs.backend.create(TURNS, kept, Facets())
    _add(jobs, "j0")
    assert [claim.job_ids for claim in _claims(jobs, room=1)] == [("j0",)]
    assert jobs.backend.read(TURNS) != kept


def test_a_claim_has_the_priority_its_oldest_job_has_aged_to(jobs: JobStore) -> None:
    _add(jobs, "j0", priority=-100)
    (claim,) = make_claims(jobs, room=1, rules=RULES, now=NOW + timedelta(seconds=450), shareable=lambda _: True)
    assert (claim.priority_class, claim.priority) == ("low", 0)


def test_a_job_is_foremost_once_it_has_aged_to_the_highest_priority() -> None:
    assert foremost_at(CREATED_AT, priority=-100) == NOW + timedelta(seconds=900)
    assert foremost_at(CREATED_AT, priority=0) == NOW + timedelta(seconds=450)
    assert foremost_at(CREATED_AT.removesuffix("+00:00"), priority=100) == NOW


@pytest.mark.parametrize("priority", [101, -500, 10**30])
def test_a_stored_job_of_a_priority_that_there_is_not_waits_for_nobody_and_holds_up_nobody(
    jobs: JobStore, priority: int
) -> None:
    key = job_key("former")
    body = render_document({**a_job("former").as_payload(), "priority": priority})
    jobs.backend.create(key, body, facets_of_body(key, body))
    _add(jobs, "j0")
    assert [claim.job_ids for claim in _claims(jobs, room=2)] == [("j0",)]
    assert [row.facets.status for row in jobs.rows()] == ["corrupted", "created"]


LOOK_SECONDS: Final = 10
EACH_LOOK: Final = 25
"""Jobs that come, and jobs that a claim holds; as many as a look at the store sees of a tenant and class."""


def _seconds_until_served(jobs: JobStore, *, priority: int, flood_of: int) -> int | None:
    """How long a job waits while as many of another priority come as are served; None where it is not served."""
    rules = ClaimRules(fairness=FairnessRules(max_jobs=EACH_LOOK), reserve_seconds=60)
    _add(jobs, "victim", priority=priority)
    for seconds in range(0, 1_500, LOOK_SECONDS):
        now = NOW + timedelta(seconds=seconds)
        for number in range(EACH_LOOK if seconds else 3 * EACH_LOOK):
            _add(jobs, f"j{seconds:04d}.{number}", priority=flood_of, created_at=now.isoformat())
        (claim,) = make_claims(jobs, room=1, rules=rules, now=now, shareable=lambda _: True)
        if "victim" in claim.job_ids:
            return seconds
        for job_id in claim.job_ids:
            jobs.backend.delete(job_key(job_id), expected=jobs.backend.read(job_key(job_id)))
    return None


@pytest.mark.guarantee("R9")
@pytest.mark.parametrize(
    ("priority", "flood_of", "due_after"), [(10, 100, 405), (0, 9, 450), (-100, -1, 900), (-100, 100, 900)]
)
def test_a_job_is_served_when_it_is_due_under_a_flood_of_a_higher_priority(
    jobs: JobStore, priority: int, flood_of: int, due_after: int
) -> None:
    waited = _seconds_until_served(jobs, priority=priority, flood_of=flood_of)
    assert waited is not None
    assert waited <= due_after + 4 * LOOK_SECONDS, "4 claims hold all that was there before it was due"


class _HighestFirst(MemoryBackend):
    """Offers the highest priorities of each class, whoever is due."""

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        found = sorted(super().heads(collection, per_group=1_000_000), key=lambda head: -head.facets.priority)
        classes = {head.facets.priority_class for head in found}
        return [head for name in classes for head in [h for h in found if h.facets.priority_class == name][:per_group]]


def test_a_store_that_offers_the_highest_first_is_caught_letting_a_job_of_the_same_class_starve() -> None:
    assert _seconds_until_served(JobStore(_HighestFirst()), priority=10, flood_of=100) is None


# --- one job at once ------------------------------------------------------------------------------------------------


def _next(jobs: JobStore, key: DocumentKey, *, room: int = 2) -> Claim | None:
    return claim_next(jobs, key, room=room, rules=RULES, now=NOW)


def test_the_job_that_is_next_in_turn_is_claimed_alone(jobs: JobStore) -> None:
    urgent = _add(jobs, "urgent", priority=50)
    _add(jobs, "other", priority=49)
    claim = _next(jobs, urgent)
    assert claim is not None
    assert (claim.job_ids, claim.priority_class, claim.priority) == (("urgent",), "high", 50)


def test_a_job_that_is_not_next_is_claimed_by_nobody_and_nor_is_one_that_is_not_there(jobs: JobStore) -> None:
    _add(jobs, "first", created_at="2026-01-06T11:00:00.000000+00:00")
    later = _add(jobs, "later")
    assert _next(jobs, later) is None
    assert _next(jobs, job_key("nowhere")) is None
    assert _next(jobs, job_key("first"), room=0) is None
    assert [jobs.backend.claim_of(job_key(name)) for name in ("first", "later")] == [None, None]


def test_who_is_next_where_tenants_take_turns_is_the_same_as_for_the_sensor(jobs: JobStore) -> None:
    keys = [_add(jobs, f"{tenant}{number}", tenant_id=tenant) for number in range(6) for tenant in ("a", "b")]
    served: list[str] = []
    for _ in range(6):
        served.append(next(key.tenant_id for key in keys if _next(jobs, key)))
        served += [claim.tenant_id for claim in _claims(jobs, room=1, new=False)]
    assert served in (["a", "b"] * 6, ["b", "a"] * 6)


def test_a_kept_claim_waits_longer_for_its_run_and_one_that_is_leased_is_left_as_it_is(jobs: JobStore) -> None:
    key = _add(jobs, "j0")
    claim = _next(jobs, key)
    assert claim is not None
    keep_claim(jobs, claim, seconds=500)
    view = jobs.backend.claim_of(key)
    assert view is not None
    assert view.expires_in > RULES.reserve_seconds
    jobs.backend.lease([key], claim_id=claim.claim_id, owner="run:1", ttl=5)
    keep_claim(jobs, claim, seconds=500)
    view = jobs.backend.claim_of(key)
    assert view is not None
    assert (view.state, view.expires_in <= 5) == ("leased", True)
