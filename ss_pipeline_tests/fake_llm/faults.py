"""The ways in which a provider fails, by name; `FAULTS` are the twelve of guarantee L1 and what goes with them."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Args:
        status: Of the answer; 0 = none is sent.
        is_billed: Whether the provider counts the call: it worked on an answer.
        asks_again: Whether asking once more is right.
    """

    status: int
    is_billed: bool
    asks_again: bool


FAULTS: Final = {
    "rate_limited": Fault(429, is_billed=False, asks_again=True),
    "server_error": Fault(500, is_billed=False, asks_again=True),
    "overloaded": Fault(503, is_billed=False, asks_again=True),
    "hang": Fault(0, is_billed=True, asks_again=True),
    "reset": Fault(0, is_billed=True, asks_again=True),
    "malformed": Fault(200, is_billed=True, asks_again=True),
    "truncated": Fault(200, is_billed=True, asks_again=True),
    "length": Fault(200, is_billed=True, asks_again=False),
    "empty": Fault(200, is_billed=True, asks_again=True),
    "refusal": Fault(200, is_billed=True, asks_again=False),
    "wrong_schema": Fault(200, is_billed=True, asks_again=False),
    "huge": Fault(200, is_billed=True, asks_again=True),
    "drip": Fault(200, is_billed=True, asks_again=True),
}
"""Answers whose text cannot be used (length, refusal, wrong schema) came: no wrapper asks for them again."""

REFUSALS: Final = {"bad_request": 400, "bad_key": 401, "forbidden": 403, "not_found": 404}
"""Statuses that no second call changes."""
