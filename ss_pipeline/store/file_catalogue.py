"""Keeps the file store's index in line with its documents: enters changes, repairs what was left, finds what is new.

The index itself is file_index.py's; here is what is read from the documents to fill it.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, TypeVar

from ss_pipeline import durable
from ss_pipeline.errors import StoreIndexDamagedError, StoreLockedError, StorePathUnsafeError
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.file_claims import LeaseClock, read_claim
from ss_pipeline.store.file_index import Index
from ss_pipeline.store.file_index_rows import Hold, IndexRows, Mark, Now, Row
from ss_pipeline.store.file_layout import FileLayout, Place, ShardFolder, read_regular
from ss_pipeline.store.file_lock import exclusive_lock

Result = TypeVar("Result")

_ORPHAN_SECONDS: Final = 60.0
"""Age from which an unfinished file is swept where the document's lock is not held."""
_SETTLED_SECONDS: Final = 2.0
"""A folder changed more recently is looked through again: file times are coarse, and a copy takes a moment."""
_EMPTY_SECONDS: Final = 3600.0
"""For so long a job folder without a document is waited for."""


class Catalogue:
    """The index of one root and the ways to fill it.

    Args:
        facets_of: What a document is listed by; must give for every collection what its writers give.
        look_seconds: Least seconds between two looks for job folders that other programs made.
    """

    def __init__(
        self,
        layout: FileLayout,
        *,
        facets_of: Callable[[DocumentKey, bytes], Facets],
        clock: LeaseClock,
        look_seconds: float,
    ) -> None:
        self._layout = layout
        self._facets_of = facets_of
        self._clock = clock
        self._look_seconds = look_seconds
        self.index = Index(layout.root, scan=self._scan, now=self.now, boot_id=clock.boot_id)

    def changing(
        self, key: DocumentKey, place: Place, *, facets: Facets | None = None, hold: Hold | None = None
    ) -> AbstractContextManager[None]:
        """Around a change of a document (new `facets`) or its claim (new `hold`), under the document's lock.

        What is not given stays as it was; with neither, the row is made from the document.
        """

        def settle(rows: IndexRows, was_marked: bool) -> None:
            if facets and hold and not was_marked:
                rows.enter(Row(key, facets, hold), now=self.now())
            elif was_marked or not (facets or hold) or not rows.update(key, facets=facets, hold=hold, now=self.now()):
                self._enter_from_documents(rows, key, place)

        return self.index.changing(key, settle)

    def listing(self, read: Callable[[IndexRows], Result]) -> Result:
        """What `read` finds in the index once that is in line with the documents."""

        def brought_in_line(rows: IndexRows) -> Result:
            self._look_for_new(rows)
            for mark in rows.marks():
                self._repair(rows, mark)
            return read(rows)

        return self._using(brought_in_line)

    def fence(self, key: DocumentKey) -> int:
        """The last fence the index saw for a document, or 0."""
        return self._using(lambda rows: rows.fence(key))

    def mark(self, key: DocumentKey) -> None:
        """Has a document looked at by the next listing."""
        self._using(lambda rows: rows.mark([key], token=secrets.randbits(62)))

    def rescan(self) -> None:
        """Reads every document and every row's document again. Costs a read of everything."""
        everything = set(self._layout.documents())
        self._using(lambda rows: rows.mark(everything.union(rows.keys()), token=secrets.randbits(62)))
        self.unreadable()

    def unreadable(self) -> list[DocumentKey]:
        """Documents that could not be read for the index."""
        return self.listing(lambda rows: [mark.key for mark in rows.marks()])

    def _using(self, use: Callable[[IndexRows], Result]) -> Result:
        """Tried once more where the index is found damaged: then it has been rebuilt."""
        try:
            with self.index.open() as rows:
                return use(rows)
        except StoreIndexDamagedError:
            with self.index.open() as rows:
                return use(rows)

    def now(self) -> Now:
        """Both clocks."""
        return Now(lease=self._clock.seconds(), wall=self._clock.wall())

    def _row(self, key: DocumentKey, place: Place) -> Row | None:
        """A document's row, read from its files; None where it is gone."""
        try:
            body = read_regular(place.document)
        except (FileNotFoundError, StorePathUnsafeError):
            return None
        record = read_claim(place)
        hold = Hold(record.held_until(self._clock.moment()), record.fence) if record else Hold()
        return Row(key, self._facets_of(key, body), hold)

    def _scan(self) -> Iterator[Row | DocumentKey]:
        for folder in self._layout.folders():
            with suppress(OSError):
                durable.sweep(folder, older_than=_ORPHAN_SECONDS)
        for key in self._layout.documents():
            with suppress(StorePathUnsafeError):
                place = self._layout.existing(key) or self._layout.place(key)
                try:
                    yield self._row(key, place) or key
                except OSError:
                    yield key

    def _repair(self, rows: IndexRows, mark: Mark) -> None:
        """Brings one marked document's row in line. One whose lock is held is left to its living writer."""
        try:
            place = self._layout.existing(mark.key) or self._layout.place(mark.key)
            with exclusive_lock(place.lock, timeout=0):
                durable.sweep(place.folder, older_than=0)
                self._enter_from_documents(rows, mark.key, place)
        except (FileNotFoundError, StorePathUnsafeError):
            rows.forget(mark)
        except StoreLockedError:
            return
        except OSError:  # it cannot be read now: it stays marked, and `check` reports it
            return

    def _enter_from_documents(self, rows: IndexRows, key: DocumentKey, place: Place) -> None:
        row = self._row(key, place)
        if row is None:
            rows.remove(key)
        else:
            rows.enter(row, now=self.now())

    def _look_for_new(self, rows: IndexRows) -> None:
        """Marks jobs in folders that other programs made: looks through the folders whose time has changed."""
        now = self._clock.seconds()
        looked_at = rows.meta("looked_at")
        if isinstance(looked_at, int | float) and now < looked_at + self._look_seconds:
            return
        rows.set_meta("looked_at", now)
        before = rows.folder_times()
        changed: dict[str, int] = {}
        for shard in self._layout.shards():
            name = str(shard.path.relative_to(self._layout.root))
            modified = _modified(shard.path)
            if before.get(name) != modified:
                changed[name] = modified if self._looked_through(rows, shard, modified) else 0
        if changed:
            rows.set_folder_times(changed)

    def _looked_through(self, rows: IndexRows, shard: ShardFolder, modified: int) -> bool:
        """Marks the jobs of a folder that have no row; False if more may come without the folder's time changing."""
        settled = _age(modified) > _SETTLED_SECONDS
        for job in self._layout.jobs_in(shard):
            if rows.has(job.key):
                continue
            if job.document.is_file():
                rows.mark([job.key], token=secrets.randbits(62))
            elif _age(_modified(job.path)) < _EMPTY_SECONDS:
                settled = False
        return settled


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _age(modified_ns: int) -> float:
    return time.time() - modified_ns / 1e9
