"""What the rule-based drafter says to people, in English and Chinese.

What others wrote (column names, phrases of the requirement) is repeated only in quotation marks and cut.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ss_pipeline.jobs.drafts import Method

Language: TypeAlias = Literal["en", "zh"]
RoleName: TypeAlias = Literal["outcome", "treatment"]

MAX_NAME: Final = 60
MAX_PHRASE: Final = 120
MAX_LISTED: Final = 12

_METHODS: Final[dict[Language, dict[Method, str]]] = {
    "en": {
        "ols": "ordinary least squares",
        "ols_log": "ordinary least squares in logs",
        "logit": "a logit model",
        "poisson": "a Poisson count model",
        "panel_fe": "a panel regression with fixed effects",
        "did": "difference in differences",
        "iv_2sls": "two-stage least squares",
        "rdd": "a regression discontinuity design",
        "survival": "a survival model",
        "descriptive": "descriptive statistics",
        "unknown": "a method still to be chosen",
    },
    "zh": {
        "ols": "普通最小二乘回归",
        "ols_log": "对数形式的最小二乘回归",
        "logit": "logit 模型",
        "poisson": "泊松计数模型",
        "panel_fe": "面板固定效应回归",
        "did": "双重差分",
        "iv_2sls": "两阶段最小二乘",
        "rdd": "断点回归",
        "survival": "生存分析模型",
        "descriptive": "描述性统计",
        "unknown": "待定的方法",
    },
}
_ROLES: Final[dict[Language, dict[RoleName, str]]] = {
    "en": {"outcome": "the outcome", "treatment": "the treatment"},
    "zh": {"outcome": "结果变量", "treatment": "处理变量"},
}
_OPEN: Final[dict[Language, dict[RoleName, str]]] = {
    "en": {"outcome": "an outcome still to be chosen", "treatment": "a variable still to be chosen"},
    "zh": {"outcome": "待定的结果变量", "treatment": "待定的处理变量"},
}


@dataclass(frozen=True)
class Plan:
    """What the text of a draft tells: the columns by role and the method."""

    method: Method
    outcome: str | None
    treatment: str | None
    controls: tuple[str, ...]
    fixed_effects: tuple[str, ...]
    instrument: str | None
    cluster: str | None


def plan_text(plan: Plan, language: Language) -> str:
    """What will be analysed and how: two or three sentences."""
    return _chinese(plan) if language == "zh" else _english(plan)


def _english(plan: Plan) -> str:
    method = _METHODS["en"][plan.method]
    outcome = quoted(plan.outcome) if plan.outcome else _OPEN["en"]["outcome"]
    if plan.method == "descriptive":
        return f"This analysis describes {outcome} with {method}."
    treatment = quoted(plan.treatment) if plan.treatment else _OPEN["en"]["treatment"]
    how = f", instrumented by {quoted(plan.instrument)}" if plan.instrument else ""
    controls = f"It controls for {_listed(plan.controls, 'en')}." if plan.controls else "It uses no controls."
    effects = f"It has effects for {_listed(plan.fixed_effects, 'en')}" if plan.fixed_effects else ""
    errors = f"standard errors are clustered by {quoted(plan.cluster)}" if plan.cluster else ""
    last = "; ".join(part for part in (effects, errors) if part)
    sentences = [f"This analysis estimates the effect of {treatment}{how} on {outcome} with {method}.", controls]
    return " ".join([*sentences, f"{last[0].upper()}{last[1:]}."] if last else sentences)


def _chinese(plan: Plan) -> str:
    method = _METHODS["zh"][plan.method]
    outcome = quoted(plan.outcome) if plan.outcome else _OPEN["zh"]["outcome"]
    if plan.method == "descriptive":
        return f"本分析用{method}描述{outcome}。"
    treatment = quoted(plan.treatment) if plan.treatment else _OPEN["zh"]["treatment"]
    how = f"（以{quoted(plan.instrument)}为工具变量）" if plan.instrument else ""
    controls = f"控制变量为{_listed(plan.controls, 'zh')}。" if plan.controls else "不加控制变量。"
    effects = f"加入{_listed(plan.fixed_effects, 'zh')}的固定效应" if plan.fixed_effects else ""
    errors = f"标准误按{quoted(plan.cluster)}聚类" if plan.cluster else ""
    last = "，".join(part for part in (effects, errors) if part)
    return f"本分析用{method}估计{treatment}对{outcome}的影响{how}。{controls}" + (f"{last}。" if last else "")


def role_question(role: RoleName, *, chosen: str | None, phrase: str, language: Language) -> str:
    """What is unclear about outcome or treatment, and what the person is to settle."""
    said = quoted(phrase, limit=MAX_PHRASE) if phrase.strip() else ""
    word = _ROLES[language][role]
    if language == "zh":
        return _chinese_role_question(word, chosen=chosen, said=said)
    if chosen:
        return f"Is {quoted(chosen)} {word}?" + (f" The requirement says {said}." if said else "")
    return f"Which column is {word}?" + (
        f" No column clearly matches {said}." if said else " The requirement names none."
    )


def _chinese_role_question(word: str, *, chosen: str | None, said: str) -> str:
    if chosen:
        return f"{quoted(chosen)}是{word}吗？" + (f"需求中的说法是{said}。" if said else "")
    return f"哪一列是{word}？" + (f"没有列与{said}明确对应。" if said else "需求没有说明。")


def unmatched_controls(items: tuple[str, ...], language: Language) -> str:
    """Which controls of the requirement stand for no column."""
    listed = _listed(items, language)
    return (
        f"没有与这些控制变量对应的列：{listed}。"
        if language == "zh"
        else f"No column matches these controls: {listed}."
    )


def method_question(language: Language) -> str:
    """That the method is open."""
    if language == "zh":
        return "结果变量不是数值，也不是二元变量：用什么方法？"
    return "The outcome is neither numeric nor binary: which method?"


def quoted(text: str, *, limit: int = MAX_NAME) -> str:
    """Text of others, on one line, cut, in quotation marks; nothing unprintable is let through."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text[: limit * 4]).split())
    plain = plain.replace('"', "'")
    return f'"{plain[: limit - 1]}…"' if len(plain) > limit else f'"{plain}"'


def _listed(names: tuple[str, ...], language: Language) -> str:
    shown = [quoted(name) for name in names[:MAX_LISTED]]
    more = len(names) - len(shown)
    if language == "zh":
        return "、".join(shown) + (f"等{len(names)}项" if more else "")
    if more:
        return ", ".join(shown) + f" and {more} more"
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]
