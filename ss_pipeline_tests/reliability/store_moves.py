"""Documents moved between stores while processes write to them, and copies that are killed; on any two back ends.

Each task prints what it found; the tests judge it (integration/test_store_copy.py).
"""

import hashlib
import json
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from ss_pipeline.errors import JobNotFoundError, StoreSealedError, StoreUnavailableError
from ss_pipeline.jobs.model import Job
from ss_pipeline.store.base import Backend
from ss_pipeline.store.comparing import MOVES, compare_documents
from ss_pipeline.store.copying import Pace, Phase, copy_documents
from ss_pipeline.store.jobs import JobStore, facets_of_body, job_key
from ss_pipeline.store.mirroring import MirroringBackend
from ss_pipeline.store.switching import switch
from ss_pipeline.store.syncing import NamedBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, drained, fork, run_tasks
from ss_pipeline_tests.reliability.store_addresses import open_address

SECONDS_TO_END: Final = 60.0
SECONDS_BETWEEN_CHANGES: Final = 0.01
"""Of one writer: else writers of new jobs outrun the copy that goes after them."""


def named(address: str) -> NamedBackend:
    """The store at an address under the name of its kind."""
    scheme = address.partition(":")[0].partition("+")[0]
    return NamedBackend({"unix": "redis", "postgresql": "postgres"}.get(scheme, scheme), open_address(address))


@contextmanager
def both(source: str, target: str) -> Iterator[tuple[NamedBackend, NamedBackend]]:
    """Two stores, opened here and closed."""
    stores = named(source), named(target)
    with closing(stores[0].backend), closing(stores[1].backend):
        yield stores


def fill(address: str, jobs: int) -> None:
    """Jobs in a store, under the names that `left` looks for nothing of."""
    with closing(open_address(address)) as backend:
        store = JobStore(backend)
        for number in range(jobs):
            store.create(a_job(f"job_{number:016d}", tenant_id=("default", "ann", "bob")[number % 3]))


def files_digest(root: Path) -> str:
    """The sha256 over the paths and bytes of all document files below a folder."""
    found = hashlib.sha256()
    paths = [*root.rglob("job.json"), *(root / "collections").glob("*/*/*/*.json")]
    for path in sorted(path for path in paths if f"collections/{MOVES}/" not in str(path)):
        found.update(f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


# --- writers ---------------------------------------------------------------------------------------------------------


class Note(NamedTuple):
    """What a writer knows of a job: its version, 0 once it is deleted, and the last fence it was given."""

    job_id: str
    version: int
    fence: int


@dataclass(frozen=True)
class Writers:
    """Processes that create, save, claim and delete jobs of their own until the store refuses them, and note it.

    Each note is written after the store has acknowledged.
    """

    children: tuple[int, ...]
    notes: tuple[Path, ...]

    def wait(self) -> None:
        """Returns once all have ended: the store they use is sealed."""
        deadline = time.monotonic() + SECONDS_TO_END
        for child in self.children:
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                assert time.monotonic() < deadline, "a writer goes on on a store that should be sealed"
                time.sleep(0.005)
            assert ended[1] == 0, "a writer failed"

    def operations(self) -> int:
        """How many changes were acknowledged until now."""
        return sum(len(note.read_bytes().splitlines()) for note in self.notes)

    def wait_for(self, operations: int) -> None:
        """Returns once so many changes were acknowledged."""
        deadline = time.monotonic() + SECONDS_TO_END
        while self.operations() < operations:
            assert time.monotonic() < deadline, "the writers do not get on"
            time.sleep(0.005)

    def acknowledged(self) -> dict[str, Note]:
        """The last note of each job."""
        notes = [Note(*json.loads(line)) for note in self.notes for line in note.read_text().splitlines()]
        return {note.job_id: note for note in notes}


def start_writers(number: int, notes: Path, *, source: str, mirror: str | None, era: int = 0) -> Writers:
    """Writers on a store, with or without a mirror; `era` tells their jobs from those of other writers."""
    notes.mkdir(parents=True, exist_ok=True)
    paths = [notes / f"{era}.{index}" for index in range(number)]
    for path in paths:
        path.touch()

    def work(index: int) -> Callable[[int], None]:
        def child(_out: int) -> None:
            store = named(source)
            backend: Backend = store.backend
            if mirror is not None:
                backend = MirroringBackend(backend, open_address(mirror), facets_of=facets_of_body, name=store.name)
            with paths[index].open("a", buffering=1) as note:
                write_until_sealed(backend, f"job_e{era}w{index}", note.write, seed=index)

        return child

    children = [fork(work(index)) for index in range(number)]
    for _, pipe in children:
        os.close(pipe)
    return Writers(tuple(child for child, _ in children), tuple(paths))


def write_until_sealed(backend: Backend, prefix: str, write: Callable[[str], object], *, seed: int) -> None:
    """Creates, saves, claims and deletes jobs, and notes each change that was acknowledged."""
    dice, alive = random.Random(seed), dict[str, Note]()
    try:
        for made in count():
            job_id = dice.choice([*alive, *[f"{prefix}n{made:010d}"] * (len(alive) + 1)])
            note = _changed(backend, alive.get(job_id), job_id, act=dice.choice(("save", "save", "claim", "delete")))
            alive[job_id] = note
            if not note.version:
                del alive[job_id]
            write(json.dumps(note) + "\n")
            time.sleep(SECONDS_BETWEEN_CHANGES)
    except StoreSealedError:
        backend.close()


def _changed(backend: Backend, known: Note | None, job_id: str, *, act: str) -> Note:
    """What is acknowledged of a job after one act on it; one that is not known yet is created."""
    store, key = JobStore(backend), job_key(job_id)
    if known is None:
        return Note(job_id, store.create(a_job(job_id)).version, 0)
    if act == "delete":
        backend.delete(key, expected=backend.read(key))
        return Note(job_id, 0, known.fence)
    if act == "save":
        return Note(job_id, store.update(job_id, _raised).version, known.fence)
    fence = backend.lease([key], claim_id=f"c{known.fence}.{os.getpid()}", owner="writer", ttl=60.0).fences[key]
    version = store.update(job_id, _raised, fence=fence).version
    backend.complete(key, fence)
    return Note(job_id, version, fence.number)


def _raised(job: Job) -> Job:
    return job.changed(priority=(job.priority + 1) % 50)


def lost(address: str, acknowledged: Iterable[Note]) -> list[str]:
    """The jobs that are not in the store as they were last acknowledged, or whose fences have gone back."""
    with closing(open_address(address)) as backend:
        return [note.job_id for note in acknowledged if not _is_kept(backend, note)]


def _is_kept(backend: Backend, note: Note) -> bool:
    try:
        version = JobStore(backend).load(note.job_id).version
    except JobNotFoundError:
        return note.version == 0
    return version == note.version and backend.history_of(job_key(note.job_id)).fence >= note.fence


# --- moves under writers ---------------------------------------------------------------------------------------------


def switch_unsealed(source: NamedBackend, target: NamedBackend) -> None:
    """Broken: the old store takes changes to the end, and is sealed after the last look at it."""
    copy_documents(source, target, facets_of=facets_of_body, verify=True)
    time.sleep(0.05)
    source.backend.seal(target.name)
    target.backend.unseal()


def moved(
    *, source: str, target: str, notes: str, jobs: int, writers: int, mirrored: bool, kind: str = "real"
) -> Found:
    """A copy and a switch while writers are at work; what was acknowledged against what is in the new store."""
    fill(source, jobs)
    at_work = start_writers(writers, Path(notes), source=source, mirror=target if mirrored else None)
    with both(source, target) as stores:
        at_work.wait_for(5 * writers)
        copied = copy_documents(*stores, facets_of=facets_of_body)
        behind = len(compare_documents(*stores).differences)
        at_work.wait_for(at_work.operations() + 5 * writers)
        if kind == "unsealed":
            switch_unsealed(*stores)
        else:
            switch(*stores, facets_of=facets_of_body)
        at_work.wait()
        compared = compare_documents(*stores)
    return {
        "copied": copied.copied,
        "behind_after_copy": behind,
        "operations": at_work.operations(),
        "differences": len(compared.differences),
        "documents": compared.documents,
        "lost": len(lost(target, at_work.acknowledged().values())),
    }


def chain(*, addresses: Sequence[str], notes: str, jobs: int, writers: int) -> Found:
    """Hop after hop to the next store while writers are at work on the one in use; each hop copies, then switches."""
    fill(addresses[0], jobs)
    hops, acknowledged = [], dict[str, Note]()
    for era, (source, target) in enumerate(pairwise(addresses)):
        at_work = start_writers(writers, Path(notes), source=source, mirror=target, era=era)
        with both(source, target) as stores:
            at_work.wait_for(5 * writers)
            begun = time.monotonic()
            copied = copy_documents(*stores, facets_of=facets_of_body, verify=True)
            switched = switch(*stores, facets_of=facets_of_body)
            seconds = time.monotonic() - begun
            at_work.wait()
            differences = len(compare_documents(*stores).differences)
        assert switched
        acknowledged |= at_work.acknowledged()
        hops.append(
            {
                "from": stores[0].name,
                "to": stores[1].name,
                "copied": copied.copied,
                "documents": switched.last.compared.documents if switched.last.compared else 0,
                "seconds": seconds,
                "sealed_seconds": switched.last.seconds,
                "operations": at_work.operations(),
                "differences": differences,
                "lost": len(lost(target, acknowledged.values())),
            }
        )
    return {"hops": hops}


# --- copies that are killed ------------------------------------------------------------------------------------------


def killed_copies(*, source: str, target: str, jobs: int, kills: int, seed: int = 1) -> Found:
    """Copies that are killed after a random page, each going on where the last one was; then one that is let end."""
    fill(source, jobs)
    dice, pages, pace = random.Random(seed), list[int](), Pace(page_size=max(1, jobs // 30))

    def work(out: int) -> None:
        def tell(_phase: Phase, _done: int, _total: int) -> None:
            os.write(out, b".")

        with both(source, target) as stores:
            copy_documents(*stores, facets_of=facets_of_body, resume=True, progress=tell, pace=pace)

    for _ in range(kills):
        child, pipe = fork(work)
        for _page in range(dice.randrange(1, 8)):
            select.select([pipe], [], [], SECONDS_TO_END)
            os.read(pipe, 1)
        time.sleep(dice.random() * 0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        drained(pipe)

    def count(phase: Phase, done: int, _total: int) -> None:
        if phase == "copying":
            pages.append(done)

    with both(source, target) as stores:
        result = copy_documents(*stores, facets_of=facets_of_body, verify=True, resume=True, progress=count, pace=pace)
        compared = compare_documents(*stores)
    return {"done_by_the_last": pages[-1], "differences": result.differences, "after": len(compared.differences)}


def killed_switch(*, source: str, target: str, jobs: int, kills: int, seed: int = 1) -> Found:
    """Switches that are killed at a random moment, while a writer is at work; then one that is let end."""
    fill(source, jobs)
    dice, in_use = random.Random(seed), list[int]()
    acknowledged: list[str] = []

    def work(_out: int) -> None:
        with both(source, target) as stores:
            switch(*stores, facets_of=facets_of_body)

    begun = time.monotonic()
    with both(source, target) as stores:
        copy_documents(*stores, facets_of=facets_of_body)
        seconds = time.monotonic() - begun
        for number in range(kills):
            child, pipe = fork(work)
            time.sleep(dice.random() * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(pipe)
            in_use.append(sum(store.backend.sealed_for() is None for store in stores))
            acknowledged += _one_more(stores[0].backend, number)
        switch(*stores, facets_of=facets_of_body)
        differences = len(compare_documents(*stores).differences)
        sealed = [store.backend.sealed_for() for store in stores]
    missing = lost(target, [Note(job_id, 1, 0) for job_id in acknowledged])
    return {"in_use": in_use, "differences": differences, "sealed": sealed, "lost": len(missing)}


def _one_more(backend: Backend, number: int) -> list[str]:
    job = a_job(f"job_late{number:012d}")
    try:
        JobStore(backend).create(job)
    except StoreUnavailableError:
        return []
    return [job.job_id]


TASKS: Final[dict[str, Callable[..., Any]]] = {
    "moved": moved,
    "chain": chain,
    "killed_copies": killed_copies,
    "killed_switch": killed_switch,
}


if __name__ == "__main__":
    run_tasks(TASKS)
