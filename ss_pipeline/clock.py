"""The port for time and fresh ids, so that tests decide both. Durations are measured with `monotonic`."""

import secrets
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime


class Clock(ABC):
    """Where time and randomness come from."""

    @abstractmethod
    def now(self) -> datetime:
        """The time, in UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""

    @abstractmethod
    def new_job_id(self) -> str:
        """A fresh, unguessable job id: `job_` and 26 characters of [a-z0-9] (130 bits)."""

    def timestamp(self) -> str:
        """The time as ISO 8601 text in UTC with microseconds, as documents carry it."""
        return self.now().isoformat(timespec="microseconds")


class SystemClock(Clock):
    """The machine's clock and its random source."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def new_job_id(self) -> str:
        alphabet = "abcdefghijklmnopqrstuvwxyz234567"
        return "job_" + "".join(secrets.choice(alphabet) for _ in range(26))
