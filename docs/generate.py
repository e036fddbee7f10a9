"""Writes the pages that list what the code has: errors, events, settings, commands. `--check` only compares.

What lives here: one function per page, each reading the registry that the code itself uses. What does not: any prose
beyond a page's first lines; explanations belong in the registries' own texts or in hand-written pages.
"""

import argparse
import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from ss_pipeline import errors
from ss_pipeline.settings import Settings
from ss_pipeline.telemetry.events import EVENTS

DOCS: Final = Path(__file__).resolve().parent
PACKAGE: Final = Path(errors.__file__).resolve().parent
TESTS: Final = DOCS.parent / "ss_pipeline_tests"
NOTICE: Final = "<!-- Written by docs/generate.py from the code; change the code, then run: make docs -->"

_SIGNS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def errors_page() -> str:
    """The tree of errors, what each code means, and the codes that a family's errors are raised with."""
    classes = sorted(error_classes(), key=lambda cls: cls.code)
    rows = [
        (f"`{cls.code}`", f"`{cls.__name__}`", "yes" if cls.retryable else "no", _first_line(cls), cls.advice)
        for cls in classes
        if "code" in vars(cls)
    ]
    family_rows = [(f"`{code}`", ", ".join(f"`{name}`" for name in where)) for code, where in given_codes().items()]
    return _page(
        "Errors",
        "Every error has a stable code, a sentence and what to do. `retryable` says whether doing the same again, as it"
        " is, can succeed.",
        f"```text\n{_error_tree()}\n```",
        _table(("Code", "Class", "Retryable", "Meaning", "What to do, where the error itself does not say"), rows),
        "## Codes given where the error is raised",
        _table(("Code", "Raised in"), family_rows),
    )


def events_page() -> str:
    """Every event code with its meaning, by the noun it speaks of."""
    nouns: dict[str, list[tuple[str, str]]] = {}
    for code, meaning in sorted(EVENTS.items()):
        nouns.setdefault(code.split("_")[1].lower(), []).append((f"`{code}`", meaning))
    sections = [f"## {noun.capitalize()}\n\n{_table(('Event', 'Meaning'), rows)}" for noun, rows in nouns.items()]
    return _page(
        "Events",
        "Every log line is one JSON object: `ts`, `level`, `logger`, `event` and the fields of that event.",
        *sections,
    )


def configuration_page() -> str:
    """Every setting: variable, allowed values, default, meaning."""
    rows = [
        (f"`SS_{name.upper()}`", _allowed(field), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Configuration",
        "Settings are read from the environment, once, at start. A value that cannot be used stops the process with"
        " `SETTINGS_INVALID`, which names the variable.",
        _table(("Variable", "Allowed", "Default", "Meaning"), rows),
    )


def commands_page() -> str:
    """The help of every command, from the command line's own definition."""
    command = [sys.executable, "-m", "typer", "ss_pipeline.cli", "utils", "docs", "--name", "ss-pipeline"]
    done = subprocess.run([*command, "--title", "Commands"], capture_output=True, text=True, check=True, cwd=DOCS)
    title, _, rest = done.stdout.strip().partition("\n")
    return f"{title}\n\n{NOTICE}\n{rest}\n"


def guarantees_page() -> str:
    """Every promise with the tests that carry its id, and every id that a test carries."""
    promises: dict[str, str] = tomllib.loads((DOCS / "promises.toml").read_text(encoding="utf-8"))["promises"]
    proofs = proofs_of_promises()
    if unknown := sorted(proofs.keys() - promises.keys()):
        raise SystemExit(f"tests carry promises that docs/promises.toml does not state: {', '.join(unknown)}")
    rows = [(f"`{id_}`", promise, "<br>".join(proofs.get(id_, ["–"]))) for id_, promise in promises.items()]
    return _page(
        "Guarantees",
        "What survives which fault. Each promise is proved by tests that carry its id (`@pytest.mark.guarantee`)."
        " Where a test says that nothing is lost, a store or a step broken on purpose is caught by the same test.",
        "Jobs are executed at least once and published exactly once. R: durability and scheduling, F: faults, A: input"
        " from outside, L: drafts and reports.",
        _table(("Id", "Promise", "Proved by"), rows),
    )


def proofs_of_promises() -> dict[str, list[str]]:
    """Promise -> links to the test modules that carry its id."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        given = ",".join(re.findall(r"mark\.guarantee\(([^)]*)\)", text))
        for id_ in sorted(set(re.findall(r'"([A-Z]+[0-9]+)"', given))):
            name = path.relative_to(TESTS).with_suffix("").as_posix()
            found.setdefault(id_, []).append(f"[{name}](../{TESTS.name}/{name}.py)")
    return found


def error_classes() -> list[type[errors.SSError]]:
    """Every class of the tree, parents first."""
    found = [errors.SSError]
    for cls in found:
        found.extend(child for child in cls.__subclasses__() if child.__module__ == errors.__name__)
    return found


def given_codes() -> dict[str, list[str]]:
    """Codes of the families `X_* (given)`: code -> modules that name it."""
    families = re.findall(r"(\w+)_\* \(given\)", errors.__doc__ or "")
    pattern = re.compile(rf"^({'|'.join(families)})_[A-Z][A-Z_]*$")
    places: dict[str, set[str]] = {}
    for module, text in _texts_of_the_package():
        if pattern.match(text) and module != errors.__name__:
            places.setdefault(text, set()).add(module)
    return {code: sorted(where) for code, where in sorted(places.items())}


def pages() -> dict[str, Callable[[], str]]:
    """File name -> what writes it."""
    return {
        "errors.md": errors_page,
        "events.md": events_page,
        "configuration.md": configuration_page,
        "guarantees.md": guarantees_page,
        **({"cli.md": commands_page} if (PACKAGE / "cli.py").exists() else {}),
    }


def stale_pages(folder: Path) -> dict[str, str]:
    """The pages in this folder that differ from what the code has: file name -> what it should hold."""
    wanted = {name: write() for name, write in pages().items()}
    return {name: text for name, text in wanted.items() if _read(folder / name) != text}


def main(arguments: list[str]) -> int:
    """Writes the stale pages, or with `--check` only names them and returns 1 if there are any."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
    parser.add_argument("--into", type=Path, default=DOCS, help="the folder of the pages")
    options = parser.parse_args(arguments)
    stale = stale_pages(options.into)
    for name, text in stale.items():
        if options.check:
            sys.stderr.write(f"docs/{name} is not what the code says: run make docs\n")
        else:
            (options.into / name).write_text(text, encoding="utf-8")
    return 1 if options.check and stale else 0


def _error_tree() -> str:
    _, root, rest = inspect.cleandoc(errors.__doc__ or "").partition("    SSError")
    return inspect.cleandoc(f"\n{root}{rest}")


def _texts_of_the_package() -> Iterator[tuple[str, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().removesuffix("/__init__").replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield module, node.value


def _allowed(field: FieldInfo) -> str:
    choices = list(_choices(field.annotation))
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    rules = [(sign, getattr(rule, name, None)) for rule in field.metadata for name, sign in _SIGNS.items()]
    bounds = ", ".join(f"{sign} {bound}" for sign, bound in rules if bound is not None)
    return f"{_type_name(field.annotation)} {bounds}".rstrip()


def _choices(annotation: Any) -> Iterator[str]:
    """The values a Literal allows, also one that may be None."""
    for argument in get_args(annotation) if "Literal" in str(annotation) else ():
        yield from _choices(argument) if "Literal" in str(argument) else () if argument is NoneType else (argument,)


def _type_name(annotation: Any) -> str:
    names = {
        "int": "whole number",
        "float": "number",
        "str": "text",
        "bool": "true or false",
        "PathType": "file",
        "Path": "folder",
    }
    found = [word for key, word in names.items() if re.search(rf"\b{key}\b", str(annotation))]
    return found[0] if found else "text"


def _default(field: FieldInfo) -> str:
    return "–" if field.default is None else f"`{field.default}`"


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTICE, *parts]) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
