"""Fault: any order of saves, claims, crashes, migrations, rollbacks, deletions and time. Promise (R5): every back end
answers as the model does (store_model.py), and the comparison catches stores that are broken on purpose.

SS_MODEL_EXAMPLES=N compares N random examples instead of the fixed 25: 100 before a release, 2,000 at night.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from ss_pipeline.errors import SSError
from ss_pipeline.store.jobs import facets_of_body
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.reliability.both_stores import InterruptedJobStore
from ss_pipeline_tests.reliability.migration_races import BlindJobStore
from ss_pipeline_tests.reliability.store_machine import StoreMachine
from ss_pipeline_tests.reliability.test_broken_stores import BROKEN, CheckThenCreate, HighestFirst, on
from ss_pipeline_tests.store_contract import STANDS, Stand

EXAMPLES: Final = int(os.environ.get("SS_MODEL_EXAMPLES", "0"))
IN_CI: Final = settings(
    max_examples=25,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
LONG: Final = settings(
    IN_CI, max_examples=EXAMPLES or 100, stateful_step_count=100 if EXAMPLES >= 2_000 else 40, derandomize=False
)
JUDGING: Final = settings(IN_CI, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # power cuts are test_power_cut.py's
    with STANDS[request.param](tmp_path, facets_of=facets_of_body) as stand:
        yield stand


def compare(make: Callable[[], StoreMachine], how: settings) -> None:
    """Runs machines on stores; raises what the first that differs from its model says."""
    run_state_machine_as_test(make, settings=how)  # type: ignore[arg-type] # any callable is taken


@pytest.mark.guarantee("R5")
def test_the_back_end_does_what_the_model_does(stand: Stand) -> None:
    compare(lambda: StoreMachine(stand), LONG if EXAMPLES else IN_CI)


@pytest.mark.soak
@pytest.mark.guarantee("R5")
def test_the_back_end_does_what_the_model_does_for_long(stand: Stand) -> None:
    compare(lambda: StoreMachine(stand), LONG)


class InterruptedBlindJobStore(InterruptedJobStore, BlindJobStore):
    """Broken: its load writes back without comparing."""


@pytest.mark.guarantee("R5")
@pytest.mark.parametrize("broken", [*{cls: None for cls, _ in BROKEN if cls is not HighestFirst}, CheckThenCreate])
def test_a_broken_back_end_is_caught(broken: type[MemoryBackend]) -> None:
    """All but `HighestFirst`, which differs only where ages and priorities cross: the contract has that case."""
    with pytest.raises((AssertionError, SSError, Flaky)):
        compare(lambda: StoreMachine(on(broken)), JUDGING)


@pytest.mark.guarantee("R5")
@pytest.mark.guarantee("R14")
def test_a_store_whose_load_writes_back_without_comparing_is_caught() -> None:
    with pytest.raises(AssertionError):
        compare(lambda: StoreMachine(on(MemoryBackend), InterruptedBlindJobStore), JUDGING)
