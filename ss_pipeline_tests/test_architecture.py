"""The rules of the house, read from the source itself: who imports whom, size, names, errors, logging, docstrings.

Each rule is a function that returns what breaks it, so that a twin test can show that it catches a breach.
"""

import ast
import importlib
import inspect
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from ss_pipeline.settings import Settings
from ss_pipeline.telemetry.events import EVENTS
from ss_pipeline_tests.conftest import PROJECT_ROOT

PACKAGE: Final = PROJECT_ROOT / "ss_pipeline"
TESTS: Final = PROJECT_ROOT / "ss_pipeline_tests"
PLUG_IN: Final = PACKAGE / "launcher" / "__init__.py"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, text and syntax tree."""

    name: str
    text: str
    tree: ast.Module

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    def at(self, node: ast.AST, what: str) -> str:
        """A finding, with its place."""
        return f"{self.name}:{getattr(node, 'lineno', 1)}: {what}"


def module_of(text: str, name: str = "ss_pipeline.example") -> Module:
    """A module from its source."""
    return Module(name, text, ast.parse(text))


def read_tree(folder: Path) -> list[Module]:
    """Every module below a folder, in order of names."""
    names = {path: path.relative_to(PROJECT_ROOT).with_suffix("").as_posix() for path in sorted(folder.rglob("*.py"))}
    return [
        module_of(path.read_text(), name.removesuffix("/__init__").replace("/", ".")) for path, name in names.items()
    ]


SOURCES: Final = read_tree(PACKAGE)
TEST_SOURCES: Final = read_tree(TESTS)


# --- the rules -------------------------------------------------------------------------------------------------------


def functions_without_a_return_annotation(module: Module) -> list[str]:
    return [module.at(node, node.name) for node in module.functions() if node.returns is None]


def functions_of_fifty_lines(module: Module) -> list[str]:
    return [
        module.at(node, f"{node.name} has {length_of(node)} lines")
        for node in module.functions()
        if length_of(node) >= 50
    ]


def broad_excepts(module: Module) -> list[str]:
    handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler)]
    return [module.at(node, "broad except") for node in handlers if node.type is None or names_in(node.type) & BROAD]


def dynamic_proxies(module: Module) -> list[str]:
    if module.name == "ss_pipeline.launcher.dagster_internals":
        return []  # the one place where Dagster is changed; a test compares it with the installed version
    hooks = {"__getattr__", "__getattribute__", "__setattr__"}
    imported = imported_names(module)
    found = [module.at(node, node.name) for node in module.functions() if node.name in hooks]
    for node in ast.walk(module.tree):
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(
            isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id in imported - {"sys"}
            for t in targets
        ):
            found.append(module.at(node, "assigns to an attribute of something imported"))
        if isinstance(node, ast.Call) and names_in(node.func) == {"setattr"}:
            found.append(module.at(node, "setattr"))
    return found


def pickling(module: Module) -> list[str]:
    return [module.at(node, "pickle") for node in ast.walk(module.tree) if words_of(node) & PICKLING]


def free_text_logging(module: Module) -> list[str]:
    if module.name.startswith(("ss_pipeline.telemetry", "ss_pipeline.defs")):
        return []  # defs may write to `context.log`: it is the run's page in Dagster's UI, for people, not our log
    calls = [node.func for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    return [
        module.at(call, f"logs with .{call.attr}, not with telemetry.events.emit")
        for call in calls
        if isinstance(call, ast.Attribute) and call.attr in LOG_METHODS and last_name(call.value) in LOGGERS
    ]


def unknown_event_codes(module: Module) -> list[str]:
    known = EVENTS.keys() | {f"SS_{name.upper()}" for name in Settings.model_fields}
    return [module.at(node, code) for node, code in event_codes_in(module) if code not in known]


def unfinished_work(module: Module) -> list[str]:
    return [module.at(ast.parse(""), mark) for mark in UNFINISHED if re.search(rf"\b{mark}\b", module.text)]


def missing_docstrings(module: Module) -> list[str]:
    found = [] if ast.get_docstring(module.tree) else [f"{module.name}: the module"]
    for node in module.tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(node.name):
            found += [] if ast.get_docstring(node) else [module.at(node, node.name)]
            found += undocumented_methods(module, node) if isinstance(node, ast.ClassDef) else []
    return found


def future_annotations(module: Module) -> list[str]:
    imports = [node for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom)]
    return [module.at(node, "future annotations") for node in imports if node.module == "__future__"]


def ignores_without_a_code(module: Module) -> list[str]:
    comments = [t for t in tokenize.generate_tokens(io.StringIO(module.text).readline) if t.type == tokenize.COMMENT]
    blank = re.compile(r"type:\s*ignore(?!\[[a-z-]+)|noqa(?!: [A-Z]+\d+)")
    return [f"{module.name}:{t.start[0]}: {t.string}" for t in comments if blank.search(t.string)]


def vague_names(module: Module) -> list[str]:
    parts = [part for part in module.name.split(".") if part != "io_manager"]  # Dagster's own word
    return [f"{module.name}: {word}" for word in VAGUE for part in parts if re.search(rf"(^|_){word}$", part)]


# --- what the rules are made of --------------------------------------------------------------------------------------

BROAD: Final = {"Exception", "BaseException"}
PICKLING: Final = {
    "pickle", "cloudpickle", "dill", "joblib", "shelve", "FilesystemIOManager", "fs_io_manager", "mem_io_manager",
    "UPathIOManager", "PickledObjectFilesystemIOManager", "to_pickle", "read_pickle",
}  # fmt: skip
LOG_METHODS: Final = {"debug", "info", "warning", "error", "exception", "critical", "log"}
LOGGERS: Final = {"log", "logger", "logging", "LOGGER", "_logger", "_log", "getLogger"}
UNFINISHED: Final = ("TO" + "DO", "FIX" + "ME", "X" + "XX")
VAGUE: Final = ("utils", "util", "helpers", "helper", "common", "misc", "manager", "processor", "support")
EVENT_CODE: Final = re.compile(r"^SS_[A-Z]+(_[A-Z]+)+$")


def length_of(node: Function) -> int:
    """Lines from `def` to the last one, docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def names_in(node: ast.expr) -> set[str]:
    """The plain names in an expression."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def last_name(node: ast.expr) -> str:
    """`c` of `a.b.c` and of `a.b.c()`."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def words_of(node: ast.AST) -> set[str]:
    """The names a node itself says."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name) | ast.ImportFrom(module=str(name)):
            return set(name.split("."))
    return set()


def imported_names(module: Module) -> set[str]:
    """Names that imports bind anywhere in a module."""
    imports = [node for node in ast.walk(module.tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    return {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def is_public(name: str) -> bool:
    """Whether a name is for others."""
    return not name.startswith("_")


def undocumented_methods(module: Module, node: ast.ClassDef) -> list[str]:
    """Public methods that neither say what they do nor override one that does."""
    methods = [
        part for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_public(part.name)
    ]
    bare = [part for part in methods if not ast.get_docstring(part)]
    if not bare or module.name == "ss_pipeline.example":
        return [module.at(part, part.name) for part in bare]
    cls = getattr(importlib.import_module(module.name), node.name)
    return [module.at(part, f"{node.name}.{part.name}") for part in bare if not inspect.getdoc(getattr(cls, part.name))]


def event_codes_in(module: Module) -> Iterator[tuple[ast.Constant, str]]:
    """Texts that look like an event code, outside the registry."""
    if module.name == "ss_pipeline.telemetry.events":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and EVENT_CODE.match(node.value):
            yield node, node.value


# --- the tests -------------------------------------------------------------------------------------------------------

Rule: TypeAlias = Callable[[Module], list[str]]

PACKAGE_RULES: Final[list[tuple[Rule, str]]] = [
    (functions_of_fifty_lines, "def f() -> None:\n" + "    x = 1\n" * 49),
    (broad_excepts, "try:\n    pass\nexcept (ValueError, Exception):\n    pass\n"),
    (broad_excepts, "try:\n    pass\nexcept:\n    pass\n"),
    (dynamic_proxies, "class A:\n    def __getattr__(self, name: str) -> int: ...\n"),
    (dynamic_proxies, "import json\njson.dumps = print\n"),
    (pickling, "from pickle import loads\n"),
    (pickling, "import dagster as dg\nx = dg.FilesystemIOManager()\n"),
    (free_text_logging, "import logging\nlogging.getLogger(__name__).info('hello')\n"),
    (free_text_logging, "def f(context: object) -> None:\n    context.log.info('hello')\n"),
    (unknown_event_codes, "emit('SS_DRAFT_LOST_FOR_EVER')\n"),
    (missing_docstrings, "x = 1\n"),
    (missing_docstrings, '"""Doc."""\ndef f() -> None: ...\n'),
    (missing_docstrings, '"""Doc."""\nclass A:\n    """Doc."""\n    def f(self) -> None: ...\n'),
]
EVERYWHERE_RULES: Final[list[tuple[Rule, str]]] = [
    (functions_without_a_return_annotation, "def f(): ...\n"),
    (unfinished_work, f"# {UNFINISHED[0]}: later\n"),
    (future_annotations, "from __future__ import annotations\n"),
    (ignores_without_a_code, "x = 1  # type: " + "ignore\n"),
    (ignores_without_a_code, "x = 1  # no" + "qa\n"),
]


def rule_name(value: object) -> str:
    return getattr(value, "__name__", "")


@pytest.mark.seed("C3", "C4", "C5", "C6")
@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _ in PACKAGE_RULES), ids=rule_name)
def test_the_package_keeps_the_rule(rule: Rule) -> None:
    assert [finding for module in SOURCES for finding in rule(module)] == []


@pytest.mark.seed("S1.4.3", "S1.4.4", "S1.D4", "K1")
@pytest.mark.parametrize("rule", dict.fromkeys(rule for rule, _ in EVERYWHERE_RULES), ids=rule_name)
def test_package_and_tests_keep_the_rule(rule: Rule) -> None:
    assert [finding for module in [*SOURCES, *TEST_SOURCES] for finding in rule(module)] == []


@pytest.mark.parametrize(("rule", "breach"), PACKAGE_RULES + EVERYWHERE_RULES, ids=rule_name)
def test_the_rule_catches_a_breach(rule: Rule, breach: str) -> None:
    assert rule(module_of(breach)) != []


def test_modules_are_named_by_what_they_hold() -> None:
    assert [finding for module in SOURCES for finding in vague_names(module)] == []
    assert vague_names(module_of("", "ss_pipeline.store.utils")) != []


@pytest.mark.seed("C5")
def test_functions_are_short() -> None:
    lengths = [length_of(node) for module in SOURCES for node in module.functions()]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10, method="inclusive")[8] <= 30


def test_files_are_short() -> None:
    lengths = {module.name: module.text.count("\n") for module in SOURCES}
    assert lengths.pop("ss_pipeline.errors") < 560, "one tree in one file: it grows by a class, not by a subject"
    assert {name: length for name, length in lengths.items() if length >= 400} == {}
    assert statistics.quantiles(lengths.values(), n=10, method="inclusive")[8] <= 270


def test_package_init_files_hold_a_docstring_only() -> None:
    inits = [module_of(path.read_text(), str(path)) for path in PACKAGE.rglob("__init__.py") if path != PLUG_IN]
    assert [module.name for module in inits if len(module.tree.body) != 1] == []


def test_the_plug_in_that_dagster_loads_by_its_package_holds_its_one_class_too() -> None:
    _, class_import, names = module_of(PLUG_IN.read_text()).tree.body
    assert isinstance(class_import, ast.ImportFrom)
    assert [alias.name for alias in class_import.names] == ["WarmRunLauncher"]
    assert ast.unparse(names) == "__all__ = ['WarmRunLauncher']"


@pytest.mark.seed("C6")
def test_every_event_of_the_registry_is_emitted_somewhere() -> None:
    emitted = {code for module in SOURCES for _, code in event_codes_in(module)}
    assert sorted(EVENTS.keys() - emitted) == []


@pytest.mark.seed("S1.3.1")
def test_the_tests_lie_where_the_layout_says() -> None:
    for name in ("conftest.py", "unit", "integration", "fixtures/sample_job.json"):
        assert (TESTS / name).exists(), name


# --- who imports whom ------------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.seed("C7")
def test_imports_go_one_way() -> None:
    result = lint_imports(PROJECT_ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.seed("C7")
@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("jobs/lifecycle.py", "import ss_pipeline.store.base", "Imports go one way"),
        ("store/base.py", "import ss_pipeline.artifacts.store", "Imports go one way"),
        ("utils.py", "import json", "Imports go one way"),
        ("stages/decision.py", "import ss_pipeline.stages.claiming", "Stages do not import each other"),
        ("store/memory.py", "import ss_pipeline.store.file", "Back ends of the store"),
        ("jobs/documents.py", "import time", "The job is pure"),
        ("claim_run.py", "import dagster", "Dagster is a skin"),
        ("launcher/health.py", "import ss_pipeline.settings", "The warm launcher is for any"),
        ("stages/decision.py", "import pandas", "Only the profiling stage"),
        ("stages/decision.py", "import matplotlib.pyplot", "Only the publishing stage"),
        ("stages/decision.py", "import openai", "Only llm talks"),
    ],
)
def test_a_forbidden_import_is_caught(tmp_path: Path, path: str, line: str, contract: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "ss_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "ss_pipeline" / path).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint_imports(tmp_path)
    broken = [row for row in result.stdout.splitlines() if row.startswith(contract) and "BROKEN" in row]
    assert result.returncode == 1, result.stdout
    assert broken, result.stdout


@pytest.mark.parametrize("vendor", ["dagster", "pandas", "matplotlib", "openai"])
def test_the_command_line_starts_without_heavy_vendors(vendor: str) -> None:
    probe = f"import ss_pipeline.cli, sys; sys.exit({vendor!r} in sys.modules)"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"importing ss_pipeline.cli imports {vendor}\n{result.stderr}"
