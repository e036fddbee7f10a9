"""All documents of one store brought into another while the first is written to, and compared with what is there then.

What is copied is bytes: documents of old schemas and broken ones travel as they are. The single step, and why any
number of them may run at once, is syncing.py's; that writers bring their own changes meanwhile is mirroring.py's; which
store is the one in use is switching.py's.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StoreCopyIncompleteError,
    StoreInUseError,
    StoreSealedError,
)
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.store.syncing import FacetsOf, NamedBackend, Outcome, synced
from ss_pipeline.telemetry.events import emit

MOVES: Final = "moves"
"""The collection in which a target keeps how far the copy into it has come; it is no part of what is copied."""

Phase: TypeAlias = Literal["copying", "comparing"]
Progress: TypeAlias = Callable[[Phase, int, int], None]
"""Is told after each page how many documents are done in this phase, and of how many, about."""

_PAGE: Final = 200
_LOOKS: Final = 5
_CURSOR: Final = DocumentKey(MOVES, DEFAULT_TENANT, "copy")


@dataclass(frozen=True)
class Comparison:
    """Every document of both stores, compared by its sha256.

    A digest is the sha256 over the lines `collection/tenant/id sha256` of all documents of a store, in key order.
    """

    documents: int
    differences: tuple[DocumentKey, ...]
    source_digest: str
    target_digest: str


@dataclass(frozen=True)
class CopyResult:
    """What a copy did.

    `removed` were in the target only. The histories of `held` could not be taken over: a run has them in the target
    since before it was sealed. `compared` is None where nothing was compared.
    """

    copied: int
    unchanged: int
    removed: tuple[DocumentKey, ...]
    held: tuple[DocumentKey, ...]
    compared: Comparison | None
    seconds: float

    @property
    def differences(self) -> int | None:
        """Documents that still differed at the last look; None where nothing was compared."""
        return len(self.compared.differences) if self.compared else None


class CopyState(BaseModel):
    """How far a copy has come, as it is kept in the target.

    Args:
        source: The store that the documents come from.
        collections: What was brought from there; only of these anything is removed that the source does not have.
        after: The last key done, as collection, tenant and id; None at the start and once all is done.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    source: str = ""
    collections: tuple[str, ...] = ()
    after: tuple[str, str, str] | None = None


def say_nothing(_phase: Phase, _done: int, _total: int) -> None:
    """The progress for nobody."""


def copy_documents(
    source: NamedBackend,
    target: NamedBackend,
    *,
    facets_of: FacetsOf,
    verify: bool = False,
    resume: bool = False,
    progress: Progress = say_nothing,
    page_size: int = _PAGE,
) -> CopyResult:
    """Makes the target's documents and claim histories those of the source; the target is sealed, and stays so.

    Args:
        verify: Compare all documents afterwards; those that differ are brought again and looked at again.
        resume: Go on where a copy from this source was broken off, at the page it was at.

    Raises:
        StoreSealedError: the source's documents have moved to another store than the target.
        StoreInUseError: the target takes changes itself.
        StoreCopyIncompleteError: another copy into the same target is at work.
        StoreUnavailableError: one of the two failed. What was copied stays, and `resume` goes on from there.
    """
    begun = time.monotonic()
    check_source(source, target)
    _make_follow(target, source)
    mover = target.for_moving()
    with closing(mover.backend):
        copying = _Copying(source, mover, facets_of=facets_of, progress=progress, page_size=page_size)
        copying.copy(resume=resume)
        compared = copying.compare() if verify else None
    result = copying.result(compared, seconds=time.monotonic() - begun)
    emit(
        "SS_STORE_COPIED",
        source=source.name,
        target=target.name,
        copied=result.copied,
        unchanged=result.unchanged,
        removed=len(result.removed),
        differences=result.differences,
        seconds=round(result.seconds, 3),
    )
    return result


def compare_documents(source: NamedBackend, target: NamedBackend, *, page_size: int = _PAGE) -> Comparison:
    """Compares all documents of the source's collections in both stores; writes nothing."""
    collections = [name for name in source.backend.collections() if name != MOVES]
    pages = _pages(source.backend, target.backend, collections, size=page_size)
    return _comparison({key: _hashes(source, target, key) for page in pages for key in page})


def check_source(source: NamedBackend, target: NamedBackend) -> None:
    """Whether documents may be copied from here to there: they have not moved anywhere else.

    Raises:
        StoreSealedError: they have.
    """
    successor = source.backend.sealed_for()
    if successor is not None and not source.follows(target):
        raise StoreSealedError(successor)


class _Copying:
    """One copy at work: what it goes through, and what it has done so far."""

    def __init__(
        self,
        source: NamedBackend,
        target: NamedBackend,
        *,
        facets_of: FacetsOf,
        progress: Progress,
        page_size: int,
    ) -> None:
        self._source = source
        self._target = target
        self._facets_of = facets_of
        self._progress = progress
        self._page_size = page_size
        self._collections: list[str] = []
        self._outcomes: dict[Outcome, int] = {"copied": 0, "unchanged": 0, "removed": 0}
        self._removed: list[DocumentKey] = []
        self._held: list[DocumentKey] = []

    def copy(self, *, resume: bool) -> None:
        """Brings every document, page by page."""
        cursor = _Cursor(self._target.backend)
        state = cursor.read()
        known = set(state.collections) if state.source == self._source.name else set()
        self._collections = sorted({*known, *self._source.backend.collections()} - {MOVES})
        after = DocumentKey(*state.after) if resume and state.after and state.source == self._source.name else None
        state = CopyState(source=self._source.name, collections=tuple(self._collections))
        for page in self._counted("copying", self._pages(after=after)):
            for key in page:
                self._bring(key)
            last = page[-1]
            after_last = (last.collection, last.tenant_id, last.document_id)
            cursor.write(state.model_copy(update={"after": after_last}))
        cursor.write(state)

    def compare(self) -> Comparison:
        """Looks at every document of both sides, and again at those that differ, after they were brought again."""
        pages = self._counted("comparing", self._pages())
        seen = {key: _hashes(self._source, self._target, key) for page in pages for key in page}
        for _ in range(_LOOKS):
            for key in _differences(seen):
                self._bring(key)
                seen[key] = _hashes(self._source, self._target, key)
        return _comparison(seen)

    def result(self, compared: Comparison | None, *, seconds: float) -> CopyResult:
        """What was done."""
        return CopyResult(
            copied=self._outcomes["copied"],
            unchanged=self._outcomes["unchanged"],
            removed=tuple(self._removed),
            held=tuple(self._held),
            compared=compared,
            seconds=seconds,
        )

    def _bring(self, key: DocumentKey) -> None:
        outcome = synced(self._source, self._target, key, facets_of=self._facets_of)
        self._outcomes[outcome] += 1
        if outcome == "removed":
            self._removed.append(key)
        elif not _history_taken_over(self._source.backend, self._target.backend, key):
            self._held.append(key)

    def _pages(self, *, after: DocumentKey | None = None) -> Iterator[list[DocumentKey]]:
        sides = self._source.backend, self._target.backend
        return _pages(*sides, self._collections, after=after, size=self._page_size)

    def _counted(self, phase: Phase, pages: Iterable[list[DocumentKey]]) -> Iterator[list[DocumentKey]]:
        counts = self._source.backend.counts
        total = sum(sum(counts(collection).values()) for collection in self._collections)
        done = 0
        self._progress(phase, done, total)
        for page in pages:
            yield page
            done += len(page)
            self._progress(phase, done, max(done, total))


class _Cursor:
    """The state of the copy in the target; two copies into one target at once stop each other here."""

    def __init__(self, target: Backend) -> None:
        self._target = target
        self._stored: bytes | None = None

    def read(self) -> CopyState:
        """The state that is kept; a blank one where there is none, or none that can be understood."""
        try:
            self._stored = self._target.read(_CURSOR)
            return CopyState.model_validate_json(self._stored)
        except (DocumentNotFoundError, ValidationError):
            return CopyState()

    def write(self, state: CopyState) -> None:
        """Keeps a state in place of what was read or written here before.

        Raises:
            StoreCopyIncompleteError: another copy has written its own.
        """
        body = state.model_dump_json().encode()
        try:
            if self._stored is None:
                self._target.create(_CURSOR, body, Facets())
            else:
                self._target.replace(_CURSOR, body, Facets(), expected=self._stored)
        except (DocumentExistsError, DocumentChangedError, DocumentNotFoundError) as error:
            raise StoreCopyIncompleteError(
                "another copy into the same store is at work", todo="Let it end, then run this one again."
            ) from error
        self._stored = body


def _make_follow(target: NamedBackend, source: NamedBackend) -> None:
    """Seals the target for the source; one that was never used, or that other documents have moved from, may be."""
    if target.follows(source):
        return
    if target.backend.sealed_for() is None and target.backend.collections():
        raise StoreInUseError(target.name, source=source.name)
    target.backend.seal(source.name)


def _history_taken_over(source: Backend, target: Backend, key: DocumentKey) -> bool:
    """Whether the target's fences now go on above the source's, and its attempts are those of the source."""
    wanted = source.history_of(key)

    def goes_on() -> bool:
        kept = target.history_of(key)
        return kept.fence >= wanted.fence and kept.attempts == wanted.attempts

    if goes_on():
        return True
    target.adopt_history(key, wanted)
    return goes_on()


def _pages(
    source: Backend, target: Backend, collections: Iterable[str], *, after: DocumentKey | None = None, size: int
) -> Iterator[list[DocumentKey]]:
    """The keys of both stores, in key order, in pages that are never empty."""
    for collection in collections:
        if after is None or collection >= after.collection:
            within = after if after and after.collection == collection else None
            yield from _pages_of(source, target, collection, after=within, size=size)


def _pages_of(
    source: Backend, target: Backend, collection: str, *, after: DocumentKey | None, size: int
) -> Iterator[list[DocumentKey]]:
    while True:
        listings = [store.page(collection, after=after, limit=size) for store in (source, target)]
        keys = sorted({row.key for listing in listings for row in listing})
        ends = [listing[-1].key for listing in listings if len(listing) == size]
        page = [key for key in keys if key <= min(ends)] if ends else keys
        if page:
            yield page
            after = page[-1]
        if not ends:
            return


def _hashes(source: NamedBackend, target: NamedBackend, key: DocumentKey) -> tuple[str, str]:
    """The sha256 of a document in both stores; "" where it is not there."""
    of_target = _hash(target.backend, key)
    return _hash(source.backend, key), of_target


def _hash(store: Backend, key: DocumentKey) -> str:
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except DocumentNotFoundError:
        return ""


def _differences(seen: Mapping[DocumentKey, tuple[str, str]]) -> list[DocumentKey]:
    return [key for key, (of_source, of_target) in seen.items() if of_source != of_target]


def _comparison(seen: Mapping[DocumentKey, tuple[str, str]]) -> Comparison:
    return Comparison(
        documents=len(seen),
        differences=tuple(_differences(seen)),
        source_digest=_digest((key, hashes[0]) for key, hashes in seen.items()),
        target_digest=_digest((key, hashes[1]) for key, hashes in seen.items()),
    )


def _digest(documents: Iterable[tuple[DocumentKey, str]]) -> str:
    digest = hashlib.sha256()
    for key, of_bytes in sorted(documents):
        if of_bytes:
            digest.update(f"{key.collection}/{key.tenant_id}/{key.document_id} {of_bytes}\n".encode())
    return digest.hexdigest()
