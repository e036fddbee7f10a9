"""The life of the file store's index: opened, shared among processes, thrown away and rebuilt from the documents.

The index (SQLite, WAL) is derived and disposable, so it is never fsynced: it survives kill -9, and after a reboot it is
rebuilt. It is also rebuilt where it is missing, damaged or of another version. Its statements are file_index_rows.py's.

The file `.index.lock` is a gate and holds the name of the current index. Whoever uses the index holds the gate shared,
a writer from its mark until after its document is written; whoever rebuilds holds it exclusively, so the scan sees no
document in the making. A rebuilt index gets a new name: one deleted under an open connection would, at its close,
delete the other's write-ahead log.
"""

import logging
import os
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from ss_pipeline import durable
from ss_pipeline.errors import StoreIndexDamagedError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.file_index_rows import IndexRows, Now, Row
from ss_pipeline.store.file_index_session import (
    NAME_BYTES,
    NO_NAME,
    Session,
    connect,
    is_damage,
    unavailable,
)
from ss_pipeline.store.file_index_sql import SCHEMA
from ss_pipeline.store.file_lock import hold, let_go, open_lock
from ss_pipeline.telemetry.events import emit

INDEX_VERSION: Final = 2
_GATE: Final = ".index.lock"
_GATE_SECONDS: Final = 120.0
"""How long to wait for a rebuild by another process: 100,000 documents take about a minute."""


class Index:
    """The index of one root, for all threads of a process and across forks.

    Args:
        root: The folder the index is in.
        scan: Every document's row, read from the documents; a bare key where a document cannot be read now.
        now: Both clocks.
        boot_id: What changes with every start of the machine.
    """

    def __init__(
        self,
        root: Path,
        *,
        scan: Callable[[], Iterable[Row | DocumentKey]],
        now: Callable[[], Now],
        boot_id: Callable[[], str],
    ) -> None:
        self._root = root
        self._scan = scan
        self._now = now
        self._boot_id = boot_id
        self._pid = os.getpid()
        self._idle: deque[Session] = deque()
        self._left_behind: list[deque[Session]] = []

    @contextmanager
    def open(self) -> Iterator[IndexRows]:
        """The rows, with the gate held shared until the block ends.

        Raises:
            StoreIndexDamagedError: the block found the index damaged; another try finds it rebuilt.
            StoreUnavailableError: the index is locked for too long, or the disk is full or fails.
        """
        session, connection = self._checked_out()
        try:
            with self._named_faults(session):
                yield IndexRows(connection)
        finally:
            self._put_back(session)

    @contextmanager
    def changing(self, key: DocumentKey, settle: Callable[[IndexRows, bool], None]) -> Iterator[None]:
        """Holds the gate and marks a document; after the block calls `settle(rows, was_marked)` to enter the change.

        `was_marked` says that an earlier change was left half done, so that the row must be made from the document.
        Where settling fails, the change itself stands, and so does the mark: the next listing reads the document.

        Raises:
            StoreUnavailableError: the document could not be marked; the block was not entered.
        """
        session, rows, was_marked = self._checked_out_marked(key)
        try:
            yield
            try:
                with self._named_faults(session):
                    settle(rows, was_marked)
            except (StoreUnavailableError, OSError) as error:
                emit("SS_STORE_INDEX_DEFERRED", level=logging.WARNING, document=key.name, reason=str(error))
        finally:
            self._put_back(session)

    def wait_for_changes(self) -> None:
        """Returns once every change that is being made now has ended.

        Raises:
            StoreLockedError: one did not end in time.
        """
        with closing(self._new_session()) as session:
            hold(session.gate, shared=False, deadline=time.monotonic() + _GATE_SECONDS, what="of the index")

    def close(self) -> None:
        """Closes what is open in this process; the index may be used again."""
        self._leave_parents_sessions()
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _checked_out(self) -> tuple[Session, sqlite3.Connection]:
        """A session with its gate held shared and connected to the current index."""
        self._leave_parents_sessions()
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._new_session()
        with ExitStack() as undo:
            undo.callback(session.close)
            connection = self._entered(session)
            undo.pop_all()
        return session, connection

    def _new_session(self) -> Session:
        durable.make_folder(self._root)
        return Session(open_lock(self._root / _GATE))

    def _checked_out_marked(self, key: DocumentKey) -> tuple[Session, IndexRows, bool]:
        """A session in which the document is marked; tried once more where the index was found damaged."""
        for last in (False, True):
            session, connection = self._checked_out()
            with ExitStack() as undo:
                undo.callback(self._put_back, session)
                try:
                    with self._named_faults(session):
                        rows = IndexRows(connection)
                        was_marked = rows.mark([key], token=secrets.randbits(62))
                except StoreIndexDamagedError:
                    if last:
                        raise
                    continue
                undo.pop_all()
                return session, rows, was_marked
        raise AssertionError("the last try returns or raises")

    def _put_back(self, session: Session) -> None:
        let_go(session.gate)
        self._idle.append(session)

    def _leave_parents_sessions(self) -> None:
        """After a fork: the parent's connections are neither used nor closed here (SQLite forbids both)."""
        if self._pid != os.getpid():
            self._left_behind.append(self._idle)
            self._idle = deque()
            self._pid = os.getpid()

    def _entered(self, session: Session) -> sqlite3.Connection:
        while True:
            hold(session.gate, shared=True, deadline=time.monotonic() + _GATE_SECONDS, what="of the index")
            connection = self._connected(session)
            if connection is not None:
                return connection
            let_go(session.gate)
            self._rebuild(session)

    def _connected(self, session: Session) -> sqlite3.Connection | None:
        """The connection to the index the gate names; None where that is missing, damaged, or of another time."""
        name = os.pread(session.gate, NAME_BYTES, 0)
        if session.connection is not None and session.name == name:
            return session.connection
        session.disconnect()
        if len(name) != NAME_BYTES or name == NO_NAME:
            return None
        try:
            session.connection = self._usable(name)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise unavailable(error) from error
        session.name = name
        return session.connection

    def _usable(self, name: bytes) -> sqlite3.Connection | None:
        path = self._path(name)
        if not path.is_file():
            return None
        with ExitStack() as undo:
            connection = connect(path)
            undo.callback(connection.close)
            rows = IndexRows(connection)
            if (rows.meta("version"), rows.meta("boot_id")) != (INDEX_VERSION, self._boot_id()):
                return None
            undo.pop_all()
        return connection

    def _rebuild(self, session: Session) -> None:
        hold(session.gate, shared=False, deadline=time.monotonic() + _GATE_SECONDS, what="of the index")
        try:
            if self._connected(session) is None:  # else another process has just rebuilt it
                name = secrets.token_hex(NAME_BYTES // 2).encode()
                with self._named_faults(session):
                    documents = self._fill(name)
                os.pwrite(session.gate, name, 0)
                self._remove_all_but(name)
                emit("SS_STORE_INDEX_REBUILT", documents=documents)
        finally:
            let_go(session.gate)

    def _fill(self, name: bytes) -> int:
        with closing(connect(self._path(name), new=True)) as connection:
            connection.executescript(SCHEMA)
            now = self._now()
            meta: dict[str, str | int | float] = {
                "version": INDEX_VERSION,
                "boot_id": self._boot_id(),
                "looked_at": now.lease,
            }
            return IndexRows(connection).fill(self._scan(), now=now, meta=meta)

    def _path(self, name: bytes) -> Path:
        return self._root / f".index-{name.decode('ascii', 'replace')}.sqlite3"

    def _remove_all_but(self, name: bytes) -> None:
        kept = self._path(name).name
        for path in self._root.glob(".index-*.sqlite3*"):
            if not path.name.startswith(kept):
                path.unlink(missing_ok=True)

    @contextmanager
    def _named_faults(self, session: Session) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                os.pwrite(session.gate, NO_NAME, 0)  # while the gate is held: nobody is rebuilding meanwhile
                raise StoreIndexDamagedError("the index of the file store is damaged") from error
            raise unavailable(error) from error
