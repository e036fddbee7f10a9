"""Turns of phrase: which part of a requirement is outcome, treatment, controls, instrument."""

import pytest

from ss_pipeline.llm.rules.roles import read_roles


@pytest.mark.parametrize(
    ("requirement", "outcome", "treatment"),
    [
        ("Effect of educ on wage, controlling for exper", "wage", "educ"),
        ("Does class size reduce test scores?", "test scores", "class size"),
        ("How much does law school rank matter for starting salary?", "starting salary", "law school rank"),
        ("Regress log sales on advertising.", "log sales", "advertising"),
        ("How does spending vary with income, allowing for age?", "spending", "income"),
        ("Do people give more when they receive mailings?", "people give more", "receive mailings"),
        ("Prison study: did drug treatment lower recidivism?", "recidivism", "drug treatment"),
        ("教育对工资的影响，控制年龄", "工资", "教育"),
        ("贷款补贴是否提高了企业的投资？", "企业的投资", "贷款补贴"),
        ("以工资为因变量，核心变量为工会", "工资", "工会"),
        ("支出Y对收入X的回归", "支出Y", "收入X"),
    ],
)
def test_a_turn_of_phrase_gives_outcome_and_treatment(requirement: str, outcome: str, treatment: str) -> None:
    roles = read_roles(requirement)

    assert (roles.outcome, roles.treatment) == (outcome, treatment)


@pytest.mark.parametrize(
    ("requirement", "controls"),
    [
        ("Effect of x on y, holding age and sex fixed.", ("age", "sex")),
        ("Does x raise y once weight, mileage and price are held constant?", ("weight", "mileage", "price")),
        ("Does x raise y? Add income, age; cluster by state.", ("income", "age")),
        ("Effect of x on y with a and b as controls", ("a", "b")),
        ("Effect of x on y after accounting for region (south, west)", ("region", "south", "west")),
        ("在控制年龄和性别后，教育是否提高工资？", ("年龄", "性别")),
        ("教育对工资的影响，控制年龄、性别以及地区等。", ("年龄", "性别", "地区")),
        ("教育对工资的影响，先不加控制变量。", ()),
    ],
)
def test_a_list_of_controls_is_taken_apart(requirement: str, controls: tuple[str, ...]) -> None:
    assert read_roles(requirement).controls == controls


@pytest.mark.parametrize(
    ("requirement", "instruments"),
    [
        ("Effect of x on y, instrumented by distance and rain", ("distance", "rain")),
        ("Effect of x on y using rainfall as an instrument", ("rainfall",)),
        ("以降雨作为教育的工具变量，估计教育对工资的影响", ("降雨",)),
    ],
)
def test_instruments_are_found_and_kept_out_of_the_rest(requirement: str, instruments: tuple[str, ...]) -> None:
    roles = read_roles(requirement)

    assert roles.instruments == instruments
    assert instruments[0] not in (roles.outcome or "")


def test_the_level_of_clustering_is_no_control() -> None:
    roles = read_roles("Effect of x on y controlling for age, with standard errors clustered by state.")

    assert roles.cluster == "state"
    assert roles.controls == ("age",)


@pytest.mark.parametrize(
    "hostile", ["对的影响" * 5_000, "is it " * 3_000, "控制" * 9_000, "((((" * 5_000, "a\n" * 9_000]
)
def test_a_text_made_to_exhaust_the_patterns_is_read_all_the_same(hostile: str) -> None:
    assert len(read_roles(hostile).controls) <= 40
