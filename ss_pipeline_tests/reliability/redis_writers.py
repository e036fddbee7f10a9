"""Processes that write to a Redis store while its server is killed; each says what was acknowledged to it.

Each task prints what it found; the tests judge it (test_redis_faults.py).
"""

from contextlib import closing, suppress
from itertools import count
from typing import Final

from ss_pipeline.errors import JobVersionConflictError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.store.redis import RedisBackend
from ss_pipeline.store.redis_server import ServerInfo
from ss_pipeline.store.retrying import RetryingBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, run_tasks, together

FACETS: Final = Facets(status="created", created_at="2026", waiting=True)


class UncheckedBackend(RedisBackend):
    """Broken: takes any server, also one that keeps nothing."""

    def _look_at(self, info: ServerInfo) -> None:
        del info


def open_kind(url: str, kind: str) -> RedisBackend:
    """The store, or the broken one."""
    return UncheckedBackend(url) if kind == "unchecked" else RedisBackend(url)


def made(writer: int, number: int) -> DocumentKey:
    """The key of the n-th document that a writer creates."""
    return DocumentKey("jobs", f"t{writer}", f"made_{number:08d}")


def kept(writer: int) -> DocumentKey:
    """The key of the one document that a writer replaces again and again."""
    return DocumentKey("jobs", f"t{writer}", "kept")


def body(number: int) -> bytes:
    """The body of the n-th document, or of the n-th replacement."""
    return f"{number} ".encode() * 200


def writes(*, url: str, processes: int, kind: str = "real") -> Found:
    """Writers that create documents and replace one until the server is gone; for each, how far it was acknowledged."""

    def work(writer: int) -> int:
        with closing(open_kind(url, kind)) as backend:
            backend.create(kept(writer), body(0), FACETS)
            for number in count():
                try:
                    backend.create(made(writer, number), body(number), FACETS)
                    backend.replace(kept(writer), body(number + 1), FACETS, expected=body(number))
                except StoreUnavailableError:
                    return number
        return 0

    return {"acked": together(processes, work)}


def increments(*, url: str, processes: int, times: int) -> Found:
    """Writers that append tags to one job and wait out whatever happens to the server; what is stored in the end."""

    def work(writer: int) -> list[str]:
        with closing(RetryingBackend(RedisBackend(url), patience=60)) as backend:
            tags = [f"{writer}.{number}" for number in range(times)]
            for tag in tags:
                append(JobStore(backend), tag)
            return tags

    with closing(RedisBackend(url)) as backend:
        store = JobStore(backend)
        store.create(a_job("job_0000000000000001", x_tags=[]))
        acked = [tag for tags in together(processes, work) for tag in tags]
        job = store.load("job_0000000000000001")
        stored = (job.model_extra or {})["x_tags"]
    return {"acked": len(acked), "lost": len(set(acked) - set(stored)), "twice": len(stored) - len(set(stored))}


def append(store: JobStore, tag: str) -> None:
    """Appends a tag that is not there yet; a save whose answer got lost may have appended it."""
    while True:
        job = store.load("job_0000000000000001")
        tags = (job.model_extra or {})["x_tags"]
        if tag in tags:
            return
        with suppress(JobVersionConflictError):
            store.save(job.changed(x_tags=[*tags, tag]))
            return


if __name__ == "__main__":
    run_tasks({"writes": writes, "increments": increments})
