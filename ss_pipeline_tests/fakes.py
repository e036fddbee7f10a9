"""Hand-written stand-ins for ports: a clock the test moves."""

from datetime import UTC, datetime, timedelta

from ss_pipeline.clock import Clock


class StandingClock(Clock):
    """A clock that moves only when told; ids are counted."""

    def __init__(self, start: datetime = datetime(2026, 1, 6, 12, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._ids = 0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._now.timestamp()

    def new_job_id(self) -> str:
        self._ids += 1
        return f"job_{self._ids:026d}"

    def advance(self, seconds: float) -> None:
        """Moves the clock on."""
        self._now += timedelta(seconds=seconds)
