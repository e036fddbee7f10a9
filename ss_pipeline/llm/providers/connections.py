"""HTTP for the SDKs: a client for each event loop, closed with it, and answers bounded in size.

Which SDK is put on top, with which key, is openai.py's and claude.py's business.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, Generic, TypeVar

import httpx2

from ss_pipeline.errors import LLMUnavailableError

MAX_ANSWER_BYTES: Final = 2_000_000
TIMEOUT: Final = httpx2.Timeout(None, connect=10.0)
"""Only for a connection. How long a call may take is TimedModel's business: here a busy loop would lose answers."""

Client = TypeVar("Client")


class Connections(Generic[Client]):
    """The SDK's client of the running event loop; made at first use, closed when the loop is.

    A run's loop lives as long as its claim, so the calls of a claim share their connections.
    """

    def __init__(self, make: Callable[[httpx2.AsyncClient], Client]) -> None:
        self._make = make
        self._open: tuple[asyncio.AbstractEventLoop, AsyncGenerator[Client, None], Client] | None = None

    async def client(self) -> Client:
        """The client of this loop."""
        loop = asyncio.get_running_loop()
        if self._open is None or self._open[0] is not loop:
            kept_open = self._kept_open()
            self._open = (loop, kept_open, await anext(kept_open))
        return self._open[2]

    async def _kept_open(self) -> AsyncGenerator[Client, None]:
        """A generator, since a loop that closes ends its generators, and with it this one's client."""
        async with httpx2.AsyncClient(timeout=TIMEOUT, event_hooks={"response": [_bound]}) as http:
            yield self._make(http)


async def _bound(response: httpx2.Response) -> None:
    """Before the body is read. A compressed body is bounded as sent and as unpacked."""
    if not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    if response.headers.get("content-encoding", "identity") != "identity":
        raise LLMUnavailableError("the answer is compressed, which was not asked for", code="LLM_ANSWER_MALFORMED")
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise LLMUnavailableError(
                    f"the answer has more than {MAX_ANSWER_BYTES} bytes", code="LLM_ANSWER_TOO_LARGE"
                )
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
