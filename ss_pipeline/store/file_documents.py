"""One document's file, changed: the steps a change is made of. Their order and the lock around them are file.py's."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from ss_pipeline import durable
from ss_pipeline.errors import DocumentChangedError, DocumentExistsError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.file_layout import Place, read_regular


def make_folders(folder: Path, *, root: Path) -> None:
    """Makes a document's folder below `root`, durably: also where another process made a part of it a moment ago.

    Who finds a folder cannot see whether its maker has synced it yet, and must not rely on it before that.
    """
    if folder.is_dir():
        durable.sync_folder(folder.parent)
    durable.make_folder(folder)
    for above in folder.parents:
        if above == root:
            return
        _sync_entry_once(above)


@lru_cache(maxsize=4_096)
def _sync_entry_once(folder: Path) -> None:
    """Shards and tenants are never removed, so once in a process is enough."""
    durable.sync_folder(folder.parent)


def create_document(key: DocumentKey, place: Place, body: bytes) -> None:
    """Writes a document that must not be there yet.

    Raises:
        DocumentExistsError: a program that does not lock has just made it.
    """
    try:
        durable.create_file(place.document, body)
    except FileExistsError as error:
        raise DocumentExistsError(f"{key.name} exists already") from error


def check_unchanged(key: DocumentKey, place: Place, expected: bytes) -> None:
    """Compares a document with the bytes a change is based on.

    Raises:
        DocumentChangedError: it has others.
    """
    if read_regular(place.document) != expected:
        raise DocumentChangedError(f"{key.name} was changed meanwhile")


@contextmanager
def undone_on_fault(place: Place, before: bytes) -> Iterator[None]:
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
