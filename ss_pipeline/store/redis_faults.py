"""What Redis says when something goes wrong, in the store's words: which error it is, and what to do about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from ss_pipeline.errors import SettingsError, SSError, StoreUnavailableError

_UNCHANGED: Final = "Nothing was changed."
_UNKNOWN: Final = "A change that was under way may have been made: read the document again before repeating it."

_REFUSALS: Final = {
    "LOADING": ("is still loading its data", "Wait until it has read its append-only file."),
    "OOM": ("is out of memory", "Raise `maxmemory` on the server, or remove what else it holds."),
    "MISCONF": ("cannot write to its disk", "Free space on the server's disk and look at its log."),
    "READONLY": ("has become a replica, which takes no changes", "Point SS_REDIS_URL to the primary."),
    "NOREPLICAS": ("has fewer replicas than `min-replicas-to-write`", "Start its replicas."),
    "BUSY": ("is busy with a script", "If it stays so, a script of another program hangs: redis-cli SCRIPT KILL."),
}
"""The word with which the server refuses a command -> what is the matter, and what a person can do."""


class UnfitServerError(redis.RedisError):
    """A refusal of ours on its way through the client, which closes a connection only on errors of its own kind."""

    def __init__(self, refusal: SSError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@contextmanager
def named_faults() -> Iterator[None]:
    """Turns what the client raises into the store's errors.

    Raises:
        SettingsError: the server refuses the user or the password of SS_REDIS_URL, or the user may not do this.
        StoreUnsafeError: the server was refused when it was connected to.
        StoreUnavailableError: anything else; its `todo` says whether a change may have been made.
    """
    try:
        yield
    except UnfitServerError as error:
        raise error.refusal from None
    except (redis.RedisError, redis.ChildDeadlockedError) as error:
        raise _named(error) from error


def _named(error: Exception) -> SSError:
    if isinstance(error, redis.exceptions.NoPermissionError):
        return SettingsError(f"SS_REDIS_URL: its user lacks a permission on the server: {error}")
    if isinstance(error, redis.AuthenticationError):
        return SettingsError("SS_REDIS_URL: the server refuses its user and password")
    if refusal := re.search(rf"\b({'|'.join(_REFUSALS)})\b", f"{getattr(error, 'status_code', '')} {error}"):
        what, todo = _REFUSALS[refusal[1]]
        return StoreUnavailableError(f"Redis {what}", todo=f"{todo} {_UNCHANGED}")
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        todo = f"Start the server, or correct SS_REDIS_URL. {_UNKNOWN}"
        return StoreUnavailableError(f"Redis does not answer: {error}", todo=todo)
    return StoreUnavailableError(f"Redis refuses: {error}", todo=f"Look at the server's log. {_UNKNOWN}")
