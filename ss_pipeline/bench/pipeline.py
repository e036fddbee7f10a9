"""What Dagster costs beside the bare work, side by side in one run on this machine.

    python -m ss_pipeline.bench pipeline [--only WAY,…] [--jobs N] [--slots N] [--output FILE]

What lives here: the order of the measurements, what is said of the machine, the tables on the terminal. What a way is
made of is ways.py, how it is measured bare.py and stack.py, the page report.py.
"""

import argparse
import compileall
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import ss_pipeline
from ss_pipeline.bench import report
from ss_pipeline.bench.bare import measure_bare
from ss_pipeline.bench.figures import Figures, Measurement
from ss_pipeline.bench.stack import measure_stack
from ss_pipeline.bench.ways import Way, all_ways, selected
from ss_pipeline.console import ERR, OUT, print_table

_PACKAGES: Final = ("dagster", "dagster-postgres", "pandas", "matplotlib", "pydantic", "SQLAlchemy")


def measure(arguments: Sequence[str]) -> None:
    """Measures the ways that are asked for, prints them, and writes them to a file if wanted."""
    asked = _parser().parse_args(arguments)
    patterns = [name for name in asked.only.split(",") if name]
    ways = selected(all_ways(), patterns, jobs=asked.jobs, slots=asked.slots)
    command = " ".join(["python -m ss_pipeline.bench pipeline", *arguments])
    measurement = measured(ways, command=command)
    show(measurement)
    if asked.output:
        asked.output.write_text(measurement.model_dump_json(indent=1) + "\n", encoding="utf-8")


def measured(ways: Sequence[Way], *, command: str, run: Callable[[Way, Path], Figures] | None = None) -> Measurement:
    """The figures of these ways, measured one after the other.

    Args:
        command: How the benchmark was called, for who repeats it.
        run: Measures one way in an empty folder; default: the real thing.
    """
    compileall.compile_dir(Path(ss_pipeline.__file__).parent, quiet=1)
    started, figures = time.monotonic(), []
    load = os.getloadavg()[0]
    for number, way in enumerate(ways, start=1):
        ERR.print(f"{number} of {len(ways)}: {way.name}, {way.jobs} jobs", highlight=False)
        with _folder() as folder:
            found = (run or _run)(way, folder)
        figures.append(found)
        ERR.print(f"  {found.per_minute:,.0f} a minute, {found.cpu_per_job:.3f} CPU s a job", highlight=False)
    return Measurement(
        machine={**machine(), "load before": f"{load:.1f}"},
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        at=datetime.now(UTC).isoformat(timespec="minutes"),
        command=command,
        minutes=round((time.monotonic() - started) / 60, 1),
        figures=figures,
    )


def show(measurement: Measurement) -> None:
    """The tables on the terminal: the figures, and the targets."""
    for title, rows in report.sections(measurement):
        print_table(title, report.COLUMNS, rows)
    print_table("Targets", report.TARGET_COLUMNS, report.target_rows(measurement))
    OUT.print(f"{measurement.minutes:g} minutes in all")


def machine() -> dict[str, str]:
    """What the figures depend on: processor, cores that this process may use, memory, kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
    }


def _run(way: Way, folder: Path) -> Figures:
    return measure_bare(way, folder) if way.is_bare else measure_stack(way, folder)


@contextmanager
def _folder() -> Iterator[Path]:
    """A fresh folder; PostgreSQL, which does not run as root, must be let through to its own."""
    with tempfile.TemporaryDirectory(prefix="ss-bench-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ss_pipeline.bench pipeline", description=measure.__doc__)
    parser.add_argument("--only", default="", help="ways by the beginning of their names: warm-sqlite,bare,*-real")
    parser.add_argument("--jobs", type=int, help="jobs of each way; default: 6 to 500, by how long one takes")
    parser.add_argument("--slots", type=int, help="runs at once; default: what the project's instances have")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures; `report FILE` makes the page of it")
    return parser
