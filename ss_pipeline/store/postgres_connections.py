"""Connections to PostgreSQL: a pool per process, opened at first use, checked before anything is done with it.

What is run over them is postgres.py's business, what errors mean postgres_faults.py's.
"""

import hashlib
import os
import re
import select
from collections.abc import Sequence
from contextlib import ExitStack, closing
from copy import copy
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any, Final, Self

from sqlalchemy import URL, Engine, Row, TextClause, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from ss_pipeline.errors import SettingsError, StoreUnsafeError
from ss_pipeline.store import postgres_schema
from ss_pipeline.store.postgres_faults import COLLISIONS, VARIABLE, named_faults, sqlstate_of
from ss_pipeline.telemetry.events import emit

_DRIVER: Final = "postgresql+psycopg2"
_TRIES: Final = 5
"""How often a transaction is begun that the server undoes because it collides with another."""
_RECYCLE_SECONDS: Final = 300
"""A connection is replaced after that time, so that changed settings of the server are noticed."""
_SETTINGS: Final = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "30s",
    "client_encoding": "UTF8",
}
"""Of every session. The statements need the isolation: each must see what was committed before it began."""
_PLANNING: Final = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"
)
"""Of every session. All statements go by keys and in the order of an index; a planner without statistics, or with those
of an hour ago, would at times read whole tables instead."""
_SAFE: Final = ("synchronous_commit", "fsync", "full_page_writes")
_TCP: Final = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""So that a server that went away without a word is noticed within about 30 s."""
_LOCK: Final = text("SELECT pg_advisory_xact_lock(:number)")
_NEW: Final = "new"


@dataclass(frozen=True)
class _Opened:
    """The pool of one process."""

    pid: int
    engine: Engine


def address_of(dsn: str) -> URL:
    """The address for the driver in use: `postgresql://`, `postgres://` and `postgresql+psycopg2://` are the same.

    Raises:
        SettingsError: it is no address of a PostgreSQL database; the message does not repeat it.
    """
    shape = "postgresql://user:password@host:5432/database"
    try:
        url = make_url(dsn)
    except (ArgumentError, ValueError):  # their messages may quote the password
        raise SettingsError(f"{VARIABLE} is no address of the form {shape}") from None
    if url.drivername not in {"postgresql", "postgres", _DRIVER}:
        raise SettingsError(f"{VARIABLE} begins with {url.drivername}://, not with postgresql://")
    return url.set(drivername=_DRIVER)


class Connections:
    """Runs statements, each in a transaction of its own, in the schema of the store.

    A process that was forked opens its own pool; the one of its parent it neither uses nor closes.

    Args:
        url: Where; from `address_of`.
        schema: A plain lower-case name; made and brought up to date at first use.
        pool_size: Most connections of this process.
        connect_seconds: How long a connection may take, and how long a free one is waited for.
        lock_seconds: How long a lock in the database is waited for.
    """

    def __init__(self, url: URL, *, schema: str, pool_size: int, connect_seconds: float, lock_seconds: float) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ValueError(f"{schema!r} is no plain lower-case name of a schema")
        self._url = url
        self._schema = schema
        self._pool_size = pool_size
        self._connect_seconds = connect_seconds
        self._lock_seconds = lock_seconds
        self._opened: _Opened | None = None
        self._opening: dict[int, Lock] = {}

    def run(self, statement: str, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        """The rows that a statement gives, committed; begun again where it collided with another transaction.

        Raises:
            StoreUnavailableError, StoreLockedError, StoreUnsafeError, StoreFormatError
        """
        with named_faults():
            for _ in range(_TRIES - 1):
                try:
                    return self._run_once(statement, parameters)
                except DBAPIError as error:
                    if sqlstate_of(error) not in COLLISIONS:
                        raise
            return self._run_once(statement, parameters)

    def of_another(self) -> Self:
        """Connections to the same place with a pool of their own."""
        another = copy(self)
        another._opened = None  # noqa: SLF001 - its own copy
        another._opening = {}  # noqa: SLF001
        return another

    def close(self) -> None:
        """Closes the connections of this process."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.engine.dispose(close=opened.pid == os.getpid())

    def lock_number(self, purpose: str) -> int:
        """The number of the server's advisory lock for a purpose, of this schema only."""
        name = f"ss_pipeline.{self._schema}.{purpose}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)

    def _run_once(self, statement: str, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        with self._engine().connect() as connection:
            return connection.execute(_text_of(statement), parameters).all()

    def _engine(self) -> Engine:
        opened = self._opened
        if opened is not None and opened.pid == os.getpid():
            return opened.engine
        with self._opening.setdefault(os.getpid(), Lock()):  # not the lock that a thread of the parent may hold
            return self._open()

    def _open(self) -> Engine:
        opened = self._opened
        if opened is not None:
            if opened.pid == os.getpid():  # another thread was first
                return opened.engine
            opened.engine.dispose(close=False)
        engine = self._new_engine()
        with ExitStack() as undone:
            undone.callback(engine.dispose)
            self._prepare(engine)
            undone.pop_all()
        self._opened = _Opened(os.getpid(), engine)
        return engine

    def _new_engine(self) -> Engine:
        arguments = {"connect_timeout": str(max(2, round(self._connect_seconds))), "application_name": "ss-pipeline"}
        engine = create_engine(
            self._url,
            connect_args={name: value for name, value in {**_TCP, **arguments}.items() if name not in self._url.query},
            isolation_level="AUTOCOMMIT",
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=self._connect_seconds,
            pool_recycle=_RECYCLE_SECONDS,
            hide_parameters=True,
        )
        event.listen(engine, "connect", self._begin_session)
        event.listen(engine, "checkout", _refuse_dead)
        return engine

    def _begin_session(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        """Sets a new connection up, and refuses a server that would lose what it acknowledges."""
        lock_timeout = f"{round(self._lock_seconds * 1_000)}ms"
        settings = {**_SETTINGS, **_PLANNING, "lock_timeout": lock_timeout, "search_path": self._schema}
        with closing(connection.cursor()) as cursor:
            cursor.execute(
                "SELECT set_config(name, value, false) FROM unnest(%s, %s) AS setting (name, value)",
                (list(settings), list(settings.values())),
            )
            cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", (list(_SAFE),))
            found: dict[str, str] = dict(cursor.fetchall())
            self._check_safe(found)
            # pinned, so that a reload of the server's configuration does not change it for this session
            cursor.execute("SELECT set_config('synchronous_commit', %s, false)", (found["synchronous_commit"],))
        connection.commit()
        entry.info[_NEW] = True

    def _check_safe(self, settings: dict[str, str]) -> None:
        for name in _SAFE:
            if settings.get(name) == "off":
                raise StoreUnsafeError(
                    f"PostgreSQL runs with {name} = off, and loses acknowledged changes when it or its machine stops",
                    todo=f"Nothing was changed. Set {name} = on (server, database and role), reload it, start again.",
                )

    def _prepare(self, engine: Engine) -> None:
        """Makes the tables or brings them up to date; of several processes one does, the others wait."""
        with engine.connect() as connection:
            version = postgres_schema.version_of(connection, schema=self._schema)
            postgres_schema.check_version(version, schema=self._schema)
            if version == postgres_schema.CURRENT:
                return
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
            connection.execute(text("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0"))
            connection.execute(_LOCK, {"number": self.lock_number("schema")})
            applied = postgres_schema.migrate(connection, schema=self._schema)
        for migration in applied:
            emit("SS_STORE_SCHEMA_MIGRATED", schema=self._schema, version=migration.number)


@cache
def _text_of(statement: str) -> TextClause:
    return text(statement)


def _refuse_dead(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
    """Replaces connections that the server has ended meanwhile: there is something to read on an idle socket then.

    A look at the socket, where a ping would cost every statement a second round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not entry.info.pop(_NEW, False) and poll.poll(0):
        raise InvalidatePoolError
