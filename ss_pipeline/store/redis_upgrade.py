"""Bringing a Redis store of format 1, which queued by priority and age, to format 2, which queues by `due_at`.

It is done by whoever first finds such a store, in portions, and gone on with where it was broken off. Meanwhile the
store does nothing else. Which format is current: redis_lua/prelude.lua.
"""

from collections.abc import Callable
from typing import Any, Final

from ss_pipeline.jobs.fairness import due_at
from ss_pipeline.telemetry.events import emit

FORMER: Final = frozenset({b"1", b"1 to 2"})
"""Formats from which a store is brought up to date: the one before, and one that is on its way."""
_AT_ONCE: Final = 500
"""Documents by one script: a few milliseconds' work."""


def upgrade(run: Callable[..., list[Any]]) -> None:
    """Puts the queues in order anew.

    Args:
        run: Runs a script with what it is given; returns what it found.
    """
    for collection in run("upgrade_begin")[0]:
        last, rows = run("upgrade", collection, b"", _AT_ONCE)
        while last:
            entries = (part for row in rows for part in (row[0], row[1], _due_at(row)))
            last, rows = run("upgrade", collection, last, _AT_ONCE, *entries)
    if run("upgrade_end")[0]:
        emit("SS_STORE_FORMAT_UPGRADED", version=2)


def _due_at(row: list[bytes]) -> float:
    """At once for what was created at no time; what another collection has does not wait."""
    _, _, priority, created_at = row
    try:
        return due_at(created_at.decode(), priority=int(priority))
    except ValueError:
        return 0.0
