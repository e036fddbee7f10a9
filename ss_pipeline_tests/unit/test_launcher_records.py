"""Records of runs: one process a run, lines that are only added, and what is left after crashes."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ss_pipeline.errors import LauncherFolderUnsafeError
from ss_pipeline.launcher.folder import LauncherFolder
from ss_pipeline.launcher.processes import Process, this_process
from ss_pipeline.launcher.records import KEEP_SECONDS, KEEP_UNREPORTED_SECONDS, RunRecord, RunRecords


@pytest.fixture
def records(tmp_path: Path) -> RunRecords:
    return RunRecords(tmp_path)


def a_record(run_id: str = "run", *, alive: bool = True) -> RunRecord:
    """The record of a run in this process, or in one that is gone."""
    process = this_process() if alive else replace(this_process(), started=1)
    return RunRecord(run_id, process, zygote=this_process(), key="key")


@pytest.mark.guarantee("F21")
def test_of_two_that_launch_a_run_the_first_has_it(records: RunRecords) -> None:
    first = a_record()
    assert records.claim(first)
    assert not records.claim(replace(first, key="other"))
    assert records.read("run") == first


CLAIMER = """
import sys, time
from pathlib import Path
from ss_pipeline.launcher.records import RunRecord, RunRecords
from ss_pipeline.launcher.processes import this_process

class CarelessRecords(RunRecords):
    def claim(self, record):
        if self.read(record.run_id) is not None:
            return False
        time.sleep(0.001)
        return super().claim(record) or True

me = this_process()
records = {"RunRecords": RunRecords, "CarelessRecords": CarelessRecords}[sys.argv[2]](Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(sum(records.claim(RunRecord(f"run{n}", me, zygote=me, key="k")) for n in range(100)))
"""


def claims_of_four_processes(folder: Path, *, kind: str) -> int:
    """How often four processes that claim the same hundred runs at once are told that a run is theirs."""
    command = [sys.executable, "-c", CLAIMER, str(folder), kind]
    claimers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for claimer in claimers:  # none begins before all have imported what they need
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    return sum(int(claimer.communicate(timeout=60)[0]) for claimer in claimers)


@pytest.mark.guarantee("F21")
def test_of_many_processes_that_launch_the_same_runs_each_run_has_one(tmp_path: Path) -> None:
    assert claims_of_four_processes(tmp_path, kind="RunRecords") == 100
    assert len(list(RunRecords(tmp_path).all())) == 100
    assert len(list(tmp_path.iterdir())) == 100  # no temporary file is left


@pytest.mark.guarantee("F21")
def test_records_that_look_before_they_write_are_caught(tmp_path: Path) -> None:
    assert claims_of_four_processes(tmp_path, kind="CarelessRecords") > 100


@pytest.mark.parametrize(
    ("say", "field", "value"),
    [
        (lambda r: r.settle("run"), "settled", True),
        (lambda r: r.exited("run", -9), "exit_status", -9),
        (lambda r: r.reported("run"), "reported", True),
    ],
)
def test_what_is_added_is_read(
    records: RunRecords, say: Callable[[RunRecords], None], field: str, value: object
) -> None:
    records.claim(a_record())
    say(records)
    assert records.read("run") == replace(a_record(), **{field: value})  # type: ignore[arg-type]


def test_adding_to_a_record_that_is_gone_does_nothing(records: RunRecords, tmp_path: Path) -> None:
    records.settle("run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"{", b"[]\n", b"{}\n", b"\x00" * 50, b'{"run_id": "run"}\n', b'{"run_id": "run", "proc']
)
def test_a_record_that_cannot_be_read_is_as_good_as_none(records: RunRecords, tmp_path: Path, body: bytes) -> None:
    (tmp_path / "run.jsonl").write_bytes(body)
    assert records.read("run") is None
    assert list(records.all()) == []


@pytest.mark.guarantee("F9")
def test_an_addition_that_was_cut_short_costs_neither_the_record_nor_the_next_addition(
    records: RunRecords, tmp_path: Path
) -> None:
    records.claim(a_record())
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"exit_sta')
    assert records.read("run") == a_record()
    records.settle("run")
    assert records.read("run") == replace(a_record(), settled=True)


def test_a_later_version_may_add_facts(records: RunRecords, tmp_path: Path) -> None:
    records.claim(a_record())
    with (tmp_path / "run.jsonl").open("a") as file:
        file.write('{"colour": "blue"}\n')
    assert records.read("run") == a_record()


@pytest.mark.guarantee("R17")
def test_records_of_runs_that_ended_long_ago_are_removed(records: RunRecords, tmp_path: Path) -> None:
    for name, alive in (("alive", True), ("settled", False), ("reported", False), ("owed", False), ("fresh", False)):
        records.claim(a_record(name, alive=alive))
    records.settle("settled")
    records.reported("reported")
    records.settle("fresh")
    (tmp_path / ".torn").touch()
    _age(tmp_path, KEEP_SECONDS + 1, but="fresh")
    assert records.prune() == 2
    assert {record.run_id for record in records.all()} == {"alive", "owed", "fresh"}
    _age(tmp_path, KEEP_UNREPORTED_SECONDS + 1, but="fresh")
    assert records.prune() == 2
    assert {path.name for path in tmp_path.iterdir()} == {"alive.jsonl", "fresh.jsonl"}


def _age(folder: Path, seconds: float, *, but: str) -> None:
    then = time.time() - seconds
    for path in folder.iterdir():
        if path.stem != but:
            os.utime(path, (then, then))


# --- the folder


def test_the_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = LauncherFolder.of(str(tmp_path / "home"))
    folder.prepare()
    folder.path.chmod(0o755)
    folder.prepare()
    assert [path.stat().st_mode & 0o777 for path in (folder.path, folder.runs)] == [0o700, 0o700]


def test_a_link_or_a_file_in_the_folder_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "warm_launcher").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LauncherFolderUnsafeError):
        LauncherFolder.of(str(tmp_path)).prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    folder = LauncherFolder.of(str(tmp_path))
    folder.path.mkdir()
    os.chown(folder.path, 65534, 65534)
    with pytest.raises(LauncherFolderUnsafeError, match="not a folder of this user"):
        folder.prepare()


def test_the_socket_s_path_fits_wherever_the_instance_is() -> None:
    short = LauncherFolder.of("/home/d")
    long = LauncherFolder.of(f"/home/{'d' * 200}")
    assert short.socket("0" * 16).parent == short.path
    assert len(str(long.socket("0" * 16))) <= 107
    assert long.socket("0" * 16) != LauncherFolder.of(f"/home/{'e' * 200}").socket("0" * 16)


def test_of_the_zygotes_started_here_the_living_are_known(tmp_path: Path) -> None:
    folder = LauncherFolder.of(str(tmp_path))
    folder.prepare()
    dead: Process = replace(this_process(), pid=999_999_999)
    folder.add_zygote("key", dead)
    assert folder.zygotes() == []
    folder.add_zygote("key", this_process())
    assert folder.zygotes() == [("key", this_process())]
    assert len(list(folder.path.glob("*.json"))) == 1
    folder.remove_zygote("key", this_process())
    assert folder.zygotes() == []


def test_a_log_that_has_grown_long_is_begun_anew(tmp_path: Path) -> None:
    folder = LauncherFolder.of(str(tmp_path))
    folder.prepare()
    for size, left in ((10, 10), (2_000_000, 0)):
        folder.log("key").write_bytes(b"x" * size)
        os.close(folder.open_log("key"))
        assert folder.log("key").stat().st_size == left
