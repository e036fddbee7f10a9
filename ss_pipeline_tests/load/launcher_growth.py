"""Many runs in a row through inbox, queue, daemon and warm launcher; prints what daemon and zygote have grown by.

    python -m ss_pipeline_tests.load.launcher_growth --runs 500

Each run is one job. After every tenth of the runs all is at rest, and processes are counted and weighed then. The last
fifth is compared with the second: the first one fills caches. (The daemon replaces its code server every minute, and
for a while there are two: their memory is shown and not judged.)
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Final

from ss_pipeline import console
from ss_pipeline_tests.reliability.launcher_faults import FaultyStack, faulty_stack, processes_of

SAMPLES: Final = 10
SETTLED_SECONDS: Final = 600.0
ONE_JOB_A_RUN: Final = {"SS_CLAIM_MAX_JOBS": "1"}
COUNTED: Final = ("processes", "zygote_descriptors", "daemon_descriptors")
WEIGHED: Final = ("zygote_memory", "daemon_memory")
MOST_GROWTH: Final = 0.05
"""How much more memory the last fifth may have than the second, as a share of that."""


@dataclass(frozen=True)
class Sample:
    """What the stack is like at rest; memory is resident, in MB."""

    runs: int
    seconds: float
    processes: float
    zygote_descriptors: float
    daemon_descriptors: float
    zygote_memory: float
    daemon_memory: float
    server_memory: float
    zygote_pid: float


def measured(stack: FaultyStack, *, runs: int, folder: Path) -> Iterator[Sample]:
    """Ten samples, one after each tenth of the runs."""
    begun = time.monotonic()
    for number in range(1, SAMPLES + 1):
        stack.hand_in(jobs=runs // SAMPLES)
        done = runs // SAMPLES * number
        if not stack.settle(jobs=done, seconds=SETTLED_SECONDS):
            raise AssertionError(stack.faults(jobs=done))
        yield _sample(stack, folder, runs=done, seconds=time.monotonic() - begun)


def grown(samples: Sequence[Sample]) -> list[str]:
    """What grew between the second and the last fifth: a count that is never as low again, a mean of memory."""
    fifth = len(samples) // 5
    before, after = samples[fifth : 2 * fifth], samples[-fifth:]
    pairs = [(name, max(_values(before, name)), min(_values(after, name))) for name in COUNTED]
    pairs += [(name, fmean(_values(before, name)) * (1 + MOST_GROWTH), fmean(_values(after, name))) for name in WEIGHED]
    found = [f"{name}: {later:.0f}, at most {most:.0f} expected" for name, most, later in pairs if later > most]
    if len({sample.zygote_pid for sample in samples}) != 1:
        found.append("the zygote was replaced")
    return found


def _values(samples: Sequence[Sample], name: str) -> list[float]:
    return [getattr(sample, name) for sample in samples]


def main() -> int:
    """Prints the table; 1 if something grew."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ss-growth-") as name:
        folder = Path(name)
        with faulty_stack(folder, environment=ONE_JOB_A_RUN) as stack:
            stack.start()
            samples = list(measured(stack, runs=options.runs, folder=folder))
            faults = stack.faults(jobs=samples[-1].runs) + grown(samples)
    names = [field.name for field in fields(Sample)]
    rows = [[f"{getattr(sample, name):.0f}" for name in names] for sample in samples]
    console.print_table(f"{samples[-1].runs} runs in a row", [name.replace("_", " ") for name in names], rows)
    console.print_list("Faults", faults)
    return int(bool(faults))


def _sample(stack: FaultyStack, folder: Path, *, runs: int, seconds: float) -> Sample:
    (zygote,) = stack.zygotes()
    daemon = stack.daemons[-1].pid
    return Sample(
        runs=runs,
        seconds=seconds,
        processes=len(processes_of(folder)),
        zygote_descriptors=_descriptors(zygote),
        daemon_descriptors=_descriptors(daemon),
        zygote_memory=_resident(zygote),
        daemon_memory=_resident(daemon),
        server_memory=sum(map(_resident, stack.code_servers())),
        zygote_pid=zygote,
    )


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - numbers


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


if __name__ == "__main__":
    sys.exit(main())
