"""The server behind the Redis back end: its address, the settings it is refused for, and what the doctor looks at."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from ss_pipeline.errors import SettingsError, SSError, StoreUnsafeError
from ss_pipeline.store.redis_faults import UnfitServerError

ServerInfo: TypeAlias = Mapping[str, str]
"""What the command INFO says, by name; and `_SETTINGS`, each "unknown" where the user may not read settings."""

_ANSWER_SECONDS: Final = 10.0
"""How long an answer is waited for. A script takes milliseconds; what takes longer is a disk that does not sync."""

_OPTION: Final = re.compile(r"db|username|password|ssl_\w+")
_WAYS_TO_WRITE: Final = (
    "Write it as redis://user:password@host:6379/0, rediss://… with TLS, or unix:///path/redis.sock?db=0; in user and "
    "password every character but letters and digits percent-encoded."
)
_NEARLY_FULL: Final = 0.9
_UNKNOWN: Final = "unknown"
_SETTINGS: Final = ("appendfsync", "no-appendfsync-on-rewrite")


class Need(NamedTuple):
    """What a server must be like: the name in `ServerInfo`, its values, what any other means, and what to do."""

    name: str
    values: frozenset[str]
    otherwise: str
    todo: str


_NEEDS: Final = (
    Need(
        "cluster_enabled",
        frozenset({"0"}),
        "this Redis is a cluster, where a change of several keys is not made as a whole",
        "Use a Redis that runs without `cluster-enabled`.",
    ),
    Need(
        "role",
        frozenset({"master"}),
        "this Redis is a replica, which takes no changes",
        "Point SS_REDIS_URL to the primary.",
    ),
    Need(
        "aof_enabled",
        frozenset({"1"}),
        "this Redis keeps no append-only file (`appendonly no`): when it crashes, all it has acknowledged may be lost",
        "Set it on the server: redis-cli CONFIG SET appendonly yes; and in redis.conf: appendonly yes",
    ),
    Need(
        "appendfsync",
        frozenset({"always", _UNKNOWN}),
        "this Redis acknowledges changes before they are on its disk: when it or its machine crashes, the changes of "
        "the last two seconds may be lost",
        "Set it on the server: redis-cli CONFIG SET appendfsync always; and in redis.conf: appendfsync always",
    ),
    Need(
        "no-appendfsync-on-rewrite",
        frozenset({"no", _UNKNOWN}),
        "this Redis does not sync its append-only file while it rewrites it: a power cut may lose what it acknowledged",
        "Set it on the server: redis-cli CONFIG SET no-appendfsync-on-rewrite no; and the same in redis.conf.",
    ),
    Need(
        "maxmemory_policy",
        frozenset({"noeviction"}),
        "this Redis drops data once its memory is full (`maxmemory-policy`)",
        "Set it on the server: redis-cli CONFIG SET maxmemory-policy noeviction; and the same in redis.conf.",
    ),
)
"""With `appendfsync everysec` Redis does not even write the file while an earlier sync of it lasts (up to two seconds),
so that not only a power cut loses changes but also a kill of the server: 79 to 2,324 in four trials on a slow disk."""


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
            look_at(info | {name: _setting(connection, name) for name in _SETTINGS})
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
    for need in _NEEDS:
        if info.get(need.name) not in need.values:
            raise StoreUnsafeError(need.otherwise, todo=need.todo)


def problems(client: redis.Redis) -> Iterator[str]:
    """What a person should know about a server that is not refused."""
    info = client.info()
    if info["aof_last_write_status"] != "ok":
        yield "Redis could not write its append-only file the last time: look at the server's disk and its log"
    used, most = int(info["used_memory"]), int(info["maxmemory"])
    if most and used >= _NEARLY_FULL * most:
        yield f"the memory of Redis is nearly full: {used // 2**20} of {most // 2**20} MiB are used (`maxmemory`)"
    try:
        client.config_get("appendfsync")
    except redis.ResponseError:
        yield "the user of SS_REDIS_URL may not read settings (CONFIG GET): see to it that `appendfsync` is `always`"


def _setting(connection: redis.Connection, name: str) -> str:
    connection.send_command("CONFIG", "GET", name)
    try:
        answer: list[bytes] = connection.read_response()
    except redis.ResponseError:  # not for everybody, above all where the server is rented
        return _UNKNOWN
    return answer[1].decode() if answer else _UNKNOWN


def _info(answer: bytes) -> dict[str, str]:
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
