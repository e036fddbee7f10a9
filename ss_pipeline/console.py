"""How the command line looks: tables, blocks and JSON. No decisions, no I/O but to the terminal."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ss_pipeline.errors import SSError
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.jobs.model import Job

PHASE_STYLES: Final = {
    "published": "green",
    "in review": "yellow",
    "failed": "red",
    "refused": "red",
    "unreadable": "red",
    "cancelled": "dim",
    "parked": "magenta",
    "waiting": "cyan",
    "drafting": "cyan",
    "publishing": "cyan",
}

OUT: Final = Console()
ERR: Final = Console(stderr=True)


_STEERING: Final = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\ufffd")
"""Control characters but tab and newline: in a submitter's text they would steer the terminal it is shown on."""


def widen(columns: int) -> None:
    """Tables may take so many columns from now on, also where the terminal is narrower or there is none."""
    OUT.width = max(OUT.width, columns)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")


def print_error(error: SSError, *, as_json: bool) -> None:
    """One readable block with the code, what is wrong and what to do; or the same as JSON on stdout."""
    if as_json:
        print_json({"error": error.as_document()})
        return
    text = f"{_as_text(error.message)}\n\n[bold]What to do:[/bold] {_as_text(error.todo)}"
    ERR.print(Panel(text, title=f"[bold red]{error.error_code}", title_align="left", border_style="red", expand=False))


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, one_line: bool = False
) -> None:
    """A table; cells are shown as they are, phases in their colour, and the first column is never cut.

    Args:
        one_line: Cut the last column to what the terminal has left, instead of folding cells.
    """
    cells = [[str(value) for value in row] for row in rows]
    table = Table(title=title, title_justify="left", header_style="bold")
    for position, name in enumerate(columns):
        table.add_column(name, no_wrap=one_line or position == 0, overflow="fold")
    for row in cells:
        table.add_row(*map(_cell, _cut_to_terminal(row, cells) if one_line else row))
    OUT.print(table)


def _cut_to_terminal(row: list[str], rows: list[list[str]]) -> list[str]:
    widest = [max(cell_len(other[position]) for other in rows) for position in range(len(row) - 1)]
    left = max(12, OUT.width - sum(widest) - 3 * len(row) - 1)
    last = row[-1] if cell_len(row[-1]) <= left else set_cell_size(row[-1], left - 1) + "…"
    return [*row[:-1], last]


def print_list(title: str, lines: Sequence[str]) -> None:
    """A heading and lines that are never cut or wrapped, so that they can be copied; nothing where there are none."""
    if lines:
        OUT.print(f"\n{title}", style="bold")
        for line in lines:
            OUT.print(f"  {_as_text(line)}".replace("\n", "\n  "), soft_wrap=True, highlight=False)


def print_fields(title: str, fields: Mapping[str, object]) -> None:
    """A block of names and values; empty ones are left out."""
    table = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            table.add_row(f"[bold]{escape(name)}[/bold]", _cell(value))
    OUT.print(Panel(table, title=f"[bold]{_as_text(title)}", title_align="left", expand=False))


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Bars on stderr while the block runs, told of (what, done, of how many); nothing where stderr is no terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what)
            progress.update(bars[what], completed=done, total=total)

        yield tell


def job_row(job: Job, *, claimed: bool = False) -> dict[str, Any]:
    """A job as a row of `list`, and its JSON; `claimed` says whether a run works on it now."""
    view = phase(job, claimed=claimed)
    return {
        "job_id": job.job_id,
        "tenant_id": job.tenant_id,
        "status": job.status,
        "phase": view.phase,
        "reason": view.reason,
        "next": view.next_step,
        "created_at": job.created_at,
        "client_ref": job.client_ref,
        "requirement": " ".join((job.requirement or "").split()),
    }


def unreadable_row(job_id: str, *, tenant_id: str, created_at: str, error: SSError) -> dict[str, Any]:
    """A job that cannot be read, as a row like `job_row`'s."""
    return {
        "job_id": job_id,
        "tenant_id": tenant_id,
        "status": None,
        "phase": "unreadable",
        "reason": error.message,
        "next": error.todo,
        "created_at": created_at,
        "client_ref": None,
        "requirement": error.message,
    }


def _as_text(value: object) -> str:
    """The value as it is: no markup, and nothing that steers the terminal."""
    return escape(str(value).translate(_STEERING))


def _cell(value: object) -> str:
    text = _as_text(value)
    style = PHASE_STYLES.get(str(value))
    return f"[{style}]{text}[/{style}]" if style else text
