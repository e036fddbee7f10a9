"""report.html and report.md from a report: two templates, each with an engine that escapes whatever it prints."""

import re
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ss_pipeline.stages.publishing import markdown
from ss_pipeline.stages.publishing.formats import clean
from ss_pipeline.stages.publishing.view import Report

_BLANK_LINES: Final = re.compile(r"\n{3,}")
_LOADED_FROM: Final = ("ss_pipeline", "stages/publishing/templates")
_HTML: Final = "report.html.j2"
_STYLE: Final = "report.css.j2"
_MARKDOWN: Final = "report.md.j2"


def render_html(report: Report) -> bytes:
    """The report as one HTML file that needs nothing else, UTF-8."""
    return _html_engine().get_template(_HTML).render(report=report, t=report.words).encode("utf-8")


def render_markdown(report: Report) -> bytes:
    """The report as Markdown without raw HTML, UTF-8."""
    text = _markdown_engine().get_template(_MARKDOWN).render(report=report, t=report.words)
    return (_BLANK_LINES.sub("\n\n", text).strip() + "\n").encode("utf-8")


@cache
def _html_engine() -> Environment:
    return Environment(
        loader=PackageLoader(*_LOADED_FROM),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _markdown_engine() -> Environment:
    """Every printed value goes through `markdown.escape`; what a filter made Markdown on purpose goes in as it is."""
    engine = Environment(
        loader=PackageLoader(*_LOADED_FROM),
        autoescape=False,  # noqa: S701 - HTML escaping would not make Markdown safe; `finalize` does
        undefined=StrictUndefined,
        finalize=markdown.escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"quoted": markdown.quoted, "paragraphs": markdown.paragraphs, "fenced": markdown.fenced}
    return engine


def _shown(value: object) -> object:
    """A value with what cannot be shown replaced; markup made here is left as it is."""
    return clean(value) if type(value) is str else value


def _compile() -> None:
    """Compiles the templates at import: runs are forked from a process that has them, which saves each 50 ms."""
    for name in (_HTML, _STYLE):
        _html_engine().get_template(name)
    _markdown_engine().get_template(_MARKDOWN)


_compile()
