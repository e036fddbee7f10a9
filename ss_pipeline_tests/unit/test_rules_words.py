"""Words and names: stems, readings of column names, likeness of a said word to a column's."""

import pytest

from ss_pipeline.llm.rules.words import is_chinese, likeness, name_readings, stem, text_terms


@pytest.mark.parametrize(
    ("one", "other"),
    [("wages", "wage"), ("attended", "attending"), ("families", "family"), ("skipped", "skip"), ("centre", "center")],
)
def test_forms_of_one_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("motheduc", "mother education"),
        ("unemp_rate", "unemployment rate"),
        ("hsGPA", "high school gpa"),
        ("avgIncome2010", "average income 2010"),
        ("人均收入", "per capita income"),
    ],
)
def test_a_column_name_reads_as_the_words_it_was_made_of(name: str, says: str) -> None:
    assert tuple(text_terms(says)) in name_readings(name)


def test_an_ordinary_word_is_not_taken_apart() -> None:
    assert name_readings("education") == [(stem("education"),)]


@pytest.mark.parametrize(
    ("said", "named"), [("salary", "wage"), ("gender", "female"), ("weight", "wght"), ("employment", "employ")]
)
def test_a_synonym_or_abbreviation_is_likely_meant(said: str, named: str) -> None:
    assert 0.5 <= likeness(stem(said), stem(named)) < 1


@pytest.mark.parametrize(("said", "named"), [("wage", "age"), ("1990", "1991"), ("tax", "teacher"), ("income", "x")])
def test_unlike_words_are_not_mistaken(said: str, named: str) -> None:
    assert likeness(stem(said), stem(named)) == 0


def test_chinese_reads_as_english_terms_longest_first() -> None:
    assert text_terms("失业率") == text_terms("unemployment rate")


@pytest.mark.parametrize(("text", "expected"), [("用sat预测大学GPA(colgpa)的影响", True), ("wage on educ 。", False)])
def test_a_text_is_chinese_where_chinese_carries_it(text: str, *, expected: bool) -> None:
    assert is_chinese(text) is expected
