"""What a zygote is started with, and the key it is found by.

Two launches use the same zygote if and only if everything that could make their runs differ is the same: interpreter,
code, instance, options, environment, folder. What lives here: these parameters and their key. What does not: starting.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import Final

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from ss_pipeline.launcher.folder import KEY_LENGTH
from ss_pipeline.launcher.processes import this_process
from ss_pipeline.launcher.protocol import PROTOCOL

ONE_THREAD: Final = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Set to 1 while the code is imported: numeric libraries start their threads at import, and a process with threads
cannot be forked safely. A run gets the values back that the launcher had."""

_OF_ONE_PROCESS: Final = frozenset(
    {
        *("_", "OLDPWD", "PWD", "SHLVL", "TERM", "TERMCAP", "COLUMNS", "LINES", "WINDOWID"),
        *("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
        *("LISTEN_PID", "LISTEN_FDS", "SYSTEMD_EXEC_PID", "PYTEST_CURRENT_TEST"),
    }
)
"""Variables that tell apart the processes of one service, not what they work on."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ZygoteStart:
    """Everything a zygote needs to know. Read from its standard input: an argument can be seen by every user.

    Args:
        folder: The launcher's folder.
        executable: The code location's Python.
        repository: Dagster's origin of the repository, serialized.
        load_data: What the code server fetched when it loaded the code, serialized; None where it fetched nothing.
        instance: Dagster's reference to the instance, serialized.
        location: The code location's name; secrets may depend on it.
        numeric_threads: The launcher's own values of ONE_THREAD.
    """

    folder: str
    executable: str
    repository: str
    load_data: str | None
    instance: str
    location: str | None
    working_folder: str
    numeric_threads: Mapping[str, str | None]
    max_children: int
    recycle_after_mb: int
    drain_seconds: int
    idle_seconds: int
    rest_seconds: int
    preload: tuple[str, ...]
    watch: tuple[str, ...]
    pooled_connections: bool

    def key(self, environment: Mapping[str, str]) -> str:
        """The name of the one zygote that serves these parameters in this environment and pid namespace."""
        named = sorted((name, value) for name, value in environment.items() if name not in _OF_ONE_PROCESS)
        digest = hashlib.sha256(to_json(self))
        digest.update(repr([PROTOCOL, named, this_process().namespace]).encode())
        return digest.hexdigest()[:KEY_LENGTH]


_START: Final = TypeAdapter(ZygoteStart)


def to_json(start: ZygoteStart) -> bytes:
    """The parameters as the zygote reads them."""
    return _START.dump_json(start)


def from_json(text: bytes) -> ZygoteStart:
    """The parameters that a launcher wrote."""
    return _START.validate_json(text)


def numeric_threads() -> dict[str, str | None]:
    """This process's own values of ONE_THREAD."""
    return {name: os.environ.get(name) for name in ONE_THREAD}
