"""The report's own words in English and Chinese, and which of the two a job's report speaks."""

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from ss_pipeline.jobs.model import Job

Language: TypeAlias = Literal["en", "zh"]
Words: TypeAlias = Mapping[str, str]

_TAG: Final = re.compile(r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD: Final = re.compile(r"[A-Za-z]+")

_TABLE: Final[dict[str, tuple[str, str]]] = {
    # headings
    "report": ("Analysis report", "分析报告"),
    "asked": ("What was asked", "分析需求"),
    "proposed": ("The analysis", "分析方案"),
    "know": ("What to know about the data", "数据须知"),
    "questions": ("Questions and decision", "待定问题与审核"),
    "variables": ("The variables used", "所用变量"),
    "plots": ("What the data looks like", "数据概览图"),
    "dictionary": ("All columns", "全部字段"),
    "reproduce": ("How to reproduce", "如何复现"),
    "provenance": ("Provenance", "来源与版本"),
    "contents": ("Contents", "目录"),
    # the head of the report
    "relates": ("{treatment} and {outcome}", "{treatment}与{outcome}的关系"),
    "about": ("What explains {outcome}", "{outcome}的影响因素"),
    "version": ("Version", "版本"),
    "job": ("Job", "任务"),
    "rows": ("Rows", "行数"),
    "columns": ("Columns", "列数"),
    "used": ("Variables used", "所用变量数"),
    "warnings": ("Warnings", "数据提示"),
    "missing_cells": ("Missing in these", "所用变量缺失率"),
    # roles
    "outcome": ("Outcome", "结果变量"),
    "treatment": ("Treatment", "处理变量"),
    "controls": ("Controls", "控制变量"),
    "control": ("Control", "控制变量"),
    "method": ("Method", "分析方法"),
    "time": ("Time", "时间变量"),
    "entity": ("Entity", "个体变量"),
    "cluster": ("Clustered by", "聚类变量"),
    "fixed_effects": ("Fixed effects", "固定效应"),
    "fixed": ("Fixed effect", "固定效应"),
    "interactions": ("Interactions", "交互项"),
    "interaction": ("Interaction", "交互项"),
    "instrument": ("Instrument", "工具变量"),
    "none": ("None", "无"),
    "not_set": ("Not set", "未确定"),
    "hints": ("Worth considering", "分析提示"),
    # warnings
    "error": ("Error", "错误"),
    "warning": ("Warning", "警告"),
    "info": ("Note", "提示"),
    "no_warnings": ("Nothing conspicuous was found in the data.", "未发现明显的数据问题。"),
    # questions and decision
    "open": ("Left open", "仍未确定"),
    "nothing_open": ("Nothing was left open.", "没有待定问题。"),
    "candidates": ("Candidates", "候选"),
    "low": ("low impact", "影响小"),
    "medium": ("medium impact", "影响中等"),
    "high": ("high impact", "影响大"),
    "critical": ("critical", "关键"),
    "approve": ("Approved", "已批准"),
    "edit": ("Approved with changes", "修改后批准"),
    "by": ("By", "审核人"),
    "at": ("At", "时间"),
    "note": ("Note", "备注"),
    "answers": ("Answers", "答复"),
    "by_policy": ("policy: nothing in the draft blocked", "自动策略：草稿无阻碍事项"),
    # tables
    "variable": ("Variable", "变量"),
    "role": ("Role", "角色"),
    "type": ("Type", "类型"),
    "n": ("n", "样本数"),
    "missing": ("Missing", "缺失"),
    "distinct": ("Distinct", "不同值"),
    "mean": ("Mean", "均值"),
    "sd": ("SD", "标准差"),
    "min": ("Min", "最小值"),
    "p25": ("25 %", "25 %"),
    "p50": ("Median", "中位数"),
    "p75": ("75 %", "75 %"),
    "max": ("Max", "最大值"),
    "shape": ("Shape", "分布"),
    "common": ("Most common values", "常见取值"),
    "label": ("Label", "标签"),
    "no_variables": ("The draft names no variable.", "草稿没有指定变量。"),
    "boolean": ("yes/no", "布尔"),
    "integer": ("integer", "整数"),
    "number": ("number", "数值"),
    "datetime": ("date/time", "日期时间"),
    "string": ("text", "文本"),
    "unknown_type": ("unknown", "未知"),
    "shown": (
        "{shown} of {total} columns are shown; columns.csv beside this report describes all that were profiled.",
        "此处显示 {total} 列中的 {shown} 列；同目录的 columns.csv 含全部已分析的列。",
    ),
    "all_shown": ("The same table is in columns.csv beside this report.", "同目录的 columns.csv 含同一表格。"),
    # plots
    "plot_outcome": ("Distribution of {outcome}", "{outcome}的分布"),
    "plot_relation": ("{outcome} against {treatment}", "{outcome}与{treatment}"),
    "plot_share": ("Share with {outcome} = {level}, by {treatment}", "按{treatment}分组：{outcome} = {level} 的占比"),
    "plot_missing": ("Missing values", "缺失值"),
    "caption_median": (
        "Solid line: median {median}. Dashed: mean {mean}.",
        "实线：中位数 {median}；虚线：均值 {mean}。",
    ),
    "caption_counts": (
        "The {shown} most common of {distinct} values.",
        "共 {distinct} 个不同值，显示最常见的 {shown} 个。",
    ),
    "caption_all_counts": ("Share of the rows that have a value.", "占有值行的比例。"),
    "caption_scatter": (
        "Each dot is a row ({n} rows{sampled}); the line joins means within groups of {treatment}.",
        "每点为一行（{n} 行{sampled}）；连线为按{treatment}分组的均值。",
    ),
    "caption_box": (
        "Box: middle half; line: median; whiskers: 5th to 95th percentile ({n} rows{sampled}).",
        "箱体为中间一半数据，粗线为中位数，须线为第 5 至 95 百分位（{n} 行{sampled}）。",
    ),
    "caption_share": ("{n} rows{sampled}.", "{n} 行{sampled}。"),
    "caption_missing": (
        "Share of rows without a value; variables of the analysis in colour.",
        "无值的行占比；着色者为本分析所用变量。",
    ),
    "sampled": (" sampled of {total}", "，抽样自 {total} 行"),
    "count": ("rows", "行数"),
    "nothing_missing": ("No value is missing in any column.", "所有列均无缺失值。"),
    "no_plots": (
        "There is nothing to draw: the draft names no outcome that could be drawn.",
        "草稿没有可绘制的结果变量。",
    ),
    # reproducing
    "reproduce_text": (
        "These lines read the data file as it was read here and fit the proposed model. Nothing was estimated for this "
        "report: the numbers above describe the data.",
        "以下代码按相同方式读取数据并拟合所提出的模型。本报告未做估计，以上数字仅描述数据。",
    ),
    "no_model": (
        "The draft names no outcome, so there is no model to fit yet.",
        "草稿未确定结果变量，暂无可拟合的模型。",
    ),
    # provenance
    "tenant": ("Tenant", "租户"),
    "drafted": ("Drafted", "草稿时间"),
    "drafter": ("Drafted by", "起草者"),
    "in_place_of": ("in place of", "代替"),
    "revision": ("Revision", "修订号"),
    "submitted": ("Submitted", "提交时间"),
    "decided": ("Decided", "审核时间"),
    "draft_hash": ("Draft sha256", "草稿 sha256"),
    "software": ("Software", "软件"),
    "trace": ("Trace id", "追踪号"),
    "file": ("File", "文件"),
    "files": ("Data files", "数据文件"),
    "read_as": ("Read as", "读取方式"),
    "size": ("Size", "大小"),
    "imported": ("imported", "导入"),
    "immutable": (
        "This version is immutable. manifest.json beside it lists every file with its sha256.",
        "本版本不可更改；同目录的 manifest.json 列出每个文件的 sha256。",
    ),
    # methods
    "ols": ("Linear regression (OLS)", "线性回归（OLS）"),
    "ols_log": ("Linear regression of the log outcome", "对数线性回归"),
    "logit": ("Logistic regression", "Logit 回归"),
    "poisson": ("Poisson regression", "泊松回归"),
    "panel_fe": ("Panel regression with fixed effects", "面板固定效应回归"),
    "did": ("Difference in differences", "双重差分"),
    "iv_2sls": ("Instrumental variables (2SLS)", "工具变量法（2SLS）"),
    "rdd": ("Regression discontinuity", "断点回归"),
    "survival": ("Survival analysis (Cox model)", "生存分析（Cox 模型）"),
    "descriptive": ("Descriptive comparison", "描述性比较"),
    "unknown": ("Not determined", "未确定"),
}  # fmt: skip

WORDS: Final[dict[Language, Words]] = {
    "en": {key: english for key, (english, _) in _TABLE.items()},
    "zh": {key: chinese for key, (_, chinese) in _TABLE.items()},
}


def language_of(job: Job) -> Language:
    """The report's language: as the job says, else Chinese where the requirement is mostly Chinese."""
    if job.language:
        return "zh" if job.language.lower().split("-")[0] == "zh" else "en"
    requirement = job.requirement or ""
    return "zh" if len(_HAN.findall(requirement)) > len(_LATIN_WORD.findall(requirement)) else "en"


def language_tag(language: Language) -> str:
    """The BCP 47 tag of the report's own words."""
    return {"en": "en", "zh": "zh-CN"}[language]


def requirement_tag(job: Job, language: Language) -> str:
    """The BCP 47 tag of the requirement: the job's, where it is one, else the report's."""
    return job.language if job.language and _TAG.match(job.language) else language_tag(language)
