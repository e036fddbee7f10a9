"""Files → Redis → PostgreSQL → files with many jobs while writers are at work; prints one table.

    python -m ss_pipeline_tests.load.store_chain --jobs 10000

Each hop copies with a comparison and then switches; the writers keep the store in use and its mirror busy until the
seal. At the end the files go to Redis and back once more without writers, and must be the same bytes.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from ss_pipeline import console
from ss_pipeline.store.jobs import facets_of_body
from ss_pipeline.store.switching import switch
from ss_pipeline.telemetry.json_logs import log_to_stderr
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.store_addresses import an_address
from ss_pipeline_tests.reliability.store_moves import both, chain, files_digest


def measured(folder: Path, *, jobs: int, writers: int) -> list[Found]:
    """One row for each hop, and one for the way to Redis and back without writers."""
    with ExitStack() as stack:
        files, redis, postgres = (stack.enter_context(an_address(n, folder)) for n in ("file", "redis", "postgres"))
        hops: list[Found] = chain(
            addresses=[files, redis, postgres, files], notes=str(folder / "notes"), jobs=jobs, writers=writers
        )["hops"]
        return [*hops, there_and_back(files, redis, folder / "jobs")]


def there_and_back(files: str, redis: str, root: Path) -> Found:
    """A switch and its rollback without writers; `identical` says whether the files are the same bytes after it."""
    before, begun = files_digest(root), time.monotonic()
    with both(files, redis) as (here, there):
        gone = switch(here, there, facets_of=facets_of_body)
        back = switch(there, here, facets_of=facets_of_body)
    assert gone
    assert back
    assert back.last.compared
    return {
        "from": "file",
        "to": "redis → file",
        "documents": back.last.compared.documents,
        "copied": gone.copied + back.copied,
        "seconds": time.monotonic() - begun,
        "sealed_seconds": gone.last.seconds + back.last.seconds,
        "operations": 0,
        "differences": back.last.differences,
        "lost": 0,
        "identical": files_digest(root) == before,
    }


def main() -> int:
    """Prints the table; 1 if anything was lost, differs, or did not come back as it was."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs in the store at the start")
    parser.add_argument("--writers", type=int, default=3, help="processes that write meanwhile")
    options = parser.parse_args()
    log_to_stderr("ERROR")  # that the mirror is behind until the copy begins is expected
    with tempfile.TemporaryDirectory(prefix="ss-chain-") as folder:
        rows = measured(Path(folder), jobs=options.jobs, writers=options.writers)
    print_rows(rows, jobs=options.jobs)
    return int(any(row["differences"] or row["lost"] for row in rows) or not rows[-1]["identical"])


def print_rows(rows: list[Found], *, jobs: int) -> None:
    """The table."""
    columns = ["hop", "documents", "s", "documents/s", "s sealed", "writes", "differences", "lost", "files identical"]
    shown = [
        (
            f"{row['from']} → {row['to']}",
            row["documents"],
            f"{row['seconds']:.1f}",
            f"{row['documents'] / row['seconds']:.0f}",
            f"{row['sealed_seconds']:.1f}",
            row["operations"],
            row["differences"],
            row["lost"],
            {True: "yes", False: "NO"}.get(row.get("identical", ""), ""),
        )
        for row in rows
    ]
    console.print_table(f"{jobs:,} jobs, moved under writers", columns, shown)


if __name__ == "__main__":
    sys.exit(main())
