"""The store on files: one folder tree, for any number of processes of one machine (local file systems, not NFS).

A document is changed under its own lock: compare the bytes, check the fence, write beside it, fsync, rename, fsync the
folder. The rename is the only commit. Places are file_layout.py's business, claim records file_claims.py's, and
listings come from a derived index (file_catalogue.py).

Documents of other programs: a new job folder is listed within `look_seconds`. A document that another program *changed*
is loaded as it is at once, but listed as it was until it is written here or `rescan` is called.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from ss_pipeline import durable
from ss_pipeline.errors import (
    DocumentExistsError,
    DocumentNotFoundError,
    StaleFenceError,
    StoreLockedError,
    StorePathUnsafeError,
    StoreUnavailableError,
)
from ss_pipeline.store.base import Backend, ClaimHistory, ClaimView, DocumentKey, Facets, Fence, Lease, Listed
from ss_pipeline.store.claim_records import ClaimRecord
from ss_pipeline.store.file_catalogue import Catalogue
from ss_pipeline.store.file_claims import QUARANTINED, LeaseClock, read_claim, recover_claim, write_claim
from ss_pipeline.store.file_documents import check_unchanged, create_document, make_folders, undone_on_fault
from ss_pipeline.store.file_faults import named_faults, space_problems, try_writing
from ss_pipeline.store.file_index_rows import Hold
from ss_pipeline.store.file_layout import FileLayout, Place, read_regular
from ss_pipeline.store.file_lock import exclusive_lock
from ss_pipeline.store.file_seal import Seal


class FileBackend(Backend):
    """Documents and claims below one folder.

    Args:
        root: The folder; made at the first write.
        facets_of: What a document is listed by, to rebuild the index from documents. Must not raise, and must give
            for every collection what its writers give.
        clock: The lease clock and the wall clock.
        lock_timeout: How long to wait for another writer of the same document, in seconds.
        look_seconds: Least seconds between two looks for job folders that other programs made.
        heeds_seal: False for whoever moves documents.
    """

    def __init__(
        self,
        root: Path,
        *,
        facets_of: Callable[[DocumentKey, bytes], Facets],
        clock: LeaseClock | None = None,
        lock_timeout: float = 10.0,
        look_seconds: float = 5.0,
        heeds_seal: bool = True,
    ) -> None:
        self._root = root
        self._layout = FileLayout(root)
        self._clock = clock or LeaseClock()
        self._lock_timeout = lock_timeout
        self._seal = Seal(root, heeded=heeds_seal)
        self._facets_of = facets_of
        self._look_seconds = look_seconds
        self._catalogue = Catalogue(self._layout, facets_of=facets_of, clock=self._clock, look_seconds=look_seconds)

    # --- documents -------------------------------------------------------------------------------------------------

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        with named_faults(key):
            place = self._layout.place(key)
            make_folders(place.folder, root=self._root)
            with self._locked(place):
                if self._layout.existing(key):
                    raise DocumentExistsError(f"{key.name} exists already")
                hold = self._hold(read_claim(place) or ClaimRecord())
                with self._catalogue.changing(key, place, facets=facets, hold=hold):
                    self._seal.check()
                    create_document(key, place, body)

    def read(self, key: DocumentKey) -> bytes:
        with named_faults(key):
            return read_regular(self._found(key).document)

    def replace(
        self, key: DocumentKey, body: bytes, facets: Facets, *, expected: bytes, fence: Fence | None = None
    ) -> None:
        with named_faults(key):
            place = self._found(key)
            with self._locked(place):
                if fence is not None:
                    self._record(key, place).check_fence(key, fence, at=self._clock.moment())
                check_unchanged(key, place, expected)
                with self._catalogue.changing(key, place, facets=facets), undone_on_fault(place, expected):
                    self._seal.check()
                    durable.write_file(place.document, body)

    def delete(self, key: DocumentKey, *, expected: bytes) -> None:
        with named_faults(key):
            place = self._found(key)
            with self._locked(place):
                check_unchanged(key, place, expected)
                with self._catalogue.changing(key, place), undone_on_fault(place, expected):
                    self._seal.check()
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

    def collections(self) -> list[str]:
        return self._catalogue.listing(lambda rows: rows.collections())

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
        self._end_lease(key, lambda record: record.completed(key, fence))

    def release(self, key: DocumentKey, fence: Fence, *, refund: bool = True) -> None:
        self._end_lease(key, lambda record: record.released(key, fence, refund=refund))

    def cancel_reservation(self, keys: Sequence[DocumentKey], *, claim_id: str) -> None:
        for key in keys:
            self._change_claim(key, lambda record: record.cancelled(claim_id), synced=False)

    def claim_of(self, key: DocumentKey) -> ClaimView | None:
        return self._record_unlocked(key).view(key, at=self._clock.moment())

    def history_of(self, key: DocumentKey) -> ClaimHistory:
        return self._record_unlocked(key).history()

    def adopt_history(self, key: DocumentKey, history: ClaimHistory) -> None:
        def continued(record: ClaimRecord) -> ClaimRecord | None:
            return record.continued(history, at=self._clock.moment())

        self._change_claim(key, continued, synced=True, anew=True)

    # --- sealed ----------------------------------------------------------------------------------------------------

    def seal(self, successor: str) -> None:
        with named_faults("the seal"):
            self._seal.close(successor)
            try:
                self._catalogue.index.wait_for_changes()
            except StoreLockedError:
                self._seal.open()
                raise

    def unseal(self) -> None:
        with named_faults("the seal"):
            self._seal.open()

    def sealed_for(self) -> str | None:
        with named_faults("the seal"):
            return self._seal.successor()

    def for_moving(self) -> Self:
        return type(self)(
            self._root,
            facets_of=self._facets_of,
            clock=self._clock,
            lock_timeout=self._lock_timeout,
            look_seconds=self._look_seconds,
            heeds_seal=False,
        )

    # --- upkeep ----------------------------------------------------------------------------------------------------

    def rescan(self) -> None:
        """Reads every document again, so that listings show what other programs changed. Costs a read of everything."""
        self._catalogue.rescan()

    def check(self) -> list[str]:
        if refused := try_writing(self._root):
            return [refused]
        try:
            return [*space_problems(self._root), *self._document_problems()]
        except StoreUnavailableError as error:
            return [f"{error.message}. {error.todo}"]

    def close(self) -> None:
        self._catalogue.index.close()

    def _document_problems(self) -> Iterator[str]:
        for listed in self.page("jobs", status="corrupted", limit=20):
            path = self._found(listed.key).document
            yield f"{listed.key.name} is corrupted (its bytes are untouched): {path}"
        for key in self._catalogue.unreadable():
            yield f"{key.name} cannot be read"
        for path in sorted(self._root.rglob(f"*{QUARANTINED}*")):
            yield f"a claim record that cannot be read was set aside; look at it, then remove it: {path}"

    # --- how a document and its claim are reached --------------------------------------------------------------------

    def _found(self, key: DocumentKey) -> Place:
        place = self._layout.existing(key)
        if place is None:
            raise DocumentNotFoundError(f"there is no {key.name}")
        return place

    def _locked(self, place: Place) -> AbstractContextManager[None]:
        return exclusive_lock(place.lock, timeout=self._lock_timeout)

    def _record(self, key: DocumentKey, place: Place) -> ClaimRecord:
        """The claim record, recovered if need be; under the document's lock."""
        return read_claim(place) or recover_claim(
            place, key, known_fence=self._catalogue.fence(key), wall=self._clock.wall()
        )

    def _record_unlocked(self, key: DocumentKey) -> ClaimRecord:
        with named_faults(key):
            place = self._layout.existing(key)
            return (read_claim(place) if place else None) or ClaimRecord()

    def _change_claim(
        self,
        key: DocumentKey,
        change: Callable[[ClaimRecord], ClaimRecord | None],
        *,
        synced: bool,
        anew: bool = False,
    ) -> ClaimRecord | None:
        """The record as changed and stored; None where the change is none or the document is gone.

        Args:
            anew: The change is a new claim, which a sealed store refuses.
        """
        try:
            with named_faults(key):
                place = self._found(key)
                with self._locked(place):
                    self._found(key)
                    record = change(self._record(key, place))
                    if record is not None:
                        with self._catalogue.changing(key, place, hold=self._hold(record)):
                            if anew:
                                self._seal.check()
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
            return self._change_claim(key, change, synced=synced, anew=True)
        except StoreLockedError:
            return None

    def _end_lease(self, key: DocumentKey, change: Callable[[ClaimRecord], ClaimRecord]) -> None:
        if self._change_claim(key, change, synced=True) is None:
            raise StaleFenceError(f"{key.name} is gone")

    def _prolonged(self, key: DocumentKey, fence: Fence, *, ttl: float) -> bool:
        def prolonged(record: ClaimRecord) -> ClaimRecord | None:
            return record.prolonged(fence, ttl=ttl, at=self._clock.moment())

        try:
            changed = self._change_claim(key, prolonged, synced=False)
        except StoreLockedError:  # not prolonged now, and not lost either
            view = self.claim_of(key)
            return view is not None and (view.claim_id, view.fence) == (fence.claim_id, fence.number)
        return changed is not None
