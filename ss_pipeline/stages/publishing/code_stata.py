"""The proposed model in Stata. Stata cannot quote names: columns with odd ones are named by place, as identifiers."""

import re
from collections.abc import Callable
from typing import Final

from ss_pipeline.jobs.profiles import DatasetProfile
from ss_pipeline.stages.publishing.analysis import Analysis

_PLAIN: Final = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,31}$")
_RESERVED: Final = frozenset(
    {"byte", "double", "float", "if", "in", "int", "long", "using", "with", "strL", "aggregate", "array", "boolean"}
    | {"break", "case", "catch", "class"}
)
_SAFE_FILE: Final = re.compile(r"^[^\"'`$\\\x00-\x1f]+$")
_UTF8: Final = frozenset({"utf-8", "utf8", "utf_8", "utf-8-sig", "utf_8_sig", "ascii"})
_STEM: Final = 27
"""Characters kept of a name that gets a suffix; Stata allows 32 in all."""


def stata_code(analysis: Analysis) -> str:
    """Lines that read the data as the profile did and fit the model."""
    writer = _Writer(analysis)
    return "\n".join([*writer.read_lines(), *writer.fit_lines()])


class _Writer:
    """Keeps which Stata name each column has got and which made variables come first."""

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._names: dict[str, str] = {}
        self._made: list[str] = []
        for column in analysis.roles:
            self._names[column] = self._unused(_stata_name(column, analysis))

    def read_lines(self) -> list[str]:
        data = self._analysis.data
        line = (data.header_line or 1) + 1
        if data.format in {"csv", "tsv", "parquet"}:
            return [_import_text(data, line), *self._by_place("v{}".format), *self._labels()]
        if data.format == "excel":
            sheet = f" sheet({_file(data.sheet)})" if data.sheet and _SAFE_FILE.match(data.sheet) else ""
            read = f"import excel {_file(data.original_name)}, clear cellrange(A{line}){sheet}"
            return [read, *self._by_place(_letters), *self._labels()]
        read = "import spss using" if data.format == "sav" else "use"
        return [f"{read} {_file(data.original_name)}, clear"]

    def fit_lines(self) -> list[str]:
        analysis = self._analysis
        if analysis.outcome is None:
            return ["summarize"]
        outcome = self._names[analysis.outcome]
        if analysis.is_described:
            by = f" by({self._names[analysis.treatment]})" if analysis.treatment else ""
            return [f"tabstat {outcome},{by} statistics(n mean sd p25 p50 p75)"]
        if analysis.is_text(analysis.outcome):
            outcome = self._grouped(analysis.outcome)
            self._made.append(f"replace {outcome} = {outcome} - 1")
        if analysis.method == "ols_log":
            outcome = self._make(outcome, "ln", f"ln({outcome})")
        command = self._command(analysis, outcome)
        return [*self._made, *command]

    def _command(self, analysis: Analysis, outcome: str) -> list[str]:
        if analysis.method == "rdd" and analysis.treatment:
            running = self._names[analysis.treatment]
            fit = f"rdrobust {outcome} {running}, c(`r(p50)')  // c: the real threshold"
            return [f"summarize {running}, detail", fit]
        if analysis.method == "survival":
            event = f", failure({outcome})" if analysis.time else ""
            duration = self._names[analysis.time] if analysis.time else outcome
            terms = [name for name in analysis.regressors if name != (analysis.time or analysis.outcome)]
            return [f"stset {duration}{event}", f"stcox {self._terms(tuple(terms))}".rstrip()]
        errors = f"vce(cluster {self._grouped(analysis.cluster)})" if analysis.cluster else "vce(robust)"
        if analysis.method == "iv_2sls" and analysis.treatment and analysis.instrument:
            stage = f"({self._term(analysis.treatment)} = {self._term(analysis.instrument)})"
            middle = f"{outcome} {self._terms(analysis.controls, fixed=True)}".rstrip()
            return [f"ivregress 2sls {middle} {stage}, {errors}"]
        if analysis.fixed_effects and analysis.method in {"ols", "ols_log", "panel_fe", "did"}:
            absorbed = " ".join(self._grouped(name) for name in analysis.fixed_effects)
            return [f"reghdfe {outcome} {self._terms(analysis.regressors)}, absorb({absorbed}) {errors}"]
        command = {"logit": "logit", "poisson": "poisson"}.get(analysis.method, "regress")
        return [f"{command} {outcome} {self._terms(analysis.regressors, fixed=True)}, {errors}"]

    def _terms(self, names: tuple[str, ...], *, fixed: bool = False) -> str:
        products = ["#".join(self._factor(name) for name in term) for term in self._analysis.interactions]
        effects = [f"i.{self._grouped(name)}" for name in self._analysis.fixed_effects] if fixed else []
        return " ".join([*map(self._term, names), *products, *effects])

    def _term(self, name: str) -> str:
        return f"i.{self._grouped(name)}" if self._analysis.is_text(name) else self._names[name]

    def _factor(self, name: str) -> str:
        return self._term(name) if self._analysis.is_text(name) else f"c.{self._names[name]}"

    def _grouped(self, name: str) -> str:
        """The variable itself, or group numbers made of it where it is text."""
        plain = self._names[name]
        return self._make(plain, "id", f"group({plain})") if self._analysis.is_text(name) else plain

    def _make(self, name: str, suffix: str, expression: str) -> str:
        command = "egen" if suffix == "id" else "generate"
        found = next((line.split()[1] for line in self._made if line.endswith(f" = {expression}")), None)
        if found:
            return found
        made = self._unused(f"{name[:_STEM]}_{suffix}")
        self._made.append(f"{command} {made} = {expression}")
        return made

    def _unused(self, name: str) -> str:
        taken = {*self._names.values(), *(line.split()[1] for line in self._made)}
        candidates = (name if i == 1 else f"{name[:_STEM]}_{i}" for i in range(1, len(taken) + 2))
        return next(candidate for candidate in candidates if candidate not in taken)

    def _labels(self) -> list[str]:
        """The real names of the columns that had to be called something else."""
        odd = [(name, column) for column, name in self._names.items() if name != column and _SAFE_FILE.match(column)]
        return [f"label variable {name} {_file(column[:80])}" for name, column in odd]

    def _by_place(self, place_name: Callable[[int], str]) -> list[str]:
        places = {column.name: i for i, column in enumerate(self._analysis.data.columns, start=1)}
        if not self._names:
            return []
        old = " ".join(place_name(places[column]) for column in self._names)
        return [f"rename ({old}) ({' '.join(self._names.values())})"]


def _import_text(data: DatasetProfile, line: int) -> str:
    """Variables come as v1, v2, …, so that no name of the file is changed into something else on the way."""
    options = [f"varnames(nonames) rowrange({line}:)"]
    if data.delimiter and data.delimiter != ",":
        options.append('delimiters("\\t")' if data.delimiter == "\t" else f"delimiters({_file(data.delimiter)})")
    if data.encoding and data.encoding.lower() not in _UTF8:
        options.append(f"encoding({_file(data.encoding)})")
    if data.decimal and data.decimal != ".":
        options.append(f"decimalseparator({_file(data.decimal)})")
    name = data.original_name if data.format != "parquet" else f"{data.original_name}.csv"
    return f"import delimited using {_file(name)}, clear {' '.join(options)}"


def _file(name: str) -> str:
    """A quoted text; one that Stata would expand or that would end the quotes is replaced."""
    return f'"{name}"' if _SAFE_FILE.match(name) else '"data"'


def _stata_name(column: str, analysis: Analysis) -> str:
    if _PLAIN.match(column) and column not in _RESERVED:
        return column
    normalized = analysis.column(column).normalized_name
    if _PLAIN.match(normalized) and normalized not in _RESERVED:
        return normalized
    return f"column_{1 + [c.name for c in analysis.data.columns].index(column)}"


def _letters(place: int) -> str:
    """The spreadsheet's letters of a column: 1 is A, 27 is AA."""
    letters = ""
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
