"""One operation of the file store under strace, and every disk that a power cut in it may leave, recovered and judged.

disk_model.py says which disks those are. Each is recovered by a new back end after another boot; the index, which is
derived and thrown away at a boot, is left out. The task prints what it found; the tests judge it (test_power_cut.py).
"""

import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from ss_pipeline import durable
from ss_pipeline.errors import DocumentNotFoundError, SSError
from ss_pipeline.jobs.documents import parse_document, render_document
from ss_pipeline.jobs.migrations import migrate_payload_to_current
from ss_pipeline.stages.publishing.manifest import verify_publication
from ss_pipeline.stages.publishing.stage import CURRENT_PATH
from ss_pipeline.store.base import ClaimHistory, DocumentKey
from ss_pipeline.store.file_claims import QUARANTINED
from ss_pipeline.store.jobs import JOBS, facets_of_body
from ss_pipeline_tests.reliability import disk_model
from ss_pipeline_tests.reliability.disk_model import ACKNOWLEDGED, TRACED, Disk, LogReader, State
from ss_pipeline_tests.reliability.file_operations import KEY, ORIGINAL, SCENARIOS, WATCHED, Desk
from ss_pipeline_tests.reliability.forking import Found, fork, run_tasks
from ss_pipeline_tests.reliability.store_writers import v1_document

MIGRATED: Final = render_document(migrate_payload_to_current(parse_document(v1_document(KEY.document_id))).payload)
INDEX: Final = re.compile(r"^\.index")
UNCOUNTED: Final = re.compile(rf"^{re.escape(durable.TEMPORARY_PREFIX)}|\.lock$")
LONG_AGO: Final = 3_600.0
"""How old files are when they are looked at after the cut, in seconds."""

# --- traced ----------------------------------------------------------------------------------------------------------


def _leave_out_syncs_of(is_left_out: Callable[[int], bool]) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not is_left_out(os.fstat(descriptor).st_mode):
            real(descriptor)

    setattr(os, "fsync", fsync)  # noqa: B010 - in this process only


def _write_in_place() -> None:
    def write_file(path: Path, body: bytes, *, synced: bool = True, private: bool = False) -> None:
        del synced, private
        with path.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        durable.sync_folder(path.parent)

    setattr(durable, "write_file", write_file)  # noqa: B010 - in this process only


BREAK: Final[dict[str, Callable[[], None]]] = {
    "sound": lambda: None,
    "files not synced": lambda: _leave_out_syncs_of(stat.S_ISREG),
    "folders not synced": lambda: _leave_out_syncs_of(stat.S_ISDIR),
    "written in place": _write_in_place,
}
"""How the traced process is broken on purpose."""


def traced(work: Callable[[], object], log: Path) -> str:
    """The system calls of a child that works and then acknowledges."""
    wait, go = os.pipe()

    def child(out: int) -> None:
        os.close(go)
        os.read(wait, 1)
        work()
        os.write(out, ACKNOWLEDGED)

    process, pipe = fork(child)
    os.close(wait)
    command = ["strace", "-p", str(process), "-o", str(log), "-y", "-xx", "-s", str(2**24), "-e", ",".join(TRACED)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        while "attached" not in (line := strace.stderr.readline()):
            assert line, "strace did not attach"
        os.close(go)
        status = os.waitpid(process, 0)[1]
    os.close(pipe)
    assert status == 0, f"the traced process ended with {status}"
    return log.read_text(encoding="ascii")


# --- recovered -------------------------------------------------------------------------------------------------------

Contents: TypeAlias = dict[str, bytes | None]


@dataclass(frozen=True)
class View:
    """What a new process finds: contents and claims by name, the seal, and what does not fit together."""

    contents: Contents
    claims: dict[str, ClaimHistory]
    sealed_for: str | None
    problems: list[str]


def look(folder: Path) -> View:
    """Recovers what a cut left and uses it."""
    desk = Desk(folder, boot_id="after the cut")
    with closing(desk.backend):
        contents: Contents = {_name(key): _bytes_or_none(desk, key) for key in WATCHED}
        contents["current"] = _current(desk)
        claims = {_name(key): desk.backend.history_of(key) for key in WATCHED}
        sealed_for = desk.backend.sealed_for()
        desk.backend.unseal()
        problems = [problem for key in WATCHED for problem in _not_shown(desk, key, contents[_name(key)])]
        problems += [problem for key in WATCHED if key.collection == JOBS for problem in _unusable(desk, key)]
        problems += [f"left over: {path.name}" for path in (folder / "jobs").rglob(f"{durable.TEMPORARY_PREFIX}*")]
        return View(contents, claims, sealed_for, problems + desk.backend.check())


def _not_shown(desk: Desk, key: DocumentKey, body: bytes | None) -> Iterator[str]:
    """What listings and claims say of a document that is not so."""
    backend, name = desk.backend, _name(key)
    facets = [] if body is None else [facets_of_body(key, body)]
    if [row.facets for row in backend.page(key.collection) if row.key == key] != facets:
        yield f"{name} is listed as something else"
    if backend.claim_of(key) is not None:
        yield f"{name} is held by a claim of before the cut"
    offered = key in [head.key for head in backend.heads(key.collection, per_group=9)]
    if offered != (facets != [] and facets[0].waiting):
        yield f"{name} waits and is not offered, or the other way"


def _unusable(desk: Desk, key: DocumentKey) -> Iterator[str]:
    """What goes wrong when a job that is there is leased, loaded and saved."""
    backend, name = desk.backend, _name(key)
    if _bytes_or_none(desk, key) is None:
        return
    before = backend.history_of(key).fence
    fence = backend.lease([key], claim_id="next", owner="run", ttl=60).fences[key]
    if fence.number <= before:
        yield f"{name} was leased with fence {fence.number} after {before}"
    job = desk.jobs.load(key.document_id, tenant_id=key.tenant_id)
    desk.jobs.save(job.changed(priority=9), fence=fence)
    for publication in job.publications:
        yield from verify_publication(job, publication, artifacts=desk.artifacts)


def _name(key: DocumentKey) -> str:
    return f"{key.collection}/{key.tenant_id}/{key.document_id}"


def _bytes_or_none(desk: Desk, key: DocumentKey) -> bytes | None:
    try:
        return desk.backend.read(key)
    except DocumentNotFoundError:
        return None


def _current(desk: Desk) -> bytes | None:
    """The pointer to the published version."""
    there = desk.artifacts.exists(KEY.tenant_id, KEY.document_id, CURRENT_PATH)
    return desk.artifacts.read(KEY.tenant_id, KEY.document_id, CURRENT_PATH) if there else None


# --- judged ----------------------------------------------------------------------------------------------------------


def judged(view: View, before: View, after: View, *, acknowledged: bool, is_synced: bool) -> Iterator[str]:
    """What is wrong with what a cut left: neither old nor new, or not new although it was acknowledged."""
    for name, content in view.contents.items():
        allowed = [after.contents[name]] if acknowledged else [before.contents[name], after.contents[name]]
        if content not in allowed:
            yield f"{name} is {(content or b'missing')[:60]!r}"
    if view.contents[_name(KEY)] == MIGRATED and view.contents[_name(ORIGINAL)] is None:
        yield "the original of a migrated document is lost"
    if view.sealed_for not in ([after.sealed_for] if acknowledged else [before.sealed_for, after.sealed_for]):
        yield f"the store is sealed for {view.sealed_for}"
    for name, claim in view.claims.items():
        allowed_claims = (
            [after.claims[name]] if acknowledged and is_synced else [before.claims[name], after.claims[name]]
        )
        if claim not in allowed_claims:
            yield f"{name} has the claims {claim}"
    for problem in view.problems:
        if is_synced or QUARANTINED not in problem:
            yield problem


def cut(folder: str, *, scenario: str, kind: str) -> Found:
    """Traces a scenario and recovers every state; what was wrong with how many of them."""
    one, base = SCENARIOS[scenario], Path(folder) / "disk"
    base.mkdir(parents=True)
    desk = Desk(base)
    given = one.before(desk)
    desk.backend.close()
    _forget_index(base)
    disk = Disk.of(base)

    def act() -> None:
        BREAK[kind]()
        one.act(Desk(base), given)

    steps = LogReader(base, disk, ignored=INDEX).steps(traced(act, Path(folder) / "log"))
    all_states = disk_model.states(disk, steps)
    with _nothing_synced():
        before, after = (look(_made(Path(folder) / name, tree)) for name, tree in _ends(disk, steps))
        wrong = [_wrong_with(state, before, after, Path(folder) / "cut", one.is_synced) for state in all_states]
    unsound = [problems for problems in wrong if problems]
    return {
        "steps": len(steps),
        "states": len(all_states),
        "unsound": len(unsound),
        "problems": unsound[:3],
        "order": disk_model.faults_of_order(disk, steps, uncounted=UNCOUNTED),
    }


def _wrong_with(state: State, before: View, after: View, folder: Path, is_synced: bool) -> list[str]:
    try:
        view = look(_made(folder, state.tree))
    except (SSError, OSError) as error:
        return [f"not recovered: {error!r}"]
    return list(judged(view, before, after, acknowledged=state.acknowledged, is_synced=is_synced))


def _ends(disk: Disk, steps: list[disk_model.Step]) -> Iterator[tuple[str, disk_model.Tree]]:
    """What the disk holds before the steps and after them."""
    yield "before", disk.tree()
    done = disk.copy()
    for step in steps:
        if isinstance(step, disk_model.Effect):
            done.apply(step)
    yield "after", done.tree()


def _made(folder: Path, tree: disk_model.Tree) -> Path:
    """A folder that holds a tree, written long ago."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, body in tree.items():
        path = folder / name
        path.mkdir() if body is None else path.write_bytes(body)
    for name in tree:
        os.utime(folder / name, (time.time() - LONG_AGO,) * 2)
    return folder


def _forget_index(folder: Path) -> None:
    for path in (folder / "jobs").glob(".index*"):
        path.unlink()


@contextmanager
def _nothing_synced() -> Iterator[None]:
    """Recovers without waiting for the disk of the machine that runs the test."""
    real = os.fsync
    setattr(os, "fsync", lambda _descriptor: None)  # noqa: B010 - in this process only
    try:
        yield
    finally:
        setattr(os, "fsync", real)  # noqa: B010


def cut_all(folder: str, *, scenarios: list[str], kind: str) -> Found:
    """What `cut` finds for each scenario."""
    return {name: cut(f"{folder}/{number}", scenario=name, kind=kind) for number, name in enumerate(scenarios)}


if __name__ == "__main__":
    run_tasks({"cut_all": cut_all})
