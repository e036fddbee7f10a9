"""Dagster's sensor daemon made to die at one of its own points: what test_launcher_faults.py starts as a process.

    python -m ss_pipeline_tests.reliability.crashing_daemon <point> <signal>      in a folder with workspace.yaml

What lives here: the loop around Dagster's own iteration. It ends by the signal, or never.
"""

import logging
import signal
import sys
import time

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.sensor import execute_sensor_iteration

SENSORS = ("claim_sensor", "inbox_sensor")


def main(point: str, number: signal.Signals) -> None:
    """Ticks all sensors again and again."""
    flags = {name: {point: number} for name in SENSORS}
    target = WorkspaceFileTarget(["workspace.yaml"])
    with dg.DagsterInstance.get() as instance, WorkspaceProcessContext(instance, target) as workspace:
        while True:
            list(execute_sensor_iteration(workspace, logging.getLogger(), None, None, debug_crash_flags=flags))
            time.sleep(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process of a shell ignores it
    main(sys.argv[1], signal.Signals(int(sys.argv[2])))
