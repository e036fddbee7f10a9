"""The benchmarks do what they say they measure, on a few jobs; their figures are compared by hand, not here."""

import sys

import pytest

from ss_pipeline.bench import __main__ as bench
from ss_pipeline.bench import pipeline, store


def test_the_benchmark_of_the_pipeline_prints_a_row_for_each_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "_whole_stack", pipeline._bare)  # the daemon takes half a minute: test_stack.py
    pipeline.measure(many=3, few=2)
    shown = capsys.readouterr().out
    for way in ("bare stages", "one Dagster run", "inbox"):
        assert way in shown


def test_a_way_that_loses_jobs_gives_no_figure() -> None:
    with pytest.raises(SystemExit, match="1 of 2 jobs"):
        pipeline._expect(["job"], 2)


@pytest.mark.seed("S1.2.7")
@pytest.mark.seed("S2.3.6")
def test_the_benchmark_of_the_store_measures_every_operation_of_every_back_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store.measure(backlogs=(30, 60), samples=5, writers=2)
    shown = capsys.readouterr().out
    for operation in ("create", "load", "save", "claim", "heartbeat", "complete", "page", "fsynced file"):
        assert operation in shown
    for name in ("file", "redis", "postgres"):
        assert name in shown


def test_a_benchmark_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "stores"])
    with pytest.raises(SystemExit, match="stores: unknown; there are pipeline, store"):
        bench.main()
