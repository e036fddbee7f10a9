"""No data of a stranger is ever executed: the package neither unpickles nor evaluates anything (guarantee A9)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ss_pipeline

PACKAGE = Path(ss_pipeline.__file__).parent

_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
_NAMES = {"eval", "exec", "compile", "__import__"}
_ATTRIBUTES = {"read_pickle", "to_pickle", "unsafe_load", "full_load", "HDFStore", "read_hdf"}


def executions(source: str) -> list[str]:
    """What a module imports or calls that could run code out of data, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [f"line {line}: {what}" for line, what in _executions_of(node)]
    return found


def _executions_of(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] in _MODULES)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in _MODULES:
        yield node.lineno, f"from {node.module}"
    elif isinstance(node, ast.Attribute) and node.attr in _ATTRIBUTES:
        yield node.lineno, node.attr
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in _NAMES:
            yield node.lineno, name
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in {"yaml.load", "pd.eval", "re.Scanner"}:
            yield node.lineno, ast.unparse(node.func)
        yield from (
            (node.lineno, "allow_pickle")
            for keyword in node.keywords
            if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
        )


@pytest.mark.guarantee("A9")
@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_run_code_out_of_data(path: Path) -> None:
    assert executions(path.read_text(encoding="utf-8")) == []


@pytest.mark.guarantee("A9")
@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, cloudpickle",
        "from pickle import loads",
        "def f(x): return eval(x)",
        "exec('1')",
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load('x')",
    ],
)
def test_the_search_finds_what_would_run_code(source: str) -> None:
    assert executions(source)
