"""Looks at the zygotes of a Dagster instance, or ends them: python -m ss_pipeline.launcher status|stop.

For people and for scripts that stop a stack. What lives here: the two verbs.
"""

import argparse
import os
import sys
from pathlib import Path

from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.zygotes import Zygotes


def main(arguments: list[str]) -> int:
    """Runs one verb; 0 where it did what was asked."""
    parser = argparse.ArgumentParser(prog="python -m ss_pipeline.launcher", description=__doc__)
    parser.add_argument("verb", choices=["status", "stop"])
    parser.add_argument("--home", type=Path, default=os.environ.get("DAGSTER_HOME"), help="default: $DAGSTER_HOME")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long stop waits for running runs")
    parser.add_argument("--kill", action="store_true", help="kill what has not ended by then, runs included")
    read = parser.parse_args(arguments)
    if read.home is None:
        parser.error("DAGSTER_HOME is not set: give --home")
    zygotes = Zygotes(LauncherFolder.of(str(read.home)))
    if read.verb == "stop":
        return 0 if zygotes.stop(seconds=read.seconds, kill=read.kill) else 1
    for key, process, condition in zygotes.conditions():
        sys.stdout.write(f"{key} pid {process.pid}: {condition or 'takes no more launches, or does not answer'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
