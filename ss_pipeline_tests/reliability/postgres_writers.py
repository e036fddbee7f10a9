"""Processes that use one PostgreSQL store: writers whose server is killed, claimers, first users, children of a fork.

Each task prints what it found; the tests judge it (test_postgres_faults.py).
"""

import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any, Final

from sqlalchemy import Row

from ss_pipeline.errors import DocumentChangedError, StaleFenceError, StoreUnavailableError
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.postgres import PostgresBackend
from ss_pipeline.store.postgres_connections import Connections
from ss_pipeline_tests.reliability import server_writers
from ss_pipeline_tests.reliability.forking import Found, drained, fork, run_tasks, together
from ss_pipeline_tests.reliability.server_writers import FACETS, body, kept, made


class UncheckedConnections(Connections):
    """Broken: takes any server, also one that keeps nothing."""

    def _check_safe(self, settings: dict[str, str]) -> None:
        del settings


class UncheckedBackend(PostgresBackend):
    """Broken: on such connections."""

    def __init__(self, dsn: str, **parameters: Any) -> None:
        super().__init__(dsn, **parameters)
        self._connections.__class__ = UncheckedConnections


class GrabbingBackend(PostgresBackend):
    """Broken: takes documents that another claim holds, too."""

    def _rows(self, statement: str, **parameters: Any) -> Sequence[Row[Any]]:
        return super()._rows(statement.replace("claim.expires_at <= clock_timestamp()", "true"), **parameters)


class ForgettingBackend(PostgresBackend):
    """Broken: gives documents back without offering them again."""

    def _rows(self, statement: str, **parameters: Any) -> Sequence[Row[Any]]:
        return super()._rows(statement.replace("wanted.rests_until IS NOT NULL", "false"), **parameters)


KINDS: Final = {
    "real": PostgresBackend,
    "unchecked": UncheckedBackend,
    "grabbing": GrabbingBackend,
    "forgetting": ForgettingBackend,
}


def writes(*, url: str, processes: int, kind: str = "real") -> Found:
    """See server_writers.py."""
    return server_writers.writes(partial(KINDS[kind], url), processes=processes)


def increments(*, url: str, processes: int, times: int) -> Found:
    """See server_writers.py."""
    return server_writers.increments(partial(PostgresBackend, url), processes=processes, times=times)


def first_uses(*, url: str, schema: str, processes: int) -> Found:
    """Processes that all come first: each makes the tables if need be and creates a document; what went wrong."""

    def work(index: int) -> str:
        with closing(PostgresBackend(url, schema=schema)) as backend:
            try:
                backend.create(made(index, 0), body(index), FACETS)
            except StoreUnavailableError as error:
                return error.message
        return ""

    return {"failed": [said for said in together(processes, work) if said]}


def reservations(*, url: str, schema: str, processes: int, documents: int, kind: str = "real") -> Found:
    """Claimers that reserve whatever they can get of the same documents, until none gets any; who got what."""
    keys = [made(number % 3, number) for number in range(documents)]
    with closing(PostgresBackend(url, schema=schema)) as backend:
        for key in keys:
            backend.create(key, body(0), FACETS)

    def work(index: int) -> list[str]:
        with closing(KINDS[kind](url, schema=schema, pool_size=1)) as backend:
            got: list[DocumentKey] = []
            for round_ in count():
                heads = backend.heads("jobs", per_group=8)
                reserved = backend.reserve([head.key for head in heads], claim_id=f"{index}.{round_}", ttl=600)
                got += reserved
                if not heads or len(got) > documents:
                    return [key.document_id for key in got]
        return []

    got = [name for names in together(processes, work) for name in names]
    return {"got": len(set(got)), "twice": sum(times > 1 for times in Counter(got).values())}


def shuffles(*, url: str, schema: str, processes: int, rounds: int, kind: str = "real") -> Found:
    """Processes that claim, write, give back and change the same few documents in random order, with and without a
    fence; what is offered for a claim in the end, when nobody holds anything, of all that waits."""
    busy = Facets(status="running", created_at="2026")
    keys = [made(0, number) for number in range(4)]
    with closing(PostgresBackend(url, schema=schema)) as backend:
        for key in keys:
            backend.create(key, body(0), FACETS)

    def work(index: int) -> int:
        dice, refused = random.Random(index), 0
        with closing(KINDS[kind](url, schema=schema, pool_size=1)) as backend:
            for round_ in range(rounds):
                lease = backend.lease(dice.sample(keys, 2), claim_id=f"{index}.{round_}", owner="run", ttl=600)
                for key in dice.sample(keys, 2):
                    try:
                        facets, new = dice.choice([FACETS, busy]), body(dice.randrange(10**9))
                        expected = backend.read(key)
                        backend.replace(key, new, facets, expected=expected, fence=lease.fences.get(key))
                    except (DocumentChangedError, StaleFenceError):
                        refused += 1
                backend.heartbeat(lease, ttl=600)
                for key, fence in lease.fences.items():
                    dice.choice([backend.complete, backend.release])(key, fence)
        return refused

    refused = sum(together(processes, work))
    with closing(PostgresBackend(url, schema=schema)) as backend:
        waiting = [row.key.document_id for row in backend.page("jobs") if row.facets.waiting]
        offered = [row.key.document_id for row in backend.heads("jobs", per_group=99)]
        held = [key.document_id for key in keys if backend.claim_of(key)]
    return {"refused": refused, "held": held, "forgotten": sorted(set(waiting) - set(offered))}


# --- forks -----------------------------------------------------------------------------------------------------------


def session_of(backend: PostgresBackend) -> int:
    """The server's process behind the one connection of a store."""
    return int(backend._connections.run("SELECT pg_backend_pid()", {})[0][0])


def forks(*, url: str, schema: str) -> Found:
    """A store that was used is inherited by children that use it, close it or drop it; whose sessions are whose."""
    found: Found = {"children": [], "parent": []}
    with closing(PostgresBackend(url, schema=schema, pool_size=1)) as backend:
        backend.create(made(0, 0), body(0), FACETS)
        found["parent"].append(session_of(backend))

        def uses(out: int) -> None:
            backend.create(made(1, os.getpid()), body(1), FACETS)
            os.write(out, str(session_of(backend)).encode())
            backend.close()

        def closes(_out: int) -> None:
            backend.close()

        def drops(_out: int) -> None:
            vars(backend).clear()
            gc.collect()

        for work in (uses, closes, drops, uses):
            child, pipe = fork(work)
            said = drained(pipe)
            found["children"].append([os.waitpid(child, 0)[1], int(said or 0)])
            found["parent"].append(session_of(backend))
            backend.read(made(0, 0))
    return found


def forks_of_a_busy_process(*, url: str, schema: str, children: int) -> Found:
    """Children are forked while threads of their parent use the store without end; all that failed."""
    done = threading.Event()
    failed: list[str] = []

    def write(number: int) -> None:
        try:
            for version in count():
                backend.replace(kept(number), body(version + 1), FACETS, expected=body(version))
                if done.is_set():
                    return
        except StoreUnavailableError as error:
            failed.append(error.message)

    def reads(out: int) -> None:
        os.write(out, backend.read(made(9, 9)))

    with closing(PostgresBackend(url, schema=schema, pool_size=3)) as backend:
        backend.create(made(9, 9), b"read", FACETS)
        for number in range(3):
            backend.create(kept(number), body(0), FACETS)
        threads = [threading.Thread(target=write, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(children):
            child, pipe = fork(reads)
            failed += [] if drained(pipe) == b"read" else ["a child read something else"]
            failed += [] if os.waitpid(child, 0)[1] == 0 else ["a child failed"]
        done.set()
        for thread in threads:
            thread.join()
    return {"failed": failed}


TASKS: Final[dict[str, Callable[..., Found]]] = {
    "writes": writes,
    "increments": increments,
    "first_uses": first_uses,
    "reservations": reservations,
    "shuffles": shuffles,
    "forks": forks,
    "forks_of_a_busy_process": forks_of_a_busy_process,
}

if __name__ == "__main__":
    run_tasks(TASKS)
