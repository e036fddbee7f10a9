"""What two stores have in common: the keys of both in one order, and every document compared by its sha256.

Nothing is written here; bringing what differs is copying.py's business.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from ss_pipeline.errors import DocumentNotFoundError
from ss_pipeline.store.base import Backend, DocumentKey
from ss_pipeline.store.syncing import NamedBackend

MOVES: Final = "moves"
"""The collection in which a target keeps how far the copy into it has come; it is no part of what is compared."""

Hashes: TypeAlias = tuple[str, str]
"""The sha256 of a document in the source and in the target; "" where it is not there."""

_PAGE: Final = 200


@dataclass(frozen=True)
class Comparison:
    """Every document of both stores, compared.

    A digest is the sha256 over the lines `collection/tenant/id sha256` of all documents of a store, in key order.
    """

    documents: int
    differences: tuple[DocumentKey, ...]
    source_digest: str
    target_digest: str


def compare_documents(source: NamedBackend, target: NamedBackend) -> Comparison:
    """Compares all documents of the source's collections in both stores."""
    collections = [name for name in source.backend.collections() if name != MOVES]
    pages = key_pages(source.backend, target.backend, collections)
    return comparison({key: hashes(source, target, key) for page in pages for key in page})


def key_pages(
    source: Backend, target: Backend, collections: Iterable[str], *, after: DocumentKey | None = None, size: int = _PAGE
) -> Iterator[list[DocumentKey]]:
    """The keys of both stores, in key order, in pages that are never empty.

    Args:
        after: The key to go on after.
        size: About how many keys a page has: at most that many of each store.
    """
    for collection in collections:
        if after is None or collection >= after.collection:
            within = after if after and after.collection == collection else None
            yield from _pages_of(source, target, collection, after=within, size=size)


def hashes(source: NamedBackend, target: NamedBackend, key: DocumentKey) -> Hashes:
    """A document as it is in both stores now."""
    of_target = _hash(target.backend, key)
    return _hash(source.backend, key), of_target


def differences(seen: Mapping[DocumentKey, Hashes]) -> list[DocumentKey]:
    """The documents that are not the same in both."""
    return [key for key, (of_source, of_target) in seen.items() if of_source != of_target]


def comparison(seen: Mapping[DocumentKey, Hashes]) -> Comparison:
    """What was seen, put together."""
    return Comparison(
        documents=len(seen),
        differences=tuple(differences(seen)),
        source_digest=_digest((key, of_source) for key, (of_source, _) in seen.items()),
        target_digest=_digest((key, of_target) for key, (_, of_target) in seen.items()),
    )


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


def _hash(store: Backend, key: DocumentKey) -> str:
    try:
        return hashlib.sha256(store.read(key)).hexdigest()
    except DocumentNotFoundError:
        return ""


def _digest(documents: Iterable[tuple[DocumentKey, str]]) -> str:
    digest = hashlib.sha256()
    for key, of_bytes in sorted(documents):
        if of_bytes:
            digest.update(f"{key.name} {of_bytes}\n".encode())
    return digest.hexdigest()
