"""Fault: kill -9 of a run, the zygote, the daemon, the code server and all at once, while jobs are in work.

Promise (R6, R12, F1 to F4): every run leaves STARTED within 30 s, its jobs are finished, and nothing is published
twice. And R11: the same of a daemon that dies at one of Dagster's own points.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ss_pipeline.jobs.model import Publication
from ss_pipeline_tests.builders import CREATED_AT, a_job
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.reliability.launcher_faults import (
    VICTIMS,
    FaultyStack,
    doubled,
    faulty_stack,
    kill_at_random,
    kill_group,
)

STARTED_SECONDS = 30.0
"""From the kill, or the restart where a daemon was killed, until no run is STARTED that was so then."""
ROUNDS = 10
JOBS = 6
ROWS = 4_000
REAL_LEASE = {"SS_CLAIM_LEASE_SECONDS": "60", "SS_CLAIM_HEARTBEAT_SECONDS": "10"}
POINTS = (
    "TICK_CREATED", "TICK_HELD", "AUTOMATION_EVALUATIONS_ADDED", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED",
)  # fmt: skip
"""Where Dagster's own tests crash its sensor daemon; the third lies between a tick's reservation and its record."""


def survives(stack: FaultyStack, victim: str, *, rounds: int, jobs: int) -> list[float]:
    """Kills the victim in each round; how long (s) runs were STARTED after it."""
    chance = random.Random(victim)
    seconds = []
    for number in range(rounds):
        stack.hand_in(jobs=jobs, rows=ROWS)
        since, started = kill_at_random(stack, victim, chance=chance)
        seconds.append(stack.seconds_started(started, since=since))
        in_all = jobs * (number + 1)
        assert stack.settle(jobs=in_all), stack.faults(jobs=in_all)
        assert stack.faults(jobs=in_all) == []
        print(f"{victim} {number}: {len(started)} runs started, none after {seconds[-1]:.1f} s", end="; ")
        print(f"all published after {time.monotonic() - since:.1f} s")
    return seconds


@pytest.mark.stack
@pytest.mark.guarantee("F4", "R6", "R12")
def test_after_the_death_of_everything_each_job_is_published_once(tmp_path: Path) -> None:
    with faulty_stack(tmp_path) as stack:
        stack.hand_in(jobs=2, rows=ROWS)
        stack.start()
        since, started = kill_at_random(stack, "everything", chance=random.Random(1))
        assert stack.seconds_started(started, since=since) < STARTED_SECONDS
        assert stack.settle(jobs=2), stack.faults(jobs=2)
        assert stack.faults(jobs=2) == []


@pytest.mark.soak
@pytest.mark.guarantee("F1", "F2", "F3", "F4", "R6", "R12")
@pytest.mark.parametrize("victim", VICTIMS)
def test_ten_kills_lose_no_job_and_publish_none_twice(victim: str, tmp_path: Path) -> None:
    with faulty_stack(tmp_path) as stack:
        stack.start()
        assert max(survives(stack, victim, rounds=ROUNDS, jobs=JOBS)) < STARTED_SECONDS


@pytest.mark.soak
@pytest.mark.guarantee("F4", "R7", "R12")
def test_a_lease_of_its_real_length_is_taken_up_within_its_time_and_a_tick(tmp_path: Path) -> None:
    with faulty_stack(tmp_path, environment=REAL_LEASE) as stack:
        stack.start()
        assert max(survives(stack, "everything", rounds=1, jobs=JOBS)) < STARTED_SECONDS


# --- the daemon dies at its own points


@pytest.mark.soak
@pytest.mark.guarantee("F3", "R11")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_sensor_daemon_that_dies_at_any_of_its_points_loses_no_job_and_doubles_no_run(
    number: signal.Signals, tmp_path: Path
) -> None:
    with faulty_stack(tmp_path) as stack:
        for done, point in enumerate(POINTS):
            stack.hand_in(jobs=2)
            assert crashed(stack, point, number) == -number
            begun = time.monotonic()
            stack.start()
            assert stack.settle(jobs=2 * (done + 1)), (point, stack.faults(jobs=2 * (done + 1)))
            assert stack.faults(jobs=2 * (done + 1)) == []
            stack.stop()
            print(f"{point} {number.name}: published {time.monotonic() - begun:.1f} s after the restart")


def crashed(stack: FaultyStack, point: str, number: signal.Signals) -> int:
    """Runs a sensor daemon until it dies at this point; its status. Its code server is there until the stack stops."""
    command = [sys.executable, "-m", "ss_pipeline_tests.reliability.crashing_daemon", point, str(int(number))]
    with stack.home.log_file.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=stack.home.project, env=stack.variables, stdout=log, stderr=log, start_new_session=True
        )
    stack.started.callback(kill_group, process.pid)
    return process.wait(90)


# --- broken twins: what the tests above would catch


@pytest.mark.soak
@pytest.mark.guarantee("R12")
def test_with_the_default_launcher_a_dead_machine_leaves_runs_started(tmp_path: Path) -> None:
    settings = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    del settings["run_launcher"]
    instance = tmp_path / "default_launcher.yaml"
    instance.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with faulty_stack(tmp_path, instance=instance) as stack:
        stack.hand_in(jobs=2, rows=ROWS)
        stack.start()
        since, started = kill_at_random(stack, "everything", chance=random.Random(1))
        assert started
        assert stack.seconds_started(started, since=since, patience=STARTED_SECONDS) > STARTED_SECONDS
        assert any("STARTED" in fault for fault in stack.faults(jobs=2))


@pytest.mark.guarantee("R6")
@pytest.mark.parametrize(
    ("versions", "faults"),
    [
        ([(1, "a")], 0),
        ([(1, "a"), (2, "b")], 0),  # another draft, another version
        ([(1, "a"), (2, "a")], 1),
        ([(1, "a"), (1, "b")], 1),
    ],
)
def test_what_was_published_twice_is_caught(versions: list[tuple[int, str]], faults: int) -> None:
    publications = [
        Publication(version=version, manifest_sha256="0" * 64, at=CREATED_AT, fence=version, draft_sha256=draft * 64)
        for version, draft in versions
    ]
    assert len(doubled(a_job(status="succeeded", publications=publications))) == faults
