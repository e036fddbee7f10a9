"""The zygote: a process that has imported a code location and forks one process for each of its runs.

    python -m ss_pipeline.launcher.zygote <folder>/<key>       started by zygotes.py, never by hand

It has one thread, opens no connection to a database and no port, and does as little as it can: `Zygote` answers
launches, `load` imports. What lives here: when it takes launches and when it ends. What does not: conversations
(callers.py), runs (children.py), reports (reports.py).
"""

import gc
import importlib
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.errors import CodeNotLoadedError, LauncherBusyError, SSError, ZygoteUnreachableError, ZygoteUnsafeError
from ss_pipeline.launcher import dagster_internals
from ss_pipeline.launcher.callers import Caller, Callers
from ss_pipeline.launcher.child import STOPPING, Inheritance, Run
from ss_pipeline.launcher.children import Children
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.processes import (
    close_inherited,
    name_this_process,
    other_threads,
    resident_megabytes,
    this_process,
)
from ss_pipeline.launcher.protocol import (
    MAX_ERROR_CHARACTERS,
    Answer,
    Condition,
    Launch,
    Launched,
    Refused,
    Request,
    Retiring,
)
from ss_pipeline.launcher.records import RunRecords
from ss_pipeline.launcher.reports import Reports
from ss_pipeline.launcher.sources import Sources, loaded_sources
from ss_pipeline.launcher.start import ZygoteStart, from_json
from ss_pipeline.launcher.zygotes import LISTENER_FD
from ss_pipeline.telemetry.events import emit
from ss_pipeline.telemetry.json_logs import log_to_stderr

_TICK_SECONDS: Final = 0.2
"""How often deadlines are looked at while there is one."""
_QUIET_SECONDS: Final = 5.0
"""The same while there is none."""
_PRUNE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Loaded:
    """A code location that was imported."""

    repository: dagster_internals.ReconstructableRepository
    sources: Sources


def load(start: ZygoteStart) -> Loaded | Refused:
    """Imports the code location, or says why runs cannot be forked from it."""
    begun_ns = time.time_ns()
    dagster_internals.read_migrations_once()
    with dagster_internals.ForeignErrors() as errors:
        secrets = dagster_internals.inject_secrets(start.instance, start.location)
        for name in (*dagster_internals.IMPORTED_BY_RUNS, *start.preload):
            importlib.import_module(name)
        repository = dagster_internals.load_repository(start.repository, start.load_data)
    if errors.info is not None:
        info = dagster_internals.shortened_error(errors.info, characters=MAX_ERROR_CHARACTERS)
        message = f"The code location could not be loaded: {info.message.strip()}"
        return Refused(CodeNotLoadedError.code, message, dagster_internals.serialized_error(info))
    if (reason := threads_found()) is not None:
        return Refused(ZygoteUnsafeError.code, reason)
    sources = loaded_sources(begun_ns=begun_ns, files=secrets, watched=start.watch)
    gc.collect()
    gc.freeze()  # what is loaded is never collected: no run writes to these pages because of the collector
    return Loaded(repository, sources)


def threads_found() -> str | None:
    """Why this process cannot be forked safely; None where it has its one thread."""
    others = other_threads()
    if not others:
        return None
    named = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    known = ", ".join(named or others)
    return f"the code location has {len(others)} threads besides the main one after its import: {known}"


@dataclass(frozen=True)
class _Waiting:
    caller: Caller
    request: Launch


class Zygote:
    """Answers launches of one loaded code location until it retires and its runs have ended."""

    def __init__(self, start: ZygoteStart, key: str, *, listener: socket.socket, loaded: Loaded | Refused) -> None:
        folder = LauncherFolder(Path(start.folder))
        self._start = start
        self._loaded = loaded
        self._folder = folder
        self._key = key
        self._records = RunRecords(folder.runs)
        self._selector = selectors.DefaultSelector()
        self._handlers = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGCHLD)}
        self._wakeup = _wakeup_socket(self._selector, self._stopped)
        self._reports = Reports(start.instance, records=self._records, selector=self._selector)
        self._children = Children(key, records=self._records, selector=self._selector, lost=self._reports.add)
        self._callers = Callers(listener, self._selector, asked=self._asked)
        self._inheritance = Inheritance(self._release, self._handlers, start.numeric_threads)
        self._waiting: deque[_Waiting] = deque()
        self._retiring: str | None = None
        self._drain_until: float | None = None
        self._megabytes_at_start = resident_megabytes()
        self._pruned_at = self._used_at = time.monotonic()

    def serve(self) -> None:
        """Returns when this zygote has retired and nothing is left to do for it."""
        self._children.adopt()
        if isinstance(self._loaded, Refused):
            self._retire("the code location could not be loaded")
        else:
            emit("SS_LAUNCHER_ZYGOTE_READY", key=self._key, megabytes=round(self._megabytes_at_start))
        while not self._is_done():
            for ready, _ in self._selector.select(self._pause()):
                ready.data(ready.fileobj)
            self._look_at_the_clock()
        self._folder.remove_zygote(self._key, this_process())

    # --- requests

    def _asked(self, caller: Caller, request: Request) -> None:
        if not isinstance(request, Launch):
            self._callers.answer(caller, self._condition())
        elif len(self._children.run_ids) >= self._start.max_children and self._retiring is None:
            self._waiting.append(_Waiting(caller, request))
        else:
            self._callers.answer(caller, self._launch(caller, request))

    def _launch(self, caller: Caller, request: Launch) -> Answer:
        if isinstance(self._loaded, Refused):
            return self._loaded
        if self._retiring is None and (reason := self._why_retire(self._loaded)) is not None:
            self._retire(reason)
        if self._retiring is not None:
            return Retiring(self._retiring)
        if time.monotonic() > request.deadline:
            return Refused(LauncherBusyError.code, "the launch was answered too late")
        if (threads := threads_found()) is not None:
            return Refused(ZygoteUnsafeError.code, threads)
        return self._forked(caller, request, self._loaded)

    def _forked(self, caller: Caller, request: Launch, loaded: Loaded) -> Answer:
        run = Run(
            request.run_id,
            records=self._records,
            instance=self._start.instance,
            repository=loaded.repository,
            pooled=self._start.pooled_connections,
        )
        try:
            record, is_new = self._children.launch(run, (caller.outputs[0], caller.outputs[1]), self._inheritance)
        except OSError as error:  # no more processes or memory, a full disk
            return Refused(ZygoteUnreachableError.code, f"no process could be forked: {error}")
        except SSError as error:
            return Refused(error.error_code, error.message)
        return Launched(request.run_id, record.process.pid, again=not is_new)

    def _condition(self) -> Condition:
        now = resident_megabytes()
        return Condition(
            pid=os.getpid(),
            launched=self._children.launched,
            running=self._children.run_ids,
            waiting=len(self._waiting),
            megabytes=round(now, 1),
            grown=round(now - self._megabytes_at_start, 1),
            retiring=self._retiring,
        )

    # --- the end

    def _why_retire(self, loaded: Loaded) -> str | None:
        if (changed := loaded.sources.change()) is not None:
            return f"the code has changed: {changed}"
        grown = resident_megabytes() - self._megabytes_at_start
        if 0 < self._start.recycle_after_mb < grown:
            return f"its memory has grown by {grown:.0f} MB"
        return None

    def _retire(self, reason: str) -> None:
        """Takes no more launches: whoever asks, now or already waiting, is sent on to another zygote."""
        if self._retiring is None:
            self._retiring = reason
            emit("SS_LAUNCHER_ZYGOTE_RETIRED", key=self._key, reason=reason, running=len(self._children.run_ids))
            self._callers.stop_listening()
            while self._waiting:
                waiting = self._waiting.popleft()
                self._callers.answer(waiting.caller, Retiring(reason))

    def _stopped(self) -> None:
        """SIGTERM or SIGINT: drain."""
        self._retire("it was told to end")
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self._start.drain_seconds

    def _is_done(self) -> bool:
        if self._retiring is None or self._callers.is_busy:
            return False
        return not self._children.run_ids and not self._reports.are_owed

    def _is_unused(self) -> bool:
        if self._callers.is_busy or self._children.run_ids or self._reports.are_owed:
            self._used_at = time.monotonic()
            return False
        patience = self._start.rest_seconds if self._callers.has_users else self._start.idle_seconds
        return time.monotonic() - self._used_at >= patience

    # --- what is due

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        self._callers.close_silent()
        self._serve_waiting(now)
        self._reports.go_on(self._inheritance)
        if self._drain_until is not None and now > self._drain_until:
            self._drain_until = now + self._start.drain_seconds
            self._children.interrupt()
        if self._retiring is None and self._callers.lost_its_place():
            self._retire("its socket was removed")
        if self._retiring is None and self._is_unused():
            self._retire("nothing uses it")
        if now - self._pruned_at > _PRUNE_SECONDS:
            self._pruned_at = now
            self._records.prune()

    def _serve_waiting(self, now: float) -> None:
        """Launches those that wait, in turn, as far as there are places; refuses those that have waited too long."""
        while self._waiting:
            waiting = self._waiting[0]
            is_late = now > waiting.request.deadline
            is_full = len(self._children.run_ids) >= self._start.max_children
            if is_full and not is_late and self._callers.is_there(waiting.caller):
                return
            self._waiting.popleft()
            if is_late:
                message = f"{self._start.max_children} runs live, as many as max_children allows, and none has ended"
                self._callers.answer(waiting.caller, Refused(LauncherBusyError.code, message))
            elif self._callers.is_there(waiting.caller):
                self._callers.answer(waiting.caller, self._launch(waiting.caller, waiting.request))

    def _pause(self) -> float:
        if self._retiring is not None or not self._callers.has_users or self._callers.is_busy or self._reports.are_owed:
            return _TICK_SECONDS
        rest = self._used_at + self._start.rest_seconds - time.monotonic()
        return max(_TICK_SECONDS, min(_QUIET_SECONDS, rest))

    def _release(self) -> None:
        """In a forked child: closes everything of this zygote."""
        self._callers.release()
        self._children.release()
        self._reports.release()
        self._selector.close()
        for end in self._wakeup:
            end.close()


def _wakeup_socket(
    selector: selectors.BaseSelector, stopped: Callable[[], None]
) -> tuple[socket.socket, socket.socket]:
    """Makes signals that stop a process wake the selector up, and end up in `stopped`."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    for number in STOPPING:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where the code ignores it, nobody learns how a run ended
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)

    def woken(_: object) -> None:
        reader.recv(64)
        stopped()

    selector.register(reader, selectors.EVENT_READ, woken)
    return reader, writer


def _read_nothing_more() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def main() -> None:
    """Reads the parameters from standard input, loads, serves."""
    key = Path(sys.argv[1]).name
    start = from_json(sys.stdin.buffer.read())
    _read_nothing_more()
    close_inherited(keep=LISTENER_FD)
    name_this_process("dagster zygote")
    log_to_stderr()
    listener = socket.socket(fileno=LISTENER_FD)
    os.set_inheritable(LISTENER_FD, False)
    loaded = load(start)
    if isinstance(loaded, Refused):
        emit("SS_LAUNCHER_CODE_UNUSABLE", level=logging.ERROR, key=key, code=loaded.code, reason=loaded.message)
    Zygote(start, key, listener=listener, loaded=loaded).serve()


if __name__ == "__main__":
    main()
