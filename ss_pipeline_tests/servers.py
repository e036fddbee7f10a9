"""Real servers for tests: one PostgreSQL and one Redis for all tests of a process, and servers that a test may kill.

Where a server cannot be had the tests that need it are skipped; in CI (`CI` is set) they fail.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest

from ss_pipeline.errors import StackError
from ss_pipeline.local_servers import LocalServer, PostgresServer, RedisServer

Server = TypeVar("Server", bound=LocalServer)


@cache
def shared_postgres() -> PostgresServer:
    """The PostgreSQL of this process; tests use schemas of their own in it and never stop it."""
    return _until_exit(PostgresServer)


@cache
def shared_redis() -> RedisServer:
    """The Redis of this process; a test uses a namespace of its own in it and never stops it."""
    return _until_exit(RedisServer)


@contextmanager
def own_postgres(**options: str) -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may kill and start again."""
    with _in_new_folder(PostgresServer, options) as server:
        yield server


@contextmanager
def own_redis(**options: str) -> Iterator[RedisServer]:
    """A Redis that a test may kill and start again."""
    with _in_new_folder(RedisServer, options) as server:
        yield server


def new_database() -> str:
    """The address of a new database on the shared PostgreSQL."""
    import sqlalchemy as sa

    name = f"t_{uuid4().hex[:12]}"
    url = sa.make_url(shared_postgres().url)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return url.set(database=name).render_as_string(hide_password=False)


def empty_redis(number: int = 1) -> str:
    """The address of a numbered database of the shared Redis, emptied."""
    import redis

    url = f"{shared_redis().url}?db={number}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def _until_exit(make: Callable[[Path, dict[str, str]], Server]) -> Server:
    stack = ExitStack()
    server = stack.enter_context(_in_new_folder(make, {}))
    pid = os.getpid()
    atexit.register(lambda: stack.close() if os.getpid() == pid else None)
    return server


@contextmanager
def _in_new_folder(make: Callable[[Path, dict[str, str]], Server], options: dict[str, str]) -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="ss-server-"))
    folder.chmod(0o755)
    try:
        with make(folder / "server", options) as server:
            yield server
    except StackError as error:
        if error.error_code != "STACK_NOT_INSTALLED" or os.environ.get("CI"):
            raise
        pytest.skip(error.message)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
