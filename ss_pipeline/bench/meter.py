"""What processes use: CPU time and memory of whole trees, from /proc.

A tree is a root and all that descend from it, in whatever session or group. A process that has ended counts with its
parent, which the kernel credits with the times of the children it has waited for; so nothing is lost as long as the
roots live, and nothing is counted twice. What is measured, and when, is the benchmarks' business.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _TIMES = 0, 1, slice(11, 15)
"""Fields of /proc/<pid>/stat after the command: the times are user, system, and both of reaped children."""
_GONE: Final = (FileNotFoundError, ProcessLookupError)


class Meter:
    """Looks at the trees of these processes."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = list(roots)

    def cpu_seconds(self) -> float:
        """User and system seconds that the trees have used since their roots began."""
        return sum(sum(map(int, fields[_TIMES])) for fields in self._stats().values()) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Memory of the trees now; what several processes share is counted once (proportional set size)."""
        return sum(map(_proportional_bytes, self._stats()))

    def living(self) -> set[int]:
        """The processes of the trees that have not ended."""
        return {pid for pid, fields in self._stats().items() if fields[_STATE] not in "ZX"}

    def _stats(self) -> dict[int, list[str]]:
        found = dict(_all_stats())
        children: dict[int, list[int]] = {}
        for pid, fields in found.items():
            children.setdefault(int(fields[_PARENT]), []).append(pid)
        tree = [pid for pid in self._roots if pid in found]
        for pid in tree:
            tree.extend(children.get(pid, []))
        return {pid: found[pid] for pid in tree}


def _all_stats() -> Iterator[tuple[int, list[str]]]:
    """Each process of the machine and its fields after the command, which may hold spaces and brackets."""
    for name in os.listdir("/proc"):  # noqa: PTH208 - numbers
        if name.isdigit():
            with suppress(*_GONE):
                text = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace")
                yield int(name), text.rpartition(")")[2].split()


def _proportional_bytes(pid: int) -> int:
    with suppress(*_GONE, PermissionError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
