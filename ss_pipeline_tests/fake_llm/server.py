"""The server: `python -m ss_pipeline_tests.fake_llm.server` prints its port and serves until its input ends.

What it does next is told over HTTP: `POST /control` with a `Script`, `GET /control` for what it has seen.
"""

import asyncio
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from pydantic import BaseModel

from ss_pipeline_tests.fake_llm.faults import FAULTS, REFUSALS
from ss_pipeline_tests.fake_llm.wire import PATHS, Request, answer, empty, encoded, error

HUGE_BYTES: Final = 10_000_000
HANG_SECONDS: Final = 600.0
DRIP_SECONDS: Final = 0.05


class Script(BaseModel):
    """What the server does.

    Args:
        steps: For the next requests, in turn: "ok", the name of a fault, or "=" and the text of an answer.
        then: For all further ones.
        answer: The text of "ok".
        seconds: Before an answer comes.
        retry_after: Header of a 429 or 503, where it is not empty.
        refused_forms: Forms of answers that are turned down, and with which status.
    """

    steps: list[str] = []
    then: str = "ok"
    answer: str = "{}"
    seconds: float = 0.0
    retry_after: str = ""
    refused_forms: dict[str, int] = {}


class FakeProvider:
    """Answers as it was told, and counts."""

    def __init__(self) -> None:
        self.script = Script()
        self.steps: deque[str] = deque()
        self.requests: list[Request] = []
        self.billed = 0
        self.at_once = 0
        self.most_at_once = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, for as many requests as come."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while (request := await _read_request(reader)) is not None:
                path, headers, body = request
                if path == "/control":
                    await _send(writer, 200, encoded(self._controlled(body)))
                elif not await self._answered(Request(PATHS[path], headers, json.loads(body)), writer):
                    break
        writer.close()

    def _controlled(self, body: bytes) -> dict[str, Any]:
        if body:
            self.script = Script.model_validate_json(body)
            self.steps = deque(self.script.steps)
        return {
            "calls": len(self.requests),
            "billed": self.billed,
            "most_at_once": self.most_at_once,
            "requests": [{"headers": seen.headers, "body": seen.body} for seen in self.requests],
        }

    async def _answered(self, request: Request, writer: StreamWriter) -> bool:
        """Whether the connection may be used again."""
        self.requests.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if (status := self.script.refused_forms.get(request.form)) is not None:
                words = f"This response_format type is unavailable: {request.form}"
                await _send(writer, status, encoded(error(request, status, words)))
                return True
            step = self.steps.popleft() if self.steps else self.script.then
            await asyncio.sleep(self.script.seconds)
            return await self._step(step, request, writer)
        finally:
            self.at_once -= 1

    async def _step(self, step: str, request: Request, writer: StreamWriter) -> bool:
        if step in REFUSALS:
            status = REFUSALS[step]
            await _send(writer, status, encoded(error(request, status, f"no: {step}")))
            return True
        fault = FAULTS.get(step)
        self.billed += fault is None or fault.is_billed
        if fault and fault.status >= 400:
            headers = {"retry-after": self.script.retry_after} if self.script.retry_after else {}
            await _send(writer, fault.status, encoded(error(request, fault.status, step)), headers=headers)
            return True
        if step in {"hang", "reset", "truncated", "drip"}:
            await self._break(step, request, writer)
            return False
        await _send(writer, 200, self._body(step, request))
        return True

    def _body(self, step: str, request: Request) -> bytes:
        text = step[1:] if step.startswith("=") else self.script.answer
        bodies = {
            "malformed": b'{"id": "x", "choices": [{',
            "length": encoded(answer(request, text[: len(text) // 2], reason="length")),
            "empty": encoded(empty(request)),
            "refusal": encoded(answer(request, "I cannot help with that.", reason="refusal")),
            "wrong_schema": encoded(answer(request, '{"verdict": "fine", "status": "succeeded"}')),
        }
        if step == "huge":
            return encoded(answer(request, "x" * HUGE_BYTES))
        return bodies.get(step) or encoded(answer(request, text))

    async def _break(self, step: str, request: Request, writer: StreamWriter) -> None:
        body = encoded(answer(request, self.script.answer))
        if step == "hang":
            await asyncio.sleep(HANG_SECONDS)
        elif step == "truncated":
            await _send(writer, 200, body[: len(body) // 2], length=len(body))
        elif step == "drip":
            await _send(writer, 200, b"", length=len(body))
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
        elif transport := writer.transport:
            transport.abort()


async def _read_request(reader: StreamReader) -> tuple[str, dict[str, str], bytes] | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return first.split(" ")[1], headers, body


async def _send(
    writer: StreamWriter,
    status: int,
    body: bytes,
    *,
    length: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    lines = {
        "content-type": "application/json",
        "content-length": str(len(body) if length is None else length),
        "x-request-id": "req_1",
        "request-id": "req_1",
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    writer.write(f"HTTP/1.1 {status} Fake\r\n{head}\r\n".encode() + body)
    await writer.drain()


async def main() -> None:
    """Serves on a free port of loopback until standard input ends."""
    server = await asyncio.start_server(FakeProvider().serve, "127.0.0.1", 0, limit=64 * 1024 * 1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
