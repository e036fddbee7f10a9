"""Records the events that are emitted while a block runs."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ss_pipeline.telemetry.events import LOGGER


class EventTape(logging.Handler):
    """A log handler that keeps (event code, fields) of every event, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, Mapping[str, object]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps one event."""
        self.events.append((record.__dict__["event"], record.__dict__["fields"]))

    def of(self, code: str) -> list[Mapping[str, object]]:
        """The fields of every event with this code."""
        return [fields for event, fields in self.events if event == code]


@contextmanager
def recorded_events() -> Iterator[EventTape]:
    """A tape of what is emitted in the block, whatever the log level was."""
    tape, level = EventTape(), LOGGER.level
    LOGGER.addHandler(tape)
    LOGGER.setLevel(logging.DEBUG)
    try:
        yield tape
    finally:
        LOGGER.setLevel(level)
        LOGGER.removeHandler(tape)
