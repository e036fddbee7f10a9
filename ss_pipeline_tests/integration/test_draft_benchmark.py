"""The rule-based drafter on the benchmark of real data sets: it may not fall below these floors."""

import asyncio
from pathlib import Path

import pytest

from ss_pipeline.evaluation.drafts import (
    GoldDataset,
    GoldItem,
    Prediction,
    Scores,
    evaluate,
    load_datasets,
    load_gold,
    predict,
    score,
    table,
)
from ss_pipeline.llm.rules.client import RuleDrafter

DATASETS = {
    "d": GoldDataset(
        rows=9,
        columns=[("wage", "float64", ""), ("lwage", "float64", ""), ("educ", "int64", ""), ("age", "int64", "")],
        alias={"lwage": "wage"},
    )
}
ITEM = GoldItem.model_validate(
    {
        "id": "i",
        "dataset": {"key": "d"},
        "requirement": "Effect of educ on wage, controlling for age",
        "lang": "en",
        "outcome_ok": ["wage"],
        "treatment": ["educ"],
        "controls": ["age"],
    }
)


@pytest.fixture(scope="module")
def scores(corpus: Path) -> dict[str, Scores]:
    return asyncio.run(evaluate(RuleDrafter(), corpus))


@pytest.mark.parametrize(
    ("group", "outcome", "treatment", "joint", "controls"),
    [("all", 0.90, 0.89, 0.82, 0.74), ("en", 0.87, 0.85, 0.75, 0.73), ("zh", 0.95, 0.95, 0.91, 0.74)],
)
def test_the_rules_find_outcome_treatment_and_controls(
    scores: dict[str, Scores], group: str, outcome: float, treatment: float, joint: float, controls: float
) -> None:
    found = scores[group]

    assert found.outcome >= outcome
    assert found.treatment >= treatment
    assert found.joint >= joint
    assert found.controls >= controls


def test_no_column_is_invented(scores: dict[str, Scores]) -> None:
    assert scores["all"].invented == 0


def test_few_wrong_drafts_pass_without_a_person(scores: dict[str, Scores]) -> None:
    assert scores["all"].wrong_unasked <= 0.05
    assert scores["all"].waits <= 0.28


def test_a_drafter_without_words_scores_far_below(corpus: Path) -> None:
    gold, datasets = load_gold(corpus / "drafts.jsonl"), load_datasets(corpus / "datasets.json")
    first_and_second = [
        Prediction(item.id, outcome=columns[0][0], treatment=columns[1][0], controls=())
        for item in gold
        for columns in [datasets[item.dataset.key].columns]
    ]

    assert score(gold, first_and_second, datasets).joint < 0.1


@pytest.mark.parametrize(
    ("prediction", "outcome", "joint", "controls", "invented"),
    [
        (Prediction("i", "wage", "educ", ("age",)), 1, 1, 1, 0),
        (Prediction("i", "LWAGE ", "educ", ()), 1, 1, 0, 0),
        (Prediction("i", "educ", "wage", ("age",)), 0, 0, 1, 0),
        (Prediction("i", "wage", "salary", ("age",)), 1, 0, 1, 1),
        (Prediction("i", None, None, ()), 0, 0, 0, 0),
    ],
)
def test_a_prediction_is_scored_by_names_and_transforms(
    prediction: Prediction, outcome: float, joint: float, controls: float, invented: float
) -> None:
    found = score([ITEM], [prediction], DATASETS)

    assert (found.outcome, found.joint, found.controls, found.invented) == (outcome, joint, controls, invented)


def test_an_item_without_a_prediction_counts_as_wrong() -> None:
    assert score([ITEM], [], DATASETS).outcome == 0


@pytest.mark.parametrize("ids", [["x"], ["i", "i"]])
def test_predictions_for_unknown_or_repeated_items_are_refused(ids: list[str]) -> None:
    with pytest.raises(ValueError, match="known ids"):
        score([ITEM], [Prediction(name, None, None, ()) for name in ids], DATASETS)


def test_the_table_has_a_line_for_each_group() -> None:
    predictions = asyncio.run(predict(RuleDrafter(), [ITEM], DATASETS))

    assert "1.000" in table({"all": score([ITEM], predictions, DATASETS)}).splitlines()[1]
