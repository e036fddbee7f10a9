"""Running the Lua scripts of redis_lua/, in which everything happens that the Redis back end does.

Which keys there are, and how they change together, is said in redis_lua/prelude.lua. The scripts make up the names of
keys themselves, so they are not for a cluster.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import redis

from ss_pipeline.errors import StoreFormatError, StoreSealedError, StoreUnavailableError
from ss_pipeline.store.redis_faults import named_faults
from ss_pipeline.store.redis_upgrade import FORMER, upgrade


class Script(NamedTuple):
    """The text of a script, and the name under which a server knows it once it has seen it."""

    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script of this name: after the prelude and, unless it is to bring a former store up to date, the check of the
    store's format."""
    folder = files("ss_pipeline.store") / "redis_lua"
    parts = ("prelude", name) if name.startswith("upgrade") else ("prelude", "format", name)
    text = "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class ScriptRunner:
    """Runs scripts on one server.

    Args:
        client: Connects to it.
        space: What the name of every key begins with.
        heeds_seal: Whether changes are refused in a sealed store.
    """

    def __init__(self, client: redis.Redis, *, space: str, heeds_seal: bool) -> None:
        self._client = client
        self._always_given = (space, int(heeds_seal))

    def run(self, name: str, *given: bytes | str | float) -> tuple[str, list[Any]]:
        """What came of a script: "done" or why nothing was changed, and what it found.

        A store of the format before is brought up to date first.

        Raises:
            StoreSealedError, StoreFormatError: nothing was changed.
            SettingsError, StoreUnsafeError, StoreUnavailableError: see `named_faults`.
        """
        outcome, *found = self._answer(name, *given)
        if outcome == b"format" and found[0] in FORMER:
            upgrade(lambda *step: self._answer(*step)[1:])
            outcome, *found = self._answer(name, *given)
        if outcome == b"sealed":
            raise StoreSealedError(found[0].decode())
        if outcome == b"format":
            stored, known = (number.decode() for number in found)
            raise StoreFormatError(f"this Redis holds a store of format {stored}; this version knows {known}")
        return outcome.decode(), found

    def _answer(self, name: str, *given: bytes | str | float) -> list[Any]:
        text, digest = script(name)
        arguments = (*self._always_given, *given)
        try:
            with named_faults():
                try:
                    answer: Any = self._client.evalsha(digest, 0, *arguments)
                except redis.exceptions.NoScriptError:  # a new server, or somebody has flushed its scripts
                    answer = self._client.eval(text, 0, *arguments)
        except StoreUnavailableError:  # the next call looks anew at which server is there, and in which state
            self._client.connection_pool.disconnect(inuse_connections=False)
            raise
        return list(answer)
