"""All documents of one store brought into another while the first is written to, and compared with what is there then.

What is copied is bytes: documents of old schemas and broken ones travel as they are. The single step, and why any
number of them may run at once, is syncing.py's; that writers bring their own changes meanwhile is mirroring.py's; which
store is the one in use is switching.py's.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

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
from ss_pipeline.store.comparing import MOVES, Comparison, Hashes, comparison, differences, hashes, key_pages
from ss_pipeline.store.syncing import FacetsOf, NamedBackend, Outcome, synced
from ss_pipeline.telemetry.events import emit

Phase: TypeAlias = Literal["copying", "comparing"]
Progress: TypeAlias = Callable[[Phase, int, int], None]
"""Is told after each page how many documents are done in this phase, and of how many, about."""

Found = TypeVar("Found")

_LOOKS: Final = 5
_CURSOR: Final = DocumentKey(MOVES, DEFAULT_TENANT, "copy")


@dataclass(frozen=True)
class Pace:
    """How many documents are brought between two notes of how far the copy has come, and how many at once."""

    page_size: int = 200
    workers: int = 4


USUAL_PACE: Final = Pace()


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
    pace: Pace = USUAL_PACE,
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
    with _copying(source, target, facets_of=facets_of, progress=progress, pace=pace) as copying:
        copying.copy(resume=resume)
        compared = copying.compare() if verify else None
        result = copying.result(compared)
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


def bring_in_line(
    source: NamedBackend,
    target: NamedBackend,
    *,
    facets_of: FacetsOf,
    progress: Progress = say_nothing,
    pace: Pace = USUAL_PACE,
) -> CopyResult:
    """Compares all documents and claim histories, and brings those that differ: the last look after a copy.

    Quicker than a copy where little differs, and for a source that is sealed just as good. Raises what a copy raises.
    """
    with _copying(source, target, facets_of=facets_of, progress=progress, pace=pace) as copying:
        return copying.result(copying.compare(with_histories=True))


def _check_source(source: NamedBackend, target: NamedBackend) -> None:
    """Whether documents may be copied from here to there: they have not moved anywhere else.

    Raises:
        StoreSealedError: they have.
    """
    successor = source.backend.sealed_for()
    if successor is not None and not source.follows(target):
        raise StoreSealedError(successor)


@contextmanager
def _copying(
    source: NamedBackend, target: NamedBackend, *, facets_of: FacetsOf, progress: Progress, pace: Pace
) -> Iterator["_Copying"]:
    _check_source(source, target)
    _make_follow(target, source)
    mover = target.for_moving()
    with closing(mover.backend), ThreadPoolExecutor(pace.workers, thread_name_prefix="copying") as pool:
        yield _Copying(source, mover, facets_of=facets_of, progress=progress, pace=pace, pool=pool)


class _Copying:
    """One copy at work: what it goes through, and what it has done so far."""

    def __init__(
        self,
        source: NamedBackend,
        target: NamedBackend,
        *,
        facets_of: FacetsOf,
        progress: Progress,
        pace: Pace,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._source = source
        self._target = target
        self._facets_of = facets_of
        self._progress = progress
        self._pace = pace
        self._pool = pool
        self._cursor = _Cursor(target.backend)
        self._state = self._cursor.read()
        self._collections = set(self._state.collections) if self._state.source == source.name else set()
        self._begun = time.monotonic()
        self._outcomes: dict[DocumentKey, Outcome] = {}
        self._held: dict[DocumentKey, None] = {}

    def copy(self, *, resume: bool) -> None:
        """Brings every document with its history, page by page."""
        after = self._state.after if resume and self._state.source == self._source.name else None
        for page in self._pages("copying", after=DocumentKey(*after) if after else None):
            self._bring(page)
            self._note(after=page[-1])
        self._note()

    def compare(self, *, with_histories: bool = False) -> Comparison:
        """Looks at every document of both sides, and again at those that differ, after they were brought again."""
        seen: dict[DocumentKey, Hashes] = {}
        for page in self._pages("comparing"):
            seen.update(self._each(self._look, page))
            if with_histories:
                self._take_over_histories([key for key in page if seen[key][0]])
        for key in seen:
            self._outcomes.setdefault(key, "unchanged")
        for _ in range(_LOOKS):
            differing = differences(seen)
            self._bring(differing)
            seen.update(self._each(self._look, differing))
        self._note()
        return comparison(seen)

    def result(self, compared: Comparison | None) -> CopyResult:
        """What was done until now."""
        outcomes = list(self._outcomes.values())
        return CopyResult(
            copied=outcomes.count("copied"),
            unchanged=outcomes.count("unchanged"),
            removed=tuple(key for key, outcome in self._outcomes.items() if outcome == "removed"),
            held=tuple(self._held),
            compared=compared,
            seconds=time.monotonic() - self._begun,
        )

    def _bring(self, keys: Sequence[DocumentKey]) -> None:
        outcomes = self._each(self._synced, keys)
        self._outcomes |= {key: how for key, how in outcomes if how != "unchanged" or key not in self._outcomes}
        self._take_over_histories([key for key, outcome in outcomes if outcome != "removed"])

    def _take_over_histories(self, keys: Sequence[DocumentKey]) -> None:
        for key, taken_over in self._each(self._history_taken_over, keys):
            if taken_over:
                self._held.pop(key, None)
            else:
                self._held[key] = None

    def _each(
        self, act: Callable[[DocumentKey], Found], keys: Sequence[DocumentKey]
    ) -> list[tuple[DocumentKey, Found]]:
        """What becomes of each key, several at once: most of the time goes into waiting for an answer or a disk."""
        found = map(act, keys) if self._pace.workers == 1 else self._pool.map(act, keys)
        return list(zip(keys, found, strict=True))

    def _synced(self, key: DocumentKey) -> Outcome:
        return synced(self._source, self._target, key, facets_of=self._facets_of)

    def _look(self, key: DocumentKey) -> Hashes:
        return hashes(self._source, self._target, key)

    def _history_taken_over(self, key: DocumentKey) -> bool:
        return _history_taken_over(self._source, self._target, key)

    def _note(self, *, after: DocumentKey | None = None) -> None:
        key = (after.collection, after.tenant_id, after.document_id) if after else None
        self._cursor.write(CopyState(source=self._source.name, collections=tuple(sorted(self._collections)), after=key))

    def _pages(self, phase: Phase, *, after: DocumentKey | None = None) -> Iterator[list[DocumentKey]]:
        """The keys of both sides page by page, in the collections that there are now, with the progress told."""
        source, target = self._source.backend, self._target.backend
        self._collections |= {*source.collections()} - {MOVES}
        collections = sorted(self._collections)
        total = sum(sum(source.counts(collection).values()) for collection in collections)
        done = 0
        self._progress(phase, done, total)
        for page in key_pages(source, target, collections, after=after, size=self._pace.page_size):
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


def _history_taken_over(source: NamedBackend, target: NamedBackend, key: DocumentKey) -> bool:
    """Whether the target's fences now go on above the source's, and its attempts are those of the source."""
    wanted = source.backend.history_of(key)

    def goes_on() -> bool:
        kept = target.backend.history_of(key)
        return kept.fence >= wanted.fence and kept.attempts == wanted.attempts

    if goes_on():
        return True
    if not target.follows(source):
        raise StoreInUseError(target.name, source=source.name)
    target.backend.adopt_history(key, wanted)
    return goes_on()
