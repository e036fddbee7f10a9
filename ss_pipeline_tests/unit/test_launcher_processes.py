"""Processes are told apart from those that have their pid later, after a reboot or in another container."""

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ss_pipeline.launcher.processes import (
    Process,
    can_fork,
    identify,
    is_alive,
    is_in_sight,
    open_pidfd,
    other_threads,
    resident_megabytes,
    send_signal,
    this_process,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def known(process: subprocess.Popen[bytes]) -> Process:
    """The identity of a living process."""
    found = identify(process.pid)
    assert found is not None
    return found


def test_a_process_is_alive_until_it_ends_even_if_nobody_has_asked_how(sleeper: subprocess.Popen[bytes]) -> None:
    process = known(sleeper)
    assert is_alive(process)
    descriptor = open_pidfd(process)
    assert descriptor is not None
    assert send_signal(process, signal.SIGKILL)
    select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert not is_alive(process)  # a zombie
    assert identify(sleeper.pid) is None
    sleeper.wait()
    assert not is_alive(process)
    assert not send_signal(process, signal.SIGKILL)
    assert open_pidfd(process) is None


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "an earlier one"}, {"namespace": "pid:[1]"}])
def test_another_process_with_the_same_pid_is_left_alone(
    sleeper: subprocess.Popen[bytes], change: dict[str, str | int]
) -> None:
    other = replace(known(sleeper), **change)  # type: ignore[arg-type]
    assert not is_alive(other)
    assert not send_signal(other, signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_process_of_another_namespace_is_out_of_sight() -> None:
    assert is_in_sight(this_process())
    assert not is_in_sight(replace(this_process(), namespace="pid:[1]"))


def test_a_process_is_told_by_its_start_whatever_its_name(tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 ("
    program.symlink_to(str(shutil.which("sleep")))
    with subprocess.Popen([program, "60"]) as process:
        assert is_alive(known(process))
        process.kill()


def test_this_process_knows_itself() -> None:
    assert identify(os.getpid()) == this_process()
    assert can_fork()
    assert isinstance(other_threads(), list)
    assert 5 < resident_megabytes() < 10_000
