"""One document brought from the store that has it to another: the step that copying and mirroring are made of.

A store into which documents are brought is sealed and names the store that it follows. That is how a process which
slept through a switch is told from one that may still write there. Walking through all documents is copying.py's
business, following every change mirroring.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ss_pipeline.errors import (
    DocumentChangedError,
    DocumentExistsError,
    DocumentNotFoundError,
    StoreInUseError,
)
from ss_pipeline.store.base import Backend, DocumentKey, Facets

FacetsOf: TypeAlias = Callable[[DocumentKey, bytes], Facets]
Outcome: TypeAlias = Literal["unchanged", "copied", "removed"]

_ROUNDS: Final = 100


@dataclass(frozen=True)
class NamedBackend:
    """A back end under the name that seals and messages call it by: `file`, `redis`, `file:/srv/jobs`."""

    name: str
    backend: Backend

    def for_moving(self) -> "NamedBackend":
        """The same store, for whoever brings documents into it."""
        return NamedBackend(self.name, self.backend.for_moving())

    def follows(self, source: "NamedBackend") -> bool:
        """Whether it is sealed for a store of that kind, and so takes no changes but from there.

        Folders are left out of account: the same one may have two paths, in a container and out of it.
        """
        followed = self.backend.sealed_for()
        return followed is not None and _kind(followed) == _kind(source.name)


def synced(source: NamedBackend, target: NamedBackend, key: DocumentKey, *, facets_of: FacetsOf) -> Outcome:
    """Makes the target's document what the source's is: creates, replaces or removes it.

    The target is read before the source and compared before it is set, so what is written was the source's later than
    what it overwrites. And the source is looked at once more afterwards: bytes that came back to an earlier state
    would have passed the comparison. So of any number of these at once for one key the last leaves the source's bytes.

    Args:
        target: As `for_moving` gives it.
        facets_of: What a document is listed by in the target.

    Raises:
        StoreInUseError: the target does not follow the source (any more).
        DocumentChangedError: the document changed faster than it could be copied.
        StoreUnavailableError: one of the two failed.
    """
    outcome: Outcome = "unchanged"
    for _ in range(_ROUNDS):
        before = _read(target, key)
        wanted = _read(source, key)
        if before == wanted:
            return outcome
        if not target.follows(source):  # asked after the target was read: what it wrote by itself is never replaced
            raise StoreInUseError(target.name, source=source.name)
        if _set(target.backend, key, wanted, before=before, facets_of=facets_of):
            outcome = "removed" if wanted is None else "copied"
            if _read(source, key) == wanted:
                return outcome
    raise DocumentChangedError(f"{key.document_id!r} changes faster than it can be copied")


def _set(target: Backend, key: DocumentKey, wanted: bytes | None, *, before: bytes | None, facets_of: FacetsOf) -> bool:
    """Whether the document was still what it was before and is now what is wanted; None is no document."""
    try:
        if wanted is None:
            target.delete(key, expected=before or b"")
        elif before is None:
            target.create(key, wanted, facets_of(key, wanted))
        else:
            target.replace(key, wanted, facets_of(key, wanted), expected=before)
    except (DocumentExistsError, DocumentChangedError, DocumentNotFoundError):
        return False
    return True


def _read(store: NamedBackend, key: DocumentKey) -> bytes | None:
    try:
        return store.backend.read(key)
    except DocumentNotFoundError:
        return None


def _kind(name: str) -> str:
    return name.partition(":")[0]
