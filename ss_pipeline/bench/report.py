"""A measurement as tables and as docs/performance.md: the figures there are written from its JSON, never typed.

    python -m ss_pipeline.bench report FILE       puts tables and plot between the page's marks

What is around the marks is written by hand. How the plot looks is plot.py's business.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from ss_pipeline.bench.figures import Figures, Measurement
from ss_pipeline.bench.plot import speed_plot
from ss_pipeline.bench.targets import verdicts
from ss_pipeline.bench.ways import STORAGES

BEGIN: Final = "<!-- figures: written by `python -m ss_pipeline.bench report`; measure again, do not edit -->"
END: Final = "<!-- end of figures -->"
PLOT_NAME: Final = "performance.svg"
COLUMNS: Final = (
    "way", "jobs", "runs", "jobs/min", "steady", "CPU s/job", "engine CPU s/job", "peak MB", "p50 s", "p95 s",
)  # fmt: skip
TARGET_COLUMNS: Final = ("way", "figure", "target", "measured", "")


def write_page(arguments: Sequence[str]) -> None:
    """Writes the figures of a JSON file into docs/performance.md, and the plot beside it.

    Raises:
        SystemExit: no file is named, or the page has no marks.
    """
    if len(arguments) != 1:
        raise SystemExit("bench: report takes one file, which `pipeline --output FILE` has written")
    measurement = Measurement.model_validate_json(Path(arguments[0]).read_bytes())
    page = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
    page.write_text(with_figures(page.read_text(encoding="utf-8"), measurement), encoding="utf-8")
    (page.parent / PLOT_NAME).write_text(speed_plot(measurement.figures), encoding="utf-8")


def with_figures(page: str, measurement: Measurement) -> str:
    """The page with these figures between its marks.

    Raises:
        SystemExit: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("bench: the page has no place for figures")
    return f"{before}{BEGIN}\n\n{_block(measurement)}\n\n{END}{after}"


def sections(measurement: Measurement) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Title and rows (`COLUMNS`) of each group of ways that are compared."""
    figures = measurement.figures
    for (storage, stages), group in groupby(figures, key=lambda each: (each.way.storage, each.way.stages)):
        yield f"{STORAGES[storage]}, {stages} stages", [_row(each, figures) for each in group]


def target_rows(measurement: Measurement) -> list[tuple[str, ...]]:
    """Each target that was measured, with what was measured (`TARGET_COLUMNS`)."""
    return [
        (
            verdict.target.way,
            verdict.target.what,
            f"{verdict.target.sign} {verdict.target.bound:g} {verdict.target.unit}".rstrip(),
            f"{verdict.value:.3g} {verdict.target.unit}".rstrip(),
            "met" if verdict.is_met else "missed",
        )
        for verdict in verdicts(measurement.figures)
    ]


def _block(measurement: Measurement) -> str:
    machine = ", ".join(f"{name} {value}" for name, value in measurement.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in measurement.versions.items())
    parts = [
        f"Measured {measurement.at} in {measurement.minutes:g} minutes: `{measurement.command}`.",
        f"Machine: {machine}. Versions: {versions}.",
        f"![jobs a minute by way]({PLOT_NAME})",
        *(f"### {title}\n\n{_table(COLUMNS, rows)}" for title, rows in sections(measurement)),
        f"### Targets\n\n{_table(TARGET_COLUMNS, target_rows(measurement))}",
    ]
    return "\n\n".join(parts)


def _row(figures: Figures, everything: Sequence[Figures]) -> tuple[str, ...]:
    return (
        figures.way.description,
        str(figures.way.jobs),
        "" if figures.runs is None else str(figures.runs),
        _number(figures.per_minute, 0 if figures.per_minute >= 20 else 1),
        _number(figures.steady_per_minute, 0),
        _number(figures.cpu_per_job, 3),
        _number(figures.engine_cpu(everything), 3),
        _number(figures.peak_megabytes, 0),
        _number(figures.p50, 1),
        _number(figures.p95, 1),
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))
