"""The inbox under attack, under kill -9 and under several processes: nothing escapes, nothing is lost or doubled."""

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from ss_pipeline.clock import SystemClock
from ss_pipeline.stages.intake import ingestion, stage, taking
from ss_pipeline.stages.intake.folder_safety import Signature
from ss_pipeline.stages.intake.inbox import Entry
from ss_pipeline.stages.intake.ingestion import Ingestion
from ss_pipeline.stages.intake.taking import Desk, desks_left
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.jobs import facets_of_body
from ss_pipeline_tests.submissions import AT_ONCE, WAGES, Trial

ACCEPTED = "accepted"
CORPUS_CASES = {
    "path_traversal_input": {"sub1": "SUBMISSION_REQUEST_INVALID"},
    "absolute_input": {"sub1": "SUBMISSION_REQUEST_INVALID"},
    "symlink_file": {"sub1": "SUBMISSION_FILE_UNSAFE"},
    "nul_bytes_csv": {"sub1": "INPUT_BINARY"},
    "json_nan": {"sub1": "SUBMISSION_REQUEST_UNREADABLE"},
    "json_deep": {"sub1": "SUBMISSION_REQUEST_UNREADABLE"},
    "job_id_slashes": {"sub1": "SUBMISSION_REQUEST_INVALID"},
    "empty_file": {"sub1": "INPUT_EMPTY"},
    "directory_as_file": {"sub1": "SUBMISSION_FILE_UNSAFE"},
    "duplicate_job_id": {"sub1": ACCEPTED, "sub2": "SUBMISSION_REFERENCE_CONFLICT"},
    "formula_injection": {"sub1": ACCEPTED},
    "prompt_injection_column": {"sub1": ACCEPTED},
    "html_requirement": {"sub1": ACCEPTED},
    "wide_csv": {"sub1": ACCEPTED},  # these three are judged when the file is profiled
    "invalid_utf8_csv": {"sub1": ACCEPTED},
    "xlsx_bomb": {"sub1": ACCEPTED},
}
LIVE_CASE = "growing_file"


@pytest.fixture(scope="module")
def hostile(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile submissions of the corpus, one folder a case."""
    out = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, _generator(corpus), out], check=True, timeout=120)
    return out


@pytest.mark.guarantee("F20")
@pytest.mark.parametrize("case", CORPUS_CASES)
def test_a_hostile_submission_is_settled_and_the_good_one_beside_it_is_taken(hostile: Path, case: str) -> None:
    trial = Trial(hostile / case)
    report = trial.take_in()
    settled = {each.name: each.code for each in report.refused} | {each.name: ACCEPTED for each in report.accepted}
    assert settled == CORPUS_CASES[case] | {"zz_good": ACCEPTED}
    for each in report.refused:
        assert json.loads((each.folder / "reason.json").read_text())["message"] == each.message
        assert "Traceback" not in each.message
    assert len(trial.jobs()) == len(report.accepted)
    assert b"root:x:" not in trial.stored_bytes()
    assert Path("/etc/hostname").read_bytes().strip() not in trial.stored_bytes().splitlines()
    assert trial.left_in_inbox() == trial.left_on_desks() == []


def test_every_case_of_the_corpus_is_in_the_table(hostile: Path) -> None:
    lines = (hostile / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["case"] for line in lines} == {*CORPUS_CASES, LIVE_CASE}


@pytest.mark.guarantee("A7")
def test_a_file_that_grows_while_its_request_is_there_arrives_whole(corpus: Path, tmp_path: Path) -> None:
    trial = Trial(tmp_path / LIVE_CASE, limits=replace(AT_ONCE, quiet_seconds=1.0))
    shutil.rmtree(trial.root)
    command: list[str | Path] = [sys.executable, _generator(corpus), tmp_path, "--only", LIVE_CASE]
    with subprocess.Popen(command) as writer:
        names: set[str] = set()
        end = time.monotonic() + 60
        while names != {"sub1", "zz_good"} and time.monotonic() < end:
            names |= {each.name for each in trial.take_in().accepted} if trial.inbox.exists() else set()
            time.sleep(0.05)
    assert writer.returncode == 0
    (grown,) = [body for body in _stored_files(trial) if body.startswith(b"wage") and body.count(b"\n") > 100]
    assert grown.count(b"\n") == 601


# --- races ------------------------------------------------------------------------------------------------------------

CANARY = b"canary,that,must,stay,where,it,is\n"


def _read_carelessly(name: str, *, folder: int, expected: Signature) -> bytes:
    """A broken twin: follows links, and does not look whether the file is the one that was examined."""
    del expected
    with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return file.read()


@pytest.mark.guarantee("A6")
@pytest.mark.parametrize("careless", [False, True], ids=["as it is", "broken twin"])
def test_a_data_file_swapped_for_a_link_never_lets_another_file_in(
    tmp_path: Path, careless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if careless:
        monkeypatch.setattr(ingestion, "read_unchanged", _read_carelessly)
    (tmp_path / "canary.csv").write_bytes(CANARY)
    trial = Trial(tmp_path / "trial")
    for number in range(300):
        folder = trial.put(f"s{number}", requirement=f"Question {number}")
        descriptor = os.open(folder, os.O_RDONLY)  # an attacker's own way into the folder, wherever it is moved
        swap = _swap_file if number % 2 else _swap_file_once_taken
        with _meanwhile(partial(swap, folder, descriptor, tmp_path / "canary.csv")):
            trial.take_in()
        os.close(descriptor)
        shutil.rmtree(folder, ignore_errors=True)
        if careless and CANARY in trial.stored_bytes():
            return
    assert not careless, "this test would not see a file that is let in"
    assert CANARY not in trial.stored_bytes()
    assert (tmp_path / "canary.csv").read_bytes() == CANARY


@pytest.mark.guarantee("A6")
def test_a_submission_swapped_for_a_link_to_a_folder_elsewhere_leaves_that_folder_alone(tmp_path: Path) -> None:
    elsewhere = Trial(tmp_path / "elsewhere").put("theirs", files={"data.csv": CANARY})
    trial = Trial(tmp_path / "trial")
    for number in range(100):
        folder = trial.put(f"s{number}", requirement=f"Question {number}")
        with _meanwhile(partial(_swap_folder, folder, elsewhere)):
            trial.take_in()
        trial.take_in()
    assert CANARY not in trial.stored_bytes()
    assert (elsewhere / "data.csv").read_bytes() == CANARY
    assert (elsewhere / "request.json").is_file()


@pytest.mark.guarantee("A6")
def test_a_tenant_s_inbox_swapped_for_a_link_to_a_folder_elsewhere_leaves_that_folder_alone(tmp_path: Path) -> None:
    elsewhere, trial = Trial(tmp_path / "elsewhere"), Trial(tmp_path / "trial")
    for number in range(60):
        elsewhere.put(f"s{number}", files={"data.csv": CANARY})
        trial.put(f"s{number}", tenant="@acme", requirement=f"Question {number}")
        with _meanwhile(partial(_swap_folder, trial.inbox / "@acme", elsewhere.inbox)):
            trial.take_in(most=1)
    _take_all_in(trial)
    assert CANARY not in trial.stored_bytes()
    assert elsewhere.left_in_inbox() == sorted(f"s{number}" for number in range(60))
    assert len(list(elsewhere.inbox.rglob("data.csv"))) == len(list(elsewhere.inbox.rglob("request.json"))) == 60


def _swap_file(_: Path, folder: int, target: Path) -> None:
    """The data file becomes a link and a file again."""
    os.symlink(target, "link", dir_fd=folder)
    os.rename("data.csv", "kept", src_dir_fd=folder, dst_dir_fd=folder)
    os.rename("link", "data.csv", src_dir_fd=folder, dst_dir_fd=folder)
    os.rename("kept", "data.csv", src_dir_fd=folder, dst_dir_fd=folder)


def _swap_file_once_taken(place: Path, folder: int, target: Path) -> None:
    """The data file becomes a link in the instant after its submission was found good and taken."""
    if not place.exists():
        os.symlink(target, "link", dir_fd=folder)
        os.rename("link", "data.csv", src_dir_fd=folder, dst_dir_fd=folder)
        raise FileNotFoundError(place)


def _swap_folder(folder: Path, target: Path) -> None:
    hidden = folder.with_name(f".{folder.name}")
    folder.rename(hidden)
    folder.symlink_to(target)
    folder.unlink()
    hidden.rename(folder)


@contextmanager
def _meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Repeats an act in another thread while the block runs; it ends early once its object is gone."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            try:
                act()
            except OSError:
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- kill -9 and several processes ------------------------------------------------------------------------------------

WATCHED_EVENTS = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate"})


class ForgetfulIngestion(Ingestion):
    """A broken twin: it does not look up which job a submission is, and makes one."""

    def _owner(self, reference: DocumentKey, content: str) -> str | None:
        return None

    def _claim(self, reference: DocumentKey, content: str, owner: str) -> bool:
        return True


def _desks_under_fresh_ids(inbox: Path) -> list[Desk]:
    """A broken twin: what was left behind goes on under another job id."""
    found = []
    for desk in desks_left(inbox):
        fresh = replace(desk, job_id=SystemClock().new_job_id())
        desk.folder.rename(fresh.folder)
        found.append(fresh)
    return found


def _fetch_a_copy(entry: Entry, desk: Desk, reason: object) -> bool:
    """A broken twin: copies a submission to the desk and removes it later, instead of one rename."""
    del reason
    shutil.copytree(desk.inbox / entry.name, desk.submission)
    time.sleep(0.01)
    shutil.rmtree(desk.inbox / entry.name, ignore_errors=True)
    return True


def _trial_on_disk(root: Path) -> Trial:
    return Trial(root, backend=FileBackend(root / "jobs", facets_of=facets_of_body))


def _take_in_and_die(root: Path, step: int) -> None:
    """Takes in; kill -9 hits at the `step`-th thing it does to a file."""
    trial = _trial_on_disk(root)
    steps = itertools.count(1)

    def die(event: str, _: tuple[object, ...]) -> None:
        if event in WATCHED_EVENTS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    trial.take_in()
    os._exit(0)


def _take_in_for_long(root: Path, started: Connection) -> None:
    trial = _trial_on_disk(root)
    started.send(True)
    trial.take_in()


def _take_in_together(root: Path, barrier: Barrier, broken: bool) -> None:
    if broken:
        vars(stage)["Ingestion"] = ForgetfulIngestion
        vars(taking)["_fetch"] = _fetch_a_copy
        vars(ingestion)["read_unchanged"] = _read_carelessly
    trial = _trial_on_disk(root)
    barrier.wait(60)
    for _ in range(3):
        trial.take_in()


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes forked from one that has no threads and has imported the stage."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


@pytest.mark.guarantee("F20")
@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "broken twin"])
def test_a_process_killed_at_any_step_neither_loses_nor_doubles_a_submission(
    tmp_path: Path,
    processes: multiprocessing.context.ForkServerContext,
    broken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if broken:
        monkeypatch.setattr(stage, "Ingestion", ForgetfulIngestion)
        monkeypatch.setattr(stage, "desks_left", _desks_under_fresh_ids)
    found: list[str] = []
    killed = 0
    for step in itertools.count(1, 3 if broken else 1):
        trial = _trial_on_disk(tmp_path / f"step-{step}")
        trial.put("one", job_id="one")
        trial.put("two", files={"data.csv": ""})
        process = processes.Process(target=_take_in_and_die, args=(trial.root, step))
        process.start()
        process.join(60)
        trial.take_in()
        found += [f"killed at step {step}: {problem}" for problem in _problems(trial, ["one"], refused=["two"])]
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    assert killed > 20
    assert any("doubled" in problem for problem in found) if broken else found == []


@pytest.mark.guarantee("F20")
def test_processes_killed_thirty_times_at_random_leave_each_submission_one_job(
    tmp_path: Path, processes: multiprocessing.context.ForkServerContext
) -> None:
    trial = _trial_on_disk(tmp_path)
    chance = random.Random(7)
    names: list[str] = []
    for _ in range(30):
        for _ in range(4):
            names.append(f"s{len(names)}")
            trial.put(names[-1], job_id=names[-1], requirement=f"Question {names[-1]}")
        hears, says = processes.Pipe(duplex=False)
        process = processes.Process(target=_take_in_for_long, args=(tmp_path, says))
        process.start()
        says.close()
        assert hears.recv()
        time.sleep(chance.uniform(0.0, 0.04))
        process.kill()
        process.join(60)
        process.close()
    _take_all_in(trial)
    assert _problems(trial, names) == []


@pytest.mark.guarantee("F18")
@pytest.mark.parametrize("broken", [False, True], ids=["as it is", "broken twin"])
def test_processes_that_take_in_at_once_make_each_submission_one_job(
    tmp_path: Path, processes: multiprocessing.context.ForkServerContext, broken: bool
) -> None:
    trial = _trial_on_disk(tmp_path)
    names = [f"s{number}" for number in range(40)]
    for name in names:
        trial.put(name, job_id=name)
    barrier = processes.Barrier(3)
    together = [processes.Process(target=_take_in_together, args=(tmp_path, barrier, broken)) for _ in range(3)]
    for process in together:
        process.start()
    for process in together:
        process.join(120)
    problems = _problems(trial, names)
    assert any("doubled" in problem for problem in problems) if broken else problems == []


def _take_all_in(trial: Trial) -> None:
    for _ in range(20):
        trial.take_in()
        if not trial.left_in_inbox() and not trial.left_on_desks():
            return


def _problems(trial: Trial, names: list[str], *, refused: list[str] | None = None) -> list[str]:
    """What is not as it must be once all is taken in: each submission is exactly one job, with its data."""
    jobs = trial.jobs()
    of_reference = Counter(job.client_ref for job in jobs)
    found = [f"{name} is lost" for name in names if of_reference[name] == 0]
    found += [f"{name} is doubled" for name in names if of_reference[name] > 1]
    found += [f"{left} is left" for left in trial.left_in_inbox() + trial.left_on_desks()]
    data = _stored_files(trial)
    if data.count(WAGES.encode()) < len(names):
        found.append("data files are missing")
    receipts = [json.loads(path.read_text()) for path in (trial.root / "accepted").rglob("receipt.json")]
    if sorted(receipt["submission"] for receipt in receipts) != sorted(names):
        found.append(f"{len(receipts)} receipts for {len(names)} submissions")
    if {receipt["job_id"] for receipt in receipts} - {job.job_id for job in jobs}:
        found.append("a receipt names no job")
    set_aside = [json.loads(path.read_text())["submission"] for path in (trial.root / "refused").rglob("reason.json")]
    if sorted(set_aside) != sorted(refused or []):
        found.append(f"refused: {set_aside}")
    return found


def _stored_files(trial: Trial) -> list[bytes]:
    return [path.read_bytes() for path in (trial.root / "artifacts").rglob("inputs/ds_*") if path.is_file()]


def _generator(corpus: Path) -> Path:
    return corpus / "hostile" / "gen_hostile_a.py"
