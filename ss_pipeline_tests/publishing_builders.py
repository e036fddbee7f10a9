"""A decided job about wages with its profile and sample, in English and Chinese, built from generated rows."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ss_pipeline.jobs.drafts import Draft, OpenUnknown
from ss_pipeline.jobs.inputs import InputDataset, InputsManifest
from ss_pipeline.jobs.model import Decision, Job
from ss_pipeline.jobs.profiles import (
    ColumnProfile,
    DataQualityWarning,
    DataSample,
    DatasetProfile,
    Histogram,
    InferredType,
    JobProfile,
    ValueCount,
)
from ss_pipeline_tests.builders import CREATED_AT, a_job

Cells = list[float | int | str | bool | None]

ROWS = 200
DECIDED_AT = "2026-01-06T12:05:00.000000+00:00"


def wage_cells(rows: int = ROWS) -> dict[str, Cells]:
    """Generated wages: more schooling and experience, higher wage; some cells missing."""
    random = np.random.default_rng(7)
    educ = random.integers(8, 19, rows)
    exper = np.round(random.gamma(2.2, 7, rows), 1)
    female = random.random(rows) < 0.48
    wage = np.exp(0.55 + 0.09 * educ + 0.012 * exper - 0.25 * female + random.normal(0, 0.35, rows))
    region = random.choice(["north", "south", "east", "west"], rows, p=[0.4, 0.3, 0.2, 0.1])
    gone = random.random(rows) < 0.11
    return {
        "wage": [round(float(value), 2) for value in wage],
        "educ": [int(value) for value in educ],
        "exper": [None if lost else float(value) for value, lost in zip(exper, gone, strict=True)],
        "female": [bool(value) for value in female],
        "region": [str(value) for value in region],
        "city size (1,000)": [
            None if i % 9 == 0 else int(value) for i, value in enumerate(random.integers(5, 900, rows))
        ],
        "hired": [f"20{year:02d}-0{month}-11" for year, month in random.integers((0, 1), (25, 10), (rows, 2))],
    }


def a_column(name: str, cells: Cells, *, label: str = "", normalized_name: str | None = None) -> ColumnProfile:
    """The profile of these cells, as the profiling stage makes it."""
    there = [cell for cell in cells if cell is not None]
    numbers = [float(cell) for cell in there if isinstance(cell, int | float) and not isinstance(cell, bool)]
    statistics: dict[str, Any] = {}
    if len(numbers) == len(there) and numbers:
        counts, edges = np.histogram(numbers, bins=12)
        p25, p50, p75 = np.quantile(numbers, [0.25, 0.5, 0.75])
        statistics = {
            "min": min(numbers), "max": max(numbers), "mean": float(np.mean(numbers)), "std": float(np.std(numbers)),
            "p25": float(p25), "p50": float(p50), "p75": float(p75),
            "histogram": Histogram(edges=edges.tolist(), counts=counts.tolist()),
        }  # fmt: skip
    else:
        common = Counter(str(cell) for cell in there).most_common(10)
        statistics["top_values"] = [ValueCount(value=value, count=count) for value, count in common]
    return ColumnProfile(
        name=name,
        original_name=name,
        normalized_name=normalized_name
        or "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower())[:32],
        label=label,
        inferred_type=_type_of(name, there),
        count=len(there),
        missing=len(cells) - len(there),
        distinct=len(set(there)),
        **statistics,
    )


def _type_of(name: str, cells: Sequence[object]) -> InferredType:
    if all(isinstance(cell, bool) for cell in cells):
        return "boolean"
    if all(isinstance(cell, int) for cell in cells):
        return "integer"
    if all(isinstance(cell, int | float) for cell in cells):
        return "number"
    return "datetime" if name in {"hired", "入职日期"} else "string"


def a_profile(cells: dict[str, Cells], *, labels: dict[str, str] | None = None, **fields: Any) -> JobProfile:
    """The profile of one data file with these columns."""
    names = labels or {}
    columns = [a_column(name, column, label=names.get(name, "")) for name, column in cells.items()]
    values: dict[str, Any] = {
        "dataset_key": "ds_0123456789abcdef",
        "role": "primary_dataset",
        "original_name": "wages.csv",
        "format": "csv",
        "encoding": "utf-8",
        "delimiter": ",",
        "header_line": 1,
        "rows": len(next(iter(cells.values()))),
        "columns_total": len(columns),
        "columns_profiled": len(columns),
        "columns": columns,
        **fields,
    }
    return JobProfile(job_id="job_abcdefghijklmnop", datasets=[DatasetProfile.model_validate(values)])


def a_sample(cells: dict[str, Cells]) -> DataSample:
    """All rows as the sample."""
    return DataSample(dataset_key="ds_0123456789abcdef", rows_total=len(next(iter(cells.values()))), columns=cells)


def a_draft(**fields: Any) -> Draft:
    """A draft on the wage data, with other field values where given."""
    values: dict[str, Any] = {
        "text": "Regress the hourly wage on years of education, controlling for experience, sex and region.",
        "created_at": CREATED_AT,
        "outcome_var": "wage",
        "treatment_var": "educ",
        "controls": ["exper", "female", "region"],
        "method": "ols_log",
        "analysis_hints": [
            "Wages are skewed: the log of the wage is analysed.",
            "Ability may drive both education and wages; an instrument would help.",
        ],
        "open_unknowns": [
            OpenUnknown(
                field="cluster_var",
                description="No column says which observations belong together.",
                impact="low",
                candidates=["region"],
            )
        ],
        "data_quality_warnings": [
            DataQualityWarning(
                type="missing",
                severity="warning",
                message="exper is missing in 11 % of the rows.",
                suggestion="Rows without it are left out of the regression.",
            ),
            DataQualityWarning(type="skew", severity="info", message="wage is strongly skewed to the right."),
        ],
        "drafter": "rules/1",
        **fields,
    }
    return Draft.model_validate(values)


def a_decided_job(draft: Draft | None = None, *, decision: dict[str, Any] | None = None, **fields: Any) -> Job:
    """A running job whose draft has been approved."""
    drafted = draft or a_draft()
    decided = Decision.model_validate(
        {"action": "approve", "by": "dana", "at": DECIDED_AT, "draft_sha256": drafted.sha256, **(decision or {})}
    )
    return a_job(status="running", draft=drafted, decision=decided, **fields)


def an_inputs_manifest() -> InputsManifest:
    """The manifest of the one data file of the wage job."""
    dataset = InputDataset(
        dataset_key="ds_0123456789abcdef",
        role="primary_dataset",
        rel_path="inputs/ds_0123456789abcdef.csv",
        original_name="wages.csv",
        size_bytes=12_345,
        sha256="ab" * 32,
        fingerprint="sha256:" + "ab" * 32,
        format="csv",
        uploaded_at=CREATED_AT,
    )
    return InputsManifest(datasets=[dataset])


CHINESE_NAMES = {
    "wage": "小时工资",
    "educ": "受教育年限",
    "exper": "工作经验",
    "female": "女性",
    "region": "地区",
    "city size (1,000)": "城市规模（千人）",
    "hired": "入职日期",
}


def chinese_case() -> tuple[Job, JobProfile, DataSample]:
    """The wage job as a Chinese tenant hands it in."""
    cells = {CHINESE_NAMES[name]: column for name, column in wage_cells().items()}
    cells["地区"] = [{"north": "北部", "south": "南部", "east": "东部", "west": "西部"}[str(c)] for c in cells["地区"]]
    draft = a_draft(
        text="以小时工资为结果变量、受教育年限为处理变量，控制工作经验、性别与地区，采用对数线性回归。",
        outcome_var="小时工资",
        treatment_var="受教育年限",
        controls=["工作经验", "女性", "地区"],
        analysis_hints=["工资右偏，建议取对数。", "能力可能同时影响教育与工资，可考虑工具变量。"],
        open_unknowns=[
            OpenUnknown(field="cluster_var", description="未说明聚类层级。", impact="medium", candidates=["地区"])
        ],
        data_quality_warnings=[
            DataQualityWarning(type="missing", severity="warning", message="“工作经验”有 11 % 的行缺失。")
        ],
    )
    job = a_decided_job(
        draft,
        requirement="受教育程度是否提高工资？请控制工作经验、性别和地区。",
        language="zh-CN",
        decision={"note": "方案合理", "by": "李敏"},
    )
    return job, a_profile(cells, original_name="工资调查.csv", encoding="gb18030", delimiter=";"), a_sample(cells)


def english_case() -> tuple[Job, JobProfile, DataSample]:
    """The wage job in English."""
    cells = wage_cells()
    labels = {"wage": "hourly wage in dollars", "educ": "years of education", "exper": "years of experience"}
    job = a_decided_job(decision={"note": "Looks right.", "answers": {"outcome_var": "wage"}})
    return job, a_profile(cells, labels=labels), a_sample(cells)
