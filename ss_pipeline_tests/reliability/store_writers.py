"""Processes that write to a file store: killed at any instant, killed or failed at a given system call.

Each task prints what it found; the tests judge it (test_store_kills.py).
"""

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from ss_pipeline import durable
from ss_pipeline.errors import JobNotFoundError, SSError, StoreUnavailableError
from ss_pipeline.jobs.documents import render_document
from ss_pipeline.store.base import DocumentKey, Fence, Lease
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_catalogue import Catalogue
from ss_pipeline.store.file_layout import Place
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, facets_of_job, job_key
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability.forking import Found, drained, fork, run_tasks

# --- the stores tried: the real one and broken ones ------------------------------------------------------------------


class InPlaceBackend(FileBackend):
    """Broken: writes into the file itself, not beside it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, facets_of=facets_of_body, look_seconds=0)

        def write_file(path: Path, body: bytes, *, synced: bool = True) -> None:
            del synced
            with path.open("wb") as file:
                for start in range(0, len(body), 64):
                    file.write(body[start : start + 64])
                    file.flush()

        setattr(durable, "write_file", write_file)  # noqa: B010 - in this process only


class UnmarkedCatalogue(Catalogue):
    """Broken: enters changes in the index without having marked them before."""

    @contextmanager
    def _entered_after(self, key: DocumentKey, place: Place) -> Iterator[None]:
        yield
        with self.index.open() as rows:
            self._enter_from_documents(rows, key, place)

    def changing(self, key: DocumentKey, place: Place, **_given: object) -> AbstractContextManager[None]:
        return self._entered_after(key, place)


def open_backend(root: Path, kind: str = "real") -> FileBackend:
    """A back end on `root`: the real one, or a broken one by its name."""
    if kind == "in place":
        return InPlaceBackend(root)
    backend = FileBackend(root, facets_of=facets_of_body, look_seconds=3600 if kind == "unmarked" else 0)
    if kind == "unmarked":
        backend._catalogue.__class__ = UnmarkedCatalogue
    return backend


# --- killed at any instant -------------------------------------------------------------------------------------------


def random_kills(root: Path, *, kills: int, kind: str = "real", seed: int = 1) -> Found:
    """A writer that works and acknowledges without end, killed at random; after each kill, what is there."""
    dice, last, findings = random.Random(seed), 1, []
    job_id = "job_0000000000000001"
    with closing(open_backend(root)) as backend:
        JobStore(backend).create(a_job(job_id, x_ballast="x" * 20_000))

    def work(out: int) -> None:
        backend = open_backend(root, kind)
        store, key, round_ = JobStore(backend), job_key(job_id), 0
        while True:
            round_ += 1
            lease = backend.lease([key], claim_id=f"{os.getpid()}.{round_}", owner="w", ttl=0.05)
            for fence in lease.fences.values():
                saved = store.save(store.load(job_id).changed(priority=round_ % 100), fence=fence)
                os.write(out, saved.version.to_bytes(8, "big"))
                backend.complete(key, fence)

    for _ in range(kills):
        child, pipe = fork(work)
        select.select([pipe], [], [], 2)
        time.sleep(dice.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acks = drained(pipe)
        finding = state_of(root, job_key(job_id), last_acked=max(last, int.from_bytes(acks[-8:], "big")))
        findings.append(finding)
        if "error" in finding:
            break
        last = finding["version"] + 1  # state_of saved once
        time.sleep(0.05)  # the lease of the killed writer runs out
    return {"findings": findings}


def state_of(root: Path, key: DocumentKey, *, last_acked: int = 0) -> Found:
    """What a new process finds of a job: its version, whether listings agree, what is left; it saves once more, too."""
    with closing(open_backend(root)) as backend:
        store = JobStore(backend)
        try:
            job = store.load(key.document_id)
        except JobNotFoundError:
            listed = [row.key.document_id for row in backend.page(JOBS)]
            return {"version": 0, "acked": last_acked, "agrees": key.document_id not in listed, "left": []}
        except SSError as error:
            return {"error": error.message}
        rows = [row.facets for row in backend.page(JOBS) if row.key == key]
        left = [path.name for path in (root / "00" / key.document_id).glob(f"{durable.TEMPORARY_PREFIX}*")]
        store.save(job)
        return {
            "version": job.version,
            "acked": last_acked,
            "agrees": rows == [facets_of_job(job)] and backend.check() == [],
            "left": left,
        }


# --- killed or failed at the k-th system call ------------------------------------------------------------------------

SYSCALLS: Final = (
    "openat", "write", "pwrite64", "fsync", "rename", "link", "linkat", "unlink", "mkdir", "flock", "ftruncate",
)  # fmt: skip


def v1_document(job_id: str) -> bytes:
    """A document of schema 1."""
    payload = a_job(job_id).as_payload()
    kept = ("job_id", "status", "created_at", "requirement")
    return render_document({"schema_version": 1, **{name: payload[name] for name in kept}})


def prepare(root: Path, scenario: str, job_id: str) -> Fence | None:
    """What a scenario starts from."""
    if scenario in {"create", "first use"}:
        return None
    with closing(open_backend(root)) as backend:
        if scenario == "migrate":
            backend.create(job_key(job_id), v1_document(job_id), facets_of_body(job_key(job_id), v1_document(job_id)))
            return None
        JobStore(backend).create(a_job(job_id))
        if scenario in {"save", "complete", "heartbeat"}:
            return backend.lease([job_key(job_id)], claim_id="c", owner="w", ttl=60).fences[job_key(job_id)]
    return None


def perform(backend: FileBackend, scenario: str, job_id: str, fence: Fence | None) -> None:
    """The one change of a scenario."""
    store, key = JobStore(backend), job_key(job_id)
    if scenario in {"create", "first use"}:
        store.create(a_job(job_id))
    elif scenario == "migrate":
        store.load(job_id)
    elif scenario == "lease":
        backend.lease([key], claim_id="c", owner="w", ttl=60)
    elif scenario == "save":
        store.save(store.load(job_id).changed(priority=7), fence=fence)
    elif scenario == "heartbeat" and fence:
        backend.heartbeat(Lease(fence.claim_id, "w", {key: fence}, {key: 1}), ttl=90)
    elif scenario == "complete" and fence:
        backend.complete(key, fence)


def at_syscall(
    root: Path, scenario: str, job_id: str, injection: str, *, kind: str = "real"
) -> tuple[str, Fence | None]:
    """Performs a scenario in a child under strace with one injection: "done", "refused" or "killed"."""
    fence = prepare(root, scenario, job_id)
    wait, go = os.pipe()

    def work(_out: int) -> None:
        backend = open_backend(root, kind)
        os.close(go)
        os.read(wait, 1)
        try:
            perform(backend, scenario, job_id, fence)
        except StoreUnavailableError:
            os._exit(7)
        os._exit(0)

    child, pipe = fork(work)
    os.close(wait)
    command = ["strace", "-o", "/dev/null", "-p", str(child), "-e", f"trace={injection.partition(':')[0]}"]
    with subprocess.Popen([*command, "-e", f"inject={injection}"], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        while "attached" not in (line := strace.stderr.readline()):
            assert line, "strace did not attach"
        os.close(go)
        status = os.waitpid(child, 0)[1]
    os.close(pipe)
    if os.WIFSIGNALED(status):
        return "killed", fence
    return {0: "done", 7: "refused"}.get(os.WEXITSTATUS(status), "crashed"), fence


def syscall_kills(root: Path, *, scenario: str, kind: str = "real", syscalls: Sequence[str] = SYSCALLS) -> Found:
    """Kills a scenario before the k-th call of every system call it makes, for each k; what is there after each."""
    findings: list[Found] = []
    for syscall in syscalls:
        for k in range(1, 200):
            number = len(findings)
            place = root / str(number) if scenario == "first use" else root
            job_id = f"job_{number:016d}"
            outcome, fence = at_syscall(place, scenario, job_id, f"{syscall}:signal=KILL:when={k}", kind=kind)
            findings.append({"at": f"{syscall} {k}", "outcome": outcome, **left_of(place, job_id, fence)})
            if outcome != "killed":
                break
    return {"findings": findings}


def syscall_errors(root: Path, *, scenario: str, errors: dict[str, str]) -> Found:
    """Fails the k-th call of a system call with an error, for each k; what is there after each."""
    findings: list[Found] = []
    for syscall, error in errors.items():
        for k in range(1, 6):
            job_id = f"job_{len(findings):016d}"
            outcome, fence = at_syscall(root, scenario, job_id, f"{syscall}:error={error}:when={k}")
            findings.append({"at": f"{syscall} {k}", "outcome": outcome, **left_of(root, job_id, fence)})
    return {"findings": findings}


def left_of(root: Path, job_id: str, fence: Fence | None) -> Found:
    """What a new process finds after a scenario that may have been broken off."""
    key = job_key(job_id)
    with closing(open_backend(root)) as backend:
        view, heads = backend.claim_of(key), [row.key for row in backend.heads(JOBS, per_group=1_000)]
        free_and_listed = (view is None) == (key in heads)
        raw = b""
        with suppress(SSError):
            raw = backend.read(key)
    state = state_of(root, key)
    return {
        **state,
        "claim_agrees": free_and_listed or state.get("version") == 0,
        "leased": view is not None,
        "old_schema": raw == v1_document(job_id),
        "fence": fence.number if fence else 0,
    }


def _on_path(task: Callable[..., Found], *, root: str, **parameters: Any) -> Found:
    return task(Path(root), **parameters)


TASKS: Final[dict[str, Callable[..., Found]]] = {
    "random_kills": partial(_on_path, random_kills),
    "syscall_kills": partial(_on_path, syscall_kills),
    "syscall_errors": partial(_on_path, syscall_errors),
}


if __name__ == "__main__":
    run_tasks(TASKS)
