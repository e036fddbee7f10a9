"""Processes race for the same jobs on every back end: nothing acknowledged is lost, nothing is done twice.

The default sizes are those of a CI run; `-m soak` runs the full ones.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address


@pytest.fixture(params=SHARED)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with an_address(request.param, tmp_path) as address:
        yield address


def run(task: str, **parameters: object) -> Found:
    return forking.run("ss_pipeline_tests.reliability.store_races", task, seconds=900, **parameters)


@pytest.mark.seed("S1.2.3")
@pytest.mark.guarantee("R3")
@pytest.mark.parametrize("times", [16, pytest.param(125, marks=pytest.mark.soak)])
def test_sixteen_processes_lose_no_acknowledged_increment(address: str, times: int) -> None:
    all_ = 16 * 8 * times
    found = run("increments", address=address, processes=16, jobs=8, times=times)
    assert found == {"acked": all_, "stored": all_, "unique": all_, "lost": 0, "versions": all_, "listed": 8}


@pytest.mark.guarantee("R3")
def test_a_store_that_does_not_lock_is_caught(tmp_path: Path) -> None:
    address = f"file:{tmp_path / 'jobs'}"
    found = run("increments", address=address, processes=8, jobs=1, times=20, kind="unlocked")
    assert found["lost"] > 0


@pytest.mark.seed("S1.2.8")
@pytest.mark.guarantee("R4")
def test_of_eight_processes_that_create_a_job_one_succeeds_and_its_job_is_stored(address: str) -> None:
    found = run("creates", address=address, processes=8, rounds=200)
    assert [len(winners) for winners in found["winners"]] == [1] * 200
    assert found["stored"] == [str(winners[0]) for winners in found["winners"]]
    assert found["listed"] == 200


@pytest.mark.guarantee("R10")
@pytest.mark.parametrize("jobs", [200, pytest.param(1_000, marks=pytest.mark.soak)])
def test_sixteen_claimers_of_whom_twenty_are_killed_do_every_job_once(address: str, jobs: int) -> None:
    found = run("claims", address=address, processes=16, jobs=jobs, kills=20, ttl=1.0)
    assert found == {"crashed": 0, "done": jobs, "twice": 0, "leased": 0}


@pytest.mark.guarantee("R7")
@pytest.mark.guarantee("F22")
def test_a_stopped_claimant_that_goes_on_is_refused_every_time(address: str) -> None:
    found = run("zombies", address=address, rounds=20, ttl=0.3)
    assert (found["accepted"], found["version"], found["priority"]) == ([], 21, 19)
    assert max(found["waited"]) <= 0.3 + 0.05 + LATE


@pytest.mark.guarantee("R7")
def test_the_job_of_a_killed_claimant_is_back_after_its_lease_and_one_look(address: str) -> None:
    found = run("reclaims", address=address, victims=20, ttl=2.0, interval=0.05)
    assert (found["early"], len(found["waited"])) == (0, 20)
    assert max(found["waited"]) <= 2.0 + 0.05 + LATE


LATE = 0.5
"""Seconds that a busy machine may add to a look."""
