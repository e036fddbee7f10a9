"""Processes that ask a model and are killed at every step around the call; a server of its own counts what it bills.

Each task prints what it found; the tests judge it (test_llm_kills.py).
"""

import asyncio
import json
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Final, TypeVar

from ss_pipeline.clock import SystemClock
from ss_pipeline.errors import LLMBudgetError
from ss_pipeline.llm.budgets import BUDGETS, Accounts, BudgetedModel, day_account
from ss_pipeline.llm.call_records import Answer, key_of, read_record
from ss_pipeline.llm.governor import GovernedModel
from ss_pipeline.llm.ledger import LedgeredModel
from ss_pipeline.llm.limits import Budget, Rate
from ss_pipeline.llm.model import Completion, LanguageModel, Question, Usage
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline_tests.flaky_store import FlakyBackend
from ss_pipeline_tests.llm_calls import PRICES, Desk, a_question
from ss_pipeline_tests.reliability.forking import Found, drained, fork, run_tasks, together
from ss_pipeline_tests.reliability.store_addresses import open_address

Given = TypeVar("Given")

SHORT_LEASE: Final = 0.5
"""Of askers that are killed: nobody waits long for them."""

TOKENS: Final = 30
"""What each answer of the server takes."""


# --- the server that bills -------------------------------------------------------------------------------------------


class _Billing(BaseHTTPRequestHandler):
    """Bills each question that it has read, then answers; `GET /` says what it billed, and when."""

    protocol_version = "HTTP/1.1"
    billed: ClassVar[Counter[str]] = Counter()
    times: ClassVar[list[float]] = []
    lock = Lock()
    seconds = 0.005

    def do_POST(self) -> None:
        key = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with self.lock:
            self.billed[key] += 1
            self.times.append(time.time())
        time.sleep(self.seconds)
        self._answer({"text": f"the answer to {key[:8]}"})

    def do_GET(self) -> None:
        self._answer({"billed": dict(self.billed), "times": self.times})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def billing_server() -> Iterator[int]:
    """The port of a server in a process of its own."""

    def serve(out: int) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), _Billing) as server:
            os.write(out, server.server_port.to_bytes(4, "big"))
            server.serve_forever()

    child, pipe = fork(serve)
    try:
        yield int.from_bytes(os.read(pipe, 4), "big")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(pipe)


def bill(port: int) -> dict[str, Any]:
    """What the server billed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


# --- who asks, step by step ------------------------------------------------------------------------------------------


class Steps:
    """Counts steps and kills this process at one of them.

    Args:
        kill_at: The step before which the process is killed; -1 = never.
    """

    def __init__(self, kill_at: int = -1) -> None:
        self._kill_at = kill_at
        self.taken: list[str] = []

    def take(self, name: str) -> None:
        """The process has come so far."""
        if len(self.taken) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.taken.append(name)


class SteppedBackend(FlakyBackend):
    """A back end of which each call is two steps, before it has its effect and after; heartbeats are none."""

    def __init__(self, inner: Backend, steps: Steps) -> None:
        super().__init__(inner)
        self._steps = steps

    def _call(self, name: str, act: Callable[[], Given]) -> Given:
        if name == "heartbeat":
            return super()._call(name, act)
        self._steps.take(f"before {name}")
        answer = super()._call(name, act)
        self._steps.take(f"after {name}")
        return answer


class BilledModel(LanguageModel):
    """Asks the server that bills, in four steps."""

    def __init__(self, port: int, steps: Steps) -> None:
        self._port = port
        self._steps = steps

    @property
    def name(self) -> str:
        return "openai/small"

    async def complete(self, question: Question) -> Completion:
        self._steps.take("before connecting")
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._steps.take("connected")
        key = question.key.encode()
        writer.write(b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(key), key))
        await writer.drain()
        self._steps.take("sent")
        head = await reader.readuntil(b"\r\n\r\n")
        self._steps.take("answered")
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        text = json.loads(await reader.readexactly(length))["text"]
        writer.close()
        self._steps.take("read")
        return Completion(text, "stop", "small-1", Usage(TOKENS * 2 // 3, TOKENS // 3))


class ForgetfulModel(LedgeredModel):
    """Broken: writes no intent, only answers."""

    async def complete(self, question: Question) -> Completion:
        key = key_of(question)
        stored = read_record(self._documents, key)
        if stored and stored[1].answer:
            return stored[1].answer.completion()
        record = self._intent(question)
        completion = await self._inner.complete(question)
        answer = Answer(
            text=completion.text,
            finish_reason=completion.finish_reason,
            model=completion.model,
            usage=self._priced(completion.usage, question),
            request_id=None,
            seconds=0.0,
            calls=1,
        )
        self._documents.create(key, record.changed(state="settled", answer=answer).as_bytes(), Facets())
        return completion


@dataclass(frozen=True)
class Place:
    """Where askers keep their records, and whom they ask."""

    address: str
    folder: str
    port: int
    kind: str = "real"
    tokens_per_day: int = 1_000_000
    lease_seconds: float = SHORT_LEASE

    @contextmanager
    def opened(self, steps: Steps) -> Iterator[LanguageModel]:
        """The whole chain of one process, with a budget and a rate that do not bind."""
        with closing(open_address(self.address)) as backend:
            documents: Backend = SteppedBackend(backend, steps)
            clock = SystemClock()
            rules = {"lease_seconds": self.lease_seconds, "heartbeat_seconds": self.lease_seconds / 5}
            desk = Desk.at(Path(self.folder), documents, clock, **rules)
            rates = {"openai": Rate(requests_per_minute=60_000)}
            inner = GovernedModel(BilledModel(self.port, steps), rates=rates, documents=documents, clock=clock)
            budget = Budget(tokens_per_day=self.tokens_per_day)
            paid = BudgetedModel(inner, budget_of=lambda _: budget, documents=documents, prices=PRICES, clock=clock)
            model = desk.ledgered(paid)
            if self.kind == "forgetful":
                model.__class__ = ForgetfulModel
            yield model

    def ask(self, question: Question, *, kill_at: int = -1) -> Found | None:
        """Asks in a process of its own: what it got and the steps it took; None where it was killed."""

        def work(out: int) -> None:
            steps = Steps(kill_at)
            with self.opened(steps) as model:
                completion = asyncio.run(model.complete(question))
            os.write(out, json.dumps({"calls": completion.calls, "steps": steps.taken}).encode())

        child, pipe = fork(work)
        found = drained(pipe)
        status = os.waitpid(child, 0)[1]
        assert found or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
        return json.loads(found) if found else None


# --- tasks -----------------------------------------------------------------------------------------------------------


def kills(address: str, *, rounds: int, kind: str = "real") -> Found:
    """Kills an asker before each of its steps; another process asks then, and a third. What each question came to."""
    findings: list[Found] = []
    with billing_server() as port, tempfile.TemporaryDirectory() as folder:
        place = Place(address, folder, port, kind)
        place.ask(a_question("makes the documents that all share"))
        walked = place.ask(a_question("walked through"))
        assert walked is not None
        steps: list[str] = walked["steps"]
        for number in range(rounds):
            questions = [a_question(f"{number} killed before step {k}") for k in range(len(steps))]
            for k, question in enumerate(questions):
                assert place.ask(question, kill_at=k) is None, steps[k]
            time.sleep(SHORT_LEASE)
            then = [place.ask(question) for question in questions]
            again = [place.ask(question) for question in questions]
            billed = bill(port)["billed"]
            findings += _findings(place, questions, steps, billed, then, again)
        spent = _spent(place)
    return {"findings": findings, "steps": steps, "billed": sum(billed.values()), **spent}


def _findings(
    place: Place,
    questions: list[Question],
    steps: list[str],
    billed: dict[str, int],
    then: list[Found | None],
    again: list[Found | None],
) -> list[Found]:
    findings = []
    with closing(open_address(place.address)) as backend:
        for k, question in enumerate(questions):
            stored = read_record(backend, key_of(question))
            assert stored is not None
            findings.append(
                {
                    "at": f"{k}: {steps[k]}",
                    "billed": billed.get(question.key, 0),
                    "unknowns": stored[1].unknowns,
                    "state": stored[1].state,
                    "then": (then[k] or {}).get("calls"),
                    "again": (again[k] or {}).get("calls"),
                }
            )
    return findings


def _spent(place: Place) -> Found:
    with closing(open_address(place.address)) as backend:
        day = DocumentKey(BUDGETS, "default", day_account(SystemClock().now()))
        account = Accounts(backend).read(day)
    return {"spent": account.spent.tokens, "reserved": len(account.reserved)}


def overrun(address: str, *, processes: int, calls: int, budget_for: int, most: int) -> Found:
    """Processes that ask at once against one budget: answers, refusals, what was billed and what was spent."""
    with billing_server() as port, tempfile.TemporaryDirectory() as folder:
        place = Place(address, folder, port, tokens_per_day=budget_for * TOKENS + most - 1, lease_seconds=60.0)

        def one(index: int) -> Found:
            async def outcome(model: LanguageModel, number: int) -> str:
                job_id = f"job_{index:08d}{number:08d}"
                try:
                    await model.complete(a_question(f"{index} asks {number:04d}", job_id=job_id))
                except LLMBudgetError:
                    return "parked"
                return "answered"

            async def all_of_them() -> list[str]:
                with place.opened(Steps()) as model:
                    return await asyncio.gather(*(outcome(model, number) for number in range(calls)))

            return dict(Counter(asyncio.run(all_of_them())))

        counted: Counter[str] = sum((Counter(found) for found in together(processes, one)), Counter())
        billed = sum(bill(port)["billed"].values())
        return {**counted, "billed": billed, **_spent(place)}


def rated(address: str, *, processes: int, duration: float, requests_per_minute: int) -> Found:
    """Processes that ask as fast as they may for so many seconds: answers of each, and when the server was asked."""
    with billing_server() as port:

        def one(index: int) -> int:
            async def ask() -> int:
                with closing(open_address(address)) as backend:
                    rates = {"openai": Rate(requests_per_minute=requests_per_minute)}
                    model = GovernedModel(
                        BilledModel(port, Steps()), rates=rates, documents=backend, clock=SystemClock()
                    )
                    until, number = time.monotonic() + duration, 0
                    while time.monotonic() < until:
                        await model.complete(a_question(f"{index} asks {number}"))
                        number += 1
                    return number

            return asyncio.run(ask())

        answered = together(processes, one)
        return {"answered": answered, "times": sorted(bill(port)["times"])}


TASKS: Final[dict[str, Callable[..., Found]]] = {"kills": kills, "overrun": overrun, "rated": rated}


if __name__ == "__main__":
    run_tasks(TASKS)
