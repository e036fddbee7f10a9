"""Hostile data files and misbehaving readers: a clear verdict within the limits, and the parent unharmed."""

import dataclasses
import importlib.util
import io
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.stages.profiling import child
from ss_pipeline.stages.profiling.child import run_limited
from ss_pipeline.stages.profiling.stage import ProfileLimits, profile_job
from ss_pipeline_tests.profiling_inputs import LIMITS, a_job_with, a_workbook, warning_types

pytestmark = pytest.mark.guarantee("A8")

SMALL = dataclasses.replace(LIMITS, cpu_seconds=1, wall_seconds=5.0, memory_mb=128)
SECONDS = dataclasses.replace(LIMITS, wall_seconds=28.0)
"""The promise is a verdict within 30 s; starting and ending a process takes the rest."""

MAX_RISE_MB = 50


def resident_mb() -> float:
    """Memory of this process that is in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def peak_mb() -> float:
    """The most this process has used since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Sets the peak back to what is in use."""
    Path("/proc/self/clear_refs").write_text("5")


@dataclass(frozen=True)
class Outcome:
    """What became of a hostile file."""

    profile: JobProfile | None
    refusal: InputRefusedError | None

    @property
    def code(self) -> str | None:
        """The refusal's code."""
        return self.refusal.error_code if self.refusal else None


def outcome_of(name: str, make: Callable[[], bytes], folder: Path) -> Outcome:
    """Profiles a file as the pipeline does, and checks what holds for all of them."""
    artifacts = ArtifactStore(str(folder))
    job = a_job_with(artifacts, {name: make()})
    forget_peak()
    before, started = resident_mb(), time.monotonic()
    outcome = Outcome(None, None)
    try:
        outcome = Outcome(profile_job(job, artifacts=artifacts, limits=SECONDS), None)
    except InputRefusedError as refusal:
        outcome = Outcome(None, refusal)
    assert time.monotonic() - started < 30
    assert peak_mb() - before < MAX_RISE_MB
    assert multiprocessing.active_children() == []
    if outcome.refusal is not None:
        assert outcome.refusal.message.startswith(f"{name!r} ")
        assert outcome.refusal.todo
        assert "Traceback" not in outcome.refusal.message
    return outcome


def zipped(members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip container."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compression) as container:
        for name, content in members.items():
            container.writestr(name, content)
    return body.getvalue()


def changed_workbook(change: Callable[[dict[str, bytes]], None]) -> bytes:
    """A sound workbook whose parts were changed."""
    with zipfile.ZipFile(io.BytesIO(a_workbook({"S": [["a", "b"], [1, "x"], [2, "y"]]}))) as container:
        members = {name: container.read(name) for name in container.namelist()}
    change(members)
    return zipped(members)


def with_entities(members: dict[str, bytes]) -> None:
    """Billion laughs in the sheet."""
    entities = b'<!ENTITY l0 "ha">' + b"".join(
        b'<!ENTITY l%d "%s">' % (level, b"&l%d;" % (level - 1) * 10) for level in range(1, 10)
    )
    sheet = members["xl/worksheets/sheet1.xml"]
    body = sheet[sheet.index(b"<worksheet") :]
    members["xl/worksheets/sheet1.xml"] = b"<!DOCTYPE worksheet [" + entities + b"]>" + body


def with_utf16_entities(members: dict[str, bytes]) -> None:
    """The same, written so that a search for ASCII misses it."""
    with_entities(members)
    text = members["xl/worksheets/sheet1.xml"].decode()
    members["xl/worksheets/sheet1.xml"] = ('<?xml version="1.0" encoding="UTF-16"?>' + text).encode("utf-16")


def with_a_nested_zip(members: dict[str, bytes]) -> None:
    """An archive inside the container."""
    members["xl/more.zip"] = zipped({"inner.zip": zipped({"x": b"0" * 100_000})})


def with_many_members(members: dict[str, bytes]) -> None:
    """More parts than any workbook has."""
    members |= {f"xl/extra{number}.xml": b"<x/>" for number in range(1_001)}


def with_a_dense_part(members: dict[str, bytes]) -> None:
    """A part that unpacks to two hundred times its size."""
    members["xl/media.bin"] = bytes(20_000_000)


def twice_the_same_part() -> bytes:
    """Readers differ on which of two parts of one name is meant."""
    body = io.BytesIO(changed_workbook(lambda _: None))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(body, "a") as container:
        container.writestr("xl/worksheets/sheet1.xml", b"<worksheet/>")
    return body.getvalue()


def a_lying_directory() -> bytes:
    """A container whose directory says 1,000 bytes of a sheet that unpacks to 300 MB."""
    row = b'<row><c t="inlineStr"><is><t>' + b"A" * 10_000 + b"</t></is></c></row>"

    def change(members: dict[str, bytes]) -> None:
        sheet = b"<worksheet><sheetData>" + row * 30_000 + b"</sheetData></worksheet>"
        members["xl/worksheets/sheet1.xml"] = sheet

    body = bytearray(changed_workbook(change))
    size = (300_000_000).to_bytes(4, "little")
    with zipfile.ZipFile(io.BytesIO(bytes(body))) as container:
        size = container.getinfo("xl/worksheets/sheet1.xml").file_size.to_bytes(4, "little")
    return bytes(body.replace(size, (1_000).to_bytes(4, "little")))


HOSTILE: list[tuple[str, str, Callable[[], bytes], str | None]] = [
    ("equal headers", "d.csv", lambda: b",".join([b"name"] * 20_000) + b"\n" + b",".join([b"1"] * 20_000), None),
    ("unclosed quote", "d.csv", lambda: b'a,b\n1,"' + b"x,y\n" * 6_000_000, "INPUT_CELL_TOO_LARGE"),
    ("one huge cell", "d.csv", lambda: b"a,b\n1," + b"x" * 50_000_000 + b"\n", "INPUT_CELL_TOO_LARGE"),
    ("one huge name", "d.csv", lambda: b"a," + b"x" * 30_000 + b"\n1,2\n", None),
    ("very wide", "d.csv", lambda: b",".join(b"v%d" % i for i in range(200_000)) + b"\n" + b"1," * 199_999, None),
    ("newline flood", "d.csv", lambda: b"a,b\n" + b"\n" * 50_000_000, "INPUT_NO_TABLE"),
    ("quoted newline flood", "d.csv", lambda: b"a,b\n" + b'"\n"\n' * 1_000_000, "INPUT_NO_TABLE"),
    ("delimiters only", "d.csv", lambda: b"," * 5_000_000, "INPUT_NO_TABLE"),
    ("ambiguous delimiters", "d.csv", lambda: b"a,b;c|d\te\n" * 50 + b",;|\t" * 2_000, None),
    ("endless numbers", "d.csv", lambda: b"a,b\n" + b"9" * 30_000 + b",1\n1,2\n", None),
    ("random bytes", "d.csv", lambda: bytes(range(1, 256)) * 4_000, "INPUT_BINARY"),
    ("entities", "d.xlsx", lambda: changed_workbook(with_entities), "INPUT_UNSAFE_WORKBOOK"),
    ("entities in utf-16", "d.xlsx", lambda: changed_workbook(with_utf16_entities), "INPUT_UNSAFE_WORKBOOK"),
    ("nested zip", "d.xlsx", lambda: changed_workbook(with_a_nested_zip), "INPUT_UNSAFE_WORKBOOK"),
    ("duplicate members", "d.xlsx", twice_the_same_part, "INPUT_UNSAFE_WORKBOOK"),
    ("many members", "d.xlsx", lambda: changed_workbook(with_many_members), "INPUT_COMPRESSION_BOMB"),
    ("dense part", "d.xlsx", lambda: changed_workbook(with_a_dense_part), "INPUT_COMPRESSION_BOMB"),
    ("no workbook", "d.xlsx", lambda: zipped({"readme.txt": b"hello"}), "INPUT_UNREADABLE"),
]


@pytest.mark.parametrize(("name", "make", "code"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_a_hostile_file_gets_a_clear_verdict(
    name: str, make: Callable[[], bytes], code: str | None, tmp_path: Path
) -> None:
    assert outcome_of(name, make, tmp_path).code == code


def test_a_cell_at_the_far_end_of_a_sheet_cannot_take_the_memory(tmp_path: Path) -> None:
    def far_away(members: dict[str, bytes]) -> None:
        sheet = members["xl/worksheets/sheet1.xml"]
        far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
        members["xl/worksheets/sheet1.xml"] = sheet.replace(b"</sheetData>", far)

    assert outcome_of("d.xlsx", lambda: changed_workbook(far_away), tmp_path).code == "INPUT_TOO_MUCH_MEMORY"


def test_a_container_that_lies_about_its_sizes_stays_within_the_limits(tmp_path: Path) -> None:
    assert outcome_of("d.xlsx", a_lying_directory, tmp_path).refusal is not None


@pytest.fixture
def generator(corpus: Path) -> Iterator[ModuleType]:
    """The corpus's generator of hostile submissions."""
    spec = importlib.util.spec_from_file_location("gen_hostile_a", corpus / "hostile" / "gen_hostile_a.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.dont_write_bytecode = writes_bytecode


@pytest.mark.parametrize(
    ("case", "code", "warns"),
    [
        ("xlsx_bomb", "INPUT_COMPRESSION_BOMB", None),
        ("nul_bytes_csv", "INPUT_BINARY", None),
        ("wide_csv", None, "columns_cut"),
        ("invalid_utf8_csv", None, "encoding_assumed"),
        ("formula_injection", None, None),
        ("prompt_injection_column", None, None),
    ],
)
def test_a_hostile_case_of_the_corpus_gets_a_clear_verdict(
    case: str, code: str | None, warns: str | None, generator: ModuleType, tmp_path: Path
) -> None:
    make = next(item["f"] for item in generator.CASES if item["name"] == case)
    make(generator.Box(str(tmp_path / "inbox")))
    file = next((tmp_path / "inbox" / "sub1").glob("data.*"))
    outcome = outcome_of(file.name, file.read_bytes, tmp_path / "artifacts")
    assert outcome.code == code
    if outcome.profile is not None:
        assert outcome.profile.primary.rows > 0
        assert warns is None or warns in warning_types(outcome.profile.primary)


def sleep() -> bytes:
    time.sleep(60)
    return b"late"


def spin() -> bytes:
    while True:
        pass


def hoard() -> bytes:
    pieces = [bytearray(8_000_000) for _ in range(40)]
    return str(len(pieces)).encode()


def die_of(number: signal.Signals) -> Callable[[], bytes]:
    def die() -> bytes:
        os.kill(os.getpid(), number)
        time.sleep(60)
        return b"alive"

    return die


def fail() -> bytes:
    raise RuntimeError("sk-canary in a cell")


def write() -> bytes:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
        file.flush()
    return b"written"


@pytest.mark.guarantee("F27")
@pytest.mark.parametrize(
    ("work", "code"),
    [
        (sleep, "INPUT_TOO_SLOW"),
        (spin, "INPUT_TOO_SLOW"),
        (die_of(signal.SIGSTOP), "INPUT_TOO_SLOW"),
        (hoard, "INPUT_TOO_MUCH_MEMORY"),
        (die_of(signal.SIGKILL), "INPUT_TOO_MUCH_MEMORY"),
        (die_of(signal.SIGABRT), "INPUT_TOO_MUCH_MEMORY"),
        (die_of(signal.SIGSEGV), "INPUT_UNREADABLE"),
        (fail, "INPUT_UNREADABLE"),
        (write, "INPUT_UNREADABLE"),
        (lambda: bytes(child.MAX_ANSWER_BYTES + 1), "INPUT_UNREADABLE"),
    ],
    ids=["sleeps", "spins", "stops", "hoards", "killed", "aborts", "crashes", "fails", "writes", "talks"],
)
def test_a_misbehaving_reader_is_ended_and_named(
    work: Callable[[], bytes], code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(InputRefusedError) as refusal:
        run_limited(work, limits=SMALL)
    assert refusal.value.error_code == code
    assert "canary" not in refusal.value.message
    assert time.monotonic() - started < SMALL.wall_seconds + 5
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")
    assert run_limited(lambda: b"next", limits=SMALL) == b"next"


@pytest.mark.parametrize(("work", "answer"), [(hoard, b"40"), (write, b"written")])
def test_without_its_limits_the_child_would_do_what_they_forbid(
    work: Callable[[], bytes], answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_limit", lambda _: None)
    assert run_limited(work, limits=SMALL) == answer


def test_a_signal_to_the_whole_group_does_not_refuse_the_file() -> None:
    def signalled() -> bytes:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
        return b"unmoved"

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert run_limited(signalled, limits=SMALL) == b"unmoved"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask


def test_the_child_holds_none_of_its_parents_files() -> None:
    with tempfile.TemporaryFile() as file:
        number = file.fileno()

        def look() -> bytes:
            return b"open" if Path(f"/proc/self/fd/{number}").exists() else b"closed"

        assert run_limited(look, limits=SMALL) == b"closed"


def test_files_are_read_in_several_threads_at_once() -> None:
    def answer(index: int) -> bytes:
        return run_limited(lambda: str(index).encode() * 200_000, limits=LIMITS)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(40)))
    assert answers == [str(index).encode() * 200_000 for index in range(40)]


def test_a_process_that_may_have_no_children_reads_files_all_the_same() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def read() -> None:
        sender.send_bytes(run_limited(lambda: b"read", limits=SMALL))

    worker = multiprocessing.get_context("fork").Process(target=read, daemon=True)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert receiver.recv_bytes() == b"read"


def test_a_child_whose_parent_was_killed_ends_by_itself() -> None:
    receiver, sender = os.pipe()
    limits = dataclasses.replace(SMALL, wall_seconds=2.0)
    parent = os.fork()
    if parent == 0:
        os.dup2(sender, 1)
        _run_until_killed(limits=limits)
    orphan = _pid_of_child(parent)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    os.close(receiver)
    os.close(sender)
    deadline = time.monotonic() + 15
    while _is_running(orphan) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(orphan)


def _run_until_killed(*, limits: ProfileLimits) -> None:
    try:
        run_limited(sleep, limits=limits)
    finally:
        os._exit(1)


def _pid_of_child(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("no child was started")


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
