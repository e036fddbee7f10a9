"""Documents as bytes: what is refused and why, the one way of writing, safe names, folders."""

import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.errors import JobDataCorruptedError
from ss_pipeline.jobs.documents import (
    MAX_NESTING,
    MAX_SEGMENT_BYTES,
    JsonObject,
    is_safe_rel_path,
    is_safe_segment,
    job_folder,
    parse_document,
    render_document,
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**30), max_value=10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    """An object whose innermost list is `levels` deep, the object itself included."""
    return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not valid JSON"),
        (b"    ", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not valid UTF-8 at byte 0"),
        (b"null", "not a JSON object but null"),
        (b"[]", "not a JSON object but an array"),
        (b'"text"', "not a JSON object but a string"),
        (b"true", "not a JSON object but a boolean"),
        (b"3", "not a JSON object but a number"),
        (b"3.5", "not a JSON object but a number"),
        (b'{"a": 1, "b": 2, "a": 3}', "duplicate key 'a'"),
        (b'{"x": [{"a": 1, "a": 1}]}', "duplicate key 'a'"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": [Infinity]}', "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": -1e999}', "the number -1e999 is too large"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "not valid JSON"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"\\udfff": 1}', "lone surrogate"),
        (nested(MAX_NESTING + 1), f"nested deeper than {MAX_NESTING} levels"),
        (nested(200_000), "nested too deeply"),
    ],
)
def test_a_document_that_would_lose_data_is_refused_with_its_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(JobDataCorruptedError, match="the document is corrupted") as caught:
        parse_document(raw)
    assert reason in caught.value.reason


def test_a_document_as_deep_as_allowed_is_read() -> None:
    assert list(parse_document(nested(MAX_NESTING))) == ["a"]


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_document(b'{"a": "\\ud83d\\ude00"}') == {"a": "\N{GRINNING FACE}"}


def test_a_document_is_written_sorted_indented_and_with_its_own_letters() -> None:
    assert render_document({"b": 1, "a": ["工资"]}) == '{\n  "a": [\n    "工资"\n  ],\n  "b": 1\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        render_document({"a": value})


@given(st.dictionaries(st.text(string.ascii_letters), JSON_VALUES, max_size=6))
def test_what_was_written_is_read_back_the_same(payload: JsonObject) -> None:
    body = render_document(payload)
    assert parse_document(body) == payload
    assert render_document(parse_document(body)) == body


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_make_the_reader_fail_in_another_way(raw: bytes) -> None:
    with suppress(JobDataCorruptedError):
        assert isinstance(parse_document(raw), dict)


@pytest.mark.seed("S3.2.2")
@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("job_0123456789abcdef", True),
        ("default", True),
        ("Köln 2026", True),
        ("...", True),
        (".hidden", True),
        ("a~b", True),
        ("a" * MAX_SEGMENT_BYTES, True),
        ("", False),
        (".", False),
        ("..", False),
        ("~", False),
        ("~root", False),
        ("a/b", False),
        ("/etc", False),
        ("a\\b", False),
        ("a\x00b", False),
        ("a\nb", False),
        ("a\x1fb", False),
        ("a\x7fb", False),
        ("a" * (MAX_SEGMENT_BYTES + 1), False),
        ("汉" * 67, False),
        ("\ud800" * 67, False),
    ],
)
def test_a_name_is_safe_if_it_can_only_be_one_folder(name: str, safe: bool) -> None:
    assert is_safe_segment(name) is safe


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("inputs/manifest.json", True),
        ("a", True),
        ("a/..b/c", True),
        ("", False),
        ("/etc/passwd", False),
        ("~/x", False),
        ("../x", False),
        ("a/../../x", False),
        ("a/..", False),
        ("a\\b", False),
        ("a\x00", False),
    ],
)
def test_a_path_is_safe_if_it_stays_in_the_folder(path: str, safe: bool) -> None:
    assert is_safe_rel_path(path) is safe


@pytest.mark.parametrize(
    ("tenant_id", "job_id", "folder"),
    [
        ("default", "job_0123456789abcdef", "01/job_0123456789abcdef"),
        ("acme", "job_0123456789abcdef", "tenants/acme/01/job_0123456789abcdef"),
        ("default", "job_a", "a0/job_a"),
        ("default", "job_", "00/job_"),
        ("default", "legacy", "le/legacy"),
        ("default", "job_..x", "00/job_..x"),
        ("default", "job_~~x", "00/job_~~x"),
    ],
)
def test_a_job_lives_in_the_shard_of_its_first_two_characters(tenant_id: str, job_id: str, folder: str) -> None:
    assert job_folder(tenant_id, job_id) == folder


@given(st.text(), st.text())
def test_the_folder_of_safe_names_stays_inside(tenant_id: str, job_id: str) -> None:
    if is_safe_segment(tenant_id) and is_safe_segment(job_id):
        assert is_safe_rel_path(job_folder(tenant_id, job_id))
