"""The benchmark does what it says it measures, on a few jobs; its figures are compared by hand, not here."""

import sys

import pytest

from ss_pipeline import bench


def test_the_benchmark_prints_a_row_for_each_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "3", "2"])
    monkeypatch.setattr(bench, "_whole_stack", bench._bare)  # the daemon takes half a minute: test_stack.py runs it
    bench.main()
    shown = capsys.readouterr().out
    for way in ("bare stages", "one Dagster run", "inbox"):
        assert way in shown


def test_a_way_that_loses_jobs_gives_no_figure() -> None:
    with pytest.raises(SystemExit, match="1 of 2 jobs"):
        bench._expect(["job"], 2)
