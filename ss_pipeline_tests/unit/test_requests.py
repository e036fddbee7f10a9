"""request.json: what it may say, and how a fault in it is named."""

import json
from typing import Any

import pytest

from ss_pipeline.errors import SubmissionRefusedError
from ss_pipeline.jobs.requests import SubmissionRequest, parse_request


def a_request(**fields: Any) -> bytes:
    return json.dumps({"requirement": "Do wages rise?", "inputs": [{"path": "data.csv"}], **fields}).encode()


def test_the_smallest_request_has_the_documented_defaults() -> None:
    request = parse_request(a_request())
    assert (request.priority, request.job_id, request.tenant_id, request.language) == (0, None, None, None)
    assert request.role_of(0) == "primary_dataset"


def test_every_field_is_read() -> None:
    request = parse_request(
        a_request(
            requirement="教育会提高工资吗？",
            job_id="wage-1",
            tenant_id="acme",
            priority=-5,
            callback_url="https://example.org/hook",
            language="zh-Hans",
        )
    )
    assert request.requirement == "教育会提高工资吗？"
    assert (request.job_id, request.tenant_id, request.priority) == ("wage-1", "acme", -5)
    assert (request.callback_url, request.language) == ("https://example.org/hook", "zh-Hans")


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([None], ["primary_dataset"]),
        ([None, None], ["primary_dataset", "secondary_dataset"]),
        (["auxiliary_data", None, None], ["auxiliary_data", "primary_dataset", "secondary_dataset"]),
        ([None, "primary_dataset"], ["secondary_dataset", "primary_dataset"]),
    ],
)
def test_the_first_file_without_a_role_is_the_primary_one_unless_another_is(
    roles: list[str | None], expected: list[str]
) -> None:
    inputs = [{"path": f"{i}.csv", **({"role": role} if role else {})} for i, role in enumerate(roles)]
    request = parse_request(a_request(inputs=inputs))
    assert [request.role_of(i) for i in range(len(roles))] == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'\xef\xbb\xbf{"requirement": "x"}',
        b'{"requirement": "x", "requirement": "y", "inputs": [{"path": "a.csv"}]}',
        b'{"priority": NaN}',
        b'{"priority": 1e999}',
        b'{"requirement": "\\ud800", "inputs": [{"path": "a.csv"}]}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "torn", "list", "null", "utf-16", "bom", "key twice", "NaN", "infinite", "surrogate", "deep"],
)
def test_what_is_no_strict_json_object_is_unreadable(raw: bytes) -> None:
    with pytest.raises(SubmissionRefusedError) as caught:
        parse_request(raw)
    assert caught.value.error_code == "SUBMISSION_REQUEST_UNREADABLE"
    assert caught.value.message.startswith("request.json")


@pytest.mark.guarantee("A6")
@pytest.mark.parametrize(
    "path",
    [
        "../data.csv",
        "a/../../data.csv",
        "/etc/passwd",
        "~/data.csv",
        "..",
        ".",
        "",
        "a\\b.csv",
        "a\x00b.csv",
        "a\nb.csv",
        "./data.csv",
        "a//b.csv",
        "n" * 300 + ".csv",
        "文" * 80 + ".csv",
    ],
)
def test_an_input_path_that_is_no_plain_relative_path_is_refused(path: str) -> None:
    with pytest.raises(SubmissionRefusedError) as caught:
        parse_request(a_request(inputs=[{"path": path}]))
    assert caught.value.error_code == "SUBMISSION_REQUEST_INVALID"
    assert "inputs.0.path" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"requirement": ""}, "requirement"),
        ({"requirement": " \n\t "}, "requirement"),
        ({"requirement": "x" * 20_001}, "requirement"),
        ({"requirement": 5}, "requirement"),
        ({"inputs": []}, "inputs"),
        ({"inputs": "data.csv"}, "inputs"),
        ({"inputs": [{"path": "a.csv", "role": "main"}]}, "inputs.0.role"),
        ({"inputs": [{"path": "a.csv", "extra": 1}]}, "inputs.0.extra"),
        ({"inputs": [{"path": "a.csv"}, {"path": "a.csv"}]}, "named twice"),
        ({"inputs": [{"path": p, "role": "primary_dataset"} for p in ("a.csv", "b.csv")]}, "exactly one"),
        ({"inputs": [{"path": "a.csv", "role": "other"}]}, "one must have the role primary_dataset"),
        ({"job_id": "../../tmp/pwned"}, "job_id"),
        ({"job_id": ".."}, "job_id"),
        ({"job_id": "x" * 201}, "job_id"),
        ({"tenant_id": "a/b"}, "tenant_id"),
        ({"priority": 101}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"callback_url": "file:///etc/passwd"}, "callback_url"),
        ({"language": "english please"}, "language"),
        ({"status": "succeeded"}, "status"),
    ],
)
def test_a_field_out_of_range_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SubmissionRefusedError) as caught:
        parse_request(a_request(**fields))
    assert caught.value.error_code == "SUBMISSION_REQUEST_INVALID"
    assert named in caught.value.message
    assert caught.value.todo


def test_a_fault_does_not_repeat_what_the_field_holds() -> None:
    with pytest.raises(SubmissionRefusedError) as caught:
        parse_request(a_request(callback_url="ftp://user:secret@example.org"))
    assert "secret" not in caught.value.message


def test_a_request_reads_back_from_its_own_json() -> None:
    request = parse_request(a_request(job_id="r", priority=3))
    assert SubmissionRequest.model_validate_json(request.model_dump_json()) == request
    assert parse_request(request.model_dump_json(exclude_none=True).encode()) == request
