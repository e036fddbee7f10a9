"""Who is next: the pure rules of claims."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.jobs.fairness import (
    CLASS_ORDER,
    IDLE,
    START,
    Busy,
    FairnessRules,
    Turns,
    WaitingJob,
    assemble_claims,
)
from ss_pipeline.jobs.model import class_of


def _waiting(
    job_id: str, *, tenant: str = "a", priority: int = 0, at: int = 0, waited: float = 0.0, alone: bool = False
) -> WaitingJob:
    time = f"2026-01-06T12:{at // 60:02d}:{at % 60:02d}"
    return WaitingJob(tenant, job_id, priority, class_of(priority), time, waited, alone)


def _claims(
    waiting: list[WaitingJob], *, room: int, busy: Busy = IDLE, turns: Turns = START, **rules: Any
) -> list[list[WaitingJob]]:
    return assemble_claims(waiting, room=room, rules=FairnessRules(**rules), busy=busy, turns=turns)[0]


def _ids(claims: list[list[WaitingJob]]) -> list[list[str]]:
    return [[job.job_id for job in claim] for claim in claims]


def _served(waiting: list[WaitingJob], *, claims: int, **rules: Any) -> Counter[str]:
    """Who is served in so many looks with room for one claim each."""
    left, turns, served = list(waiting), START, Counter[str]()
    for _ in range(claims):
        (claim,), turns = assemble_claims(left, room=1, rules=FairnessRules(**rules), turns=turns)
        served[claim[0].tenant_id] += len(claim)
        left = [job for job in left if job not in claim]
    return served


def test_a_short_backlog_gets_one_claim_a_job() -> None:
    waiting = [_waiting("j1", at=1), _waiting("j2", at=2)]
    assert _ids(_claims(waiting, room=4, max_jobs=10)) == [["j1"], ["j2"]]


def test_a_long_backlog_is_shared_out_evenly() -> None:
    waiting = [_waiting(f"j{i}", at=i) for i in range(8)]
    expected = [["j0", "j1", "j2", "j3"], ["j4", "j5", "j6", "j7"]]
    assert _ids(_claims(waiting, room=2, max_jobs=10)) == expected


@pytest.mark.seed("S3.3.1")
def test_high_priority_comes_before_older_low_priority() -> None:
    waiting = [_waiting("old", priority=-5, at=0), _waiting("urgent", priority=50, at=9), _waiting("usual", at=5)]
    assert _ids(_claims(waiting, room=3)) == [["urgent"], ["usual"], ["old"]]


@pytest.mark.seed("S3.3.3")
def test_a_tenant_with_one_job_is_served_within_the_first_two_claims() -> None:
    flood = [_waiting(f"a{i:02d}", at=i) for i in range(32)]
    claims = _claims([*flood, _waiting("b0", tenant="b", at=59)], room=6, max_jobs=10)
    assert "b" in {claim[0].tenant_id for claim in claims[:2]}


def test_a_job_that_failed_a_run_shares_it_with_nobody() -> None:
    waiting = [_waiting("j1", at=1), _waiting("poison", at=2, alone=True), _waiting("j3", at=3), _waiting("j4", at=4)]
    assert _ids(_claims(waiting, room=3, max_jobs=10)) == [["j1"], ["poison"], ["j3", "j4"]]


def test_no_room_makes_no_claims() -> None:
    assert _claims([_waiting("j1")], room=0, max_jobs=10) == []


# --- shares of tenants -----------------------------------------------------------------------------------------------


@pytest.mark.guarantee("R9")
def test_a_tenant_that_comes_into_a_flood_is_served_within_ten_claims() -> None:
    flood = [_waiting(f"a{i:04d}", at=i % 60) for i in range(1_000)]
    turns, left = START, list(flood)
    for _ in range(50):
        (claim,), turns = assemble_claims(left, room=1, rules=FairnessRules(), turns=turns)
        left.remove(claim[0])
    left += [_waiting(f"b{i}", tenant="b", at=3_000 + i) for i in range(10)]
    first = [claim[0].tenant_id for claim in _claims(left, room=10, turns=turns)]
    assert first.index("b") < 2
    assert first.count("b") == 5


@pytest.mark.guarantee("R9")
def test_five_equal_tenants_share_a_hundred_claims_evenly() -> None:
    waiting = [_waiting(f"{tenant}{i:03d}", tenant=tenant, at=i) for tenant in "abcde" for i in range(100)]
    served = _served(waiting, claims=100)
    jain = sum(served.values()) ** 2 / (len(served) * sum(n * n for n in served.values()))
    assert jain >= 0.95


def _within(served: Mapping[str, int], weights: Mapping[str, float], share: float) -> bool:
    all_, sum_ = sum(served.values()), sum(weights.values())
    return all(abs(served[name] / all_ - weight / sum_) <= share * weight / sum_ for name, weight in weights.items())


@pytest.mark.seed("S3.3.3")
@pytest.mark.parametrize("claims", [70, 350])
def test_weights_are_kept_within_a_tenth(claims: int) -> None:
    waiting = [_waiting(f"{tenant}{i:03d}", tenant=tenant, at=i) for tenant in "abc" for i in range(400)]
    weights = {"a": 1.0, "b": 2.0, "c": 4.0}
    assert _within(_served(waiting, claims=claims, weights=weights), weights, 0.1)
    assert not _within(_served(waiting, claims=claims), weights, 0.1), "equal shares would pass"


def test_weights_are_kept_in_jobs_where_claims_have_different_sizes() -> None:
    alone = [_waiting(f"a{i:03d}", tenant="a", at=i, alone=True) for i in range(400)]
    together = [_waiting(f"b{i:03d}", tenant="b", at=i) for i in range(400)]
    assert _within(_served([*alone, *together], claims=220, max_jobs=10), {"a": 1.0, "b": 1.0}, 0.1)


def test_who_pauses_saves_up_no_turns() -> None:
    turns = Turns(clock=1_000.0, ends={"a": 1_001.0})
    waiting = [_waiting(f"{tenant}{i}", tenant=tenant, at=i) for tenant in "ab" for i in range(20)]
    first = [claim[0].tenant_id for claim in _claims(waiting, room=10, turns=turns)]
    assert 4 <= first.count("a") <= 5


def test_turns_that_are_over_are_forgotten() -> None:
    turns = START
    for number in range(100):
        turns = turns.served(f"t{number}", jobs=1, weight=1.0)
    assert len(turns.ends) == 100
    turns = turns.served("t0", jobs=50, weight=1.0)
    assert set(turns.ends) == {"t0"}


# --- caps and reserved slots -----------------------------------------------------------------------------------------


def test_a_tenant_at_its_cap_waits_and_lets_the_others_pass() -> None:
    waiting = [_waiting(f"{tenant}{i}", tenant=tenant, at=i) for tenant in "ab" for i in range(5)]
    claims = _claims(waiting, room=8, busy=Busy(tenants={"a": 1}), caps={"a": 2, "*": 3})
    assert Counter(claim[0].tenant_id for claim in claims) == {"a": 1, "b": 3}


@pytest.mark.seed("S3.3.2")
def test_a_reserved_slot_is_left_free_under_a_flood_and_taken_by_its_class() -> None:
    flood = [_waiting(f"n{i}", at=i) for i in range(20)]
    urgent = _waiting("urgent", priority=50, at=59)
    assert len(_claims(flood, room=4, reserved={"high": 1})) == 3
    assert len(_claims(flood, room=4)) == 4
    assert _ids(_claims([*flood, urgent], room=1, reserved={"high": 1})) == [["urgent"]]
    busy = Busy(classes={"high": 1})
    assert len(_claims(flood, room=3, busy=busy, reserved={"high": 1})) == 3, "its class has the slot already"


# --- nobody waits for ever -------------------------------------------------------------------------------------------


def test_waiting_raises_a_job_to_the_next_class() -> None:
    waiting = [_waiting("low", priority=-100, at=0, waited=500.0), _waiting("usual", at=500)]
    assert _ids(_claims(waiting, room=2, ageing_seconds=900.0)) == [["low"], ["usual"]]
    assert _ids(_claims(waiting, room=2, ageing_seconds=9_000.0)) == [["usual"], ["low"]]


@given(
    tenants=st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    priorities=st.lists(st.integers(10, 100), min_size=1, max_size=4),
    arrivals=st.lists(st.integers(1, 2), min_size=1, max_size=7),
    of_victim=st.sampled_from("abc"),
)
@pytest.mark.guarantee("R9")
def test_the_lowest_priority_is_served_within_its_bound_under_a_permanent_flood_of_the_highest(
    tenants: list[str], priorities: list[int], arrivals: list[int], of_victim: str
) -> None:
    """One slot and one job a second, of which at least one comes anew in each second, for ever."""
    bound, number, turns = 90, 0, START
    rules = FairnessRules(ageing_seconds=bound)
    victim = _waiting("victim", tenant=of_victim, priority=-100, at=1)
    queue: list[tuple[WaitingJob, int]] = [(victim, 1)]
    for second in range(2, bound + 12):
        for _ in range(arrivals[second % len(arrivals)]):
            tenant, priority = tenants[number % len(tenants)], priorities[number % len(priorities)]
            queue.append((_waiting(f"j{number:04d}", tenant=tenant, priority=priority, at=second), second))
            number += 1
        waiting = [
            WaitingJob(j.tenant_id, j.job_id, j.priority, j.priority_class, j.created_at, float(second - since))
            for j, since in queue
        ]
        (claim,), turns = assemble_claims(waiting, room=1, rules=rules, turns=turns)
        if claim[0].job_id == "victim":
            return
        queue = [(job, since) for job, since in queue if job.job_id != claim[0].job_id]
    raise AssertionError(f"not served within {bound + 10} seconds")


_jobs = st.lists(
    st.builds(
        _waiting,
        st.text("abcdef0123456789", min_size=4, max_size=8),
        tenant=st.sampled_from("abc"),
        priority=st.integers(-100, 100),
        at=st.integers(0, 59),
        waited=st.floats(0, 2_000),
        alone=st.booleans(),
    ),
    unique_by=lambda job: job.job_id,
    max_size=40,
)


@given(waiting=_jobs, room=st.integers(0, 8), max_jobs=st.integers(1, 25), reserved=st.integers(0, 2))
def test_claims_hold_one_tenant_and_class_within_bounds_and_no_job_twice(
    waiting: list[WaitingJob], room: int, max_jobs: int, reserved: int
) -> None:
    claims = _claims(waiting, room=room, max_jobs=max_jobs, reserved={"high": reserved}, caps={"a": 2})
    taken = [job.job_id for claim in claims for job in claim]
    assert len(claims) <= room
    assert len(taken) == len(set(taken))
    for claim in claims:
        assert 1 <= len(claim) <= max_jobs
        assert len({(job.tenant_id, job.priority_class) for job in claim}) == 1
        assert len(claim) == 1 or not any(job.alone for job in claim)
    of_others = sum(claim[0].priority_class != "high" for claim in claims)
    assert of_others <= max(0, room - reserved)
    assert sum(claim[0].tenant_id == "a" for claim in claims) <= 2
    assert set(CLASS_ORDER) >= {claim[0].priority_class for claim in claims}
