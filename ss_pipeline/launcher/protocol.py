"""What launchers and a zygote say to each other: JSON lines over a Unix socket, with a version and bounded sizes.

What lives here: the messages and their bytes. What does not: sockets. A message that is not exactly one of these is a
LauncherProtocolError; the zygote answers it and goes on.
"""

import re
from typing import Annotated, Final, Literal, TypeAlias, TypeVar

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ss_pipeline.errors import LauncherProtocolError

MAX_REQUEST_BYTES: Final = 4_096
MAX_ANSWER_BYTES: Final = 262_144
MAX_ERROR_CHARACTERS: Final = 60_000
"""A longer error of user code is cut; four bytes a character and its escapes still fit into an answer."""

_STRICT: Final = ConfigDict(extra="forbid", strict=True)
PROTOCOL: Final = 1
Version: TypeAlias = Literal[1]
_RUN_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
RunId: TypeAlias = Annotated[str, StringConstraints(pattern=_RUN_ID)]
"""A run id that is also a safe file name. Dagster's own are UUIDs."""


@dataclass(frozen=True, config=_STRICT)
class Launch:
    """Fork a process for this run. The standard output and error of the run come along as two descriptors.

    Args:
        deadline: Until when the asker waits, on CLOCK_MONOTONIC, which all processes of a machine share.
    """

    run_id: RunId
    deadline: float
    verb: Literal["launch"] = "launch"
    version: Version = 1


@dataclass(frozen=True, config=_STRICT)
class Look:
    """Say how you are."""

    verb: Literal["look"] = "look"
    version: Version = 1


@dataclass(frozen=True, config=_STRICT)
class Launched:
    """The run has its process, which is recorded.

    Args:
        again: Somebody had launched the run before; nothing was done.
    """

    run_id: RunId
    pid: int
    again: bool = False
    verb: Literal["launched"] = "launched"
    version: Version = 1


@dataclass(frozen=True, config=_STRICT)
class Retiring:
    """This zygote launches nothing any more: start another one."""

    reason: str
    verb: Literal["retiring"] = "retiring"
    version: Version = 1


@dataclass(frozen=True, config=_STRICT)
class Refused:
    """It cannot be done.

    Args:
        code: A code of errors.py (LAUNCHER_…).
        error_info: For code that could not be loaded: Dagster's description of the error, serialized.
    """

    code: str
    message: str
    error_info: str | None = None
    verb: Literal["refused"] = "refused"
    version: Version = 1


@dataclass(frozen=True, config=_STRICT)
class Condition:
    """How a zygote is.

    Args:
        launched: Runs it has forked.
        running: Ids of its runs that live now.
        waiting: Launches that wait for a place.
        megabytes: Its resident memory; `grown` since it was ready.
    """

    pid: int
    launched: int
    running: tuple[str, ...]
    waiting: int
    megabytes: float
    grown: float
    retiring: str | None
    verb: Literal["condition"] = "condition"
    version: Version = 1


Request: TypeAlias = Launch | Look
Answer: TypeAlias = Launched | Retiring | Refused | Condition
Message = TypeVar("Message")

_REQUESTS: Final[TypeAdapter[Request]] = TypeAdapter(Annotated[Request, Field(discriminator="verb")])
_ANSWERS: Final[TypeAdapter[Answer]] = TypeAdapter(Annotated[Answer, Field(discriminator="verb")])


def is_run_id(text: str) -> bool:
    """Whether a run of this id can be launched and recorded."""
    return re.fullmatch(_RUN_ID, text) is not None


def to_line(message: Request | Answer) -> bytes:
    """The message as it goes over the wire, with its newline."""
    adapter: TypeAdapter[Request | Answer] = TypeAdapter(type(message))
    return adapter.dump_json(message) + b"\n"


def read_request(line: bytes) -> Request:
    """The request in a line.

    Raises:
        LauncherProtocolError: it is none.
    """
    return _read(line, _REQUESTS, limit=MAX_REQUEST_BYTES)


def read_answer(line: bytes) -> Answer:
    """The answer in a line.

    Raises:
        LauncherProtocolError: it is none.
    """
    return _read(line, _ANSWERS, limit=MAX_ANSWER_BYTES)


def _read(line: bytes, adapter: TypeAdapter[Message], *, limit: int) -> Message:
    if len(line) > limit:
        raise LauncherProtocolError(f"a message of more than {limit} bytes")
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise LauncherProtocolError(f"a message that is not understood: {first['msg']}") from error
