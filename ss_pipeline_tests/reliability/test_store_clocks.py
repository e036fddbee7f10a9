"""Fault: the wall clock of a worker is an hour off, or jumps while it works. Promise (R20, F12, F13): leases go by the
store's own clock, so no job is held twice, none is taken early, every lease ends on time, and no duration is negative.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Final

import pytest

from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.skewed_clocks import HOUR
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address

TTL: Final = 0.6


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled moved_wall_clock.c."""
    if shutil.which("gcc") is None and not os.environ.get("CI"):
        pytest.skip("gcc is not installed")
    library = tmp_path_factory.mktemp("shim") / "moved_wall_clock.so"
    source = Path(__file__).with_name("moved_wall_clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(params=SHARED)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with an_address(request.param, tmp_path) as address:
        yield address


def run(shim: Path, task: str, **parameters: object) -> Found:
    module = "ss_pipeline_tests.reliability.skewed_clocks"
    return forking.run_in({"LD_PRELOAD": str(shim)}, module, task, seconds=120, **parameters)


def overlaps(found: Found) -> int:
    """How often two workers held the job at the same time."""
    holds = [hold for worker in found["workers"] for hold in worker["holds"]]
    return sum(max(a[1], b[1]) < min(a[2], b[2]) for a, b in combinations(holds, 2))


def test_the_shim_moves_the_wall_clock_and_no_other(shim: Path) -> None:
    assert run(shim, "clocks", moved_by=HOUR) == {"time": HOUR, "now": HOUR, "monotonic": 0, "boot": 0}
    assert run(shim, "clocks", moved_by=-HOUR) == {"time": -HOUR, "now": -HOUR, "monotonic": 0, "boot": 0}


@pytest.mark.guarantee("R20")
@pytest.mark.guarantee("F12")
def test_workers_two_hours_apart_never_hold_a_job_together_and_lose_no_lease(shim: Path, address: str) -> None:
    found = run(shim, "rivals", address=address, offsets=[HOUR, -HOUR], lasting=8 * TTL, ttl=TTL)
    fences = [hold[0] for worker in found["workers"] for hold in worker["holds"]]
    assert (overlaps(found), [worker["lost"] for worker in found["workers"]]) == (0, [0, 0])
    assert len(fences) == len(set(fences)) >= 3


@pytest.mark.guarantee("R20")
@pytest.mark.guarantee("F12")
@pytest.mark.parametrize(("silent", "rescuer"), [(HOUR, -HOUR), (-HOUR, HOUR)])
def test_the_lease_of_a_silent_worker_ends_on_time_however_its_clock_stands(
    shim: Path, address: str, silent: int, rescuer: int
) -> None:
    found = run(shim, "rescue", address=address, silent=silent, rescuer=rescuer, ttl=TTL, patience=5)
    assert TTL <= found["after"] < TTL + 2


@pytest.mark.guarantee("R20")
def test_a_store_whose_leases_go_by_the_wall_clock_is_caught(shim: Path, tmp_path: Path) -> None:
    def on_files(name: str, task: str, **parameters: object) -> Found:
        return run(shim, task, address=f"file:{tmp_path / name}", kind="by the wall clock", ttl=TTL, **parameters)

    rivals = on_files("rivals", "rivals", offsets=[HOUR, -HOUR], lasting=4 * TTL)
    assert sum(worker["lost"] for worker in rivals["workers"]) > 0
    early = on_files("early", "rescue", silent=-HOUR, rescuer=HOUR, patience=2)
    assert early["after"] < TTL
    never = on_files("never", "rescue", silent=HOUR, rescuer=-HOUR, patience=2)
    assert never["after"] is None


@pytest.mark.guarantee("F13")
def test_a_clock_that_jumps_while_a_run_works_costs_no_lease_and_makes_no_duration_negative(
    shim: Path, tmp_path: Path
) -> None:
    found = run(shim, "jumps", folder=str(tmp_path))
    assert (found["ending"], found["stages"], found["lost"]) == ("published", 5, 0)
    assert found["shortest"] >= 0
