"""Round trips through Stata, SPSS, Parquet and Excel files, and what is said of damaged ones."""

import contextlib
import datetime as dt
import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest

from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.profiles import DataSample, DatasetProfile
from ss_pipeline.stages.profiling import reading
from ss_pipeline_tests.profiling_inputs import a_workbook, profile_and_sample, profile_of, warning_types

FRAME = pd.DataFrame(
    {
        "wage": [1.5, 2.5, None],
        "female": [0, 1, 1],
        "city": ["北京", "Lima", ""],
        "day": pd.to_datetime(["2020-01-01", "2020-06-30", "2021-12-31"]),
    }
)
LABELS: dict[str, str | None] = {
    "wage": "hourly wage",
    "female": "is female",
    "city": "城市",
    "day": "day of interview",
}


def described(profile: DatasetProfile, sample: DataSample) -> None:
    """What every format must give back of FRAME."""
    assert profile.rows == 3
    assert [(c.name, c.inferred_type, c.missing) for c in profile.columns] == [
        ("wage", "number", 1),
        ("female", "integer", 0),
        ("city", "string", 1),
        ("day", "datetime", 0),
    ]
    assert (profile.columns[3].min, profile.columns[3].max) == ("2020-01-01", "2021-12-31")
    assert sample.columns["wage"] == [1.5, 2.5, None]
    assert sample.columns["city"] == ["北京", "Lima", None]


def test_stata_files_are_read_with_labels_and_codes(tmp_path: Path) -> None:
    path = tmp_path / "data.dta"
    FRAME.to_stata(
        path,
        write_index=False,
        version=118,
        variable_labels={name: str(label) for name, label in LABELS.items()},
        value_labels={"female": {0: "no", 1: "yes"}},
    )
    profile, sample = profile_and_sample(path.read_bytes(), "data.dta")
    described(profile, sample)
    assert {c.name: c.label for c in profile.columns} == LABELS
    assert profile.columns[1].value_labels == {"0": "no", "1": "yes"}


@pytest.mark.parametrize(("stored", "encoding"), [("gb18030", "gb18030"), ("utf-8", "utf-8")])
def test_stata_files_from_before_version_14_are_read_in_the_encoding_of_their_labels(
    stored: str, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.dta"
    frame = pd.DataFrame({"city": ["北京市", "上海市"], "n": [1.0, 2.0]})
    pyreadstat.write_dta(frame, path, version=13, column_labels={"city": "所在城市", "n": "人数"})
    body = path.read_bytes()
    for text in ("北京市", "上海市", "所在城市", "人数"):
        body = body.replace(text.encode(), text.encode(stored).ljust(len(text.encode()), b"\0"))
    profile, sample = profile_and_sample(body, "data.dta")
    assert profile.encoding == encoding
    assert [column.label for column in profile.columns] == ["所在城市", "人数"]
    assert sample.columns["city"] == ["北京市", "上海市"]
    assert "encoding_assumed" in warning_types(profile)


def test_spss_files_are_read_with_labels_and_codes(tmp_path: Path) -> None:
    path = tmp_path / "data.sav"
    pyreadstat.write_sav(
        FRAME.astype({"female": float}),
        path,
        column_labels=LABELS,
        variable_value_labels={"female": {0.0: "no", 1.0: "yes"}},
    )
    profile, sample = profile_and_sample(path.read_bytes(), "data.sav")
    described(profile, sample)
    assert {c.name: c.label for c in profile.columns} == LABELS
    assert profile.columns[1].value_labels == {"0": "no", "1": "yes"}


def test_parquet_files_are_read() -> None:
    body = io.BytesIO()
    FRAME.to_parquet(body)
    described(*profile_and_sample(body.getvalue(), "data.parquet"))


def test_nested_and_exact_parquet_columns_keep_their_values() -> None:
    table = pa.table(
        {
            "list": pa.array([[1, 2], None]),
            "flag": pa.array([True, None]),
            "big": pa.array([2**60, 1]),
            "gap": pa.array([1, None]),
            "coded": pa.array(["a", "b"]).dictionary_encode(),
            "when": pa.array([dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC), None]),
            "text": pa.array(["NA", ""]),
        }
    )
    body = io.BytesIO()
    pq.write_table(table, body)
    profile, sample = profile_and_sample(body.getvalue(), "data.parquet")
    assert [c.inferred_type for c in profile.columns] == [
        "string", "boolean", "string", "integer", "string", "datetime", "string",
    ]  # fmt: skip
    assert sample.columns["big"] == [str(2**60), "1"]
    assert sample.columns["text"] == ["NA", None]
    assert profile.columns[5].min == "2020-01-01T12:00:00"


def test_parquet_without_pyarrow_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "pa", None)
    with pytest.raises(InputRefusedError) as refusal:
        profile_of(b"PAR1", "data.parquet")
    assert refusal.value.error_code == "INPUT_FORMAT_NOT_INSTALLED"
    assert "ss-pipeline[parquet]" in refusal.value.todo


@pytest.mark.parametrize("name", ["data.dta", "data.sav", "data.parquet", "data.xlsx", "data.xls"])
@pytest.mark.parametrize(
    "body", [b"no such format", b"\x00" * 500, b"$FL2" + b"\xff" * 300, b"PK\x03\x04" + b"\x01" * 90]
)
def test_damaged_binary_files_are_refused(name: str, body: bytes) -> None:
    with pytest.raises(InputRefusedError) as refusal:
        profile_of(body, name)
    assert refusal.value.error_code == "INPUT_UNREADABLE"


@pytest.mark.parametrize("name", ["data.dta", "data.sav", "data.parquet"])
def test_truncated_binary_files_are_refused_or_read_but_never_crash(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith("dta"):
        FRAME.to_stata(path, write_index=False, version=118)
    elif name.endswith("sav"):
        pyreadstat.write_sav(FRAME, path)
    else:
        FRAME.to_parquet(path)
    whole = path.read_bytes()
    for size in range(1, len(whole), max(1, len(whole) // 40)):
        with contextlib.suppress(InputRefusedError):
            profile_of(whole[:size], name)


def test_a_sheet_is_read_with_real_dates_and_whole_numbers() -> None:
    rows: list[list[object]] = [
        ["id", "wage", "day", "open", "note"],
        [1, 1.5, dt.date(2020, 1, 1), True, "a"],
        [2, None, dt.date(2021, 1, 1), False, "N/A"],
        [3, 2.5, None, True, "007"],
    ]
    profile, sample = profile_and_sample(a_workbook({"Data": rows}), "data.xlsx")
    assert [c.inferred_type for c in profile.columns] == ["integer", "number", "datetime", "boolean", "string"]
    assert (profile.sheet, profile.header_line, profile.rows) == ("Data", 1, 3)
    assert sample.columns["day"] == ["2020-01-01", "2021-01-01", None]
    assert sample.columns["note"] == ["a", None, "007"]


def test_titles_empty_rows_and_margins_of_a_sheet_are_left_out() -> None:
    rows: list[list[object]] = [
        [None, "Wages by city"],
        [],
        [None, "city", "wage", "educ"],
        [None, "Lima", 1, 2],
        [],
        [None, "Rome", 3, 4],
        [],
    ]
    profile = profile_of(a_workbook({"Data": rows}), "data.xlsx")
    assert [column.name for column in profile.columns] == ["city", "wage", "educ"]
    assert (profile.rows, profile.header_line) == (2, 3)
    assert {"title_rows", "blank_rows"} <= warning_types(profile)


def test_a_header_of_merged_cells_is_joined() -> None:
    rows: list[list[object]] = [
        ["region", "income", None, "n"],
        [None, "men", "women", None],
        ["north", 1, 2, 10],
        ["south", 3, 4, 20],
    ]
    profile = profile_of(a_workbook({"Data": rows}, merges=("A1:A2", "B1:C1", "D1:D2")), "data.xlsx")
    assert [column.name for column in profile.columns] == ["region", "income men", "income women", "n"]
    assert profile.rows == 2
    assert "merged_headers" in warning_types(profile)


def test_the_first_visible_sheet_that_holds_something_is_read_and_the_others_are_named() -> None:
    table: list[list[object]] = [["a", "b"], [1, 2], [3, 4]]
    body = a_workbook({"Old": [["x"], [9]], "Empty": [], "Data": table, "More": table}, hidden="Old")
    profile = profile_of(body, "data.xlsx")
    assert (profile.sheet, [column.name for column in profile.columns]) == ("Data", ["a", "b"])
    messages = {warning.type: warning.message for warning in profile.warnings}
    assert "Empty" in messages["sheet_chosen"]
    assert "More" in messages["other_sheets"]


def test_a_workbook_under_a_password_is_refused() -> None:
    body = bytearray(a_workbook({"Data": [["a"], [1]]}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = body.find(magic)
        while at >= 0:
            body[at + offset] |= 1
            at = body.find(magic, at + 4)
    with pytest.raises(InputRefusedError) as refusal:
        profile_of(bytes(body), "data.xlsx")
    assert refusal.value.error_code == "INPUT_UNREADABLE"


@pytest.mark.parametrize(("rows", "code"), [([], "INPUT_NO_TABLE"), ([["a", "b"]], "INPUT_NO_TABLE")])
def test_a_workbook_without_rows_is_refused(rows: list[list[object]], code: str) -> None:
    with pytest.raises(InputRefusedError) as refusal:
        profile_of(a_workbook({"Data": rows}), "data.xlsx")
    assert refusal.value.error_code == code


def test_a_sheet_of_one_cell_is_said_to_be_no_table() -> None:
    profile = profile_of(a_workbook({"Data": [["data"]]}, merges=("A1:B3",)), "data.xlsx")
    assert (profile.rows, profile.columns_total) == (0, 1)
    severities = {warning.type: warning.severity for warning in profile.warnings}
    assert severities["no_table"] == "error"
