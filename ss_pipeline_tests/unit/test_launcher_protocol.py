"""The launcher's messages: what goes in comes out, and what is no message is refused, whatever it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.errors import LauncherProtocolError
from ss_pipeline.launcher.protocol import (
    MAX_ANSWER_BYTES,
    MAX_REQUEST_BYTES,
    Answer,
    Condition,
    Launch,
    Launched,
    Look,
    Refused,
    Request,
    Retiring,
    is_run_id,
    read_answer,
    read_request,
    to_line,
)


@pytest.mark.parametrize("request_", [Launch("8a2b", 12.5), Look()])
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert read_request(to_line(request_)) == request_


@pytest.mark.parametrize(
    "answer",
    [
        Launched("8a2b", 17),
        Launched("8a2b", 17, again=True),
        Retiring("the code has changed: 工资.py"),
        Refused("LAUNCHER_BUSY", "two\nlines"),
        Refused("LAUNCHER_CODE_NOT_LOADED", "no", error_info="{}"),
        Condition(1, 2, ("8a2b", "8a2c"), 3, 107.5, 0.5, None),
    ],
)
def test_an_answer_is_read_as_it_was_written_and_is_one_line(answer: Answer) -> None:
    line = to_line(answer)
    assert read_answer(line) == answer
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"verb": "launch", "run_id": "8a2b", "deadline": 1.0, "version": 2},
        {"verb": "launch", "run_id": "8a2b", "deadline": "soon", "version": 1},
        {"verb": "launch", "run_id": "8a2b", "deadline": 1.0, "version": 1, "more": 1},
        {"verb": "launch", "run_id": "../8a2b", "deadline": 1.0, "version": 1},
        {"verb": "launch", "run_id": "", "deadline": 1.0, "version": 1},
        {"verb": "launch", "run_id": "a" * 129, "deadline": 1.0, "version": 1},
        {"verb": "launch", "deadline": 1.0, "version": 1},
        {"verb": "explode", "version": 1},
        {"version": 1},
        [],
        None,
        "launch",
    ],
)
def test_what_is_no_request_of_this_version_is_refused(body: object) -> None:
    with pytest.raises(LauncherProtocolError):
        read_request(json.dumps(body).encode())


def test_messages_beyond_their_size_are_refused_unread() -> None:
    with pytest.raises(LauncherProtocolError, match=str(MAX_REQUEST_BYTES)):
        read_request(to_line(Look()).ljust(MAX_REQUEST_BYTES + 1))
    with pytest.raises(LauncherProtocolError, match=str(MAX_ANSWER_BYTES)):
        read_answer(to_line(Launched("8a2b", 1)).ljust(MAX_ANSWER_BYTES + 1))


def test_what_was_wrong_is_said_without_repeating_what_was_sent() -> None:
    with pytest.raises(LauncherProtocolError) as caught:
        read_request(b'{"verb": "launch", "run_id": "secret-token/..", "deadline": 1.0}')
    assert "secret-token" not in caught.value.message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_an_error_and_nothing_else(sent: bytes) -> None:
    try:
        read_request(sent)
    except LauncherProtocolError:
        return


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("5f0e7a4e-93c1-4c39-8f7f-0d6c1e7d2b1a", True),
        ("my.run_1", True),
        (".hidden", False),
        ("a/b", False),
        ("", False),
    ],
)
def test_a_run_id_is_a_safe_file_name(text: str, is_one: bool) -> None:
    assert is_run_id(text) is is_one
