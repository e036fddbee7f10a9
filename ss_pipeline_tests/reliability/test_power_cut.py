"""Fault: the power fails in the middle of a change. Promise (R2): whatever subset of what was not synced the disk kept,
the next start finds the old or the new state, and the new one where the change was acknowledged.
"""

import os
from pathlib import Path

import pytest

from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.disk_model import Acknowledged, Disk, Named, Step, Synced, Written, states
from ss_pipeline_tests.reliability.file_operations import SCENARIOS
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.test_store_kills import PROBLEM

needs_strace = pytest.mark.skipif(PROBLEM is not None and not os.environ.get("CI"), reason=str(PROBLEM))


def cut_all(folder: Path, scenarios: list[str], kind: str = "sound") -> Found:
    return forking.run(
        "ss_pipeline_tests.reliability.power_cut", "cut_all", folder=str(folder), scenarios=scenarios, kind=kind
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What was found of each scenario."""
    return cut_all(tmp_path_factory.mktemp("cuts"), list(SCENARIOS))


@needs_strace
@pytest.mark.guarantee("R2")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_state_that_a_power_cut_may_leave_recovers(found: Found, scenario: str) -> None:
    assert (found[scenario]["unsound"], found[scenario]["problems"]) == (0, [])
    assert found[scenario]["states"] >= 2


@needs_strace
@pytest.mark.guarantee("R2")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_content_is_synced_before_it_is_named_and_names_before_the_change_is_acknowledged(
    found: Found, scenario: str
) -> None:
    """A reservation and a heartbeat are void after a boot, so their record need not be the last one."""
    is_synced = SCENARIOS[scenario].is_synced
    assert found[scenario]["order"] == ([] if is_synced else ["claim.json was acknowledged before it was synced"])


@needs_strace
@pytest.mark.guarantee("R2")
@pytest.mark.parametrize(
    ("kind", "scenarios"),
    [
        ("files not synced", ["create", "save", "lease", "heartbeat"]),
        ("folders not synced", ["first use", "create", "save", "delete", "lease", "complete", "seal"]),
        ("written in place", ["save", "lease", "heartbeat"]),
    ],
)
def test_a_store_that_leaves_out_a_sync_is_caught_by_every_operation(
    tmp_path: Path, kind: str, scenarios: list[str]
) -> None:
    found = cut_all(tmp_path, scenarios, kind)
    assert [name for name in scenarios if found[name]["unsound"] == 0] == []
    if kind != "written in place":
        assert [name for name in scenarios if found[name]["order"] == []] == []


# --- the model of the disk -------------------------------------------------------------------------------------------


def a_disk() -> Disk:
    """One with a file `old`, and an inode 2 that has no name yet."""
    disk = Disk()
    disk.folders[0]["old"], disk.files[1], disk.files[2] = 1, b"old", b""
    return disk


def left(*steps: Step) -> set[tuple[tuple[str, bytes | None], ...]]:
    return {tuple(sorted(state.tree.items())) for state in states(a_disk(), steps)}


def test_a_file_that_is_named_before_it_is_synced_may_be_empty_torn_or_zero() -> None:
    contents = [dict(tree)["old"] for tree in left(Written(2, 0, b"new!"), Named(((0, "old", 2),)))]
    assert sorted(contents, key=str) == sorted([b"old", b"", b"ne", b"\0\0\0\0", b"new!"], key=str)


def test_what_was_synced_before_its_name_is_old_or_new() -> None:
    steps = (Written(2, 0, b"new!"), Synced(2), Named(((0, "old", 2),)))
    assert left(*steps) == {(("old", b"old"),), (("old", b"new!"),)}
    synced = states(a_disk(), [*steps, Synced(0), Acknowledged()])
    assert [state.tree for state in synced if state.acknowledged] == [{"old": b"new!"}]


def test_a_later_change_may_be_there_without_an_earlier_one() -> None:
    names = left(Named(((0, "a", 2),)), Named(((0, "b", 2),)))
    assert {tuple(name for name, _ in tree) for tree in names} == {
        ("old",),
        ("a", "old"),
        ("b", "old"),
        ("a", "b", "old"),
    }
