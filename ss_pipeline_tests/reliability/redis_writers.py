"""The writers of server_writers.py on a Redis store, the real one or one that takes any server.

Each task prints what it found; the tests judge it (test_redis_faults.py).
"""

from functools import partial

from ss_pipeline.store.redis import RedisBackend
from ss_pipeline.store.redis_server import ServerInfo
from ss_pipeline_tests.reliability import server_writers
from ss_pipeline_tests.reliability.forking import Found, run_tasks


class UncheckedBackend(RedisBackend):
    """Broken: takes any server, also one that keeps nothing."""

    def _look_at(self, info: ServerInfo) -> None:
        del info


def open_kind(url: str, kind: str) -> RedisBackend:
    """The store, or the broken one."""
    return UncheckedBackend(url) if kind == "unchecked" else RedisBackend(url)


def writes(*, url: str, processes: int, kind: str = "real") -> Found:
    """See server_writers.py."""
    return server_writers.writes(partial(open_kind, url, kind), processes=processes)


def increments(*, url: str, processes: int, times: int) -> Found:
    """See server_writers.py."""
    return server_writers.increments(partial(RedisBackend, url), processes=processes, times=times)


if __name__ == "__main__":
    run_tasks({"writes": writes, "increments": increments})
