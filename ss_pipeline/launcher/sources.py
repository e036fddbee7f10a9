"""Whether the code that a process holds is still the code on disk.

What lives here: stamps (time and size) of the source files of loaded modules, taken once and compared before each
launch. Left out: the standard library and installed packages, whose folders are looked at instead: installing a
package changes its folder's time. What does not live here: what a zygote does about it.
"""

import glob
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

Stamp: TypeAlias = tuple[int, int] | None
"""Time of the last change in ns, and size in bytes; None where there is no such file."""

_INSTALLED: Final = ("site-packages", "dist-packages")
_PYC_HEADER_BYTES: Final = 16


@dataclass(frozen=True)
class Sources:
    """The files that this process's code was made from, as they were when it was loaded.

    Args:
        watched: Patterns of further files, relative to the current folder; a new file that fits is a change, too.
    """

    stamps: Mapping[str, Stamp]
    watched: Sequence[str] = ()
    watched_stamps: Mapping[str, Stamp] | None = None

    def change(self) -> str | None:
        """The first file that is no longer what was loaded; None where all are."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                return path
        now = _matching(self.watched)
        before = self.watched_stamps or {}
        return min((path for path in now.keys() | before.keys() if now.get(path) != before.get(path)), default=None)


def loaded_sources(*, begun_ns: int, files: Sequence[str] = (), watched: Sequence[str] = ()) -> Sources:
    """The sources of all modules loaded by now.

    Args:
        begun_ns: When the loading began (time.time_ns); a file that was changed since then, after its module had been
            imported, counts as changed at once.
        files: Further files that the code was made from, there or not (.env).
        watched: Patterns of further files.
    """
    stamps = {path: None if _changed_since(path, cached, begun_ns) else _stamp(path) for path, cached in _modules()}
    stamps |= {path: _stamp(path) for path in files}
    stamps |= {folder: _stamp(folder) for folder in sys.path if Path(folder).name in _INSTALLED}
    return Sources(stamps, tuple(watched), _matching(watched))


def _modules() -> Iterator[tuple[str, str | None]]:
    """Source file and byte code file of each loaded module that is no part of an installed package."""
    standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and not _is_installed(path, standard):
            yield path, getattr(module, "__cached__", None)


def _is_installed(path: str, standard: set[str]) -> bool:
    if any(f"{os.sep}{name}{os.sep}" in path for name in _INSTALLED):
        return True
    real = os.path.realpath(path)
    return any(real.startswith(folder + os.sep) for folder in standard)


def _changed_since(path: str, cached: str | None, begun_ns: int) -> bool:
    """Whether a file was saved while the code was loaded, and its byte code tells that an earlier one was compiled."""
    stamp = _stamp(path)
    if stamp is None or stamp[0] < begun_ns or cached is None:
        return False
    compiled = _compiled_from(cached)
    return compiled is not None and compiled != (stamp[0] // 1_000_000_000 & 0xFFFFFFFF, stamp[1] & 0xFFFFFFFF)


def _compiled_from(cached: str) -> tuple[int, int] | None:
    """Time (s) and size of the source that a .pyc file was compiled from, as its header says (PEP 552)."""
    try:
        with Path(cached).open("rb") as file:
            header = file.read(_PYC_HEADER_BYTES)
    except OSError:
        return None
    if header[:4] != importlib.util.MAGIC_NUMBER or header[4:8] != bytes(4):
        return None  # of another Python, or told apart by a hash
    return int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")


def _matching(patterns: Sequence[str]) -> dict[str, Stamp]:
    paths = (path for pattern in patterns for path in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute, too
    return {path: _stamp(path) for path in paths if Path(path).is_file()}


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)  # noqa: PTH116 - before every launch, for every module
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
