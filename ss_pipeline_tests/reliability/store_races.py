"""Processes that race for the same jobs of one store, on any back end: many writers, creators, claimers, zombies.

Each task prints what it found; the tests judge it (test_store_races.py).
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Final

from ss_pipeline.errors import JobExistsError, JobVersionConflictError, StaleFenceError
from ss_pipeline.store.base import Backend, DocumentKey, Fence, Lease
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_layout import Place
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, job_key
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, drained, fork, run_tasks, together
from ss_pipeline_tests.reliability.store_addresses import open_address


class UnlockedBackend(FileBackend):
    """Broken: compares and sets without a lock."""

    def _locked(self, place: Place) -> AbstractContextManager[None]:
        return nullcontext()


def open_kind(address: str, kind: str) -> Backend:
    """The store at an address, or a broken one on the same files."""
    if kind == "unlocked":
        return UnlockedBackend(Path(address.removeprefix("file:")), facets_of=facets_of_body, look_seconds=3_600)
    return open_address(address)


# --- writers and creators --------------------------------------------------------------------------------------------


def increments(*, address: str, processes: int, jobs: int, times: int, kind: str = "real") -> Found:
    """Each process appends `times` tags of its own to each job; what was acknowledged against what is stored."""
    keys = [f"job_{number:016d}" for number in range(jobs)]
    with closing(open_address(address)) as backend:
        for job_id in keys:
            JobStore(backend).create(a_job(job_id, x_tags=[]))

    def work(index: int) -> list[tuple[str, str]]:
        store = JobStore(open_kind(address, kind))
        order = [job_id for job_id in keys for _ in range(times)]
        random.Random(index).shuffle(order)
        acked = []
        for number, job_id in enumerate(order):
            tag = f"{index}.{number}"
            while True:
                job = store.load(job_id)
                with suppress(JobVersionConflictError):
                    store.save(job.changed(x_tags=[*(job.model_extra or {})["x_tags"], tag]))
                    break
            acked.append((job_id, tag))
        return acked

    acked = [tuple(ack) for acks in together(processes, work) for ack in acks]
    with closing(open_address(address)) as backend:
        stored = {job_id: JobStore(backend).load(job_id) for job_id in keys}
        tags = [(job_id, tag) for job_id, job in stored.items() for tag in (job.model_extra or {})["x_tags"]]
        return {
            "acked": len(acked),
            "stored": len(tags),
            "unique": len(set(tags)),
            "lost": len(set(acked) - set(tags)),
            "versions": sum(job.version - 1 for job in stored.values()),
            "listed": len(backend.page(JOBS)),
        }


def creates(*, address: str, processes: int, rounds: int) -> Found:
    """Processes that create the same jobs; how many succeeded with each, and whose is stored."""

    def work(index: int) -> list[bool]:
        store = JobStore(open_address(address))
        won = []
        for number in range(rounds):
            try:
                store.create(a_job(f"job_{number:016d}", requirement=str(index)))
                won.append(True)
            except JobExistsError:
                won.append(False)
        return won

    winners = [[i for i, won in enumerate(column) if won] for column in zip(*together(processes, work), strict=True)]
    with closing(open_address(address)) as backend:
        stored = [JobStore(backend).load(f"job_{number:016d}").requirement for number in range(rounds)]
        listed = len(backend.page(JOBS, limit=rounds + 1))
    return {"winners": winners, "stored": stored, "listed": listed}


# --- claimers --------------------------------------------------------------------------------------------------------


def claims(*, address: str, processes: int, jobs: int, kills: int = 0, ttl: float = 1.0, kind: str = "real") -> Found:
    """Claimers that take heads, lease, save under the fence and complete, until nothing is left to do.

    `kills` of them are killed at random instants; each is followed by a new one.
    """
    with closing(open_address(address)) as backend:
        for number in range(jobs):
            JobStore(backend).create(a_job(f"job_{number:016d}", tenant_id=f"t{number % 3}", x_done_by=[]))

    def work(index: int) -> Callable[[int], None]:
        return lambda _out: _claim_until_done(open_address(address), str(index), ttl=ttl, checked=kind == "real")

    living = dict(fork(work(index)) for index in range(processes))
    dice, index = random.Random(1), processes
    for _ in range(kills):
        time.sleep(0.02 + dice.random() * 0.05)
        victim = dice.choice(sorted(living))
        os.kill(victim, signal.SIGKILL)
        _reap(living, victim)
        child, pipe = fork(work(index))
        living[child], index = pipe, index + 1
    statuses = [_reap(living, child) for child in list(living)]
    time.sleep(ttl)  # a claimer killed between saving and completing leaves a lease that must still run out
    with closing(open_address(address)) as backend:
        store = JobStore(backend)
        done = [
            (store.load(row.key.document_id, tenant_id=row.key.tenant_id).model_extra or {})["x_done_by"]
            for row in store.rows()
        ]
        return {
            "crashed": sum(status != 0 for status in statuses),
            "done": sum(bool(by) for by in done),
            "twice": sum(len(by) > 1 for by in done),
            "leased": sum(backend.claim_of(row.key) is not None for row in store.rows()),
        }


def _reap(living: dict[int, int], child: int) -> int:
    os.close(living.pop(child))
    return os.waitpid(child, 0)[1]


def _claim_until_done(backend: Backend, owner: str, *, ttl: float, checked: bool) -> None:
    """Works until no job is left that is not done; jobs held by others (who may have been killed) are waited for."""
    store, round_ = JobStore(backend), 0
    while (heads := backend.heads(JOBS, per_group=4)) or any(row.facets.waiting for row in store.rows()):
        if not heads:
            time.sleep(0.05)
        round_ += 1
        claim_id = f"{owner}.{os.getpid()}.{round_}"
        random.Random(claim_id).shuffle(heads)
        reserved = backend.reserve([head.key for head in heads[:3]], claim_id=claim_id, ttl=ttl)
        lease = backend.lease(reserved, claim_id=claim_id, owner=owner, ttl=ttl)
        for key, fence in lease.fences.items():
            with suppress(StaleFenceError):
                _do(store, key, fence if checked else None, owner)
                backend.complete(key, fence)


def _do(store: JobStore, key: DocumentKey, fence: Fence | None, owner: str) -> None:
    job = store.load(key.document_id, tenant_id=key.tenant_id)
    done_by: list[str] = (job.model_extra or {})["x_done_by"]
    if job.held is None:  # else: a head read before another claimer had finished it
        store.save(job.changed(x_done_by=[*done_by, owner], held="done"), fence=fence)


def zombies(*, address: str, rounds: int, ttl: float, poll: float = 0.05) -> Found:
    """A claimant is stopped, its job is taken by another, and it goes on: what of its acts was accepted, and how long
    its job was held after it fell silent."""
    job_id, key = "job_0000000000000001", job_key("job_0000000000000001")
    with closing(open_address(address)) as backend:
        JobStore(backend).create(a_job(job_id))
    found: Found = {"accepted": [], "waited": []}
    for number in range(rounds):
        child, pipe = fork(_zombie(address, key, f"zombie.{number}", ttl=ttl))
        with closing(open_address(address)) as backend:
            os.waitpid(child, os.WUNTRACED)
            silent = time.monotonic()
            lease = Lease("", "")
            while not lease.fences:
                time.sleep(poll)
                lease = backend.lease([key], claim_id=f"heir.{number}", owner="heir", ttl=60)
            found["waited"].append(time.monotonic() - silent)
            store, fence = JobStore(backend), lease.fences[key]
            os.kill(child, signal.SIGCONT)
            found["accepted"] += json.loads(drained(pipe))
            os.waitpid(child, 0)
            store.save(store.load(job_id).changed(priority=number), fence=fence)
            backend.complete(key, fence)
    with closing(open_address(address)) as backend:
        job = JobStore(backend).load(job_id)
        found |= {"version": job.version, "priority": job.priority}
    return found


def _zombie(address: str, key: DocumentKey, claim_id: str, *, ttl: float) -> Callable[[int], None]:
    def work(out: int) -> None:
        backend = open_address(address)
        store = JobStore(backend)
        lease = backend.lease([key], claim_id=claim_id, owner=claim_id, ttl=ttl)
        fence, job = lease.fences[key], store.load(key.document_id)
        os.kill(os.getpid(), signal.SIGSTOP)
        acts: dict[str, Callable[[], object]] = {
            "save": lambda: store.save(job.changed(priority=99), fence=fence),
            "save what is there": lambda: store.save(store.load(key.document_id).changed(priority=99), fence=fence),
            "complete": lambda: backend.complete(key, fence),
            "release": lambda: backend.release(key, fence),
        }
        os.write(out, json.dumps([name for name, act in acts.items() if _accepted(act)]).encode())

    return work


def _accepted(act: Callable[[], object]) -> bool:
    try:
        act()
    except (StaleFenceError, JobVersionConflictError):
        return False
    return True


def reclaims(*, address: str, victims: int, ttl: float, interval: float) -> Found:
    """Claimants that beat are killed; how long until a reaper that looks every `interval` seconds has their jobs."""
    keys = [job_key(f"job_{number:016d}") for number in range(victims)]
    with closing(open_address(address)) as backend:
        for key in keys:
            JobStore(backend).create(a_job(key.document_id))
    children = [fork(_beating(address, key, ttl=ttl)) for key in keys]
    with closing(open_address(address)) as backend:
        while not all(backend.claim_of(key) for key in keys):
            time.sleep(0.002)
        time.sleep(ttl * 1.5)
        early = backend.reserve(keys, claim_id="early", ttl=ttl)
        for child, pipe in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(pipe)
        silent, held, waited = time.monotonic(), keys, list[float]()
        while held:
            time.sleep(interval)
            back = backend.lease(held, claim_id="heir", owner="heir", ttl=60).fences
            waited += [time.monotonic() - silent] * len(back)
            held = [key for key in held if key not in back]
    return {"early": len(early), "waited": waited}


def _beating(address: str, key: DocumentKey, *, ttl: float) -> Callable[[int], None]:
    def work(_out: int) -> None:
        backend = open_address(address)
        lease = backend.lease([key], claim_id=key.document_id, owner="victim", ttl=ttl)
        while backend.heartbeat(lease, ttl=ttl):
            time.sleep(ttl / 6)

    return work


TASKS: Final[dict[str, Callable[..., Found]]] = {
    "increments": increments,
    "creates": creates,
    "claims": claims,
    "zombies": zombies,
    "reclaims": reclaims,
}

if __name__ == "__main__":
    run_tasks(TASKS)
