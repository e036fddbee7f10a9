"""The store on files: one folder tree, for any number of processes of one machine (local file systems, not NFS).

A document is changed under its own lock: compare the bytes, check the fence, write a temporary file, fsync, rename,
fsync the folder. That rename is the only commit. Where things lie is file_layout.py's business, claim records are
file_claims.py's, and listings come from a derived index (file_catalogue.py).

Documents of other programs: a new job folder is listed within `look_seconds`. A document that another program *changed*
is loaded as it is at once, but listed as it was until it is written here or `rescan` is called.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from ss_pipeline import durable
from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreLockedError,
    StorePathUnsafeError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import Backend, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.store.claim_records import ClaimRecord
from ss_pipeline.store.file_catalogue import Catalogue
from ss_pipeline.store.file_claims import QUARANTINED, LeaseClock, read_claim, recover_claim, write_claim
from ss_pipeline.store.file_index_rows import Hold
from ss_pipeline.store.file_layout import FileLayout, Place, read_regular
from ss_pipeline.store.file_lock import exclusive_lock

_ADVICE: Final = {
    errno.ENOSPC: "The disk is full. Free space and try again; nothing was changed.",
    errno.EDQUOT: "The disk quota is used up. Free space and try again; nothing was changed.",
    errno.EACCES: "Give this user read and write permission on the jobs folder and try again; nothing was changed.",
    errno.EPERM: "Give this user read and write permission on the jobs folder and try again; nothing was changed.",
    errno.EROFS: "The file system is read-only. Mount it for writing and try again; nothing was changed.",
    errno.EIO: "The disk reports errors. Check the kernel's log and the disk before trying again.",
    errno.EMFILE: "Too many open files. Raise the limit (ulimit -n) and try again; nothing was changed.",
}
_FULL_SHARE: Final = 0.9
_FULL_BYTES: Final = 5 * 2**30
"""The disk is reported as nearly full where 90 % are used (F9) and less than this is left."""


class FileBackend(Backend):
    """Documents and claims below one folder.

    Args:
        root: The folder; made at the first write.
        facets_of: What a document is listed by, to rebuild the index from documents. Must not raise, and must give
            for every collection what its writers give.
        clock: The lease clock and the wall clock.
        lock_timeout: How long to wait for another writer of the same document, in seconds.
        look_seconds: Least seconds between two looks for job folders that other programs made.
    """

    def __init__(
        self,
        root: Path,
        *,
        facets_of: Callable[[DocumentKey, bytes], Facets],
        clock: LeaseClock | None = None,
        lock_timeout: float = 10.0,
        look_seconds: float = 5.0,
    ) -> None:
        self._root = root
        self._layout = FileLayout(root)
        self._clock = clock or LeaseClock()
        self._lock_timeout = lock_timeout
        self._catalogue = Catalogue(self._layout, facets_of=facets_of, clock=self._clock, look_seconds=look_seconds)

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        with _named_faults(key):
            place = self._layout.place(key)
            _make_folders(place.folder)
            with self._locked(place):
                if self._layout.existing(key):
                    raise DocumentExistsError(f"{_name(key)} exists already")
                hold = self._hold(read_claim(place) or ClaimRecord())
                with self._catalogue.changing(key, place, facets=facets, hold=hold):
                    _create(key, place, body)

    def read(self, key: DocumentKey) -> bytes:
        with _named_faults(key):
            return read_regular(self._found(key).document)

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        with _named_faults(key):
            place = self._found(key)
            with self._locked(place):
                if fence is not None:
                    self._record(key, place).check_fence(key, fence, at=self._clock.moment())
                _check_unchanged(key, place, expected)
                with self._catalogue.changing(key, place, facets=facets), _undone_on_fault(place, expected):
                    durable.write_file(place.document, body)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        with _named_faults(key):
            place = self._found(key)
            with self._locked(place):
                _check_unchanged(key, place, expected)
                with self._catalogue.changing(key, place), _undone_on_fault(place, expected):
                    place.document.unlink()
                    durable.sync_folder(place.folder)

    def page(
        self,
        collection: str,
        *,
        tenant_id: str | None = None,
        status: str | None = None,
        after: DocumentKey | None = None,
        limit: int = 100,
    ) -> list[Listed]:
        return self._catalogue.listing(
            lambda rows: rows.page(collection, tenant_id=tenant_id, status=status, after=after, limit=limit)
        )

    def counts(self, collection: str) -> dict[tuple[str, str], int]:
        return self._catalogue.listing(lambda rows: rows.counts(collection))

    def heads(self, collection: str, *, per_group: int) -> list[Listed]:
        now = self._catalogue.now
        return self._catalogue.listing(lambda rows: rows.heads(collection, per_group=per_group, now=now()))

    # --- claims ----------------------------------------------------------------------------------------------------

    def reserve(self, keys: Sequence[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        def reserved(record: ClaimRecord) -> ClaimRecord | None:
            return record.reserved_for(claim_id, ttl=ttl, at=self._clock.moment())

        return [key for key in keys if self._taken(key, reserved, synced=False)]

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        def leased(record: ClaimRecord) -> ClaimRecord | None:
            return record.leased_to(owner, claim_id=claim_id, ttl=ttl, at=self._clock.moment())

        lease = Lease(claim_id=claim_id, owner=owner)
        for key in keys:
            record = self._taken(key, leased, synced=True)
            if record is not None:
                lease.fences[key] = Fence(claim_id, record.fence)
                lease.attempts[key] = record.attempts
        return lease

    def heartbeat(self, lease: Lease, *, ttl: float) -> list[DocumentKey]:
        return [key for key, fence in lease.fences.items() if self._prolonged(key, fence, ttl=ttl)]

    def complete(self, key: DocumentKey, fence: Fence) -> None:
        if self._change_claim(key, lambda record: record.completed(key, fence), synced=True) is None:
            raise StaleFenceError(f"{_name(key)} is gone")

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        if self._change_claim(key, lambda record: record.released(key, fence, refund=refund), synced=True) is None:
            raise StaleFenceError(f"{_name(key)} is gone")

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        for key in keys:
            self._change_claim(key, lambda record: record.cancelled(claim_id), synced=False)

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        record = self._record_unlocked(key)
        return record.view(key, at=self._clock.moment()) if record else None

    def attempts_of(self, key: DocumentKey) -> int:
        record = self._record_unlocked(key)
        return record.attempts if record else 0

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def rescan(self) -> None:
        """Reads every document again, so that listings show what other programs changed. Costs a read of everything."""
        self._catalogue.rescan()

    def check(self) -> list[str]:
        try:
            _try_writing(self._root)
            return [*_space_problems(self._root), *self._document_problems()]
        except OSError as error:
            return [f"the jobs folder {self._root} cannot be written: {error.strerror}"]
        except StoreUnavailableError as error:
            return [f"{error.message}. {error.todo}"]

    def close(self) -> None:
        self._catalogue.index.close()

    def _document_problems(self) -> Iterator[str]:
        for listed in self.page("jobs", status="corrupted", limit=20):
            path = self._found(listed.key).document
            yield f"{_name(listed.key)} is corrupted (its bytes are untouched): {path}"
        for key in self._catalogue.unreadable():
            yield f"{_name(key)} cannot be read"
        for path in sorted(self._root.rglob(f"*{QUARANTINED}*")):
            yield f"a claim record that cannot be read was set aside; look at it, then remove it: {path}"

    # --- how a document and its claim are reached --------------------------------------------------------------------

    def _found(self, key: DocumentKey) -> Place:
        place = self._layout.existing(key)
        if place is None:
            raise DocumentNotFoundError(f"there is no {_name(key)}")
        return place

    def _locked(self, place: Place) -> AbstractContextManager[None]:
        return exclusive_lock(place.lock, timeout=self._lock_timeout)

    def _record(self, key: DocumentKey, place: Place) -> ClaimRecord:
        """The claim record, recovered if need be; under the document's lock."""
        record = read_claim(place)
        if record is None:
            fence = self._catalogue.fence(key)
            record = recover_claim(place, key, known_fence=fence, wall=self._clock.wall())
        return record

    def _record_unlocked(self, key: DocumentKey) -> ClaimRecord | None:
        with _named_faults(key):
            place = self._layout.existing(key)
            return read_claim(place) if place else None

    def _change_claim(
        self, key: DocumentKey, change: Callable[[ClaimRecord], ClaimRecord | None], *, synced: bool
    ) -> ClaimRecord | None:
        """The record as changed and stored; None where the change is none or the document is gone."""
        try:
            with _named_faults(key):
                place = self._found(key)
                with self._locked(place):
                    self._found(key)
                    record = change(self._record(key, place))
                    if record is not None:
                        with self._catalogue.changing(key, place, hold=self._hold(record)):
                            write_claim(place, record, synced=synced)
                return record
        except (DocumentNotFoundError, StorePathUnsafeError):  # removed or replaced by another program
            self._catalogue.mark(key)
            return None

    def _hold(self, record: ClaimRecord) -> Hold:
        return Hold(record.held_until(self._clock.moment()), record.fence)

    def _taken(
        self, key: DocumentKey, change: Callable[[ClaimRecord], ClaimRecord | None], *, synced: bool
    ) -> ClaimRecord | None:
        """Like `_change_claim`, but a document whose lock is held for long (its holder is stopped) is just not free."""
        try:
            return self._change_claim(key, change, synced=synced)
        except StoreLockedError:
            return None

    def _prolonged(self, key: DocumentKey, fence: Fence, *, ttl: float) -> bool:
        try:
            at = self._clock.moment
            changed = self._change_claim(key, lambda record: record.prolonged(fence, ttl=ttl, at=at()), synced=False)
        except StoreLockedError:  # not prolonged now, and not lost either
            view = self.claim_of(key)
            return view is not None and (view.claim_id, view.fence) == (fence.claim_id, fence.number)
        return changed is not None


def _name(key: DocumentKey) -> str:
    return f"{key.collection}/{key.tenant_id}/{key.document_id}"


@contextmanager
def _named_faults(key: DocumentKey) -> Iterator[None]:
    """Turns what the file system says into the store's errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise DocumentNotFoundError(f"there is no {_name(key)}") from error
    except OSError as error:
        todo = _ADVICE.get(error.errno or 0)
        raise StoreUnavailableError(f"{_name(key)}: {error.strerror or error}", todo=todo) from error


def _make_folders(folder: Path) -> None:
    """Makes a document's folder. One that is there may be another process's of a moment ago, not yet synced."""
    if folder.is_dir():
        durable.sync_folder(folder.parent)
    durable.make_folder(folder)


def _create(key: DocumentKey, place: Place, body: bytes) -> None:
    try:
        durable.create_file(place.document, body)
    except FileExistsError as error:  # by a program that does not lock
        raise DocumentExistsError(f"{_name(key)} exists already") from error


def _check_unchanged(key: DocumentKey, place: Place, expected: bytes) -> None:
    if read_regular(place.document) != expected:
        raise DocumentChangedError(f"{_name(key)} was changed meanwhile")


@contextmanager
def _undone_on_fault(place: Place, before: bytes) -> Iterator[None]:
    """Puts the old bytes back where the new ones were named but not made durable: a failed write changes nothing."""
    try:
        yield
    except OSError as fault:
        try:
            if not place.document.exists() or read_regular(place.document) != before:
                durable.write_file(place.document, before)
        except OSError as error:
            raise StoreUnavailableError(
                f"{place.document}: {fault.strerror}; it is unknown whether the change was stored",
                todo="Read the document again before repeating the change, and check the disk.",
            ) from error
        raise


def _try_writing(root: Path) -> None:
    probe = root / f"{durable.TEMPORARY_PREFIX}probe-{os.getpid()}"
    durable.write_file(probe, b"")
    probe.unlink()


def _space_problems(root: Path) -> Iterator[str]:
    usage = shutil.disk_usage(root)
    if usage.used / usage.total >= _FULL_SHARE and usage.free < _FULL_BYTES:
        yield f"the disk of {root} is nearly full: {usage.free // 2**20} MiB are left"
