"""The server as tests use it: started in a process of its own, told what to do, asked what it saw."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from ss_pipeline_tests.fake_llm.server import Script

_NO_PROXY = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Seen:
    """What the server has seen since it started."""

    calls: int
    billed: int
    most_at_once: int
    requests: list[dict[str, Any]]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The requests' bodies, in order."""
        return [request["body"] for request in self.requests]

    def text(self) -> str:
        """All that was sent, for a search."""
        return json.dumps(self.requests, ensure_ascii=False)


@dataclass(frozen=True)
class FakeLLM:
    """A running server."""

    port: int

    @property
    def openai_url(self) -> str:
        """The base URL for chat completions."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def claude_url(self) -> str:
        """The base URL for messages."""
        return f"http://127.0.0.1:{self.port}"

    def does(self, *steps: str, **script: Any) -> None:
        """Tells it what to do next; see `Script`."""
        self._control(Script(steps=list(steps), **script).model_dump_json().encode())

    def seen(self) -> Seen:
        """What it has seen."""
        return Seen(**self._control(None))

    def _control(self, body: bytes | None) -> dict[str, Any]:
        request = Request(f"http://127.0.0.1:{self.port}/control", data=body)
        with _NO_PROXY.open(request, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def fake_llm() -> Iterator[FakeLLM]:
    """A server for a block."""
    command = [sys.executable, "-m", "ss_pipeline_tests.fake_llm.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield FakeLLM(int(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.kill()
