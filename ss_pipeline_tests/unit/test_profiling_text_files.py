"""How delimited text is read: encoding, delimiter, decimal mark, header, repairs."""

import dataclasses

import pytest

from ss_pipeline.errors import InputRefusedError
from ss_pipeline_tests.profiling_inputs import LIMITS, profile_and_sample, profile_of, warning_types

CHINESE = "编号,城市,收入\n1,北京,100\n2,上海,200\n3,广州,150\n"


@pytest.mark.parametrize(
    ("encoding", "stored_as", "is_certain"),
    [
        ("utf-8", "utf-8", True),
        ("utf-8-sig", "utf-8-sig", True),
        ("utf-16", "utf-16", True),
        ("utf-16-le-bom", "utf-16", True),
        ("utf-32", "utf-32", True),
        ("gb18030", "gb18030", False),
        ("gbk", "gb18030", False),
    ],
)
def test_chinese_text_is_read_in_every_usual_encoding(encoding: str, stored_as: str, is_certain: bool) -> None:
    bom = b"\xff\xfe" if encoding == "utf-16-le-bom" else b""
    profile, sample = profile_and_sample(bom + CHINESE.encode(encoding.removesuffix("-bom")))
    assert [column.name for column in profile.columns] == ["编号", "城市", "收入"]
    assert sample.columns["城市"] == ["北京", "上海", "广州"]
    assert profile.encoding == stored_as
    assert ("encoding_assumed" in warning_types(profile)) is not is_certain


@pytest.mark.parametrize("text", ["id,name\n1,café\n2,Málaga\n", "größe,länge\n1,2\n", "id,mark\n1,©\n"])
def test_western_text_that_is_not_utf8_is_read_as_latin_with_a_warning(text: str) -> None:
    profile = profile_of(text.encode("iso-8859-1"))
    assert profile.encoding == "iso-8859-1"
    assert [column.name for column in profile.columns] == text.splitlines()[0].split(",")
    assert "encoding_assumed" in warning_types(profile)


def test_windows_quotes_are_read_as_cp1252() -> None:
    profile, sample = profile_and_sample("id,said\n1,“yes”\n2,no\n".encode("cp1252"))
    assert profile.encoding == "cp1252"
    assert sample.columns["said"] == ["“yes”", "no"]


def test_a_damaged_character_in_utf8_does_not_make_the_file_another_encoding() -> None:
    profile = profile_of((CHINESE * 20).encode() + b"9,\xe5\x8c,1\n")
    assert profile.encoding == "utf-8"
    damaged = next(warning for warning in profile.warnings if warning.type == "encoding_damaged")
    assert damaged.message.startswith("1 characters")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["data.csv", "data.txt"])
def test_the_delimiter_is_found(delimiter: str, name: str) -> None:
    text = "".join(delimiter.join(row) + "\n" for row in (["id", "name", "pay"], ["1", "a b", "2"], ["2", "c d", "3"]))
    profile = profile_of(text, name)
    assert (profile.delimiter, profile.columns_total) == (delimiter, 3)


def test_blanks_separate_cells_only_in_txt_files() -> None:
    assert [c.name for c in profile_of("wage  educ\n 1.5    12\n 2.5     9\n", "data.txt").columns] == ["wage", "educ"]
    assert [c.name for c in profile_of("full name\nAnn Lee\nBob Ray\n").columns] == ["full name"]


def test_commas_inside_cells_do_not_hide_the_semicolon() -> None:
    text = "name;city;note\n" + "".join(f"p{i};c{i};{'a, b' if i % 2 else 'a'}\n" for i in range(20))
    assert profile_of(text).delimiter == ";"


def test_a_decimal_comma_is_read_beside_semicolons() -> None:
    profile = profile_of('name;wage;big\na;1,5;"1.234,5"\nb;2,25;99\n')
    assert profile.decimal == ","
    assert [(c.name, c.inferred_type, c.max) for c in profile.columns[1:]] == [
        ("wage", "number", 2.25),
        ("big", "number", 1234.5),
    ]


def test_thousands_separators_beside_semicolons_are_no_decimal_commas() -> None:
    profile = profile_of("name;pop;share\na;1,234,567;0.5\nb;2,000;0.25\n")
    assert profile.decimal == "."
    assert [c.max for c in profile.columns[1:]] == [1_234_567, 0.5]


@pytest.mark.parametrize(
    ("text", "columns", "rows", "header_line", "warns"),
    [
        ("Wages 2024,,\n\nid,wage,educ\n1,2,3\n2,3,4\n", ["id", "wage", "educ"], 2, 3, "title_rows"),
        ("# made by R\nid,wage\n1,2\n2,3\n", ["id", "wage"], 2, 2, "comment_lines"),
        ("id,wage\n1,2\n# note, that\n2,3\n", ["id", "wage"], 2, 1, "comment_lines"),
        ("# wage, educ\n1.5,12\n2.5,9\n", ["wage", "educ"], 2, 1, "comment_lines"),
        ("id,wage\n1,2\n,\n2,3\n", ["id", "wage"], 2, 1, "blank_rows"),
        ("id,wage\n1,2,9\n2,3\n3,4\n", ["id", "wage"], 3, 1, "ragged_rows"),
        ("id,wage,educ\n1,2,3\n2,3\n3,4,5\n", ["id", "wage", "educ"], 3, 1, "ragged_rows"),
        ("id,,wage\n1,2,3\n", ["id", "col_2", "wage"], 1, 1, "unnamed_columns"),
        ("id,Unnamed: 1,nan\n1,a,3\n", ["id", "col_2", "col_3"], 1, 1, "unnamed_columns"),
        ("B,B,B_2\n1,2,3\n", ["B", "B_3", "B_2"], 1, 1, "duplicate_headers"),
        ("1,2.5,3\n2,3.5,4\n", ["col_1", "col_2", "col_3"], 2, None, "no_header"),
        ("Ann,34,170\nBob,45,180\n", ["col_1", "col_2", "col_3"], 2, None, "no_header"),
        ("wage,educ\nann,1.5,12\nbob,2.5,9\n", ["col_1", "wage", "educ"], 2, 1, "unnamed_columns"),
        (f"{'n' * 300},b\n1,2\n", ["n" * 128, "b"], 1, 1, "long_headers"),
    ],
)
def test_what_is_irregular_is_repaired_and_said(
    text: str, columns: list[str], rows: int, header_line: int | None, warns: str
) -> None:
    profile = profile_of(text)
    assert [column.name for column in profile.columns] == columns
    assert (profile.rows, profile.header_line) == (rows, header_line)
    assert warns in warning_types(profile)


@pytest.mark.parametrize(
    "text",
    [
        "id,wage\n1,2\n2,3\n",
        "id,wage,\n1,2,\n2,3,\n",
        "id,wage\r\n1,2\r\n2,3\r\n",
        "id,wage\r1,2\r2,3",
        "id, wage\n1, 2\n2, 3\n\n\n",
        '"id","wage"\n"1","2"\n"2","3"',
        "country,1990,1991\nFrance,2,3\nPeru,3,4\n",
    ],
)
def test_regular_files_are_read_without_remarks_on_their_form(text: str) -> None:
    profile = profile_of(text)
    assert profile.rows == 2
    assert warning_types(profile) <= {"few_rows", "unnamed_columns", "all_missing_column"}
    assert profile.columns[1].name in {"wage", "1990"}


def test_a_delimiter_at_the_end_of_each_row_is_no_column() -> None:
    profile = profile_of("id,wage\n1,2,\n2,3,\n")
    assert [(c.name, c.max) for c in profile.columns] == [("id", 2), ("wage", 3)]


def test_the_surplus_of_a_long_row_is_reported_with_its_line() -> None:
    profile = profile_of("a,b\n1,2\n3,4,5\n6,7\n")
    ragged = next(warning for warning in profile.warnings if warning.type == "ragged_rows")
    assert "1 row(s)" in ragged.message
    assert "line 3" in ragged.message


def test_line_breaks_and_doubled_quotes_inside_cells_are_kept() -> None:
    _, sample = profile_and_sample(b'a,b\n"one\ntwo","say ""hi"""\nx,y\n')
    assert sample.columns == {"a": ["one\ntwo", "x"], "b": ['say "hi"', "y"]}


def test_names_are_freed_of_blanks_and_invisible_characters() -> None:
    profile = profile_of("  wage \u200b,edu\u202ec,two\twords\n1,2,3\n")
    assert [column.name for column in profile.columns] == ["wage", "educ", "two words"]
    assert profile.columns[1].original_name == "edu\u202ec"


def test_normalized_names_are_unique_identifiers() -> None:
    names = ["AÑO", "教育", "工资", "Año", "1990", "a-b c", "x" * 60, "x" * 61, "c_2"]
    profile = profile_of(",".join(names) + "\n" + ",".join("v" * len(names)) + "\n")
    normalized = [column.normalized_name for column in profile.columns]
    assert normalized[:6] == ["ano", "c_2", "c_3", "ano_2", "n_1990", "a_b_c"]
    assert len(set(normalized)) == len(names)
    assert all(len(name) <= 32 for name in normalized)


def test_more_columns_than_allowed_are_cut_with_a_warning() -> None:
    profile = profile_of("a,b,c\n1,2,3\n4,5,6\n", limits=dataclasses.replace(LIMITS, max_columns=2))
    assert (profile.columns_total, profile.columns_profiled, len(profile.columns)) == (3, 2, 2)
    assert "columns_cut" in warning_types(profile)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\n\n \n", "INPUT_NO_TABLE"),
        (b"id,wage\n", "INPUT_NO_TABLE"),
        (b"id,wage\n1,2\x00\n", "INPUT_BINARY"),
        (b"PK\x03\x04\x00\x00\x00\x00", "INPUT_BINARY"),
        (b'id,note\n1,"never closed\n2,x\n', "INPUT_UNREADABLE"),
        (b"id,note\n1," + b"x" * 33_000 + b"\n", "INPUT_CELL_TOO_LARGE"),
        (b'id,note\n1,"' + b"x\n" * 20_000, "INPUT_CELL_TOO_LARGE"),
        (b"id\n" + b"1\n" * 11, "INPUT_TOO_MANY_ROWS"),
    ],
)
def test_files_that_are_no_table_are_refused_with_advice(body: bytes, code: str) -> None:
    with pytest.raises(InputRefusedError) as refusal:
        profile_of(body, limits=dataclasses.replace(LIMITS, max_rows=10))
    assert refusal.value.error_code == code
    assert refusal.value.todo


def test_the_same_file_gives_the_same_bytes() -> None:
    body = ("id,城市,x\n" + "".join(f"{i},c{i % 7},{i / 3}\n" for i in range(500))).encode()
    first, second = (profile_and_sample(body) for _ in range(2))
    assert first[0].model_dump_json() == second[0].model_dump_json()
    assert first[1].model_dump_json() == second[1].model_dump_json()
