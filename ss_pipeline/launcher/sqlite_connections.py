"""Dagster's SQLite storages with connections that are kept: what `pooled_connections` means where there is no server.

Dagster opens a database anew for each statement and closes it again, which copies its log into it and removes it; and
it makes the database of each run's events table by table. With 20 events a run, that is half of what a run costs.
Here a database stays open, and the one of a new run is a copy of an empty one. Files and their content are the same,
so processes with and without this work side by side. What is used of Dagster's insides is what the tests of
dagster_internals.py compare with the installed version.
"""

import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

import sqlalchemy as sa
from dagster import DagsterInstance
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import SqliteScheduleStorage
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

BUSY_SECONDS: Final = 30
"""How long a statement waits for other writers, as in Dagster's event log."""
_MOST_RUNS: Final = 8
"""Databases of runs that stay open in one process; each takes three descriptors."""


class SqliteConnections:
    """The kept connections of one instance's storages, in one process; `close` lets them go.

    Not to be carried over a fork.
    """

    def __init__(self, runs: SqliteRunStorage, events: SqliteEventLogStorage, schedules: SqliteScheduleStorage) -> None:
        self._events = _EventLog(events)
        self._databases = [_Database(_path_of(storage._conn_string)) for storage in (runs, schedules)]  # noqa: SLF001
        runs.connect = self._databases[0].connected  # type: ignore[method-assign]
        schedules.connect = self._databases[1].connected  # type: ignore[method-assign]
        events._connect = self._events.connected  # type: ignore[method-assign]  # noqa: SLF001

    @classmethod
    def keep(cls, instance: DagsterInstance) -> Self | None:
        """Makes an instance keep its connections from now on; None where its storages are others."""
        runs, events, schedules = instance.run_storage, instance.event_log_storage, instance.schedule_storage
        if not isinstance(runs, SqliteRunStorage) or not isinstance(events, SqliteEventLogStorage):
            return None
        return cls(runs, events, schedules) if isinstance(schedules, SqliteScheduleStorage) else None

    def close(self) -> None:
        """Closes all; what is asked for afterwards opens them again."""
        self._events.close()
        for database in self._databases:
            database.close()


class _Database:
    """One database that stays open; if its file was removed or replaced meanwhile, the new one is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._engine: Engine | None = None
        self._file: int | None = None

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        """A connection in a transaction, as Dagster's storages give it."""
        with self._current().connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Closes the connections that are not in use."""
        with self._mutex:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _current(self) -> Engine:
        with self._mutex:
            file = self.path.stat().st_ino if self.path.exists() else None
            if self._engine is None or file != self._file:
                if self._engine is not None:
                    self._engine.dispose()
                self._engine = sa.create_engine(
                    f"sqlite:///{self.path}", connect_args={"timeout": BUSY_SECONDS}, max_overflow=-1
                )
                self._file = file
            return self._engine


class _EventLog:
    """The databases of an event log: the index, and those of the runs that were used last."""

    def __init__(self, storage: SqliteEventLogStorage) -> None:
        self._storage = storage
        self._index = _Database(Path(storage.path_for_shard(INDEX_SHARD_NAME)))
        self._runs: OrderedDict[str, _Database] = OrderedDict()
        self._empty: bytes | None = None

    @contextmanager
    def connected(self, shard: str) -> Iterator[Connection]:
        """A connection to the events of a run, or to the index; one at a time, as in Dagster."""
        with self._storage._db_lock:  # noqa: SLF001
            database = self._index if shard == INDEX_SHARD_NAME else self._of_run(shard)
            self._make_ready(shard, database)
            with database.connected() as connection:
                yield connection
            if database is not self._index:
                with suppress(FileNotFoundError):
                    os.utime(database.path)  # the UI follows a run by changes of this file, and we write beside it

    def close(self) -> None:
        with self._storage._db_lock:  # noqa: SLF001
            for database in (self._index, *self._runs.values()):
                database.close()
            self._runs.clear()

    def _of_run(self, shard: str) -> _Database:
        database = self._runs.pop(shard, None) or _Database(Path(self._storage.path_for_shard(shard)))
        self._runs[shard] = database
        while len(self._runs) > _MOST_RUNS:
            self._runs.popitem(last=False)[1].close()
        return database

    def _make_ready(self, shard: str, database: _Database) -> None:
        """What Dagster does with a database that it sees for the first time: tables and their revision, if missing."""
        ready: set[str] = self._storage._initialized_dbs  # noqa: SLF001
        if shard in ready:
            return
        if not database.path.exists():
            _create(database.path, self._empty_database())
        if not _has_revision(database):
            self._initialize(database.path)
        ready.add(shard)

    def _empty_database(self) -> bytes:
        """A database without events, as Dagster makes it; made once."""
        if self._empty is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "empty.db")
                self._initialize(path)
                self._empty = path.read_bytes()
        return self._empty

    def _initialize(self, path: Path) -> None:
        engine = sa.create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
        self._storage._initdb(engine)  # noqa: SLF001
        engine.dispose()


def _has_revision(database: _Database) -> bool:
    """Whether the database has its tables: Dagster writes the revision last."""
    try:
        with database.connected() as connection:
            return connection.exec_driver_sql("SELECT version_num FROM alembic_version").first() is not None
    except sa.exc.OperationalError:
        return False


def _create(path: Path, body: bytes) -> None:
    """Puts a whole file in its place, unless another process was faster."""
    unfinished = path.with_suffix(f".{secrets.token_hex(8)}.new")
    try:
        with unfinished.open("xb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _path_of(address: str) -> Path:
    return Path(sa.make_url(address).database or "")
