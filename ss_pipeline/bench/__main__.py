"""`python -m ss_pipeline.bench [pipeline] [store]`: measures what is named, or everything, and prints tables."""

import os
import platform
import sys
from collections.abc import Callable
from typing import Final

from ss_pipeline.bench import pipeline, store
from ss_pipeline.console import OUT, widen

_WIDTH: Final = 110
MEASURES: Final[dict[str, Callable[[], None]]] = {"pipeline": pipeline.measure, "store": store.measure}


def main() -> None:
    """Runs the benchmarks named on the command line."""
    names = sys.argv[1:] or list(MEASURES)
    if unknown := [name for name in names if name not in MEASURES]:
        raise SystemExit(f"bench: {', '.join(unknown)}: unknown; there are {', '.join(MEASURES)}")
    widen(_WIDTH)  # figures are compared across lines, also where they go into a file
    OUT.print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    for name in names:
        MEASURES[name]()


if __name__ == "__main__":
    main()
