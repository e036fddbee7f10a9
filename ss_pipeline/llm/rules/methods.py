"""Which method a requirement asks for, and the time and unit columns that go with it."""

import re
from dataclasses import dataclass
from typing import Final

from ss_pipeline.jobs.drafts import Method
from ss_pipeline.jobs.profiles import ColumnProfile
from ss_pipeline.llm.rules.columns import KnownColumn, names_time, names_unit

_NAMED: Final[tuple[tuple[Method, re.Pattern[str]], ...]] = (
    ("rdd", re.compile(r"regression discontinuity|\bRDD?\b|断点", re.I)),
    ("did", re.compile(r"(?i:differences?[- ]in[- ]differences?|diff[- ]in[- ]diff)|\bDiD\b|\bDID\b|双重差分|倍差")),
    ("iv_2sls", re.compile(r"\binstrument(?:s|ed|al|ing)?\b|\b2sls\b|\bIV\b|two.stage least|工具变量|两阶段", re.I)),
    (
        "survival",
        re.compile(r"\bcox\b|survival|hazard|censored|time until|time to (?:event|death)|生存|风险模型|删失", re.I),
    ),
    (
        "panel_fe",
        re.compile(r"(?:fixed|random|two-way|state|year|individual) effects|\bpanel\b|固定效应|随机效应|面板", re.I),
    ),
    ("poisson", re.compile(r"poisson|negative binomial|count (?:data|model)|泊松|负二项|计数模型", re.I)),
    ("logit", re.compile(r"logit|logistic|probit|binomial|逻辑回归|逻辑斯|二元选择|概率模型", re.I)),
)
_DESCRIPTIVE = re.compile(
    r"\b(?:describe|descriptive|summar(?:y|i[sz]e)|distribution|overview|tabulate|histogram|profile of)\b"
    r"|描述|汇总|概况|分布|统计摘要",
    re.IGNORECASE,
)
_TWO_WAY = re.compile(r"two-way|(?:year|time) (?:fixed )?(?:effects|dummies)|双向|(?:年份|时间)(?:固定效应|虚拟)", re.I)


@dataclass(frozen=True)
class Setting:
    """Where and when the rows were observed, as far as the method needs it."""

    time_var: str | None = None
    entity_var: str | None = None
    fixed_effects: tuple[str, ...] = ()


def is_descriptive(text: str, *, has_treatment: bool) -> bool:
    """Whether the requirement asks only what the data look like."""
    return not has_treatment and bool(_DESCRIPTIVE.search(text))


def method_of(text: str, *, outcome: KnownColumn | None, profile: ColumnProfile | None, speaks_of_log: bool) -> Method:
    """The method the text names, else the one the outcome's type asks for.

    Args:
        profile: The outcome's statistics.
    """
    named = next((method for method, pattern in _NAMED if pattern.search(text)), None)
    if named:
        return named
    if outcome is None or profile is None:
        return "unknown"
    if profile.inferred_type == "boolean" or _is_zero_one(profile):
        return "logit"
    if not outcome.is_numeric:
        return "unknown"
    return "ols_log" if outcome.form == "log" or speaks_of_log else "ols"


def _is_zero_one(profile: ColumnProfile) -> bool:
    return profile.distinct == 2 and (profile.inferred_type == "string" or (profile.min == 0 and profile.max == 1))


def setting_of(text: str, method: Method, *, columns: list[KnownColumn], taken: set[str]) -> Setting:
    """Time and unit columns where the method compares over time or units; effects of both where the text says so."""
    if method not in {"panel_fe", "did"}:
        return Setting()
    free = [column for column in columns if column.name not in taken]
    time = next((column.name for column in free if names_time(column)), None)
    unit = next((column.name for column in free if names_unit(column) and column.name != time), None)
    wanted = [unit] if method == "panel_fe" else []
    wanted += [time] if _TWO_WAY.search(text) else []
    return Setting(time, unit, tuple(name for name in wanted if name))
