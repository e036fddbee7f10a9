"""Changed code is noticed: an edit, a new size, a removed file, an installed package, a file that is watched."""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ss_pipeline.launcher.sources import Sources, loaded_sources


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An imported module, the file of which is an hour old."""
    (tmp_path / "code_of_today.py").write_text("X = 1\n")
    _touch(tmp_path / "code_of_today.py", -3600)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    yield importlib.import_module("code_of_today")
    del sys.modules["code_of_today"]


def sources(**options: object) -> Sources:
    """The sources of this process, as if it had been loaded just now."""
    return loaded_sources(begun_ns=time.time_ns(), **options)  # type: ignore[arg-type]


def _file(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def _touch(path: Path, seconds: float) -> None:
    then = time.time_ns() + int(seconds * 1e9)
    os.utime(path, ns=(then, then))


def test_nothing_has_changed_at_first(module: ModuleType) -> None:
    found = sources()
    assert found.change() is None
    assert str(_file(module)) in found.stamps


def test_an_edit_is_a_change(module: ModuleType) -> None:
    found = sources()
    _file(module).write_text("X = 2\n")
    assert found.change() == str(_file(module))


def test_another_size_at_the_same_time_is_a_change(module: ModuleType) -> None:
    found = sources()
    before = _file(module).stat().st_mtime_ns
    _file(module).write_text("X = 22\n")
    os.utime(_file(module), ns=(before, before))
    assert found.change() == str(_file(module))


def test_a_removed_file_is_a_change(module: ModuleType) -> None:
    found = sources()
    _file(module).unlink()
    assert found.change() == str(_file(module))


def test_the_standard_library_and_installed_packages_are_not_looked_at_file_by_file() -> None:
    paths = set(sources().stamps)
    assert str(Path(pytest.__file__)) not in paths
    assert str(Path(os.__file__)) not in paths
    assert str(Path(importlib.import_module("ss_pipeline.errors").__file__ or "")) in paths


def test_installing_a_package_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    found = sources()
    assert found.change() is None
    (folder / "something-1.0.dist-info").mkdir()
    assert found.change() == str(folder)


def test_a_file_that_comes_or_goes_is_a_change(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    found = sources(files=[str(env)])
    assert found.change() is None
    env.write_text("A=1")
    assert found.change() == str(env)


def test_watched_files_may_be_new_changed_or_gone(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    one = tmp_path / "deep" / "one.sql"
    one.write_text("select 1")
    found = sources(watched=[f"{tmp_path}/**/*.sql"])
    assert found.change() is None
    (tmp_path / "two.sql").write_text("select 2")
    assert found.change() == str(tmp_path / "two.sql")
    (tmp_path / "two.sql").unlink()
    assert found.change() is None
    one.unlink()
    assert found.change() == str(one)


def test_a_file_saved_after_its_import_while_others_were_loaded_is_a_change(module: ModuleType) -> None:
    begun = time.time_ns()
    _file(module).write_text("X = 2  # saved while the zygote was loading\n")
    _touch(_file(module), 1)
    assert loaded_sources(begun_ns=begun).change() == str(_file(module))


def test_a_file_written_and_then_imported_while_loading_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.time_ns()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "generated_code.py").write_text("X = 1\n")
    importlib.import_module("generated_code")
    assert loaded_sources(begun_ns=begun).change() is None
    del sys.modules["generated_code"]


def test_without_byte_code_a_file_counts_as_it_is_after_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.time_ns()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "uncompiled_code.py").write_text("X = 1\n")
    importlib.import_module("uncompiled_code")
    assert loaded_sources(begun_ns=begun).change() is None
    del sys.modules["uncompiled_code"]
