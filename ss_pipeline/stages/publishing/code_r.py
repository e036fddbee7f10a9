"""The proposed model in R. Every name from the data is quoted: columns in backticks, the rest in string literals."""

import re
from typing import Final

from ss_pipeline.jobs.profiles import DatasetProfile
from ss_pipeline.stages.publishing.analysis import Analysis
from ss_pipeline.stages.publishing.formats import clean

_PLAIN: Final = re.compile(r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$")
_RESERVED: Final = frozenset(
    {"if", "else", "repeat", "while", "function", "for", "next", "break", "in", "TRUE", "FALSE", "NULL", "Inf", "NaN"}
    | {"NA", "T", "F", "log", "I", "df"}
)
_UTF8: Final = frozenset({"utf-8", "utf8", "utf_8", "utf-8-sig", "utf_8_sig", "ascii"})


def r_code(analysis: Analysis) -> str:
    """Lines that read the data as the profile did and print the fitted model."""
    return "\n".join(
        [_read_line(analysis.data), *_rename_lines(analysis), *_numbered_outcome(analysis), _fit_line(analysis)]
    )


def _numbered_outcome(analysis: Analysis) -> list[str]:
    """An outcome written as text becomes 0, 1, … in the order of its values."""
    if analysis.outcome is None or analysis.is_described or not analysis.is_text(analysis.outcome):
        return []
    outcome = f"df[[{_text(analysis.outcome)}]]"
    return [f"{outcome} <- as.integer(factor({outcome})) - 1"]


def _fit_line(analysis: Analysis) -> str:
    if analysis.outcome is None:
        return "summary(df)"
    if analysis.is_described:
        return _describe_line(analysis)
    if analysis.method == "rdd" and analysis.treatment:
        y, x = (f"df[[{_text(name)}]]" for name in (analysis.outcome, analysis.treatment))
        return f"summary(rdrobust::rdrobust({y}, {x}, c = median({x}, na.rm = TRUE)))  # c: the real threshold"
    if analysis.method == "survival":
        return _survival_line(analysis)
    function = {"poisson": "fixest::fepois", "logit": "fixest::feglm"}.get(analysis.method, "fixest::feols")
    family = ", family = binomial" if analysis.method == "logit" else ""
    errors = f"cluster = ~{_name(analysis.cluster)}" if analysis.cluster else 'vcov = "hetero"'
    return f"summary({function}({_formula(analysis)}, data = df{family}, {errors}))"


def _describe_line(analysis: Analysis) -> str:
    outcome = f"df[[{_text(analysis.outcome or '')}]]"
    if analysis.treatment is None:
        return f"summary({outcome})"
    return f"tapply({outcome}, df[[{_text(analysis.treatment)}]], summary)"


def _survival_line(analysis: Analysis) -> str:
    outcome = _name(analysis.outcome or "")
    time = f"{_name(analysis.time)}, {outcome}" if analysis.time else outcome
    terms = [name for name in analysis.regressors if name != (analysis.time or analysis.outcome)]
    right = " + ".join([*map(_name, terms), *_products(analysis)]) or "1"
    return f"summary(survival::coxph(survival::Surv({time}) ~ {right}, data = df))"


def _formula(analysis: Analysis) -> str:
    outcome = _name(analysis.outcome or "")
    left = f"log({outcome})" if analysis.method == "ols_log" else outcome
    instrumented = analysis.method == "iv_2sls" and analysis.treatment and analysis.instrument
    first = analysis.controls if instrumented else analysis.regressors
    right = " + ".join([*map(_name, first), *_products(analysis)]) or "1"
    fixed = f" | {' + '.join(map(_name, analysis.fixed_effects))}" if analysis.fixed_effects else ""
    stage = f" | {_name(analysis.treatment or '')} ~ {_name(analysis.instrument or '')}" if instrumented else ""
    return f"{left} ~ {right}{fixed}{stage}"


def _products(analysis: Analysis) -> list[str]:
    return [":".join(map(_name, term)) for term in analysis.interactions]


def _read_line(data: DatasetProfile) -> str:
    name = _text(data.original_name)
    skipped = (data.header_line or 1) - 1
    if data.format in {"csv", "tsv"}:
        options = [f"sep = {_text(data.delimiter)}"] if data.delimiter and data.delimiter != "," else []
        options += [f"dec = {_text(data.decimal)}"] if data.decimal and data.decimal != "." else []
        options += [f"fileEncoding = {_text(data.encoding)}"] if data.encoding and _is_unusual(data.encoding) else []
        options += [f"skip = {skipped}"] if skipped else []
        return f"df <- read.csv({', '.join([name, *options, 'check.names = FALSE'])})"
    if data.format == "excel":
        sheet = [f"sheet = {_text(data.sheet)}"] if data.sheet else []
        return f"df <- readxl::read_excel({', '.join([name, *sheet, *([f'skip = {skipped}'] if skipped else [])])})"
    readers = {"dta": "haven::read_dta", "sav": "haven::read_sav"}
    return f"df <- {readers.get(data.format, 'arrow::read_parquet')}({name})"


def _is_unusual(encoding: str) -> bool:
    return encoding.lower() not in _UTF8


def _rename_lines(analysis: Analysis) -> list[str]:
    places = {column.name: (i, column.original_name) for i, column in enumerate(analysis.data.columns, start=1)}
    changed = [name for name in analysis.roles if places[name][1] != name]
    return [f"names(df)[{places[name][0]}] <- {_text(name)}" for name in changed]


def _name(name: str) -> str:
    if _PLAIN.match(name) and name not in _RESERVED:
        return name
    return f"`{_escaped(name, quote='`')}`"


def _text(text: str) -> str:
    return f'"{_escaped(text, quote=chr(34))}"'


def _escaped(text: str, *, quote: str) -> str:
    escaped = clean(text).replace("\\", "\\\\").replace(quote, "\\" + quote)
    return escaped.replace("\n", "\\n").replace("\t", "\\t")
