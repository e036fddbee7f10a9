"""A loopback HTTP server that answers as Dagster's webserver does, or does not, with what it was asked kept."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

LOOK: Final = {
    "runs": {"kind": "Runs", "runs": []},
    "sensor": {"kind": "Sensor", "state": {"status": "RUNNING"}},
}
LAUNCHED: Final = {
    "added": {"kind": "AddDynamicPartitionSuccess"},
    "launched": {"kind": "LaunchRunSuccess", "run": {"id": "run-1"}},
}
READ_ONLY: Final = {
    "added": {"kind": "UnauthorizedError"},
    "launched": {"kind": "UnauthorizedError", "message": "Authorization failed"},
}


@dataclass
class FakeWebserver:
    """What it answers to the two questions it is asked, and what is done before it answers.

    Args:
        look: Data of the answer to a query.
        launch: Data of the answer to a mutation.
        raw: Status and body of every answer, in place of data.
        before: Called with "query" or "mutation" before the answer; it dies where this raises an error.
    """

    look: dict[str, Any] = field(default_factory=lambda: LOOK)
    launch: dict[str, Any] = field(default_factory=lambda: LAUNCHED)
    raw: tuple[int, bytes] | None = None
    before: Callable[[str], object] = lambda _: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, question: dict[str, Any]) -> tuple[int, bytes]:
        """Status and body for a question."""
        self.asked.append(question)
        kind = question["query"].split()[0]
        self.before(kind)
        return self.raw or (200, json.dumps({"data": self.look if kind == "query" else self.launch}).encode())

    def launched_tags(self) -> list[dict[str, str]]:
        """The tags of each run it was asked to launch."""
        runs = [question["variables"]["run"] for question in self.asked if "run" in question["variables"]]
        return [{tag["key"]: tag["value"] for tag in run["executionMetadata"]["tags"]} for run in runs]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """One that dies, or whose client has gone, says nothing."""


@contextmanager
def a_webserver(fake: FakeWebserver) -> Iterator[FakeWebserver]:
    """Serves on a port of the loopback address for the length of the block; `url` is where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = fake.answer(question | {"path": self.path})
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
