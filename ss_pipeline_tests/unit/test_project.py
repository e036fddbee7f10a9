"""The project's own files: versions, locks, licence, commands, checks, generated pages."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ss_pipeline_tests.conftest import PROJECT_ROOT

PYPROJECT: Final[dict[str, Any]] = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())
PROJECT: Final[dict[str, Any]] = PYPROJECT["project"]
LOCKS: Final = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
MAKEFILE: Final = (PROJECT_ROOT / "Makefile").read_text()

PIN: Final = re.compile(r"([a-z0-9._-]+)==([^ ]+)( ; [^\\]+)? \\")
HASH: Final = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def pins(lock: str) -> dict[str, str]:
    """Package -> version, of a lock."""
    matches = map(PIN.fullmatch, (PROJECT_ROOT / lock).read_text().splitlines())
    return {canonicalize_name(match[1]): match[2] for match in matches if match}


def faults_of_lock(text: str) -> list[str]:
    """Lines of a lock that are neither a pin nor a hash, and pins without a hash."""
    lines = text.splitlines()
    strange = [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]
    bare = [
        line for line, after in zip(lines, [*lines[1:], ""], strict=True) if PIN.match(line) and not HASH.match(after)
    ]
    return strange + bare


@pytest.mark.seed("S0.10")
def test_the_running_python_is_one_the_project_promises() -> None:
    promised = SpecifierSet(PROJECT["requires-python"])
    assert promised.contains(".".join(map(str, sys.version_info[:3])))
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith("Programming Language")]
    assert named == ["3.11", "3.12", "3.13", "3.14"]
    assert all(promised.contains(f"{version}.0") for version in named)
    assert not promised.contains("3.10.9")
    assert not promised.contains("3.15.0")


@pytest.mark.seed("S0.9")
@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_a_pin_or_its_hash_and_names_no_address(lock: str) -> None:
    text = (PROJECT_ROOT / lock).read_text()
    assert faults_of_lock(text) == []
    assert "://" not in text
    assert len(pins(lock)) > 3


@pytest.mark.parametrize(
    "line", ["--index-url https://example.org/simple", "numpy==2.0", "numpy>=2 \\", "a @ file:///tmp/a.whl", "a==1 \\"]
)
def test_a_lock_with_a_strange_line_is_caught(line: str) -> None:
    assert faults_of_lock(line) != []


@pytest.mark.seed("S0.9")
@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["dependencies"]),
        ("requirements-dev.lock", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]),
        ("requirements-build.lock", PYPROJECT["build-system"]["requires"]),
    ],
)
def test_a_lock_pins_everything_that_is_asked_for_within_its_bounds(lock: str, wanted: list[str]) -> None:
    pinned = pins(lock)
    requirements = [Requirement(text) for text in wanted]
    for requirement in requirements:
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_the_locks_agree_with_each_other() -> None:
    runtime, dev, build = map(pins, LOCKS)
    assert runtime.items() <= dev.items()
    assert {name: version for name, version in build.items() if dev.get(name, version) != version} == {}


def test_the_licence_is_there_and_is_the_one_that_is_named() -> None:
    text = (PROJECT_ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "Copyright 2026 The ss_pipeline authors" in text


def test_every_command_of_the_makefile_says_what_it_does() -> None:
    phony = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    explained = re.findall(r"^([a-z-]+):[^\n]* ## [A-Z]", MAKEFILE, re.MULTILINE)
    assert phony == explained
    assert {"help", "demo", "up", "test", "check", "bench", "eval", "docs", "lock", "clean"} <= set(phony)


def test_make_alone_lists_the_commands() -> None:
    shown = subprocess.run(
        ["make"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True, env=clean_environment()
    )
    assert re.search(r"^  make demo +\S", shown.stdout, re.MULTILINE)
    assert shown.stdout.count("\n") == MAKEFILE.count(".PHONY:")


def clean_environment() -> dict[str, str]:
    """The environment without what a surrounding make hands down."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.seed("S0.16", "C8")
def test_what_ci_runs_is_the_tests_and_the_checks() -> None:
    script = PROJECT_ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test", "make check"]


@pytest.mark.seed("S1.3.7", "S1.3.8", "S1.3.9", "S1.3.10", "K2")
def test_the_tests_measure_branches_and_fail_below_85_percent() -> None:
    coverage = PYPROJECT["tool"]["coverage"]
    assert coverage["run"]["branch"] is True
    assert coverage["run"]["source"] == ["ss_pipeline"]
    assert coverage["report"]["fail_under"] >= 85
    assert "--cov-report=lcov" in MAKEFILE
    assert PYPROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"


@pytest.mark.seed("S1.4.1", "S1.4.2")
def test_types_are_checked_strictly_for_the_lowest_python() -> None:
    mypy = PYPROJECT["tool"]["mypy"]
    flags = ("strict", "no_implicit_optional", "warn_return_any", "warn_unused_configs", "disallow_untyped_defs")
    assert all(mypy[flag] is True for flag in flags)
    assert mypy["python_version"] == "3.11"
    assert any(Requirement(text).name == "mypy" for text in PROJECT["optional-dependencies"]["dev"])


# --- generated pages -------------------------------------------------------------------------------------------------


def generate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs docs/generate.py on a folder."""
    command = [sys.executable, "docs/generate.py", "--into", str(folder), *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated pages, in a folder of their own."""
    folder = tmp_path_factory.mktemp("docs")
    assert generate(folder).returncode == 0
    return folder


def test_a_stale_page_is_named_and_written_anew(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "docs")
    page = folder / "events.md"
    page.write_text(page.read_text().replace("SS_JOB_CREATED", "SS_JOB_MADE"))
    (folder / "errors.md").unlink()
    found = generate(folder, "--check")
    assert (found.returncode, found.stderr.count("\n")) == (1, 2)
    assert "docs/errors.md" in found.stderr
    assert "docs/events.md" in found.stderr
    assert "SS_JOB_MADE" in page.read_text()
    assert generate(folder).returncode == 0
    assert contents(folder) == contents(written)


def contents(folder: Path) -> dict[str, str]:
    """File name -> text."""
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_pages_list_what_the_code_has(written: Path) -> None:
    expected = {
        "errors.md": ("| `JOB_VERSION_CONFLICT` | `JobVersionConflictError` | yes |", "`DECISION_BLOCKED`"),
        "events.md": ("## Claim", "| `SS_CLAIM_LOST` |"),
        "configuration.md": (
            "| `SS_JOB_STORE_BACKEND` | `file`, `memory`, `postgres`, `redis` | `file` |",
            "number ≥ 1, ≤ 25 | `25` |",
        ),
        "cli.md": ("# Commands", "## `ss-pipeline show`"),
    }
    for name, texts in expected.items():
        assert [text for text in texts if text not in contents(written)[name]] == [], name
