"""The benchmarks do what they say they measure, on a few jobs; their figures are compared by hand, not here."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from ss_pipeline.bench import __main__ as bench
from ss_pipeline.bench import pipeline, report, store, trivial
from ss_pipeline.bench.bare import bench_settings, measure_bare
from ss_pipeline.bench.figures import Figures, Measurement, steady_rate
from ss_pipeline.bench.meter import Meter
from ss_pipeline.bench.plot import speed_plot
from ss_pipeline.bench.stack import instance_of, measure_stack
from ss_pipeline.bench.targets import TARGETS, verdicts
from ss_pipeline.bench.ways import SLOTS, How, Storage, Way, all_ways, selected
from ss_pipeline.bench.workload import expect, hand_in, published, take_all_in
from ss_pipeline.claim_run import work_off
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.stages.publishing.stage import verify_publication
from ss_pipeline.wiring import light_parts, work_parts
from ss_pipeline_tests.conftest import PROJECT_ROOT

BURN = "import time; end = time.process_time() + {}\nwhile time.process_time() < end: pass"


def figures_of(how: How, *, jobs: int = 10, cpu: float = 1.0, wall: float = 60.0) -> Figures:
    return Figures(way=Way(how, "sqlite", "trivial", jobs, 4), wall_seconds=wall, cpu_seconds=cpu)


def a_measurement(*figures: Figures) -> Measurement:
    return Measurement(
        machine={"processor": "a"}, versions={"python": "3"}, at="2026", command="bench", minutes=1, figures=[*figures]
    )


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


# --- what is compared


def test_every_way_has_a_name_of_its_own_and_every_target_a_way() -> None:
    names = [way.name for way in all_ways()]
    assert len(names) == len(set(names))
    assert {target.way for target in TARGETS} <= set(names)


def test_ways_are_selected_by_the_beginning_of_their_names_or_a_pattern() -> None:
    chosen = selected(all_ways(), ["warm-sqlite-trivial", "*-postgres-real"], jobs=7, slots=6)
    assert [way.name for way in chosen] == [
        "warm-sqlite-trivial",
        "warm-sqlite-trivial-5000-keys",
        *(f"{how}-postgres-real" for how in ("bare-loop", "bare-pool", "usual", "default", "warm", "claims")),
    ]
    assert {(way.jobs, way.slots) for way in chosen} == {(7, 6)}


def test_a_way_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="no way is named hot; there are bare-loop-sqlite-trivial"):
        selected(all_ways(), ["hot"])


def test_a_benchmark_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "stores"])
    with pytest.raises(SystemExit, match="stores: unknown; there are pipeline, "):
        bench.main()


def test_the_instances_differ_in_what_is_compared_and_in_nothing_else() -> None:
    given = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    warm, default, usual = (
        instance_of(Way(how, "sqlite", "real", 1, 4), given, None) for how in ("warm", "default", "usual")
    )
    assert warm["run_launcher"]["class"] == "WarmRunLauncher"
    assert {name: value for name, value in warm.items() if name != "run_launcher"} == default
    assert {name: value for name, value in default.items() if name != "run_queue"} == usual


@pytest.mark.parametrize(
    ("storage", "file"), [("sqlite", "dagster.yaml"), ("postgres", "deploy/dagster.postgres.yaml")]
)
def test_as_many_runs_at_once_are_measured_as_the_project_s_instances_allow(storage: Storage, file: str) -> None:
    given = yaml.safe_load((PROJECT_ROOT / file).read_text(encoding="utf-8"))
    assert SLOTS[storage] == given["concurrency"]["runs"]["max_concurrent_runs"]


# --- figures


def test_the_steady_rate_leaves_out_the_first_and_the_last_tenth_of_the_endings() -> None:
    steady = [10.0 + second for second in range(10)]
    assert steady_rate([*steady[:9], 500.0]) == pytest.approx(60.0)
    assert steady_rate([3.0, 3.0]) is None


def test_engine_cpu_is_what_a_job_takes_beyond_the_bare_work() -> None:
    bare, warm = figures_of("bare-loop", cpu=1.0), figures_of("warm", cpu=6.0)
    assert warm.engine_cpu([bare, warm]) == pytest.approx(0.5)
    assert bare.engine_cpu([bare, warm]) is None
    assert warm.engine_cpu([warm]) is None


def test_a_target_is_judged_where_all_it_needs_was_measured() -> None:
    bare, warm = figures_of("bare-loop", cpu=0.0), figures_of("warm", cpu=6.0)
    judged = {(v.target.what, v.is_met) for v in verdicts([bare, warm])}
    assert judged == {("jobs a minute", False), ("engine CPU a job", False)}
    default = figures_of("default", cpu=30.0)
    assert ("engine CPU, of the default launcher's", True) in {
        (v.target.what, v.is_met) for v in verdicts([bare, warm, default])
    }


# --- what processes use


def test_the_meter_loses_no_time_of_a_grandchild_that_has_ended() -> None:
    inner = BURN.format(0.3)
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}]); print(flush=True); input()"
    with running(outer) as process:
        assert process.stdout is not None
        process.stdout.readline()
        meter = Meter([process.pid])
        assert meter.cpu_seconds() >= 0.3
        assert meter.living() == {process.pid}


def test_the_meter_follows_children_into_other_sessions() -> None:
    inner = f"{BURN.format(0.2)}\nx = bytearray(50_000_000); print(flush=True); input()"
    outer = (
        "import subprocess, sys;"
        f"subprocess.run([sys.executable, '-c', {inner!r}], start_new_session=True, stdin=sys.stdin)"
    )
    with running(outer) as process:
        assert process.stdout is not None
        process.stdout.readline()
        meter = Meter([process.pid])
        assert len(meter.living()) == 2
        assert meter.cpu_seconds() >= 0.2
        assert meter.memory_bytes() > 50_000_000


def test_the_meter_of_a_process_that_is_gone_says_nothing() -> None:
    with running("") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        meter = Meter([process.pid])
        assert (meter.cpu_seconds(), meter.memory_bytes(), meter.living()) == (0, 0, set())


# --- the work


def test_trivial_stages_leave_a_published_job_that_passes_every_check(tmp_path: Path) -> None:
    hand_in(tmp_path / "inbox", 1)
    parts = light_parts(bench_settings(tmp_path / "data", None))
    (job_id,) = take_all_in(parts, tmp_path / "inbox", 1)
    trivial.install()
    try:
        list(work_off([job_id], tenant_id="default", claim_id="c", owner="run:r", parts=work_parts(parts)))
    finally:
        trivial.uninstall()
    job = parts.jobs.load(job_id)
    assert job.draft is not None
    assert job.draft.text == "y is described."
    assert job.published is not None
    assert verify_publication(job, job.published, artifacts=parts.artifacts) == []
    (seen,) = published(parts, [job_id])
    assert seen.run == "run:r"
    assert 0 < seen.published_at - seen.submitted_at < 60
    parts.close()


@pytest.mark.parametrize("how", ["bare-loop", "bare-pool"])
def test_bare_work_is_measured_for_both_kinds_of_stages(how: How, tmp_path: Path) -> None:
    cheap = measure_bare(Way(how, "sqlite", "trivial", 3, 1), tmp_path / "cheap")
    dear = measure_bare(Way(how, "sqlite", "real", 3, 1), tmp_path / "dear")
    assert 0 < cheap.cpu_per_job < dear.cpu_per_job
    assert dear.per_minute > 0


def test_bare_work_on_postgresql_counts_its_server(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    figures = measure_bare(Way("bare-loop", "postgres", "trivial", 2, 1), tmp_path)
    assert figures.cpu_per_job > 0
    with PostgresServer(tmp_path / "server") as server:  # the same server again
        assert server.pid in Meter([os.getpid()]).living()


def test_a_way_that_loses_jobs_gives_no_figure() -> None:
    with pytest.raises(SystemExit, match="1 of 2 jobs published once"):
        expect(1, 2, "published once")


@pytest.mark.stack
def test_a_way_through_the_engine_is_measured_job_by_job(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    figures = measure_stack(Way("warm", "sqlite", "trivial", 4, 4, live_keys=10), tmp_path)
    assert figures.runs == 4
    assert figures.cpu_per_job > 0
    assert figures.peak_megabytes is not None
    assert figures.peak_megabytes > 100
    assert figures.p50 is not None
    assert figures.p95 is not None
    assert figures.p50 <= figures.p95 <= figures.wall_seconds


# --- the results


def test_the_figures_are_printed_and_kept_and_become_the_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ways = selected(all_ways(), ["bare-loop-sqlite-trivial", "warm-sqlite-trivial"], jobs=60)
    seen = pipeline.measured(
        ways,
        command="bench",
        run=lambda way, _: Figures(way=way, wall_seconds=20, cpu_seconds=2 if way.is_bare else 20),
    )
    pipeline.show(seen)
    shown = capsys.readouterr().out
    assert "SQLite and files, trivial stages" in shown
    assert "warm launcher, one job a run" in shown
    again = Measurement.model_validate_json(seen.model_dump_json())
    page = report.with_figures(f"before\n{report.BEGIN}\nold\n{report.END}\nafter", again)
    assert page.startswith("before\n")
    assert page.endswith("\nafter")
    assert "old" not in page
    assert "| warm launcher, one job a run | 60 |  | 180 |  | 0.333 | 0.300 |" in page
    assert "| warm-sqlite-trivial | jobs a minute | ≥ 170 | 180 | met |" in page


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    with pytest.raises(SystemExit, match="no place"):
        report.with_figures("a page", a_measurement())


def test_the_committed_page_has_a_place_for_figures() -> None:
    page = (PROJECT_ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    written = report.with_figures(page, a_measurement())
    assert report.with_figures(written, a_measurement()) == written


def test_the_plot_is_well_formed_and_has_a_bar_for_each_way() -> None:
    slow, fast = figures_of("usual", wall=600.0), figures_of("bare-pool", wall=0.1)
    drawn = ET.fromstring(speed_plot([slow, fast]))
    texts = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"1", "6,000", "10,000", "jobs a minute"} <= set(texts)


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
