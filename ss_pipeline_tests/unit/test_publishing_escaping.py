"""Guarantee L4: nothing that a tenant, a file or a model wrote becomes markup in a report or a formula in a sheet.

Every text of a job is replaced by hostile ones. The report must then have exactly the tags and attributes it has with
harmless texts, so nothing was added, whatever the trick. Each detector is shown to catch a renderer without escaping.
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import Environment, PackageLoader
from markdown_it import MarkdownIt

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.jobs.drafts import OpenUnknown
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import DataQualityWarning, DataSample, JobProfile
from ss_pipeline.stages.publishing import markdown, report
from ss_pipeline.stages.publishing.columns_csv import HEADER, columns_csv, safe_cell
from ss_pipeline.stages.publishing.formats import clean
from ss_pipeline.stages.publishing.stage import prepare_publication
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.publishing_builders import a_column, a_decided_job, a_draft, a_profile, a_sample

ATTACKS = [
    "<script>alert(1)</script>", "</style><script>1</script>", '"><img src=x onerror=alert(1)>',
    "<svg/onload=alert(1)>", "'onmouseover='alert(1)", "</title></svg><iframe src=//evil.example>", "<!--",
    "-->", "]]>", "&lt;b&gt;", "&#x3c;b>", "{{ 7*7 }}", "{% raw %}", "javascript:alert(1)",
    "[x](javascript:alert(1))", "![x](https://evil.example/p.png)", "[x]: https://evil.example", "[x][x]",
    "<https://evil.example>", "https://evil.example/?q=1", "www.evil.example", "</blockquote>", "\n# heading\n",
    "\n\n<div>\n", "\n- item", "\n1. item", "\n> quote", "\n===\n", "\n---\n", "\n```\n", "\n~~~\n", "| cell |",
    "\n|---|\n", "`code`", "``", "**bold**", "__b__", "$\\alpha$", "$x_1^2$", "\\", "\x00", "\x1b[31m",
    "\u202e", "\u2028", "\u2066", "\r\n", "\t", "@T0@", "@T1@", "#0a0a01", "﷽", "受教育年限", "=1+1",
    "url(https://evil.example)",
]  # fmt: skip

hostile_texts = st.lists(st.sampled_from(ATTACKS) | st.text(max_size=6), min_size=1, max_size=3).map("".join)
many = settings(max_examples=200, deadline=None)


def a_case(texts: list[str]) -> tuple[Job, JobProfile, DataSample]:
    """A job in which every text is one of these: names, labels, values, requirement, draft, warnings, decision."""
    supply = iter([f"z{text}" for text in texts] * 40)

    def some() -> str:
        return next(supply)

    outcome, treatment, control = (f"{some().strip()}{i}" for i in range(3))
    cells: dict[str, Any] = {
        outcome: [1.0, 2.0, 3.0, 4.0, 9.0, None],
        treatment: ["a" + some()[:70], "b", "b", "a" + some()[:70], None, "c"],
        control: [float(i) for i in range(6)],
    }
    draft = a_draft(
        text=some(),
        outcome_var=outcome,
        treatment_var=treatment,
        controls=[control],
        fixed_effects=[treatment],
        method="ols",
        analysis_hints=[some()],
        open_unknowns=[OpenUnknown(field=some(), description=some(), impact=some(), candidates=[some()])],
        data_quality_warnings=[
            DataQualityWarning(type=some(), severity=some(), message=some(), suggestion=some()),
        ],
        drafter=some(),
    )
    decision = {"by": some(), "note": some(), "answers": {some(): some()}}
    job = a_decided_job(draft, requirement=some(), language=some(), decision=decision, trace_id=some())
    profile = a_profile(cells, original_name=some(), sheet=some(), encoding=some(), delimiter=some())
    columns = [a_column(name, column, label=some(), normalized_name="x") for name, column in cells.items()]
    primary = profile.primary.model_copy(update={"columns": columns})
    return job, profile.model_copy(update={"datasets": [primary]}), a_sample(cells)


def files_of(case: tuple[Job, JobProfile, DataSample]) -> dict[str, str]:
    job, profile, sample = case
    artifacts = ArtifactStore("memory://escaping")
    fence = len(artifacts.names(job.tenant_id, job.job_id, "publications")) + 1
    made = prepare_publication(
        job, profile=profile, sample=sample, artifacts=artifacts, fence=fence, clock=StandingClock()
    )
    names = ("report.html", "report.md")
    return {name: artifacts.read(job.tenant_id, job.job_id, f"{made.folder}/{name}").decode() for name in names}


@dataclass
class Page(HTMLParser):
    """The tags of a page with the names of their attributes, their values, and its text."""

    structure: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    values: list[tuple[str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.structure.append((tag, tuple(name for name, _ in attrs)))
        self.values.extend((name, value or "") for name, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        self.structure.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.structure.append(("comment", ()))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    return page


def problems_of_page(page: Page) -> list[str]:
    """What a page must not have: scripts, handlers, references to elsewhere."""
    problems = [
        f"<{tag}>" for tag, _ in page.structure if tag in {"script", "iframe", "object", "embed", "base", "link"}
    ]
    for name, value in page.values:
        if name.startswith("on"):
            problems.append(name)
        if name in {"href", "src", "xlink:href", "action", "srcset", "data"} and not value.startswith("#"):
            problems.append(f"{name}={value}")
        if name in {"style", "clip-path", "fill"} and re.search(r"url\((?!#)|expression|@import", value):
            problems.append(f"{name}={value}")
    return problems


def test_a_page_that_does_not_escape_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Environment(
        loader=PackageLoader("ss_pipeline", "stages/publishing/templates"), trim_blocks=True, lstrip_blocks=True
    )
    monkeypatch.setattr(report, "_html_engine", lambda: broken)
    page = page_of(files_of(a_case(['"><img src=x onerror=alert(1)>', "<script>1</script>"]))["report.html"])
    assert {"<script>", "onerror", "src=x"} <= set(problems_of_page(page))
    assert page.structure != PLAIN.structure


def problems_of_markdown(text: str) -> list[str]:
    """What Markdown must not have: HTML, links, images; and bare addresses, which GitHub makes links."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    parts = [part for token in tokens for part in [token, *(token.children or [])]]
    unwanted = {"html_block", "html_inline", "link_open", "image"}
    problems = [f"{part.type}: {part.content or part.attrs}" for part in parts if part.type in unwanted]
    outside = re.sub(r"^(`{3,})[^\n]*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    problems += re.findall(r"(?i)(?:https?|ftp|javascript|mailto):\S+|www\.\S+", outside)
    return problems


def blocks_of(text: str) -> list[str]:
    """The kinds of blocks, in order; a paragraph more or less is the text's own affair."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [token.type for token in tokens if not token.type.startswith(("paragraph", "inline"))]


PLAIN_FILES = files_of(a_case(["plain"]))
PLAIN = page_of(PLAIN_FILES["report.html"])
PLAIN_BLOCKS = blocks_of(PLAIN_FILES["report.md"])


@pytest.mark.guarantee("L4")
@many
@given(st.lists(hostile_texts, min_size=1, max_size=5))
def test_no_text_adds_a_tag_or_attribute_to_the_page_or_html_a_link_or_a_block_to_the_markdown(
    texts: list[str],
) -> None:
    case = a_case(texts)
    files = files_of(case)
    page = page_of(files["report.html"])
    assert problems_of_page(page) == []
    assert page.structure == PLAIN.structure
    assert clean(case[0].requirement or "") in page.text
    assert problems_of_markdown(files["report.md"]) == []
    assert blocks_of(files["report.md"]) == PLAIN_BLOCKS


@pytest.mark.parametrize(
    ("attack", "caught"),
    [("<b onclick=x>", "html_inline"), ("[x](javascript:x)", "link_open"), ("![x](//evil.example)", "image")],
)
def test_markdown_that_does_not_escape_is_caught(attack: str, caught: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "escape", str)
    broken = report._markdown_engine.__wrapped__
    monkeypatch.setattr(report, "_markdown_engine", broken)
    problems = problems_of_markdown(files_of(a_case([attack]))["report.md"])
    assert any(problem.startswith(caught) or "javascript:" in problem for problem in problems)


@pytest.mark.guarantee("L4")
@many
@given(hostile_texts | st.text(max_size=20))
def test_escaped_markdown_shows_the_text_itself(text: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").parseInline(markdown.escape(text))[0]
    assert "".join(part.content for part in shown.children or []) == " ".join(clean(text).split())


FORMULA_STARTS = "=+-@\t\r\n\x00＝＋－＠"
cells = st.builds(str.__add__, st.sampled_from([*FORMULA_STARTS, ""]), hostile_texts | st.text(max_size=8))
PLAIN_NUMBER = re.compile(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


def formulas_in(sheet: bytes) -> list[str]:
    """The cells that a spreadsheet might evaluate."""
    rows = csv.reader(io.StringIO(sheet.decode("utf-8-sig"), newline=""), strict=True)
    every = [cell for row in rows for cell in row]
    return [cell for cell in every if cell.startswith(tuple(FORMULA_STARTS)) and not PLAIN_NUMBER.fullmatch(cell)]


def sheet_of(texts: list[str], write: Callable[[JobProfile], bytes]) -> bytes:
    column: dict[str, Any] = {text: [text, text, None] for text in texts}
    profile = a_profile(column, original_name=texts[0])
    columns = [a_column(name, values, label=texts[-1], normalized_name="x") for name, values in column.items()]
    return write(profile.model_copy(update={"datasets": [profile.primary.model_copy(update={"columns": columns})]}))


@pytest.mark.guarantee("L4")
@many
@given(st.lists(cells, min_size=1, max_size=4, unique=True))
def test_no_cell_of_the_data_dictionary_is_a_formula(texts: list[str]) -> None:
    sheet = sheet_of(texts, lambda profile: columns_csv(profile, roles={}))
    assert formulas_in(sheet) == []
    rows = list(csv.reader(io.StringIO(sheet.decode("utf-8-sig"), newline=""), strict=True))
    assert [tuple(rows[0]), *({len(row) for row in rows})] == [HEADER, len(HEADER)]
    assert len(rows) == 1 + len(texts)


def test_a_dictionary_that_does_not_guard_its_cells_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ss_pipeline.stages.publishing.columns_csv.safe_cell", str)
    sheet = sheet_of(["=1+1", "＠SUM(A1)"], lambda profile: columns_csv(profile, roles={}))
    assert {"=1+1", "＠SUM(A1)"} <= set(formulas_in(sheet))


@pytest.mark.guarantee("L4")
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("-1.5", "-1.5"), (-1.5, "-1.5"), ("+3e-7", "+3e-7"), ("-", "'-"), ("-1-1", "'-1-1"), ("=1", "'=1"),
        ("＝1", "'＝1"), ("@a", "'@a"), ("\t=1", "'\t=1"), ("\r=1", "'\r=1"), ("\x00=1", "'\ufffd=1"), (None, ""),
        ("a=1", "a=1"), ("-１", "'-１"),
    ],
)  # fmt: skip
def test_numbers_stay_numbers_and_the_rest_is_prefixed(value: object, written: str) -> None:
    assert safe_cell(value) == written


def test_the_data_dictionary_starts_with_a_byte_order_mark_and_ends_its_lines_as_rfc_4180_says() -> None:
    sheet = columns_csv(a_profile({"a": [1, 2], "b, c": ["x\ny", None]}), roles={"a": "outcome"})
    assert sheet.startswith(b"\xef\xbb\xbfdataset,")
    assert sheet.endswith(b"\r\n")
    assert b'"b, c"' in sheet
    assert b",outcome," in sheet
