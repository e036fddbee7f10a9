"""kill -9 around a call, and many processes at once: what is billed is what is on record, budgets and rates hold."""

from pathlib import Path
from typing import Any, Final

import pytest

from ss_pipeline.llm.prices import most_tokens
from ss_pipeline_tests.llm_calls import a_question
from ss_pipeline_tests.reliability.forking import run
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address

MODULE: Final = "ss_pipeline_tests.reliability.llm_askers"

ON_FILES_AND_IN_SOAK_ON_ALL: Final = [
    name if name == "file" else pytest.param(name, marks=pytest.mark.soak) for name in SHARED
]


def kills(name: str, folder: Path, *, rounds: int = 1, kind: str = "real") -> dict[str, Any]:
    with an_address(name, folder) as address:
        return run(MODULE, "kills", seconds=3_000, address=address, rounds=rounds, kind=kind)


def undeclared(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Questions that were billed more often than their record says."""
    return [finding for finding in found["findings"] if finding["billed"] > 1 + finding["unknowns"]]


def assert_accounted_for(found: dict[str, Any]) -> None:
    """Every question was answered and is on record, and what was billed is answers and declared unknowns, no more."""
    assert undeclared(found) == []
    assert {(finding["state"], finding["again"]) for finding in found["findings"]} == {("settled", 0)}
    assert all(finding["billed"] >= 1 for finding in found["findings"])
    assert max(finding["unknowns"] for finding in found["findings"]) == 1
    assert len(found["steps"]) >= 20
    assert found["reserved"] == 0
    assert found["spent"] >= 30 * found["billed"]


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize("name", ON_FILES_AND_IN_SOAK_ON_ALL)
def test_killed_at_any_step_around_a_call_nothing_is_billed_that_is_not_on_record(name: str, tmp_path: Path) -> None:
    assert_accounted_for(kills(name, tmp_path))


@pytest.mark.guarantee("L1")
def test_without_an_intent_before_the_call_a_kill_bills_what_no_record_shows(tmp_path: Path) -> None:
    assert undeclared(kills("file", tmp_path, kind="forgetful")) != []


@pytest.mark.soak
@pytest.mark.guarantee("L1")
def test_fifty_kills_at_every_step_leave_nothing_unaccounted_for(tmp_path: Path) -> None:
    assert_accounted_for(kills("file", tmp_path, rounds=50))


@pytest.mark.guarantee("L2")
@pytest.mark.parametrize("name", ON_FILES_AND_IN_SOAK_ON_ALL)
def test_four_processes_that_ask_at_once_never_spend_more_than_there_is(name: str, tmp_path: Path) -> None:
    most = sum(vars(most_tokens(a_question("0 asks 0000"))).values())
    with an_address(name, tmp_path) as address:
        found = run(MODULE, "overrun", address=address, processes=4, calls=8, budget_for=12, most=most)
    assert (found["answered"], found["parked"]) == (12, 20)
    assert (found["billed"], found["spent"], found["reserved"]) == (12, 12 * 30, 0)


@pytest.mark.guarantee("L2")
@pytest.mark.parametrize("name", ON_FILES_AND_IN_SOAK_ON_ALL)
def test_eight_processes_at_the_limit_keep_the_rate_and_none_fails(name: str, tmp_path: Path) -> None:
    with an_address(name, tmp_path) as address:
        found = run(MODULE, "rated", address=address, processes=8, duration=4.0, requests_per_minute=600)
    at_once, evenly = 100, 500 / 60
    times = found["times"]
    assert len(times) == sum(found["answered"])
    assert min(found["answered"]) >= 1
    within = [sum(begin <= at < begin + 2 for at in times) for begin in times]
    assert max(within) <= at_once + 2 * evenly + 8  # a process may be late for its turn
