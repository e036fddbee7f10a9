"""The documentation says what is so: its links resolve, and its tables, names and examples are those of the code."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ss_pipeline.cli import app
from ss_pipeline.errors import SSError
from ss_pipeline.jobs.lifecycle import TRANSITIONS
from ss_pipeline.jobs.requests import SubmissionRequest, parse_request
from ss_pipeline.settings import Settings
from ss_pipeline.telemetry.events import EVENTS
from ss_pipeline_tests.conftest import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
PAGES = [
    PROJECT_ROOT / "README.md",
    *sorted((PROJECT_ROOT / "examples").glob("*.md")),
    *sorted((PROJECT_ROOT / "deploy").rglob("*.md")),
    *sorted(DOCS.rglob("*.md")),
]

SEED_IDS = (
    [f"S0.{n}" for n in range(1, 17)]
    + [f"S1.1.{n}" for n in range(1, 9)]
    + [f"S1.2.{n}" for n in range(1, 10)]
    + [f"S1.3.{n}" for n in range(1, 11)]
    + [f"S1.4.{n}" for n in range(1, 5)]
    + [f"S1.5.{n}" for n in range(1, 6)]
    + [f"S1.D{n}" for n in range(1, 8)]
    + [f"S2.1.{n}" for n in range(1, 14)]
    + [f"S2.2.{n}" for n in range(1, 6)]
    + [f"S2.3.{n}" for n in range(1, 9)]
    + [f"S2.D{n}" for n in range(1, 6)]
    + [f"S3.{part}.{n}" for part in (1, 2, 3) for n in range(1, 4)]
    + [f"S3.D{n}" for n in range(1, 6)]
    + [f"K{n}" for n in range(1, 13)]
    + ["COST1", "COST2", *(f"RISK{n}" for n in range(1, 6)), *(f"D{n}" for n in range(1, 6)), "P1", "P2", "P3"]
    + [*(f"C{n}" for n in range(1, 9)), "N1-N4", "N5-N8", "X"]
)
DONE = {"done in 0.1", "done for 0.2"}
STATES = DONE | {"partly", "planned", "not taken"}

CODE = re.compile(
    r"SS_ERROR|(SETTINGS|JOB|STORE|CLAIM|ARTIFACT|SUBMISSION|INPUT|PROFILE|DRAFT|LLM|DECISION|PUBLICATION|STACK|WEBSERVER|LAUNCHER)(_[A-Z]+)+"
)
NO_SETTINGS = {"SS_CORPUS", "SS_HELM_SCHEMA", "SS_ERROR", "SS_JOB_STORE_REDIS_URL"}
"""Environment variables of the tests, an error code, and the earlier system's name of a setting."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", _text(page), flags=re.MULTILINE | re.DOTALL)


def _links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", _prose(page))
    return [link for link in found if not link.startswith(("http://", "https://"))]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _rows(page: Path, *, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its header."""
    section = _text(page).split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    from_table = dropwhile(lambda line: not line.startswith("|"), section.splitlines())
    lines = list(takewhile(lambda line: line.startswith("|"), from_table))[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _all_rows(page: Path) -> Iterator[list[str]]:
    for line in _text(page).splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@cache
def _codes_in_package() -> frozenset[str]:
    """Every string of the package that is an error or reason code."""
    strings: set[str] = set()
    for path in (PROJECT_ROOT / "ss_pipeline").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        strings |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return frozenset(text for text in strings if CODE.fullmatch(text))


@each_page
def test_every_relative_link_resolves(page: Path) -> None:
    broken = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_linked_from_the_index() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link).resolve() for link in _links(index)}
    assert set(DOCS.rglob("*.md")) - {index} == linked


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = [int(path.name[:4]) for path in sorted((DOCS / "decisions").glob("*.md"))]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.seed("S0.12", "S0.15")
def test_the_roadmap_lists_every_row_of_the_seed_once_with_a_state() -> None:
    rows = [row for row in _all_rows(DOCS / "roadmap.md") if len(row) == 6 and row[0] != "id"]
    assert [row[0] for row in rows] == SEED_IDS
    assert {row[3] for row in rows} <= STATES


@pytest.mark.seed("S1.3.5", "S1.3.6")
@pytest.mark.parametrize(("folder", "least"), [("unit", 40), ("integration", 10)])
def test_there_are_at_least_as_many_tests_as_the_roadmap_says(folder: str, least: int) -> None:
    sources = [_text(path) for path in (PROJECT_ROOT / "ss_pipeline_tests" / folder).glob("test_*.py")]
    assert sum(len(re.findall(r"^def test_", text, flags=re.MULTILINE)) for text in sources) >= least


def test_what_the_roadmap_calls_done_names_a_test() -> None:
    rows = [row for row in _all_rows(DOCS / "roadmap.md") if set(row[3:4]) & DONE]
    assert [row[0] for row in rows if "test_" not in row[5]] == []


def test_every_seed_marker_of_a_test_is_a_row_that_is_not_only_planned() -> None:
    sources = [_text(path) for path in (PROJECT_ROOT / "ss_pipeline_tests").rglob("test_*.py")]
    marked = [arguments for text in sources for arguments in re.findall(r"mark\.seed\((.*?)\)", text)]
    marks = {id_ for arguments in marked for id_ in re.findall(r"\"([^\"]+)\"", arguments)}
    begun = {row[0] for row in _all_rows(DOCS / "roadmap.md") if set(row[3:4]) & (DONE | {"partly"})}
    assert marks - begun == set()


@pytest.mark.seed("S0.13", "S0.14", "N1-N4", "N5-N8")
def test_there_are_fifteen_tasks_each_with_ids_owner_state_and_test() -> None:
    rows = [row for row in _all_rows(DOCS / "tasks.md") if re.fullmatch(r"\d{3}", row[0])]
    assert [int(row[0]) for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 15
    assert all(len(row) == 6 and all(row) for row in rows)
    assert [row[0] for row in rows if row[5] == "–" and not row[4].startswith("planned")] == []


def test_the_table_of_reason_codes_is_complete() -> None:
    in_table = {code for row in _rows(DOCS / "life-of-a-job.md", heading="Reason codes") for code in _code_cells(row)}
    assert in_table == _codes_in_package()


def _code_cells(row: list[str]) -> list[str]:
    return [text for text in re.findall(r"`([A-Z_]+)`", row[0]) if CODE.fullmatch(text)]


def test_every_error_class_has_a_code_of_a_known_family() -> None:
    pending: list[type[SSError]] = [SSError]
    for kind in pending:
        pending.extend(kind.__subclasses__())
    own = {kind.__dict__["code"] for kind in pending[1:] if "code" in kind.__dict__}
    assert [code for code in own if not CODE.fullmatch(code)] == []


def test_the_arrows_are_those_of_the_lifecycle() -> None:
    documented = {(row[0], row[1]) for row in _rows(DOCS / "life-of-a-job.md", heading="The arrows")}
    assert documented == {(before, after) for before, targets in TRANSITIONS.items() for after in targets}


def test_the_drawing_shows_the_same_arrows_as_the_table() -> None:
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)", _text(DOCS / "life-of-a-job.md"), flags=re.MULTILINE))
    assert drawn == {(before, after) for before, targets in TRANSITIONS.items() for after in targets}


def test_the_requests_of_the_quickstart_parse() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", _text(DOCS / "quickstart.md"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        parse_request(block.encode())


def test_the_test_of_the_quickstart_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = re.search(r"^```python\n(.*?)^```$", _text(DOCS / "quickstart.md"), flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    monkeypatch.chdir(PROJECT_ROOT)
    names["test_an_example_is_published"](tmp_path)


def test_the_quickstart_explains_every_field_of_a_request() -> None:
    documented = [row[0] for row in _rows(DOCS / "quickstart.md", heading="Hand something in")]
    assert documented == list(SubmissionRequest.model_fields)


@each_page
def test_every_setting_named_exists(page: Path) -> None:
    settings = {f"SS_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"\bSS_[A-Z][A-Z_]*[A-Z]\b(?!\*)", _text(page)))
    assert named - settings - set(EVENTS) - NO_SETTINGS == set()


@each_page
def test_every_command_named_exists(page: Path) -> None:
    commands = set(getattr(get_command(app), "commands", {}))
    named = set(re.findall(r"ss-pipeline ([a-z]+)", _text(page)))
    assert named - commands == set()


@each_page
def test_every_make_target_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text(PROJECT_ROOT / "Makefile"), flags=re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", _text(page), flags=re.MULTILINE))
    assert named - targets == set()


@pytest.mark.seed("RISK4")
def test_every_direct_dependency_has_its_reason() -> None:
    project = tomllib.loads(_text(PROJECT_ROOT / "pyproject.toml"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[\[<>=~ ]", requirement)[0] for group in groups for requirement in group}
    page = _text(DOCS / "decisions" / "0003-dependencies.md")
    assert {name for name in names if not re.search(rf"\b{re.escape(name)}\b", page)} == {"ss-pipeline"}
