"""`python -m ss_pipeline.bench NAME [OPTIONS]`: measures what is named and prints tables, or writes them to a page."""

import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from ss_pipeline.bench import latency, pipeline, report, store
from ss_pipeline.console import OUT, widen

_WIDTH: Final = 130
MEASURES: Final[dict[str, Callable[[Sequence[str]], None]]] = {
    "pipeline": pipeline.measure,
    "latency": latency.measure,
    "store": lambda _options: store.measure(),
    "report": report.write_page,
}


def main() -> None:
    """Runs the benchmark named on the command line with the options behind its name."""
    name, *options = sys.argv[1:] or ["pipeline"]
    if name not in MEASURES:
        raise SystemExit(f"bench: {name}: unknown; there are {', '.join(MEASURES)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops what it started, as Ctrl-C does
    widen(_WIDTH)  # figures are compared across lines, also where they go into a file
    OUT.print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    MEASURES[name](options)


if __name__ == "__main__":
    main()
