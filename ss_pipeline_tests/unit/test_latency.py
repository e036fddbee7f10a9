"""The benchmark of latency: where its figures come from. The figures themselves are looked at by hand."""

from datetime import datetime

import pytest

from ss_pipeline.bench import latency
from ss_pipeline.bench.latency import Waited
from ss_pipeline.jobs.lifecycle import transition
from ss_pipeline.jobs.model import JobStatus
from ss_pipeline_tests.builders import CREATED_AT, a_job

BEGAN = datetime.fromisoformat(CREATED_AT).timestamp()


def test_the_waiting_is_read_from_the_history_of_the_job() -> None:
    job = a_job()
    ways: list[tuple[JobStatus, int]] = [
        ("draft_ready", 3),
        ("confirmed", 4),
        ("queued", 4),
        ("running", 4),
        ("succeeded", 5),
    ]
    for status, second in ways:
        job = transition(job, status, at=f"2026-01-06T12:00:0{second}.500000+00:00", by="test")
    assert latency._waited(job, BEGAN - 1, command=2.0, at_once=True) == Waited(2.0, 4.5, 6.5, at_once=True)


def test_every_way_has_a_row_for_each_moment_that_is_waited_for() -> None:
    waited = [Waited(0.1, float(second), second + 1.0, at_once=False) for second in range(1, 22)]
    rows = list(latency._rows("inbox", waited))
    assert rows[1] == ("inbox", "draft_ready", "11.00", "20.00", "21.00", 21)
    assert [row[1] for row in rows] == ["handed in", "draft_ready", "published"]


@pytest.mark.soak
@pytest.mark.stack
def test_the_benchmark_of_latency_goes_both_ways_through_the_stack(capsys: pytest.CaptureFixture[str]) -> None:
    latency.measure(["--jobs", "1"])
    shown = capsys.readouterr().out
    assert "ss-pipeline submit" in shown
    assert "of 1 commands had their run launched at once" in shown
