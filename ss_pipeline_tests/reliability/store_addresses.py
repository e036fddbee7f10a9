"""Stores that several processes open: an address of a store, as text, that a test hands to the processes it starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from ss_pipeline.store.base import Backend
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.jobs import facets_of_body
from ss_pipeline_tests.servers import shared_postgres, shared_redis

SHARED: Final = ("file", "postgres", "redis")
"""The back ends that processes can share."""


@contextmanager
def an_address(name: str, folder: Path) -> Iterator[str]:
    """The address of a new, empty store on the back end of this name."""
    if name == "file":
        yield f"file:{folder / 'jobs'}"
    elif name == "postgres":
        yield f"{shared_postgres().url}#t_{uuid4().hex[:12]}"
    else:
        yield f"{shared_redis().url}#t_{uuid4().hex[:12]}:"


def open_address(address: str) -> Backend:
    """The store at an address; each process opens its own."""
    place, _, part = address.partition("#")
    if place.startswith("file:"):
        return FileBackend(Path(place.removeprefix("file:")), facets_of=facets_of_body, look_seconds=3_600)
    if place.startswith("postgresql"):
        from ss_pipeline.store.postgres import PostgresBackend

        return PostgresBackend(place, schema=part, pool_size=1)
    from ss_pipeline.store.redis import RedisBackend

    return RedisBackend(place, namespace=part)
