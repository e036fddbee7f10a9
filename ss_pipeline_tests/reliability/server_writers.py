"""Processes that write to a store while its server is killed; each says what was acknowledged to it.

The same for PostgreSQL and Redis: a task is handed how the store is opened. What is run on which server is the business
of postgres_writers.py and redis_writers.py, what is done to servers and found afterwards that of server_faults.py.
"""

from collections.abc import Callable
from contextlib import closing, suppress
from itertools import count
from typing import Final

from ss_pipeline.errors import JobVersionConflictError, StoreUnavailableError
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.store.retrying import RetryingBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, together

FACETS: Final = Facets(status="created", created_at="2026", waiting=True)
_JOB: Final = "job_0000000000000001"


def made(writer: int, number: int) -> DocumentKey:
    """The key of the n-th document that a writer creates."""
    return DocumentKey("jobs", f"t{writer}", f"made_{number:08d}")


def kept(writer: int) -> DocumentKey:
    """The key of the one document that a writer replaces again and again."""
    return DocumentKey("jobs", f"t{writer}", "kept")


def body(number: int) -> bytes:
    """The body of the n-th document, or of the n-th replacement."""
    return f"{number} ".encode() * 200


def writes(opened: Callable[[], Backend], *, processes: int) -> Found:
    """Writers that create documents and replace one until the server is gone; for each, how far it was acknowledged."""

    def work(writer: int) -> int:
        with closing(opened()) as backend:
            backend.create(kept(writer), body(0), FACETS)
            for number in count():
                try:
                    backend.create(made(writer, number), body(number), FACETS)
                    backend.replace(kept(writer), body(number + 1), FACETS, expected=body(number))
                except StoreUnavailableError:
                    return number
        return 0

    return {"acked": together(processes, work)}


def increments(opened: Callable[[], Backend], *, processes: int, times: int) -> Found:
    """Writers that append tags to one job and wait out whatever happens to the server; what is stored in the end."""

    def work(writer: int) -> list[str]:
        with closing(RetryingBackend(opened(), patience=60)) as backend:
            tags = [f"{writer}.{number}" for number in range(times)]
            for tag in tags:
                _append(JobStore(backend), tag)
            return tags

    with closing(opened()) as backend:
        store = JobStore(backend)
        store.create(a_job(_JOB, x_tags=[]))
        acked = [tag for tags in together(processes, work) for tag in tags]
        stored = (store.load(_JOB).model_extra or {})["x_tags"]
    return {"acked": len(acked), "lost": len(set(acked) - set(stored)), "twice": len(stored) - len(set(stored))}


def _append(store: JobStore, tag: str) -> None:
    """Appends a tag that is not there yet; a save whose answer got lost may have appended it."""
    while True:
        job = store.load(_JOB)
        tags = (job.model_extra or {})["x_tags"]
        if tag in tags:
            return
        with suppress(JobVersionConflictError):
            store.save(job.changed(x_tags=[*tags, tag]))
            return
