"""One connection to the file store's index, and what SQLite's errors on it mean. Who uses which when: file_index.py."""

import sqlite3
from pathlib import Path
from typing import Final

from ss_pipeline.errors import StoreUnavailableError
from ss_pipeline.store.file_lock import close_lock

NAME_BYTES: Final = 16
NO_NAME: Final = b"\0" * NAME_BYTES
"""What the gate holds instead of the name of an index that was given up."""
_BUSY_SECONDS: Final = 10.0
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""Result codes of a damaged file; SQLITE_ERROR because fixed statements fail so only where the tables are not ours."""


class Session:
    """One connection and one descriptor of the gate, used by one thread at a time."""

    def __init__(self, gate: int) -> None:
        self.gate = gate
        self.name = NO_NAME
        self.connection: sqlite3.Connection | None = None

    def disconnect(self) -> None:
        """Closes the connection and keeps the gate."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        """Closes both."""
        self.disconnect()
        close_lock(self.gate)


def connect(path: Path, *, new: bool = False) -> sqlite3.Connection:
    """A connection to the index at `path`, which must exist unless it is `new`. Statements commit by themselves."""
    mode = "rwc" if new else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    if new:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the index is to be given up."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def unavailable(error: sqlite3.Error) -> StoreUnavailableError:
    """SQLite's error as the store's."""
    return StoreUnavailableError(f"the index of the file store cannot be used: {error}")
