"""The draft benchmark: real data sets with requirements and the analyses they mean, and scores for a drafter's answers.

Reads `drafts.jsonl` (what is right) and `datasets.json` (columns of each data set); the data themselves are not needed.
Names are compared without case, and a transform counts as its variable (lwage as wage) by the data set's aliases.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from ss_pipeline.jobs.profiles import ColumnProfile, DatasetProfile, InferredType, JobProfile
from ss_pipeline.llm.base import DraftRequest, LLMClient

_TYPE_OF_PREFIX: Final[tuple[tuple[str, InferredType], ...]] = (
    ("bool", "boolean"),
    ("int", "integer"),
    ("uint", "integer"),
    ("float", "number"),
    ("datetime", "datetime"),
)


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class GoldDatasetRef(_Line):
    """Which data set an item is about."""

    key: str


class GoldItem(_Line):
    """One requirement and the analysis it means. Any of `outcome_ok` and of `treatment` is right."""

    id: str
    dataset: GoldDatasetRef
    requirement: str
    lang: str
    outcome_ok: list[str]
    treatment: list[str]
    controls: list[str]


class GoldDataset(_Line):
    """The columns of a data set as (name, dtype, label), and which are transforms of which."""

    rows: int
    columns: list[tuple[str, str, str]]
    alias: dict[str, str] = {}


@dataclass(frozen=True)
class Prediction:
    """What a drafter answered for one item. `waits` says that the draft asks a person before it goes on."""

    id: str
    outcome: str | None
    treatment: str | None
    controls: tuple[str, ...]
    waits: bool = False


@dataclass(frozen=True)
class Scores:
    """Shares between 0 and 1 over `items` items.

    Args:
        joint: Outcome and treatment both right.
        controls: F1 of the controls, averaged over the items that have some; 1 where none has.
        invented: Items with a name that is no column.
        waits: Items whose draft asks a person first.
        wrong_unasked: Items with a wrong outcome or treatment that no person would have seen.
    """

    items: int
    outcome: float
    treatment: float
    joint: float
    controls: float
    invented: float
    waits: float
    wrong_unasked: float


def load_gold(path: Path) -> list[GoldItem]:
    """The items of a drafts.jsonl."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [GoldItem.model_validate_json(line) for line in lines if line.strip()]


def load_datasets(path: Path) -> dict[str, GoldDataset]:
    """The data sets of a datasets.json by key."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: GoldDataset.model_validate(value) for key, value in content.items()}


def profile_of(dataset: GoldDataset, *, key: str) -> JobProfile:
    """The profile a drafter is shown: names, labels and types; no statistics, for there are no data."""
    columns = [
        ColumnProfile(
            name=name,
            original_name=name,
            normalized_name=f"c{number}",
            label=label,
            inferred_type=_inferred_type(dtype),
            count=dataset.rows,
            missing=0,
            distinct=dataset.rows,
        )
        for number, (name, dtype, label) in enumerate(dataset.columns)
    ]
    primary = DatasetProfile(
        dataset_key=key,
        role="primary_dataset",
        original_name=f"{key}.csv",
        format="csv",
        rows=dataset.rows,
        columns_total=len(columns),
        columns_profiled=len(columns),
        columns=columns,
    )
    return JobProfile(job_id=key, datasets=[primary])


def _inferred_type(dtype: str) -> InferredType:
    return next((kind for prefix, kind in _TYPE_OF_PREFIX if dtype.lower().startswith(prefix)), "string")


async def predict(client: LLMClient, gold: Iterable[GoldItem], datasets: dict[str, GoldDataset]) -> list[Prediction]:
    """The drafter's answer to every item, in order."""
    return [await _predict_one(client, item, datasets[item.dataset.key]) for item in gold]


async def _predict_one(client: LLMClient, item: GoldItem, dataset: GoldDataset) -> Prediction:
    answer = await client.draft_preview(
        DraftRequest(
            job_id=item.id,
            tenant_id="benchmark",
            requirement=item.requirement,
            language=None,
            profile=profile_of(dataset, key=item.dataset.key),
        )
    )
    return Prediction(
        id=item.id,
        outcome=answer.outcome_var,
        treatment=answer.treatment_var,
        controls=tuple(answer.controls),
        waits=bool(answer.stage1_questions) or any(unknown.blocks for unknown in answer.open_unknowns),
    )


def score(gold: list[GoldItem], predictions: list[Prediction], datasets: dict[str, GoldDataset]) -> Scores:
    """Scores over the items; an item without a prediction counts as wrong.

    Raises:
        ValueError: a prediction is for no item, or there are two for one; or there is no item.
    """
    by_id = {prediction.id: prediction for prediction in predictions}
    if len(by_id) != len(predictions) or not by_id.keys() <= {item.id for item in gold}:
        raise ValueError("predictions must have known ids, each once")
    if not gold:
        raise ValueError("there is no item to score")
    empty = Prediction(id="", outcome=None, treatment=None, controls=())
    rows = [_score_one(item, by_id.get(item.id, empty), datasets[item.dataset.key]) for item in gold]
    f1 = [row.controls for row in rows if row.controls is not None]
    return Scores(
        items=len(rows),
        outcome=_share(rows, lambda row: row.outcome),
        treatment=_share(rows, lambda row: row.treatment),
        joint=_share(rows, lambda row: row.outcome and row.treatment),
        controls=sum(f1) / len(f1) if f1 else 1.0,
        invented=_share(rows, lambda row: row.invented),
        waits=_share(rows, lambda row: row.waits),
        wrong_unasked=_share(rows, lambda row: not (row.outcome and row.treatment) and not row.waits),
    )


@dataclass(frozen=True)
class _Row:
    outcome: bool
    treatment: bool
    controls: float | None
    invented: bool
    waits: bool


def _share(rows: list[_Row], holds: Callable[[_Row], bool]) -> float:
    return sum(map(holds, rows)) / len(rows)


def _score_one(item: GoldItem, prediction: Prediction, dataset: GoldDataset) -> _Row:
    aliases = {name.strip().casefold(): base for name, base in dataset.alias.items()}

    def folded(names: Iterable[str | None]) -> set[str]:
        given = (name.strip().casefold() for name in names if name)
        return {aliases.get(name, name).strip().casefold() for name in given}

    outcomes, treatments = folded(item.outcome_ok), folded(item.treatment)
    wanted = folded(item.controls) - outcomes - treatments
    found = folded(prediction.controls) - outcomes - treatments
    named = [prediction.outcome, prediction.treatment, *prediction.controls]
    known = {name.strip().casefold() for name, _, _ in dataset.columns}
    return _Row(
        outcome=bool(folded([prediction.outcome]) & outcomes),
        treatment=bool(folded([prediction.treatment]) & treatments),
        controls=2 * len(wanted & found) / (len(wanted) + len(found)) if wanted else None,
        invented=any(name.strip().casefold() not in known for name in named if name),
        waits=prediction.waits,
    )


def table(rows: dict[str, Scores]) -> str:
    """The scores as a plain table, one line for each group."""
    columns = [field.name for field in fields(Scores)]
    head = f"{'':<10}" + "".join(f"{name:>14}" for name in columns)
    lines = [
        f"{group:<10}" + "".join(_cell(getattr(scores, name)) for name in columns) for group, scores in rows.items()
    ]
    return "\n".join([head, *lines])


def _cell(value: float) -> str:
    return f"{value:>14}" if isinstance(value, int) else f"{value:>14.3f}"


async def evaluate(client: LLMClient, folder: Path) -> dict[str, Scores]:
    """Scores of a drafter over the benchmark in a folder: of all items, and of each language."""
    gold, datasets = load_gold(folder / "drafts.jsonl"), load_datasets(folder / "datasets.json")
    predictions = await predict(client, gold, datasets)
    result = {"all": score(gold, predictions, datasets)}
    for language in sorted({item.lang for item in gold}):
        items = [item for item in gold if item.lang == language]
        ids = {item.id for item in items}
        result[language] = score(items, [p for p in predictions if p.id in ids], datasets)
    return result
