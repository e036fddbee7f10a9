"""Who is next: the pure rules of claims."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.jobs.fairness import (
    AGEING_SECONDS,
    CLASS_ORDER,
    IDLE,
    START,
    Busy,
    FairnessRules,
    Turns,
    WaitingJob,
    assemble_claims,
    due_at,
)


def _waiting(
    job_id: str, *, tenant: str = "a", priority: int = 0, at: float = 0, now: float = 0, alone: bool = False
) -> WaitingJob:
    """A job that is handed in `at` a second of the day, as it waits at the second `now`."""
    due = due_at("1970-01-01", priority=priority) + at
    return WaitingJob(tenant, job_id, priority, due - now, alone)


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


@pytest.mark.seed("S3.3.1")
@pytest.mark.parametrize(("now", "order"), [(400, [["usual"], ["low"]]), (500, [["low"], ["usual"]])])
def test_waiting_raises_a_job_to_the_next_class(now: int, order: list[list[str]]) -> None:
    waiting = [_waiting("low", priority=-100, now=now), _waiting("usual", tenant="b", at=now, now=now)]
    assert _ids(_claims(waiting, room=2)) == order


@pytest.mark.parametrize(("priority", "waited", "aged"), [
    (-100, 0, -100), (-100, 450, 0), (-100, 900, 100), (-100, 9_000, 100), (0, 90, 20), (100, 0, 100), (100, 5, 100),
    (50, -60, 50),
])  # fmt: skip
def test_a_priority_grows_by_200_in_15_minutes_to_the_highest_and_never_shrinks(
    priority: int, waited: int, aged: int
) -> None:
    assert _waiting("j", priority=priority, now=waited).aged == aged


@given(
    one=st.tuples(st.integers(-100, 100), st.integers(0, 2_000)),
    other=st.tuples(st.integers(-100, 100), st.integers(0, 2_000)),
    now=st.integers(2_000, 4_000),
)
def test_of_two_jobs_that_are_not_due_yet_the_one_with_the_higher_aged_priority_is_due_first(
    one: tuple[int, int], other: tuple[int, int], now: int
) -> None:
    """So `due_at` is the order of aged priorities, at any time."""
    first, second = (_waiting("j", priority=priority, at=at, now=now) for priority, at in (one, other))
    if first.due_in > 0 and second.due_in > 0:
        assert (first.aged > second.aged) == (first.due_in < second.due_in)


@dataclass(frozen=True)
class Arrival:
    """A job that is handed in at a second."""

    job_id: str
    tenant: str
    priority: int
    at: float


def _served_in_turn(
    victim: Arrival, flood: Iterator[list[Arrival]], *, seconds: float
) -> Iterator[tuple[Arrival, float]]:
    """Who is served when, by one slot that is free every so many seconds; the flood says who comes meanwhile."""
    queue, turns = {victim.job_id: victim}, START
    for look, arrivals in enumerate(flood):
        now = look * seconds
        queue.update({arrival.job_id: arrival for arrival in arrivals})
        waiting = [_waiting(a.job_id, tenant=a.tenant, priority=a.priority, at=a.at, now=now) for a in queue.values()]
        (claim,), turns = assemble_claims(waiting, room=1, rules=FairnessRules(), turns=turns)
        yield queue.pop(claim[0].job_id), now


def _flood(
    tenants: list[str], priorities: list[int], *, first: int, each: list[int], seconds: float
) -> Iterator[list[Arrival]]:
    """Jobs without end: so many at first, then as many as `each` says at each look."""
    numbers = count()

    def arrival(at: float) -> Arrival:
        number = next(numbers)
        return Arrival(f"j{number:04d}", tenants[number % len(tenants)], priorities[number % len(priorities)], at)

    for look in count():
        yield [arrival(look * seconds) for _ in range(each[look % len(each)] + first * (look == 0))]


@given(
    tenants=st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    priorities=st.lists(st.integers(-100, 100), min_size=1, max_size=4),
    each=st.lists(st.integers(1, 2), min_size=1, max_size=7),
    of_victim=st.sampled_from("abc"),
)
@pytest.mark.guarantee("R9")
def test_a_job_that_is_due_is_passed_by_none_of_its_tenant_that_comes_later(
    tenants: list[str], priorities: list[int], each: list[int], of_victim: str
) -> None:
    """Also where more comes than is served, for ever: one slot and one job a minute."""
    victim = Arrival("victim", of_victim, -100, 0)
    flood = _flood(tenants, priorities, first=0, each=each, seconds=60)
    turns_before_it = 3 * 2 * 16
    for served, now in _served_in_turn(victim, flood, seconds=60):
        if served == victim:
            return
        assert served.tenant != of_victim or served.at <= AGEING_SECONDS
        assert now <= AGEING_SECONDS + 60 * turns_before_it


@given(
    tenants=st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
    priorities=st.lists(st.integers(10, 100), min_size=1, max_size=4),
    first=st.integers(0, 5),
    of_victim=st.sampled_from("abc"),
)
@pytest.mark.guarantee("R9")
def test_the_lowest_priority_is_served_within_15_minutes_under_a_flood_of_the_highest_that_fills_the_slots(
    tenants: list[str], priorities: list[int], first: int, of_victim: str
) -> None:
    """One slot and one job in ten seconds, and one comes anew in each, for ever."""
    victim = Arrival("victim", of_victim, -100, 0)
    flood = _flood(tenants, priorities, first=first, each=[1], seconds=10)
    turns_before_it = 3 * (first + 2)
    for served, now in _served_in_turn(victim, flood, seconds=10):
        if served == victim:
            return
        assert now <= AGEING_SECONDS + 10 * turns_before_it


_jobs = st.lists(
    st.builds(
        _waiting,
        st.text("abcdef0123456789", min_size=4, max_size=8),
        tenant=st.sampled_from("abc"),
        priority=st.integers(-100, 100),
        at=st.integers(0, 59),
        now=st.floats(0, 2_000),
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
