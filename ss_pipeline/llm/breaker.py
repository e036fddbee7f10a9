"""The circuit breaker of a provider: after several faults in a row nobody asks for a while, then one tries.

Its state is this process's. What all processes share (a Retry-After, the rate) is governor.py's business.
"""

import logging

from ss_pipeline.clock import Clock
from ss_pipeline.telemetry.events import emit


class Breaker:
    """Closed while calls succeed; open for `pause` seconds after `faults` faults in a row; then one call tries."""

    def __init__(self, provider: str, *, clock: Clock, faults: int = 5, pause: float = 30.0) -> None:
        self._provider = provider
        self._clock = clock
        self._limit = faults
        self._pause = pause
        self._faults = 0
        self._open_until = 0.0

    def refuses_for(self) -> float:
        """Seconds for which no call may be made; 0.0 where this caller may make one."""
        left = self._open_until - self._clock.monotonic()
        if self._faults < self._limit:
            return 0.0
        if left > 0:
            return left
        self._open_until = self._clock.monotonic() + self._pause  # the others wait for what this caller finds
        return 0.0

    def succeeded(self) -> None:
        """A call was answered."""
        if self._faults >= self._limit:
            emit("SS_LLM_BREAKER_CLOSED", provider=self._provider)
        self._faults = 0

    def failed(self) -> None:
        """A call was not answered."""
        self._faults += 1
        if self._faults >= self._limit:
            self._open_until = self._clock.monotonic() + self._pause
        if self._faults == self._limit:
            emit("SS_LLM_BREAKER_OPENED", level=logging.WARNING, provider=self._provider, seconds=self._pause)
