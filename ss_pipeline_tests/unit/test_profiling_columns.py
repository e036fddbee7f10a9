"""What columns are taken for, their statistics, and the remarks on their quality."""

import json
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline_tests.profiling_inputs import column_of, profile_and_sample, profile_of, warning_types


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", "3"], "integer"),
        (["1", "", "3"], "integer"),
        (["0", "1", "1"], "integer"),
        (["1.5", "2", "-3e2"], "number"),
        (['"1,234.50"', '"12"', '"2,000"'], "number"),
        (['"3,14"', '"2,7"', '"10,55"'], "number"),
        (["true", "False", "TRUE"], "boolean"),
        (["True", "", "False"], "boolean"),
        (["yes", "no", "yes"], "string"),
        (["007", "012", "100"], "string"),
        (["00.5", "1", "2"], "string"),
        (["123456789012345678", "2", "3"], "string"),
        (["123456789012345678", "", "3"], "string"),
        (["99999999999999999999999", "2", "3"], "string"),
        (["1", "two", "3"], "string"),
        (["", "", ""], "unknown"),
        (["NA", ".", "null"], "unknown"),
        (["2020-01-01", "2021-12-31", ""], "datetime"),
        (["2020-01", "2021-12"], "datetime"),
        (["2020-01-01T10:00:00Z", "2020-01-01 10:00:00+02:00"], "datetime"),
        (["31/12/2020", "01/02/2021"], "datetime"),
        (["12/31/2020", "02/01/2021"], "datetime"),
        (["31.12.2020 10:15", "1.2.2021 9:05"], "datetime"),
        (["2020年1月5日", "2020年12月31日"], "datetime"),
        (["05-Jan-2020", "31-Dec-2021"], "datetime"),
        (["2020/1/5", "2020/12/31"], "datetime"),
        (["2020-13-45", "2020-01-01"], "string"),
        (["15:00:00", "16:00:00Z"], "string"),
        (["1e400", "2", "3"], "integer"),
    ],
)
def test_a_column_is_taken_for_what_it_is(cells: list[str], kind: str) -> None:
    assert column_of(*cells).inferred_type == kind


@pytest.mark.parametrize("cell", ["", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", ".", "-", " NA "])
def test_marks_for_missing_are_not_values(cell: str) -> None:
    numbers, texts = column_of("1", cell, "3"), column_of("a", cell, "b")
    assert (numbers.inferred_type, numbers.count, numbers.missing) == ("integer", 2, 1)
    assert (texts.inferred_type, texts.count, texts.missing) == ("string", 2, 1)


def test_none_is_an_answer() -> None:
    assert column_of("None", "primary", "None").missing == 0


def test_codes_keep_their_digits() -> None:
    _, sample = profile_and_sample(b"zip,id,n\n007,123456789012345678,1\n0100,,2\n")
    assert sample.columns == {"zip": ["007", "0100"], "id": ["123456789012345678", None], "n": [1, 2]}


def test_a_column_that_turns_to_text_late_is_text_from_the_start() -> None:
    rows = "".join(f"{i}.50,{i}\n" for i in range(300_000))
    profile, sample = profile_and_sample(f"x,y\n{rows}end,1\n".encode())
    assert profile.columns[0].inferred_type == "string"
    assert sample.columns["x"][0] == "0.50"
    assert "mixed_types" in warning_types(profile)


def test_numbers_are_described() -> None:
    column = column_of("1", "2", "2", "4", "6")
    assert (column.count, column.distinct, column.min, column.max, column.mean) == (5, 4, 1, 6, 3)
    assert (column.p25, column.p50, column.p75, column.std) == (2, 2, 4, 2)
    assert [(value.value, value.count) for value in column.top_values[:2]] == [("2", 2), ("1", 1)]
    assert column.histogram is not None
    assert len(column.histogram.edges) == len(column.histogram.counts) + 1
    assert sum(column.histogram.counts) == 5


@pytest.mark.parametrize(
    ("cells", "least", "most"),
    [
        (["2020-01-05", "2019-12-31"], "2019-12-31", "2020-01-05"),
        (["31/01/2020", "01/02/2020"], "2020-01-31", "2020-02-01"),
        (["01/31/2020", "02/01/2020"], "2020-01-31", "2020-02-01"),
        (["2020-01-05 10:00", "2020-01-05 11:30"], "2020-01-05T10:00:00", "2020-01-05T11:30:00"),
        (["2020-01-05T10:00:00+03:00", "2020-01-05T10:00:00Z"], "2020-01-05T07:00:00Z", "2020-01-05T10:00:00Z"),
        (["2020年2月", "2020年1月"], "2020-01-01", "2020-02-01"),
    ],
)
def test_the_ends_of_dates_are_iso_text(cells: list[str], least: str, most: str) -> None:
    column = column_of(*cells)
    assert (column.min, column.max) == (least, most)


def test_texts_have_their_most_frequent_values_shortened() -> None:
    column = column_of("b", "a" * 200, "b", *(f"v{i}" for i in range(20)))
    assert column.distinct == 22
    assert (column.top_values[0].value, column.top_values[0].count) == ("b", 2)
    assert len(column.top_values) == 10
    assert len(column.top_values[1].value) == 80
    assert column.histogram is None


@given(st.lists(st.floats(width=64) | st.sampled_from([1e308, -1e308, 5e-324, 0.0, -0.0]), min_size=1, max_size=30))
def test_statistics_are_finite_whatever_the_numbers(values: list[float]) -> None:
    column = column_of(*map(repr, values))
    text = column.model_dump_json()
    assert "NaN" not in text
    assert "Infinity" not in text
    json.loads(text, parse_constant=pytest.fail)
    finite = [value for value in values if math.isfinite(value)]
    if column.inferred_type != "string":
        assert column.count == len(finite)


@pytest.mark.parametrize(
    ("cells", "kind", "warns"),
    [
        (["5"] * 40, "x", "constant_column"),
        ([""] * 40, "x", "all_missing_column"),
        (["", ""] + ["1", "2", "3"] * 2, "x", "many_missing"),
        (["1", "2", "3", "4", "unknown"], "x", "mixed_types"),
        ([str(i % 9) for i in range(99)] + ["100000"], "x", "outliers"),
        (["1", "2", "3", "-99"], "x", "placeholder_codes"),
        (["12", "16", "9", "9999"], "x", "placeholder_codes"),
        (["inf", "1", "2"], "x", "infinite_values"),
        ([str(i) for i in range(1, 20)], "x", "id_like_column"),
        ([f"p{i}" for i in range(20)], "x", "id_like_column"),
        ([str(i * 37 % 1009) for i in range(20)], "person_id", "id_like_column"),
        (["007", "008", "009"], "x", "digit_codes"),
        (["01/02/2020", "03/04/2020"], "x", "ambiguous_dates"),
        (["1", "2"], "x", "few_rows"),
    ],
)
def test_what_is_doubtful_is_said_with_advice(cells: list[str], kind: str, warns: str) -> None:
    profile = profile_of(f"row,{kind}\n" + "".join(f"r,{cell}\n" for cell in cells))
    found = [warning for warning in profile.warnings if warning.type == warns and "'row'" not in warning.message]
    assert len(found) == 1
    assert found[0].suggestion
    assert warns == "few_rows" or repr(kind) in found[0].message


def test_sound_data_raises_no_remark() -> None:
    rows = "".join(f"{10 + (i * 7919) % 97 / 10},{8 + i % 9},{'mf'[i % 2]}\n" for i in range(200))
    assert warning_types(profile_of(f"wage,educ,sex\n{rows}")) <= {"duplicate_rows"}


def test_repeated_rows_are_counted() -> None:
    profile = profile_of("a,b,c\n" + "1,x,2.5\n" * 3 + "2,x,2.5\n-0.0,y,\n0.0,y,\n")
    found = next(warning for warning in profile.warnings if warning.type == "duplicate_rows")
    assert found.message.startswith("3 of 6 rows")


def test_a_remark_true_of_many_columns_is_made_a_bounded_number_of_times() -> None:
    header = ",".join(f"v{i}" for i in range(300))
    profile = profile_of(f"{header}\n" + (",".join(["5"] * 300) + "\n") * 40)
    constant = [warning for warning in profile.warnings if warning.type == "constant_column"]
    assert len(constant) == 21
    assert "280 more columns" in constant[-1].message


def test_the_sample_is_evenly_spaced_and_bounded() -> None:
    header = ",".join(f"v{i}" for i in range(250))
    profile, sample = profile_and_sample(
        f"{header}\n".encode() + b"".join(",".join([str(i)] * 250).encode() + b"\n" for i in range(2_001))
    )
    assert (profile.rows, sample.rows_total, len(sample.columns)) == (2_001, 2_001, 200)
    rows = sample.columns["v0"]
    assert (len(rows), rows[0], rows[-1]) == (1_000, 0, 2_000)
    assert {int(after or 0) - int(before or 0) for before, after in pairwise(rows)} <= {2, 3}


def test_a_sample_of_long_texts_has_fewer_rows() -> None:
    cell = "长" * 100
    header = ",".join(f"v{i}" for i in range(200))
    row = ",".join([cell] * 200)
    _, sample = profile_and_sample(f"{header}\n{(row + chr(10)) * 400}".encode())
    assert len(sample.model_dump_json().encode()) <= 8_000_000
    assert len(sample.columns["v0"]) == 100
