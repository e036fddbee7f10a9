"""Claim records as files beside their documents, and the clock their leases are measured by.

Every change is made under the document's lock, which the caller holds; that is where the fence is checked, too.
A lease, its end and its attempts are made durable. A reservation and a heartbeat need not last: after a power cut they
are void anyway, because the boot id in the record is another. But a cut leaves the record of before or the new one
whole, because either has the attempts that count.

A record that cannot be read is set aside with its bytes. Its successor starts at a fence that is above every one before
as far as that can be known: the last one the index saw, and the seconds since 1970, which no count of leases reaches
(more than one lease of the same document a second would be needed since then).
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from ss_pipeline import durable
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.claim_records import ClaimRecord, LeaseMoment
from ss_pipeline.store.file_layout import Place, read_regular
from ss_pipeline.telemetry.events import emit

QUARANTINED = ".corrupt-"
"""Between a record's name and a number in the name under which it was set aside."""


def boot_seconds() -> float:
    """Seconds since the machine started, suspended time included; no change of the wall clock moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def read_boot_id() -> str:
    """What the kernel calls this start of the machine; the same in all its containers."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class LeaseClock:
    """The lease clock of one machine, and its wall clock (epoch seconds) for `Facets.not_before`."""

    seconds: Callable[[], float] = boot_seconds
    boot_id: Callable[[], str] = read_boot_id
    wall: Callable[[], float] = time.time

    def moment(self) -> LeaseMoment:
        """The lease clock's time."""
        return LeaseMoment(self.seconds(), self.boot_id())


def read_claim(place: Place) -> ClaimRecord | None:
    """The record of a document as it is; None where there is none or it cannot be understood."""
    try:
        return ClaimRecord.model_validate_json(read_regular(place.claim))
    except (FileNotFoundError, ValidationError):
        return None


def recover_claim(place: Place, key: DocumentKey, *, known_fence: int, wall: float) -> ClaimRecord:
    """The record to go on from, for a document whose record is missing or corrupt. The caller holds the lock.

    Args:
        known_fence: The last fence the index saw.
        wall: Epoch seconds.
    """
    if not os.path.lexists(place.claim):
        return ClaimRecord(fence=known_fence)
    aside = place.claim.with_name(f"{place.claim.name}{QUARANTINED}{time.time_ns()}")
    os.link(place.claim, aside, follow_symlinks=False)
    record = ClaimRecord(fence=max(known_fence, int(wall)))
    write_claim(place, record, synced=True)
    emit("SS_STORE_RECORD_QUARANTINED", level=logging.ERROR, document=key.name, aside=aside.name)
    return record


def write_claim(place: Place, record: ClaimRecord, *, synced: bool) -> None:
    """Writes the record of a document; with `synced` it is what a power cut leaves. The caller holds the lock."""
    durable.write_file(place.claim, record.model_dump_json().encode() + b"\n", synced=synced)
