"""A Redis server that is killed or whose disk is full: what it acknowledged is there when it is back."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis

from ss_pipeline.errors import StoreUnavailableError
from ss_pipeline.local_servers import RedisServer
from ss_pipeline.store.redis import RedisBackend
from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.redis_writers import open_kind
from ss_pipeline_tests.reliability.server_faults import (
    WRITERS,
    filled,
    killed_under_writers,
    lost,
    small_disk,
    wait_for_documents,
)
from ss_pipeline_tests.reliability.server_writers import FACETS
from ss_pipeline_tests.servers import own_redis
from ss_pipeline_tests.store_contract import a_key


def run(task: str, **parameters: object) -> Found:
    return forking.run("ss_pipeline_tests.reliability.redis_writers", task, seconds=300, **parameters)


def killed(server: RedisServer, *, kind: str = "real") -> list[int]:
    """Kills a server under writers and starts it again; how far each of them was acknowledged."""
    write = partial(run, "writes", url=server.url, processes=WRITERS, kind=kind)
    acked = killed_under_writers(write, server.kill, open_kind(server.url, "unchecked"))
    server.start()
    return acked


@pytest.mark.guarantee("R1")
@pytest.mark.guarantee("F7")
def test_what_four_writers_were_acknowledged_survives_the_kill_of_the_server() -> None:
    with own_redis() as server:
        acked = killed(server)
        with closing(RedisBackend(server.url)) as backend:
            assert lost(backend, acked) == 0
            listed = backend.page("jobs", limit=1_000_000)
            assert sum(acked) + WRITERS <= len(listed) <= sum(acked) + 2 * WRITERS
            assert sum(backend.counts("jobs").values()) == len(listed)
            assert len(backend.heads("jobs", per_group=1_000_000)) == len(listed)
            assert all(backend.read(row.key) for row in listed)
    assert min(acked) > 20


@pytest.mark.guarantee("F7")
@pytest.mark.guarantee("F8")
def test_a_store_that_takes_a_server_without_append_only_file_is_caught() -> None:
    with own_redis(appendonly="no") as server:
        with closing(redis.Redis.from_url(server.url)) as client:
            client.config_set("save", "3600 1 300 100 60 10000")
        acked = killed(server, kind="unchecked")
        with closing(open_kind(server.url, "unchecked")) as backend:
            assert lost(backend, acked) > 0


@pytest.mark.guarantee("R3")
@pytest.mark.guarantee("F7")
def test_writers_that_wait_go_on_where_a_server_that_is_killed_three_times_comes_back() -> None:
    with own_redis() as server, ThreadPoolExecutor(1) as thread:
        writing = thread.submit(run, "increments", url=server.url, processes=WRITERS, times=300)
        with closing(open_kind(server.url, "unchecked")) as backend:
            wait_for_documents(backend, 1)
        for _ in range(3):
            time.sleep(0.4)
            server.kill()
            time.sleep(0.3)
            server.start()
        found = writing.result()
    assert found == {"acked": WRITERS * 300, "lost": 0, "twice": 0}


@pytest.mark.guarantee("F7")
def test_a_server_that_is_still_loading_is_waited_for_and_not_refused() -> None:
    """While Redis reads its append-only file it says `aof_enabled:0`."""
    with own_redis() as server, closing(RedisBackend(server.url)) as backend, ThreadPoolExecutor(1) as thread:
        for number in range(500):
            backend.create(a_key(number), b"{}", FACETS)
        server.kill()
        server.options["key-load-delay"] = "200"  # microseconds for each command; between a thousand it answers
        starting = thread.submit(server.start)
        said = set()
        while not starting.done():
            try:
                backend.read(a_key(499))
            except StoreUnavailableError as error:
                said.add(error.message.partition(":")[0])
        starting.result()
        assert backend.read(a_key(499)) == b"{}"
    assert said == {"Redis does not answer", "Redis is still loading its data"}


@pytest.mark.guarantee("F9")
@pytest.mark.parametrize(
    ("appendfsync", "kind", "says"),
    [("always", "real", "does not answer"), ("everysec", "unchecked", "cannot write to its disk")],
    ids=["it ends itself", "it refuses"],
)
def test_a_full_disk_of_the_server_refuses_changes_and_loses_none(
    tmp_path: Path, appendfsync: str, kind: str, says: str
) -> None:
    ballast = bytes(200_000)
    with small_disk(tmp_path / "disk") as disk:
        (disk / "other.bin").write_bytes(bytes(4_000_000))
        with (
            own_redis(dir=str(disk), appendfsync=appendfsync) as server,
            closing(open_kind(server.url, kind)) as backend,
        ):
            acked, said = filled(backend, ballast)
            assert says in said.message
            assert acked > 5
            (disk / "other.bin").unlink()
            if kind == "real":
                server.kill()  # it is about to end
                server.start()
            time.sleep(1.2)  # one that refuses tries to write again each second
            backend.create(a_key(1_000), ballast, FACETS)
            server.kill()
            server.start()
            assert all(backend.read(a_key(number)) == ballast for number in [*range(acked), 1_000])
            assert backend.check() == []
