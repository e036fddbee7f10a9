"""The analysis a draft proposes, as parts: which column has which role, and the model formula people read.

How it is written in a language that can fit it is code_python.py's, code_r.py's and code_stata.py's business.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

from ss_pipeline.jobs.drafts import Draft, Method
from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, JobProfile

Role: TypeAlias = Literal[
    "outcome", "treatment", "control", "instrument", "fixed", "interaction", "time", "entity", "cluster"
]
TokenKind: TypeAlias = Literal["outcome", "treatment", "control", "instrument", "fixed", "operator"]

METHODS: Final[tuple[str, ...]] = get_args(Method)
FIXED_EFFECT_METHODS: Final = frozenset({"panel_fe", "did"})


@dataclass(frozen=True)
class Token:
    """A piece of the model formula; `kind` says how to colour it."""

    text: str
    kind: TokenKind


@dataclass(frozen=True)
class Analysis:
    """The parts of a drafted analysis; every name is a column of `data`, no column is regressor twice.

    Args:
        interactions: Each the two or more columns whose product enters.
        cluster: Column by which standard errors are clustered, or None.
    """

    method: Method
    outcome: str | None
    treatment: str | None
    controls: tuple[str, ...]
    interactions: tuple[tuple[str, ...], ...]
    fixed_effects: tuple[str, ...]
    instrument: str | None
    time: str | None
    entity: str | None
    cluster: str | None
    data: DatasetProfile

    @property
    def regressors(self) -> tuple[str, ...]:
        """Treatment and controls."""
        return ((self.treatment,) if self.treatment else ()) + self.controls

    @property
    def roles(self) -> dict[str, Role]:
        """Each column the analysis uses and its first role, in reading order."""
        named: list[tuple[str | None, Role]] = [(self.outcome, "outcome"), (self.treatment, "treatment")]
        named += [(name, "control") for name in self.controls]
        named += [(self.instrument, "instrument")]
        named += [(name, "fixed") for name in self.fixed_effects]
        named += [(name, "interaction") for term in self.interactions for name in term]
        named += [(self.entity, "entity"), (self.time, "time"), (self.cluster, "cluster")]
        roles: dict[str, Role] = {}
        for name, role in named:
            if name:
                roles.setdefault(name, role)
        return roles

    def column(self, name: str) -> ColumnProfile:
        """The profile of a column of the data."""
        return next(column for column in self.data.columns if column.name == name)

    @property
    def is_described(self) -> bool:
        """Whether there is no model to fit, only groups to describe."""
        return self.outcome is None or self.method in {"descriptive", "unknown"} or not self.regressors

    def is_text(self, name: str) -> bool:
        """Whether the column's values are categories written as text."""
        return self.column(name).inferred_type in {"string", "boolean"}


def analysis_of(draft: Draft, profile: JobProfile) -> Analysis:
    """The parts of the draft's analysis of the primary data set; names that are no columns of it are left out."""
    known = {column.name for column in profile.primary.columns}

    def real(name: str | None) -> str | None:
        return name if name in known else None

    outcome, treatment, instrument = real(draft.outcome_var), real(draft.treatment_var), real(draft.instrument_var)
    method = cast("Method", draft.method) if draft.method in METHODS else "unknown"
    entity, time = real(draft.entity_var), real(draft.time_var)
    fixed = [name for name in draft.fixed_effects if name in known]
    if not fixed and method in FIXED_EFFECT_METHODS:
        fixed = [name for name in (entity, time) if name]
    fixed = [name for name in dict.fromkeys(fixed) if name not in {outcome, treatment}]
    taken = {outcome, treatment, *fixed} | ({instrument} if method == "iv_2sls" else set())
    terms = [tuple(term.split("#")) for term in draft.interaction_terms]
    return Analysis(
        method=method,
        outcome=outcome,
        treatment=treatment if treatment != outcome else None,
        controls=tuple(name for name in dict.fromkeys(draft.controls) if name in known and name not in taken),
        interactions=tuple(term for term in dict.fromkeys(terms) if len(term) > 1 and known.issuperset(term)),
        fixed_effects=tuple(fixed),
        instrument=instrument,
        time=time,
        entity=entity,
        cluster=real(draft.cluster_var),
        data=profile.primary,
    )


def columns_named(draft: Draft) -> list[str]:
    """Every column the draft refers to, each once (interactions `a#b` are split)."""
    single = [draft.outcome_var, draft.treatment_var, draft.time_var, draft.entity_var, draft.cluster_var]
    terms = [part for term in draft.interaction_terms for part in term.split("#")]
    named = [*single, draft.instrument_var, *draft.controls, *draft.fixed_effects, *terms]
    return list(dict.fromkeys(name for name in named if name))


def formula_tokens(analysis: Analysis) -> list[Token]:
    """The model as people write it: `wage ~ educ + exper | firm`; empty where the draft names no outcome.

    Fixed effects stand behind a bar, an instrumented treatment with its instrument: `(educ ← distance)`.
    """
    if analysis.outcome is None:
        return []
    left = _outcome_tokens(analysis, Token(_shown(analysis.outcome), "outcome"))
    terms = [_treatment_tokens(analysis)] if analysis.treatment else []
    terms += [[Token(_shown(name), "control")] for name in analysis.controls]
    terms += [[Token(" × ".join(map(_shown, term)), "control")] for term in analysis.interactions]
    right = _joined(terms or [[Token("1", "operator")]])
    fixed = _joined([[Token(_shown(name), "fixed")] for name in analysis.fixed_effects])
    behind = [Token(" | ", "operator"), *fixed] if fixed else []
    return [*left, Token(" ~ ", "operator"), *right, *behind]


def formula_text(analysis: Analysis) -> str:
    """The tokens as one text."""
    return "".join(token.text for token in formula_tokens(analysis))


def _outcome_tokens(analysis: Analysis, outcome: Token) -> list[Token]:
    if analysis.method == "ols_log":
        return [Token("log(", "operator"), outcome, Token(")", "operator")]
    if analysis.method == "survival" and analysis.time:
        return [Token(f"Surv({_shown(analysis.time)}, ", "operator"), outcome, Token(")", "operator")]
    return [outcome]


def _treatment_tokens(analysis: Analysis) -> list[Token]:
    treatment = Token(_shown(analysis.treatment or ""), "treatment")
    if analysis.method != "iv_2sls" or analysis.instrument is None:
        return [treatment]
    instrument = Token(_shown(analysis.instrument), "instrument")
    return [Token("(", "operator"), treatment, Token(" ← ", "operator"), instrument, Token(")", "operator")]


def _joined(terms: list[list[Token]]) -> list[Token]:
    joined: list[Token] = []
    for term in terms:
        joined += [Token(" + ", "operator"), *term] if joined else term
    return joined


def _shown(name: str) -> str:
    """The name, in backticks where it would otherwise not read as one."""
    return name if name.replace(".", "_").isidentifier() else f"`{name}`"
