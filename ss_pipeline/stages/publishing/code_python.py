"""The proposed model in Python (pandas and statsmodels). Every name from the data stands in a quoted literal."""

import builtins
import keyword
import unicodedata
from typing import Final

from ss_pipeline.jobs.profiles import DatasetProfile
from ss_pipeline.stages.publishing.analysis import Analysis
from ss_pipeline.stages.publishing.formats import clean

_TAKEN: Final = frozenset({"np", "pd", "smf", "used", "df", "cutoff", "C", "Q", "I", "center", "scale", "standardize"})
"""Names that mean something else where formulas are evaluated."""

_UTF8: Final = frozenset({"utf-8", "utf8", "utf_8", "utf-8-sig", "utf_8_sig", "ascii"})


def python_code(analysis: Analysis) -> str:
    """A script that reads the data as the profile did and fits the model; its last line prints the result."""
    log = analysis.method == "ols_log" and analysis.outcome
    lines = ["import numpy as np"] if log else []
    lines += ["import pandas as pd"]
    fits = _fit_lines(analysis)
    if any("smf." in line for line in fits):
        lines += ["import statsmodels.formula.api as smf"]
    lines += ["", _read_line(analysis.data), *_rename_lines(analysis)]
    return "\n".join([*lines, _complete_rows(analysis), *fits])


def _fit_lines(analysis: Analysis) -> list[str]:
    if analysis.outcome is None or analysis.is_described:
        return _describe_lines(analysis)
    return [*_numbered_outcome(analysis, _literal(analysis.outcome)), *_model_lines(analysis)]


def _numbered_outcome(analysis: Analysis, outcome: str) -> list[str]:
    """An outcome written as text becomes 0, 1, … in the order of its values."""
    if not analysis.is_text(analysis.outcome or ""):
        return []
    return [f"used = used.assign(**{{{outcome}: pd.factorize(used[{outcome}], sort=True)[0]}})"]


def _model_lines(analysis: Analysis) -> list[str]:
    if analysis.method == "iv_2sls" and analysis.treatment and analysis.instrument:
        return _instrument_lines(analysis)
    if analysis.method == "rdd" and analysis.treatment:
        return _discontinuity_lines(analysis, analysis.treatment)
    if analysis.method == "survival":
        return _survival_lines(analysis)
    model = {"logit": "logit", "poisson": "poisson"}.get(analysis.method, "ols")
    fit = f"result = smf.{model}({_literal(_formula(analysis))}, data=used).fit({_covariance(analysis)})"
    return [fit, "print(result.summary())"]


def _describe_lines(analysis: Analysis) -> list[str]:
    if analysis.outcome is None:
        return ["print(used.describe(include='all').T)"]
    if analysis.treatment is None:
        return [f"print(used[{_literal(analysis.outcome)}].describe())"]
    return [f"print(used.groupby({_literal(analysis.treatment)})[{_literal(analysis.outcome)}].describe())"]


def _instrument_lines(analysis: Analysis) -> list[str]:
    exogenous = [*map(_term, analysis.controls), *_extra_terms(analysis)]
    instruments = " + ".join([_term(analysis.instrument or ""), *exogenous])
    return [
        "from patsy import dmatrices, dmatrix",
        "from statsmodels.sandbox.regression.gmm import IV2SLS",
        "",
        f"y, x = dmatrices({_literal(_formula(analysis))}, used, return_type='dataframe')",
        f"z = dmatrix({_literal(instruments)}, used, return_type='dataframe')",
        "result = IV2SLS(y, x, z).fit()",
        "print(result.summary())",
    ]


def _discontinuity_lines(analysis: Analysis, running: str) -> list[str]:
    term = _term(running)
    rest = [*map(_term, analysis.controls), *_extra_terms(analysis)]
    jump = f"I(1.0 * ({term} >= cutoff)) * I({term} - cutoff)"
    formula = f"{_term(analysis.outcome or '')} ~ {' + '.join([jump, *rest])}"
    return [
        f"cutoff = used[{_literal(running)}].median()  # write the real threshold here",
        f"result = smf.ols({_literal(formula)}, data=used).fit({_covariance(analysis)})",
        "print(result.summary())",
    ]


def _survival_lines(analysis: Analysis) -> list[str]:
    """Cox's model: the time variable is the duration and the outcome the event, else the outcome is the duration."""
    duration, event = (analysis.time, analysis.outcome) if analysis.time else (analysis.outcome, None)
    terms = [_term(name) for name in analysis.regressors if name != duration]
    formula = f"{_term(duration or '')} ~ {' + '.join([*terms, *_extra_terms(analysis)]) or '1'}"
    status = f", status=used[{_literal(event)}].astype(float)" if event else ""
    return [f"result = smf.phreg({_literal(formula)}, data=used{status}).fit()", "print(result.summary())"]


def _formula(analysis: Analysis) -> str:
    outcome = _term(analysis.outcome or "")
    left = f"np.log({outcome})" if analysis.method == "ols_log" else outcome
    terms = [*map(_term, analysis.regressors), *_extra_terms(analysis)]
    return f"{left} ~ {' + '.join(terms)}"


def _extra_terms(analysis: Analysis) -> list[str]:
    products = [":".join(map(_term, term)) for term in analysis.interactions]
    return [*products, *(f"C({_term(name)})" for name in analysis.fixed_effects)]


def _covariance(analysis: Analysis) -> str:
    if analysis.cluster is None:
        return "cov_type='HC1'"
    groups = f"used[{_literal(analysis.cluster)}].astype('category').cat.codes"
    return f"cov_type='cluster', cov_kwds={{'groups': {groups}}}"


def _complete_rows(analysis: Analysis) -> str:
    names = ", ".join(_literal(name) for name in analysis.roles)
    return f"used = df.dropna(subset=[{names}])" if names else "used = df"


def _read_line(data: DatasetProfile) -> str:
    name = _literal(data.original_name)
    skipped = (data.header_line or 1) - 1
    if data.format in {"csv", "tsv"}:
        options = [f"sep={_literal(data.delimiter)}"] if data.delimiter and data.delimiter != "," else []
        options += [f"encoding={_literal(data.encoding)}"] if _is_unusual(data.encoding) else []
        options += [f"decimal={_literal(data.decimal)}"] if data.decimal and data.decimal != "." else []
        options += [f"skiprows={skipped}"] if skipped else []
        return f"df = pd.read_csv({', '.join([name, *options])})"
    if data.format == "excel":
        sheet = [f"sheet_name={_literal(data.sheet)}"] if data.sheet else []
        return f"df = pd.read_excel({', '.join([name, *sheet, *([f'header={skipped}'] if skipped else [])])})"
    readers = {"dta": "read_stata", "sav": "read_spss"}
    labels = ", convert_categoricals=False" if data.format in readers else ""
    return f"df = pd.{readers.get(data.format, 'read_parquet')}({name}{labels})"


def _is_unusual(encoding: str | None) -> bool:
    return bool(encoding) and str(encoding).lower() not in _UTF8


def _rename_lines(analysis: Analysis) -> list[str]:
    """The columns whose names here are not those of the file, renamed by their place."""
    places = {column.name: (i, column.original_name) for i, column in enumerate(analysis.data.columns)}
    changed = [name for name in analysis.roles if places[name][1] != name]
    pairs = [f"df.columns[{places[name][0]}]: {_literal(name)}" for name in changed]
    return [f"df = df.rename(columns={{{', '.join(pairs)}}})"] if pairs else []


def _term(name: str) -> str:
    plain = name.isidentifier() and unicodedata.normalize("NFKC", name) == name and not keyword.iskeyword(name)
    return name if plain and name not in _TAKEN and not hasattr(builtins, name) else f"Q({_literal(name)})"


def _literal(text: str | None) -> str:
    return repr(clean(text or ""))
