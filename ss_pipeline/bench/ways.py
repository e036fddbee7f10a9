"""The ways that are compared: how jobs are worked off, on which storage, through which stages.

What lives here: their names and what each one is made of. What does not: how they are run (bare.py, stack.py) and
what is asked of them (targets.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import product
from typing import Final, Literal, TypeAlias

How: TypeAlias = Literal["bare-loop", "bare-pool", "usual", "default", "warm", "claims"]
Storage: TypeAlias = Literal["sqlite", "postgres"]
Stages: TypeAlias = Literal["trivial", "real"]

DESCRIPTIONS: Final[dict[How, str]] = {
    "bare-loop": "bare work, a loop",
    "bare-pool": "bare work, pool of 2 processes",
    "usual": "default launcher, as usually set up",
    "default": "default launcher, at its best",
    "warm": "warm launcher, one job a run",
    "claims": "warm launcher, claims of 25",
}
STAGES: Final[tuple[Stages, ...]] = ("trivial", "real")
STORAGES: Final[dict[Storage, str]] = {"sqlite": "SQLite and files", "postgres": "PostgreSQL"}
SLOTS: Final[dict[Storage, int]] = {"sqlite": 8, "postgres": 12}
"""Runs at once, as dagster.yaml and deploy/dagster.postgres.yaml have them."""
LARGEST_CLAIM: Final = 25
LIVE_KEYS: Final = 5_000

_JOBS: Final[dict[How, int]] = {
    "bare-loop": 200, "bare-pool": 200, "usual": 6, "default": 20, "warm": 300, "claims": 500,
}  # fmt: skip
"""Jobs of one measurement; few where each takes seconds."""


@dataclass(frozen=True)
class Way:
    """One way of doing `jobs` jobs.

    Args:
        slots: Runs at once.
        live_keys: Partition keys of other jobs that the set holds all the while.
    """

    how: How
    storage: Storage
    stages: Stages
    jobs: int
    slots: int
    live_keys: int = 0

    @property
    def name(self) -> str:
        """What `--only` selects it by: `warm-sqlite-trivial`."""
        keys = f"-{self.live_keys}-keys" if self.live_keys else ""
        return f"{self.how}-{self.storage}-{self.stages}{keys}"

    @property
    def description(self) -> str:
        """How the jobs are worked off, for people."""
        keys = f", {self.live_keys:,} live keys" if self.live_keys else ""
        return f"{DESCRIPTIONS[self.how]}{keys}"

    @property
    def is_bare(self) -> bool:
        """Whether no engine is involved."""
        return self.how in {"bare-loop", "bare-pool"}

    @property
    def is_warm(self) -> bool:
        """Whether runs are forked by the warm launcher."""
        return self.how in {"warm", "claims"}

    @property
    def claim_size(self) -> int:
        """The most jobs of one run."""
        return LARGEST_CLAIM if self.how == "claims" else 1


def all_ways() -> Iterator[Way]:
    """Every way, those next to each other that are compared: by storage, then by stages."""
    for storage, stages in product(STORAGES, STAGES):
        for how, jobs in _JOBS.items():
            yield Way(how, storage, stages, jobs, SLOTS[storage])
        if (storage, stages) == ("sqlite", "trivial"):
            yield Way("warm", storage, stages, _JOBS["warm"], SLOTS[storage], live_keys=LIVE_KEYS)


def selected(
    ways: Iterable[Way], patterns: Sequence[str], *, jobs: int | None = None, slots: int | None = None
) -> list[Way]:
    """The ways whose names begin with one of the patterns (`*` stands for anything), with other numbers if given.

    Raises:
        SystemExit: a pattern selects none.
    """
    found = list(ways)
    for pattern in patterns:
        if not any(fnmatchcase(way.name, f"{pattern}*") for way in found):
            raise SystemExit(f"bench: no way is named {pattern}; there are {', '.join(way.name for way in found)}")
    chosen = [way for way in found if not patterns or any(fnmatchcase(way.name, f"{p}*") for p in patterns)]
    return [replace(way, jobs=jobs or way.jobs, slots=slots or way.slots) for way in chosen]
