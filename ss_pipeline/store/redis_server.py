"""The server behind the Redis back end: its address, the settings it is refused for, and what the doctor looks at."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ss_pipeline.errors import SettingsError, SSError, StoreUnsafeError
from ss_pipeline.store.redis_faults import UnfitServerError

ServerInfo: TypeAlias = Mapping[str, str]
"""What the command INFO says, by name."""

_ANSWER_SECONDS: Final = 10.0
"""How long an answer is waited for. A script takes milliseconds; what takes longer is a disk that does not sync."""

_OPTION: Final = re.compile(r"db|username|password|ssl_\w+")
_WAYS_TO_WRITE: Final = (
    "Write it as redis://user:password@host:6379/0, rediss://… with TLS, or unix:///path/redis.sock?db=0; in user and "
    "password every character but letters and digits percent-encoded."
)
_NEARLY_FULL: Final = 0.9

_NEEDED: Final = (
    (
        "cluster_enabled",
        "0",
        "this Redis is a cluster, where a change of several keys is not made as a whole",
        "Use a Redis that runs without `cluster-enabled`.",
    ),
    ("role", "master", "this Redis is a replica, which takes no changes", "Point SS_REDIS_URL to the primary."),
    (
        "aof_enabled",
        "1",
        "this Redis keeps no append-only file (`appendonly no`): a crash would lose what it has acknowledged",
        "Set it on the server: redis-cli CONFIG SET appendonly yes; and in redis.conf: appendonly yes",
    ),
    (
        "maxmemory_policy",
        "noeviction",
        "this Redis drops data once its memory is full (`maxmemory-policy`)",
        "Set it on the server: redis-cli CONFIG SET maxmemory-policy noeviction; and the same in redis.conf.",
    ),
)
"""Field of INFO, the value it must have, what another value means, and what to do."""


def connect(url: str, *, connect_seconds: float, look_at: Callable[[ServerInfo], None]) -> redis.Redis:
    """A client that connects when it is first used, and looks at the server each time it connects anew.

    It tries nothing twice: whoever lost an answer does not know what became of the change.

    Args:
        url: SS_REDIS_URL.
        connect_seconds: How long the server may take to accept a connection.
        look_at: Raises an SSError where the server must not be used.

    Raises:
        SettingsError: the URL cannot be used; its text, which may hold a password, is not repeated.
    """

    def greet(connection: redis.Connection) -> None:
        connection.on_connect()
        connection.send_command("INFO")
        info = _info(connection.read_response())
        if info.get("loading") == "1":  # until it is done it says of itself that it keeps no append-only file
            raise redis.BusyLoadingError(status_code="LOADING")
        try:
            look_at(info)
        except SSError as refusal:
            raise UnfitServerError(refusal) from refusal

    pool = redis.ConnectionPool(
        **_options(url),
        protocol=2,
        socket_connect_timeout=connect_seconds,
        socket_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        redis_connect_func=greet,
    )
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, redis.RedisError):
        raise _unusable("an option after `?` does not fit") from None
    return redis.Redis(connection_pool=pool)


def refuse_unfit(info: ServerInfo) -> None:
    """Refuses a server that would lose what it acknowledges, or that cannot make a change as a whole.

    Raises:
        StoreUnsafeError: naming the setting.
    """
    for field, wanted, message, todo in _NEEDED:
        if info.get(field) != wanted:
            raise StoreUnsafeError(message, todo=todo)


def problems(client: redis.Redis) -> Iterator[str]:
    """What a person should know about a server that works.

    Raises:
        StoreUnsafeError: it must not be used any more.
    """
    info = {name: str(value) for name, value in client.info().items()}
    refuse_unfit(info)
    if info["aof_last_write_status"] != "ok":
        yield "Redis could not write its append-only file the last time: look at the server's disk and its log"
    used, most = int(info["used_memory"]), int(info["maxmemory"])
    if most and used >= _NEARLY_FULL * most:
        yield f"the memory of Redis is nearly full: {used // 2**20} of {most // 2**20} MiB are used (`maxmemory`)"
    try:
        synced = client.config_get("appendfsync").get("appendfsync")
    except redis.ResponseError:  # CONFIG is not for everybody, above all where the server is rented
        return
    if synced != "always":
        yield f"a power cut can lose the last second (`appendfsync {synced}`): redis-cli CONFIG SET appendfsync always"


def _info(answer: bytes) -> ServerInfo:
    lines = answer.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _options(url: str) -> dict[str, Any]:
    """What the client takes for an address, with nothing in it that would change how the store talks to the server."""
    try:
        parts = urlsplit(url)
        options: dict[str, Any] = parse_url(url)
        names = parse_qs(parts.query, keep_blank_values=True)
    except ValueError:
        raise _unusable("it is no address of a Redis server") from None
    if parts.fragment:
        raise _unusable("there is a `#` in it")
    if not all(_OPTION.fullmatch(name) for name in names):
        raise _unusable("after `?` only db, username, password and ssl_… are known")
    if parts.scheme == "unix":
        complete = bool(parts.path)
    else:
        complete = bool(parts.hostname) and bool(re.fullmatch(r"/?\d*", parts.path))
    if not complete:
        raise _unusable("the host, the path of the socket, or the number of the database is missing")
    return options


def _unusable(why: str) -> SettingsError:
    return SettingsError(f"SS_REDIS_URL: {why}", todo=_WAYS_TO_WRITE)
