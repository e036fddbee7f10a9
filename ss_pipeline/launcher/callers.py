"""The zygote's side of the socket: who connects, what they ask, and which of them are still there.

What lives here: the listening socket, one short conversation a connection (a request, an answer), the processes that
have used this zygote. What does not: what is answered. Nothing a caller sends can end the zygote.
"""

import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from ss_pipeline.errors import LauncherProtocolError
from ss_pipeline.launcher.processes import identify, open_pidfd
from ss_pipeline.launcher.protocol import MAX_REQUEST_BYTES, Answer, Launch, Refused, Request, read_request, to_line

SILENT_SECONDS: Final = 10.0
"""A connection that has not asked anything for so long is closed."""
MOST_CONNECTIONS: Final = 256
_CREDENTIALS: Final = struct.Struct("3i")
_MOST_OUTPUTS: Final = 2
_SEND_SECONDS: Final = 2.0


@dataclass(eq=False)
class Caller:
    """One connection.

    Args:
        outputs: Descriptors that came along: standard output and error for a run.
    """

    connection: socket.socket
    received: bytearray = field(default_factory=bytearray)
    outputs: list[int] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)
    has_asked: bool = False


Asked: TypeAlias = Callable[[Caller, Request], None]


class Callers:
    """All connections of a zygote; `asked` is called with each request and answers it with `answer`, now or later."""

    def __init__(self, listener: socket.socket, selector: selectors.BaseSelector, *, asked: Asked) -> None:
        self._listener = listener
        self._selector = selector
        self._asked = asked
        self._callers: set[Caller] = set()
        self._users: dict[int, int] = {}
        self.is_listening = True
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, lambda _: self._accept())
        self._place = Path(listener.getsockname())
        self._identity = self._inode()

    @property
    def has_users(self) -> bool:
        """Whether a process that has used this zygote still lives."""
        return bool(self._users)

    @property
    def is_busy(self) -> bool:
        """Whether a conversation is under way."""
        return bool(self._callers)

    def lost_its_place(self) -> bool:
        """Whether the socket's path is gone or another's: nobody can find this zygote any more."""
        return self._inode() != self._identity

    def answer(self, caller: Caller, answer: Answer) -> None:
        """Sends the answer and ends the conversation; the caller may have gone."""
        if caller not in self._callers:
            return
        try:
            caller.connection.settimeout(_SEND_SECONDS)
            caller.connection.sendall(to_line(answer))
        except OSError:
            pass  # a launcher that is gone looks for the run's record, or never will
        self.close(caller)

    def close(self, caller: Caller) -> None:
        """Ends a conversation."""
        if caller in self._callers:
            self._callers.remove(caller)
            self._selector.unregister(caller.connection)
            caller.connection.close()
            _close_all(caller.outputs)

    def is_there(self, caller: Caller) -> bool:
        """Whether the conversation has not ended."""
        return caller in self._callers

    def stop_listening(self) -> None:
        """Takes no more connections; those that wait in the queue are accepted before, so that they get an answer.

        The path goes first: from then on a launcher that finds nothing there may start another zygote.
        """
        if not self.is_listening:
            return
        self.is_listening = False
        if not self.lost_its_place():
            self._place.unlink(missing_ok=True)
        while self._accept():
            pass
        self._selector.unregister(self._listener)
        self._listener.close()

    def close_silent(self) -> None:
        """Closes connections that have asked nothing for a while."""
        now = time.monotonic()
        for caller in [c for c in self._callers if not c.has_asked and now - c.since > SILENT_SECONDS]:
            self.close(caller)

    def release(self) -> None:
        """For a forked child: closes everything without ending a conversation of the parent."""
        self._listener.close()
        for caller in self._callers:
            caller.connection.close()
            _close_all(caller.outputs)
        _close_all(self._users.values())

    def _accept(self) -> bool:
        """Takes one connection from the queue; False where none waits."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # none waits, or the one that waited is gone
            return False
        if len(self._callers) >= MOST_CONNECTIONS or not self._note_user(connection):
            connection.close()
            return True
        connection.setblocking(False)
        caller = Caller(connection)
        self._callers.add(caller)
        self._selector.register(connection, selectors.EVENT_READ, lambda _: self._read(caller))
        return True

    def _note_user(self, connection: socket.socket) -> bool:
        """Remembers the process at the other end for as long as it lives; False where it is of another user."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        if uid != os.geteuid():
            return False
        process = None if pid in self._users else identify(pid)
        descriptor = None if process is None else open_pidfd(process)
        if descriptor is not None:
            self._users[pid] = descriptor
            self._selector.register(descriptor, selectors.EVENT_READ, lambda _: self._forget_user(pid))
        return True

    def _forget_user(self, pid: int) -> None:
        descriptor = self._users.pop(pid)
        self._selector.unregister(descriptor)
        os.close(descriptor)

    def _read(self, caller: Caller) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(caller.connection, MAX_REQUEST_BYTES + 1, _MOST_OUTPUTS)
        except BlockingIOError:
            return
        except OSError:
            self.close(caller)
            return
        caller.outputs += descriptors
        caller.received += data
        if not data or caller.has_asked:  # gone; or it talks on, which nobody does
            self.close(caller)
        elif b"\n" in caller.received or len(caller.received) > MAX_REQUEST_BYTES:
            self._hear(caller)

    def _hear(self, caller: Caller) -> None:
        try:
            request = _request_of(caller)
        except LauncherProtocolError as error:
            self.answer(caller, Refused(error.error_code, error.message))
            return
        caller.has_asked = True
        self._asked(caller, request)

    def _inode(self) -> tuple[int, int] | None:
        try:
            status = self._place.lstat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _request_of(caller: Caller) -> Request:
    request = read_request(bytes(caller.received))
    if isinstance(request, Launch) and len(caller.outputs) != _MOST_OUTPUTS:
        raise LauncherProtocolError("a launch without standard output and error")
    return request


def _close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
