"""What a report says, as plain values: the job, its profile and its plots turned into what the templates print.

Every text here is still as it came; the templates escape (HTML) or the renderer does (Markdown). No markup here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.inputs import InputDataset
from ss_pipeline.jobs.model import Decision, Job
from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, JobProfile
from ss_pipeline.stages.publishing.analysis import Analysis, Token, formula_tokens
from ss_pipeline.stages.publishing.code_python import python_code
from ss_pipeline.stages.publishing.code_r import r_code
from ss_pipeline.stages.publishing.code_stata import stata_code
from ss_pipeline.stages.publishing.column_rows import ColumnRow, column_row, dictionary, dictionary_note
from ss_pipeline.stages.publishing.formats import clean, moment, one_line, share, shortened, size
from ss_pipeline.stages.publishing.plots import Plot
from ss_pipeline.stages.publishing.wording import Language, Words, language_tag, requirement_tag

SEVERITIES: Final = ("error", "warning", "info")
IMPACTS: Final = ("low", "medium", "high", "critical")


@dataclass(frozen=True)
class Fact:
    """A named value; `code` says that it is to be set as code."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True)
class RoleCard:
    """A role of the analysis and the columns in it, each with its label; empty where nobody has the role."""

    role: str
    word: str
    columns: tuple[Fact, ...]


@dataclass(frozen=True)
class Caution:
    """A warning about the data. `severity` is one of `SEVERITIES`."""

    severity: str
    word: str
    message: str
    suggestion: str


@dataclass(frozen=True)
class Question:
    """Something left open; `impact` is one of `IMPACTS` or empty."""

    text: str
    field: str
    impact: str
    word: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class DataFile:
    """A data file: its name, how it was read, and its hash where the inputs' manifest is there."""

    name: str
    role: str
    rows: str
    columns: str
    read_as: str
    size: str
    sha256: str


@dataclass(frozen=True)
class Report:
    """Everything a template prints."""

    words: Words
    tag: str
    title: str
    requirement: str
    requirement_tag: str
    facts: tuple[Fact, ...]
    formula: tuple[Token, ...]
    roles: tuple[RoleCard, ...]
    method: str
    draft_text: str
    hints: tuple[str, ...]
    cautions: tuple[Caution, ...]
    questions: tuple[Question, ...]
    decision_word: str
    decision: tuple[Fact, ...]
    answers: tuple[Fact, ...]
    variables: tuple[ColumnRow, ...]
    plots: tuple[Plot, ...]
    nothing_missing: bool
    dictionary: tuple[ColumnRow, ...]
    dictionary_note: str
    programs: tuple[Fact, ...]
    provenance: tuple[Fact, ...]
    files: tuple[DataFile, ...]
    version: int


@dataclass(frozen=True)
class ReportParts:
    """What a report is made of, beside the plots."""

    job: Job
    draft: Draft
    decision: Decision
    profile: JobProfile
    analysis: Analysis
    inputs: Sequence[InputDataset]
    version: int
    software: str
    language: Language
    words: Words


def make_report(parts: ReportParts, plots: Sequence[Plot]) -> Report:
    """The report of one version; the same parts give the same report (nothing here asks the clock)."""
    words, draft, analysis = parts.words, parts.draft, parts.analysis
    return Report(
        words=words,
        tag=language_tag(parts.language),
        title=_title(analysis, words),
        requirement=clean(parts.job.requirement or ""),
        requirement_tag=requirement_tag(parts.job, parts.language),
        facts=_facts(parts),
        formula=tuple(formula_tokens(analysis)),
        roles=_role_cards(analysis, words),
        method=words[analysis.method],
        draft_text=clean(draft.text),
        hints=tuple(draft.analysis_hints),
        cautions=_cautions(parts),
        questions=_questions(draft, words),
        decision_word=words[parts.decision.action],
        decision=_decision(parts.decision, words),
        answers=tuple(
            Fact(_question_name(name, words), _answer(value)) for name, value in parts.decision.answers.items()
        ),
        variables=tuple(
            column_row(analysis.column(name), role, analysis.data, words) for name, role in analysis.roles.items()
        ),
        plots=tuple(plots),
        nothing_missing=not any(column.missing for column in analysis.data.columns),
        dictionary=dictionary(analysis, words),
        dictionary_note=dictionary_note(analysis.data, words),
        programs=_programs(analysis),
        provenance=_provenance(parts),
        files=tuple(_data_file(data, parts.inputs) for data in parts.profile.datasets),
        version=parts.version,
    )


def _title(analysis: Analysis, words: Words) -> str:
    if analysis.outcome is None:
        return words["report"]
    outcome = _named(analysis.column(analysis.outcome))
    if analysis.treatment is None:
        return words["about"].format(outcome=outcome)
    column = analysis.column(analysis.treatment)
    treatment = _named(column)
    first = treatment[:1].upper() if column.label else treatment[:1]
    return words["relates"].format(outcome=outcome, treatment=first + treatment[1:])


def _named(column: ColumnProfile) -> str:
    """The label where it is short enough for a heading, else the name."""
    label = one_line(column.label)
    return label if label and len(label) <= 40 else shortened(column.name, width=48)


def _facts(parts: ReportParts) -> tuple[Fact, ...]:
    words, data, used = parts.words, parts.analysis.data, parts.analysis.roles
    missing = sum(parts.analysis.column(name).missing for name in used)
    return (
        Fact(words["rows"], f"{data.rows:,}"),
        Fact(words["columns"], f"{data.columns_total:,}"),
        Fact(words["used"], str(len(used))),
        Fact(words["missing_cells"], share(missing, data.rows * len(used))),
        Fact(words["warnings"], str(len(_cautions(parts)))),
    )


def _role_cards(analysis: Analysis, words: Words) -> tuple[RoleCard, ...]:
    always: dict[str, list[str | None]] = {
        "outcome": [analysis.outcome],
        "treatment": [analysis.treatment],
        "controls": [*analysis.controls],
    }
    others: dict[str, list[str | None]] = {
        "instrument": [analysis.instrument],
        "fixed_effects": [*analysis.fixed_effects],
        "interactions": [name for term in analysis.interactions for name in term],
        "entity": [analysis.entity],
        "time": [analysis.time],
        "cluster": [analysis.cluster],
    }
    cards = [RoleCard(role, words[role], _columns_of(names, analysis)) for role, names in (always | others).items()]
    return tuple(card for card in cards if card.columns or card.role in always)


def _columns_of(names: Sequence[str | None], analysis: Analysis) -> tuple[Fact, ...]:
    there = list(dict.fromkeys(name for name in names if name))
    return tuple(Fact(one_line(name), one_line(analysis.column(name).label)) for name in there)


def _cautions(parts: ReportParts) -> tuple[Caution, ...]:
    """The warnings of the draft and of the data files, each once, the gravest first."""
    every = [*parts.draft.data_quality_warnings, *(w for data in parts.profile.datasets for w in data.warnings)]
    cautions = []
    for warning in every:
        severity = warning.severity if warning.severity in SEVERITIES else "info"
        cautions.append(Caution(severity, parts.words[severity], warning.message, warning.suggestion or ""))
    return tuple(sorted(dict.fromkeys(cautions), key=lambda caution: SEVERITIES.index(caution.severity)))


def _questions(draft: Draft, words: Words) -> tuple[Question, ...]:
    unknowns = [
        Question(u.description, u.field, _impact(u.impact), words.get(_impact(u.impact), ""), tuple(u.candidates))
        for u in draft.open_unknowns
    ]
    asked = [
        Question(q.question_text, q.question_id, "", "", tuple(option.label for option in q.options))
        for q in draft.stage1_questions
    ]
    return tuple(unknowns + asked)


def _impact(impact: str) -> str:
    return impact if impact in IMPACTS else ""


def _decision(decision: Decision, words: Words) -> tuple[Fact, ...]:
    by = words["by_policy"] if decision.by.startswith("policy:") else decision.by
    note = [Fact(words["note"], decision.note)] if decision.note else []
    return (Fact(words["by"], by), Fact(words["at"], moment(decision.at)), *note)


def _question_name(name: str, words: Words) -> str:
    return words.get(name.removesuffix("_var"), name) if name.endswith("_var") else name


def _answer(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _programs(analysis: Analysis) -> tuple[Fact, ...]:
    if analysis.outcome is None:
        return ()
    return (
        Fact("Python", python_code(analysis), code=True),
        Fact("R", r_code(analysis), code=True),
        Fact("Stata", stata_code(analysis), code=True),
    )


def _provenance(parts: ReportParts) -> tuple[Fact, ...]:
    words, job, draft = parts.words, parts.job, parts.draft
    return (
        Fact(words["job"], job.job_id, code=True),
        Fact(words["tenant"], job.tenant_id),
        Fact(words["version"], str(parts.version)),
        Fact(words["revision"], str(draft.revision)),
        Fact(words["submitted"], moment(job.created_at)),
        Fact(words["drafted"], moment(draft.created_at)),
        Fact(words["drafter"], _drafter(parts)),
        Fact(words["decided"], moment(parts.decision.at)),
        Fact(words["draft_hash"], draft.sha256, code=True),
        Fact(words["trace"], job.trace_id, code=True),
        Fact(words["software"], parts.software),
    )


def _drafter(parts: ReportParts) -> str:
    """Who drafted, and in whose place where no model gave a usable answer."""
    drafter, origin = parts.draft.drafter or parts.words["imported"], parts.draft.origin
    if origin is None or origin.fallback_code is None:
        return drafter
    return f"{drafter} {parts.words['in_place_of']} {', '.join(origin.asked)} ({origin.fallback_code})"


def _data_file(data: DatasetProfile, inputs: Sequence[InputDataset]) -> DataFile:
    source = next((item for item in inputs if item.dataset_key == data.dataset_key), None)
    how = [data.format, data.encoding, data.sheet, f"“{data.delimiter}”" if data.delimiter else None]
    return DataFile(
        name=one_line(data.original_name),
        role=data.role,
        rows=f"{data.rows:,}",
        columns=f"{data.columns_total:,}",
        read_as=", ".join(one_line(part) if part.strip() else "⇥" for part in how if part),
        size=size(source.size_bytes) if source else "–",
        sha256=source.sha256 if source else "–",
    )
