"""Who is next: the pure rules of claims."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.jobs.fairness import CLASS_ORDER, WaitingJob, assemble_claims


def _waiting(job_id: str, *, tenant: str = "a", priority: int = 0, at: int = 0, alone: bool = False) -> WaitingJob:
    priority_class = "low" if priority < 0 else "high" if priority >= 10 else "normal"
    return WaitingJob(tenant, job_id, priority, priority_class, f"2026-01-06T12:00:{at:02d}", alone)  # type: ignore[arg-type]


def _ids(claims: list[list[WaitingJob]]) -> list[list[str]]:
    return [[job.job_id for job in claim] for claim in claims]


def test_a_short_backlog_gets_one_claim_a_job() -> None:
    waiting = [_waiting("j1", at=1), _waiting("j2", at=2)]
    assert _ids(assemble_claims(waiting, room=4, max_jobs=10)) == [["j1"], ["j2"]]


def test_a_long_backlog_is_shared_out_evenly() -> None:
    waiting = [_waiting(f"j{i}", at=i) for i in range(8)]
    assert _ids(assemble_claims(waiting, room=2, max_jobs=10)) == [["j0", "j1", "j2", "j3"], ["j4", "j5", "j6", "j7"]]


@pytest.mark.seed("S3.3.1")
def test_high_priority_comes_before_older_low_priority() -> None:
    waiting = [_waiting("old", priority=-5, at=0), _waiting("urgent", priority=50, at=9), _waiting("usual", at=5)]
    assert _ids(assemble_claims(waiting, room=3, max_jobs=10)) == [["urgent"], ["usual"], ["old"]]


@pytest.mark.seed("S3.3.3")
def test_a_tenant_with_one_job_is_served_within_the_first_two_claims() -> None:
    flood = [_waiting(f"a{i:02d}", at=i) for i in range(32)]
    claims = assemble_claims([*flood, _waiting("b0", tenant="b", at=59)], room=6, max_jobs=10)
    assert "b" in {claim[0].tenant_id for claim in claims[:2]}


def test_a_job_that_failed_a_run_shares_it_with_nobody() -> None:
    waiting = [_waiting("j1", at=1), _waiting("poison", at=2, alone=True), _waiting("j3", at=3), _waiting("j4", at=4)]
    assert _ids(assemble_claims(waiting, room=3, max_jobs=10)) == [["j1"], ["poison"], ["j3", "j4"]]


@pytest.mark.guarantee("R9")
def test_tenants_share_the_slots_evenly_even_when_room_comes_one_claim_at_a_time() -> None:
    waiting = [_waiting(f"{tenant}{i:02d}", tenant=tenant, at=i) for tenant in "abcde" for i in range(40)]
    running: deque[str] = deque()
    served: Counter[str] = Counter()
    for _ in range(100):
        if len(running) == 4:
            running.popleft()
        ((job,),) = assemble_claims(waiting, room=1, max_jobs=1, busy=Counter(running))
        running.append(job.tenant_id)
        served[job.tenant_id] += 1
        waiting.remove(job)
    jain = sum(served.values()) ** 2 / (len(served) * sum(n * n for n in served.values()))
    assert jain >= 0.95


def test_no_room_makes_no_claims() -> None:
    assert assemble_claims([_waiting("j1")], room=0, max_jobs=10) == []


_jobs = st.lists(
    st.builds(
        _waiting,
        st.text("abcdef0123456789", min_size=4, max_size=8),
        tenant=st.sampled_from("abc"),
        priority=st.integers(-100, 100),
        at=st.integers(0, 59),
        alone=st.booleans(),
    ),
    unique_by=lambda job: job.job_id,
    max_size=40,
)


@given(waiting=_jobs, room=st.integers(0, 8), max_jobs=st.integers(1, 25))
def test_claims_hold_one_tenant_and_class_within_bounds_and_no_job_twice(
    waiting: list[WaitingJob], room: int, max_jobs: int
) -> None:
    claims = assemble_claims(waiting, room=room, max_jobs=max_jobs)
    taken = [job.job_id for claim in claims for job in claim]
    assert len(claims) <= room
    assert len(taken) == len(set(taken))
    for claim in claims:
        assert 1 <= len(claim) <= max_jobs
        assert len({(job.tenant_id, job.priority_class) for job in claim}) == 1
        assert len(claim) == 1 or not any(job.alone for job in claim)
    classes = [CLASS_ORDER.index(claim[0].priority_class) for claim in claims]
    assert classes == sorted(classes)
