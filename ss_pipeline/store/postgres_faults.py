"""What PostgreSQL and its driver say, in the store's words: what failed, whether it passes, and what to do about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ss_pipeline.errors import SettingsError, StoreLockedError, StoreUnavailableError

VARIABLE: Final = "SS_JOB_STORE_POSTGRES_DSN"
COLLISIONS: Final = frozenset({"40001", "40P01"})
"""SQLSTATEs of a transaction that was undone because of another one: it may be tried again at once."""

_LOCK_NOT_GRANTED: Final = "55P03"
_INVALID_ADDRESS: Final = "invalid dsn"
_UNKNOWN_OUTCOME: Final = (
    "Check that the server runs and can be reached, then try again. Whether a change that was under way took effect "
    "is not known: look before it is repeated."
)
_ADVICE: Final = {
    "25006": f"The server takes no writes: it is a standby or read-only. Let {VARIABLE} name the primary. "
    "Nothing was changed.",
    "42501": "Let the user of the store own its schema (CREATE SCHEMA … AUTHORIZATION …) or grant it CREATE on the "
    "database. Nothing was changed.",
    "42P01": "The tables are gone. Restore the schema from a backup; an empty one is made at the next start.",
    "53100": "The disk of the server is full. Free space there and try again; nothing was changed.",
    "53200": "The server is out of memory. Try again; nothing was changed.",
    "53300": "The server has no connection left. Raise max_connections there, or run fewer processes; nothing was "
    "changed.",
    "57014": "The server took too long and gave the statement up. Look at its load and locks; nothing was changed.",
}


def sqlstate_of(error: DBAPIError) -> str:
    """The server's code of what went wrong, or "" where it did not say (no connection, or lost)."""
    return getattr(error.orig, "pgcode", None) or ""


@contextmanager
def named_faults() -> Iterator[None]:
    """Turns errors of the driver and of the pool into the store's.

    Raises:
        StoreLockedError: a lock was not granted in time.
        StoreUnavailableError: anything else.
        SettingsError: the address has an option that there is not.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreUnavailableError(
            "all connections of this process to PostgreSQL are in use",
            todo="Nothing was changed. Try again, or run fewer threads.",
        ) from error
    except DBAPIError as error:
        raise _as_store_error(error) from error


def _as_store_error(error: DBAPIError) -> StoreUnavailableError | SettingsError:
    code, said = sqlstate_of(error), _first_line(error)
    if code == _LOCK_NOT_GRANTED:
        return StoreLockedError("PostgreSQL: another session holds the lock of a document, or a copy is sealing")
    if said.startswith(_INVALID_ADDRESS):
        return SettingsError(f"{VARIABLE}: {said}")
    return StoreUnavailableError(f"PostgreSQL: {said}", todo=_ADVICE.get(code, _UNKNOWN_OUTCOME))


def _first_line(error: DBAPIError) -> str:
    """What the server or the driver said, without the details, which may quote data."""
    primary = getattr(getattr(error.orig, "diag", None), "message_primary", None)
    return str(primary or error.orig).strip().partition("\n")[0]
