"""What a model is shown of a job: requirement and profile as JSON, redacted and capped. Never a row, never a cell.

Of a column: name, label, type, statistics, the labels of its codes. Not: its most frequent values, its histogram, the
names of files. The least and greatest value are shown of numbers and dates only.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ss_pipeline.errors import DraftError
from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, JobProfile
from ss_pipeline.llm.base import DraftRequest
from ss_pipeline.llm.redaction import Redactor
from ss_pipeline.llm.rules.words import has_chinese, is_chinese, text_terms

MAX_COLUMNS_SHOWN: Final = 300
_CHINESE: Final = "Chinese"
_MAX_READ: Final = 1_000
"""Characters of a label that are redacted before it is cut: a secret that is cut first has another shape."""
_MAX_LABEL: Final = 120
_MAX_NAME: Final = 200
_MAX_CODES: Final = 12
_MAX_CODE_LABEL: Final = 40
_AROUND: Final = len(', "columns": []')
_LEAST_ROOM: Final = 2_000
"""Bytes that must be left for columns beside the requirement."""

_INVISIBLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    r"\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Controls, zero widths, directions, tags, lone surrogates: written as escapes, so that nothing hides."""


@dataclass(frozen=True)
class Material:
    """The data of a prompt.

    Args:
        text: One JSON object, redacted, without line breaks.
        columns: How many columns it describes.
    """

    text: str
    columns: int


def material_of(request: DraftRequest, *, redactor: Redactor, max_bytes: int, first: frozenset[str]) -> Material:
    """Requirement and as much of the profile as fits, the most telling columns first.

    Args:
        max_bytes: Of the text, in UTF-8.
        first: Names of columns that are shown before all others.

    Raises:
        DraftError: DRAFT_REQUIREMENT_TOO_LONG.
    """
    head: dict[str, Any] = {
        "requirement": redactor.redact(request.requirement),
        "answer_language": answer_language(request),
        "files": [_file(dataset) for dataset in request.profile.datasets],
    }
    room = max_bytes - len(encoded(head).encode()) - _AROUND
    if room < _LEAST_ROOM:
        raise DraftError(
            f"the requirement of job {request.job_id!r} leaves no room for columns in a prompt of {max_bytes} bytes",
            code="DRAFT_REQUIREMENT_TOO_LONG",
            todo="Submit it again in fewer words, or raise SS_LLM_MAX_PROMPT_BYTES.",
        )
    columns = list(_fitting(_ranked(request, first), redactor=redactor, room=room))
    return Material(text=encoded({**head, "columns": columns}), columns=len(columns))


def answer_language(request: DraftRequest) -> str:
    """The language to answer in, as the model is told: the one asked for, else that of the requirement."""
    if request.language:
        return _CHINESE if request.language.lower().startswith("zh") else request.language[:20]
    return _CHINESE if is_chinese(request.requirement) else "the language of the requirement"


def is_in_language(text: str, request: DraftRequest) -> bool:
    """Whether a text is in the language asked for, as far as Chinese can be told from all others."""
    if answer_language(request) == _CHINESE:
        return is_chinese(text)
    return not is_chinese(text) or has_chinese(request.requirement)


def encoded(value: object) -> str:
    """JSON in one line; what cannot be seen is escaped."""
    return _INVISIBLE.sub(_escape, json.dumps(value, ensure_ascii=False))


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _utf16(match[0]))


def _utf16(character: str) -> Iterator[int]:
    units = character.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2))


def _file(dataset: DatasetProfile) -> dict[str, Any]:
    return {
        "file": dataset.dataset_key,
        "role": dataset.role,
        "rows": dataset.rows,
        "columns": dataset.columns_total,
        "warnings": sorted({warning.type for warning in dataset.warnings})[:20],
    }


def _ranked(request: DraftRequest, first: frozenset[str]) -> list[tuple[DatasetProfile, ColumnProfile]]:
    """All columns as they stand, the primary file's first; where not all can be shown, the most telling lead."""
    columns = [(dataset, column) for dataset in _primary_first(request.profile) for column in dataset.columns]
    if len(columns) > MAX_COLUMNS_SHOWN:
        terms = frozenset(text_terms(request.requirement))
        columns.sort(key=lambda pair: _distance(pair[1], first=first, terms=terms))
    return columns


def _primary_first(profile: JobProfile) -> list[DatasetProfile]:
    return [profile.primary, *(dataset for dataset in profile.datasets if dataset is not profile.primary)]


def _distance(column: ColumnProfile, *, first: frozenset[str], terms: frozenset[str]) -> int:
    if column.name in first:
        return 0
    return 2 - bool(terms & frozenset(text_terms(f"{column.name[:_MAX_NAME]} {column.label[:_MAX_LABEL]}")))


def _fitting(
    columns: list[tuple[DatasetProfile, ColumnProfile]], *, redactor: Redactor, room: int
) -> Iterator[dict[str, Any]]:
    several = len({dataset.dataset_key for dataset, _ in columns}) > 1
    for dataset, column in columns[:MAX_COLUMNS_SHOWN]:
        if len(column.name) > _MAX_NAME:
            continue  # no name that is cut can be answered with
        shown = ({"file": dataset.dataset_key} if several else {}) | _column(column, redactor)
        room -= len(encoded(shown).encode()) + 2
        if room < 0:
            return
        yield shown


def _column(column: ColumnProfile, redactor: Redactor) -> dict[str, Any]:
    is_ordered = column.inferred_type in {"integer", "number", "datetime"}
    values = {
        "name": redactor.redact(column.name),
        "label": redactor.redact(column.label[:_MAX_READ])[:_MAX_LABEL] or None,
        "type": column.inferred_type,
        "values": column.count,
        "missing": column.missing or None,
        "distinct": column.distinct,
        "min": _rounded(column.min) if is_ordered else None,
        "max": _rounded(column.max) if is_ordered else None,
        "mean": _rounded(column.mean),
        "std": _rounded(column.std),
        "median": _rounded(column.p50),
        "codes": _codes(column, redactor) or None,
    }
    return {key: value for key, value in values.items() if value is not None}


def _codes(column: ColumnProfile, redactor: Redactor) -> dict[str, str]:
    def shown(text: str) -> str:
        return redactor.redact(text[:_MAX_READ])[:_MAX_CODE_LABEL]

    return {shown(code): shown(label) for code, label in list(column.value_labels.items())[:_MAX_CODES]}


def _rounded(value: float | str | None) -> float | str | None:
    """Six significant digits are enough to draft by."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return value
