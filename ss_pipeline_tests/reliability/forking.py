"""Processes for tests: a task in a process of its own, and children forked from it that start at once.

A module with tasks ends with `run_tasks({...})` under `if __name__ == "__main__"` and is run by `run`: one process
imports everything and forks the workers, so that a worker costs milliseconds and no thread of pytest is forked.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

Found: TypeAlias = dict[str, Any]
PROJECT_ROOT: Final = Path(__file__).parent.parent.parent


def run(module: str, task: str, *, seconds: float = 300, **parameters: object) -> Found:
    """Runs one task of a module in a process of its own; returns what it found.

    Args:
        seconds: The longest it may take.
        parameters: Its arguments, as JSON has them.
    """
    return run_in({}, module, task, seconds=seconds, **parameters)


def run_in(
    environment: Mapping[str, str], module: str, task: str, *, seconds: float = 300, **parameters: object
) -> Found:
    """`run` with these environment variables beside those of this process."""
    command = [sys.executable, "-m", module, json.dumps({"task": task, **parameters})]
    env = {**os.environ, **environment}
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def run_tasks(tasks: Mapping[str, Callable[..., Found]]) -> None:
    """Runs the task that the command line names and prints what it found as one line of JSON."""
    parameters = json.loads(sys.argv[1])
    print(json.dumps(tasks[parameters.pop("task")](**parameters)))


def fork(work: Callable[[int], None]) -> tuple[int, int]:
    """Forks a child that writes to the returned pipe and ends; returns its process id and the pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 1
        try:
            work(writer)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return child, reader


def drained(pipe: int) -> bytes:
    """All that is in a pipe whose writers are gone."""
    with open(pipe, "rb") as file:
        return file.read()


def together(number: int, work: Callable[[int], object]) -> list[Any]:
    """What `number` processes that start at once return."""
    start, go = os.pipe()

    def one(index: int) -> Callable[[int], None]:
        def child(out: int) -> None:
            os.close(go)
            os.read(start, 1)
            answer = json.dumps(work(index)).encode()
            while answer:
                answer = answer[os.write(out, answer) :]

        return child

    children = [fork(one(index)) for index in range(number)]
    os.close(start)
    os.close(go)
    results = [json.loads(drained(pipe)) for _, pipe in children]
    for child, _ in children:
        os.waitpid(child, 0)
    return results
