"""Writers of the file store killed at any instant and at every system call, and system calls that fail."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found


def run(task: str, **parameters: object) -> Found:
    return forking.run("ss_pipeline_tests.reliability.store_writers", task, seconds=300, **parameters)


def strace_problem() -> str | None:
    """Why system calls cannot be tampered with here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        ["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"strace may not trace here: {probe.stderr.strip()}" if probe.returncode else None


PROBLEM = strace_problem()
needs_strace = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))


def unsound(finding: dict[str, Any]) -> bool:
    """Whether a new process found a partial document, a listing that differs, or something left over."""
    return "error" in finding or not finding["agrees"] or finding["left"] != []


@pytest.mark.seed("S1.2.5")
@pytest.mark.guarantee("R1")
def test_a_writer_killed_at_any_instant_loses_nothing_acknowledged(tmp_path: Path) -> None:
    findings = run("random_kills", root=str(tmp_path / "jobs"), kills=40)["findings"]
    assert len(findings) == 40
    assert [finding for finding in findings if unsound(finding)] == []
    assert {finding["version"] - finding["acked"] for finding in findings} <= {0, 1}
    assert findings[-1]["acked"] > 40


@pytest.mark.guarantee("R1")
def test_a_store_that_writes_in_place_is_caught_by_random_kills(tmp_path: Path) -> None:
    findings = run("random_kills", root=str(tmp_path / "jobs"), kills=40, kind="in place")["findings"]
    assert any(unsound(finding) for finding in findings)


@needs_strace
@pytest.mark.seed("S1.2.5")
@pytest.mark.guarantee("R1")
@pytest.mark.parametrize(
    ("scenario", "before", "after"),
    [
        ("first use", 0, 1),
        ("create", 0, 1),
        ("save", 1, 2),
        ("migrate", 1, 1),
        ("lease", 1, 1),
        ("heartbeat", 1, 1),
        ("complete", 1, 1),
    ],
)
def test_a_writer_killed_at_every_system_call_leaves_old_or_new(
    tmp_path: Path, scenario: str, before: int, after: int
) -> None:
    findings = run("syscall_kills", root=str(tmp_path / "jobs"), scenario=scenario)["findings"]
    assert [f for f in findings if unsound(f) or not f["claim_agrees"] or f["outcome"] not in {"killed", "done"}] == []
    killed, done = ([f for f in findings if f["outcome"] == outcome] for outcome in ("killed", "done"))
    assert {f["version"] for f in killed} == {before, after}
    assert {f["version"] for f in done} == {after}
    assert {f["leased"] for f in done} == {scenario in {"lease", "heartbeat", "save"}}
    assert {f["old_schema"] for f in killed} == ({True, False} if scenario == "migrate" else {False})
    assert len(killed) >= 15


@needs_strace
@pytest.mark.guarantee("R1")
@pytest.mark.parametrize(("kind", "syscall"), [("in place", "write"), ("unmarked", "openat")])
def test_a_store_that_can_be_broken_off_halfway_is_caught(tmp_path: Path, kind: str, syscall: str) -> None:
    """One writes in place; the other enters a change in its index without having announced it."""
    found = run("syscall_kills", root=str(tmp_path / "jobs"), scenario="save", kind=kind, syscalls=[syscall])
    assert any(unsound(finding) for finding in found["findings"])


@needs_strace
@pytest.mark.guarantee("F9")
@pytest.mark.guarantee("F10")
@pytest.mark.guarantee("F11")
@pytest.mark.parametrize("scenario", ["create", "save"])
def test_a_system_call_that_fails_refuses_the_change_or_changes_nothing_else(tmp_path: Path, scenario: str) -> None:
    errors = {"fsync": "EIO", "write": "ENOSPC", "pwrite64": "ENOSPC", "rename": "EACCES", "link": "EDQUOT"}
    findings = run("syscall_errors", root=str(tmp_path / "jobs"), scenario=scenario, errors=errors)["findings"]
    assert [finding for finding in findings if unsound(finding)] == []
    after = {"create": 1, "save": 2}[scenario]
    assert {(f["outcome"], f["version"]) for f in findings} == {("refused", after - 1), ("done", after)}
