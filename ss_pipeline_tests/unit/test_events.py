"""Events and errors: only registered codes are logged, as JSON lines; the error tree is what its drawing says."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ss_pipeline import errors
from ss_pipeline.errors import JobDataCorruptedError, JobVersionConflictError, SSError, StoreUnavailableError
from ss_pipeline.telemetry.events import EVENTS, LOGGER, emit
from ss_pipeline.telemetry.json_logs import JsonLines, log_to_stderr


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the package logs, as lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    level = LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel("INFO")
    yield stream
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """The logged lines, read back."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.seed("C6", "K9")
def test_an_event_is_one_json_line_with_its_fields(log: io.StringIO) -> None:
    emit("SS_JOB_CREATED", job_id="job_1", path=errors.__name__, note="two\nlines, 工资")
    (line,) = lines(log)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("ts"))
    assert line == {
        "level": "INFO",
        "logger": "ss_pipeline",
        "event": "SS_JOB_CREATED",
        "job_id": "job_1",
        "path": "ss_pipeline.errors",
        "note": "two\nlines, 工资",
    }


def test_a_level_can_be_given_and_lower_ones_are_left_out(log: io.StringIO) -> None:
    emit("SS_JOB_JSON_CORRUPTED", level=logging.ERROR, job_id="job_1")
    emit("SS_JOB_CREATED", level=logging.DEBUG, job_id="job_1")
    assert [(line["event"], line["level"]) for line in lines(log)] == [("SS_JOB_JSON_CORRUPTED", "ERROR")]


def test_a_field_that_is_no_json_is_logged_as_text(log: io.StringIO) -> None:
    emit("SS_JOB_CREATED", job_id=frozenset({"job_1"}))
    assert lines(log)[0]["job_id"] == "frozenset({'job_1'})"


def test_an_unknown_code_is_refused(log: io.StringIO) -> None:
    with pytest.raises(KeyError, match=r"telemetry/events\.py"):
        emit("SS_JOB_EXPLODED")
    assert log.getvalue() == ""


def test_the_type_of_an_exception_is_named_but_not_its_traceback(log: io.StringIO) -> None:
    LOGGER.warning("SS_JOB_JSON_CORRUPTED", exc_info=StoreUnavailableError("disk full"))
    (line,) = lines(log)
    assert (line["exc_type"], line["event"]) == ("StoreUnavailableError", "SS_JOB_JSON_CORRUPTED")
    assert "Traceback" not in log.getvalue()


def test_logging_to_stderr_twice_makes_one_line_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before, level, propagate = list(LOGGER.handlers), LOGGER.level, LOGGER.propagate
    LOGGER.handlers = []
    try:
        log_to_stderr("INFO")
        log_to_stderr("WARNING")
        emit("SS_JOB_CREATED", job_id="job_1")
        emit("SS_CLAIM_LOST", level=logging.WARNING, job_id="job_1")
    finally:
        LOGGER.handlers, LOGGER.propagate = before, propagate
        LOGGER.setLevel(level)
    assert [line["event"] for line in lines(stream)] == ["SS_CLAIM_LOST"]


@pytest.mark.seed("C6")
def test_codes_are_nouns_and_what_happened_and_are_explained_in_a_sentence() -> None:
    assert [code for code in EVENTS if not re.fullmatch(r"SS_[A-Z]+(_[A-Z]+)+", code)] == []
    assert [code for code, meaning in EVENTS.items() if not re.fullmatch(r"[A-Z].*\.", meaning)] == []


# --- the error tree --------------------------------------------------------------------------------------------------

DRAWN = re.compile(
    r"^    (?P<branch>[│ ]*)(?P<twig>[├└]── )?(?P<name>\w+Error)(?: +(?P<code>\S+(?: \(given\))?) +(?P<retry>\w+))?$"
)


def drawn_tree() -> list[tuple[int, str, str | None, str | None]]:
    """Depth, class, code and retryable of every line of the drawing in errors.py."""
    matches = [DRAWN.match(line) for line in (errors.__doc__ or "").splitlines()]
    return [
        (len(m["branch"]) // 4 + bool(m["twig"]), m["name"], m["code"], m["retry"]) for m in matches if m is not None
    ]


def drawn_parents() -> dict[str, str]:
    """Class -> its parent in the drawing."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {}
    for depth, name, _, _ in drawn_tree():
        above[depth] = name
        if depth:
            parents[name] = above[depth - 1]
    return parents


def error_classes() -> dict[str, type[SSError]]:
    """Every class of errors.py."""
    members = vars(errors).values()
    return {cls.__name__: cls for cls in members if isinstance(cls, type) and issubclass(cls, SSError)}


def test_the_drawing_names_every_error_once() -> None:
    drawn = [name for _, name, _, _ in drawn_tree()]
    assert sorted(drawn) == sorted(error_classes())


@pytest.mark.parametrize(("name", "parent"), drawn_parents().items())
def test_an_error_hangs_where_it_is_drawn(name: str, parent: str) -> None:
    assert error_classes()[name].__bases__ == (error_classes()[parent],)


@pytest.mark.parametrize(
    ("name", "code", "retryable"), [(name, code, retry) for depth, name, code, retry in drawn_tree() if depth and code]
)
def test_an_error_has_the_code_and_the_retryable_it_is_drawn_with(name: str, code: str, retryable: str) -> None:
    cls = error_classes()[name]
    family = code.removesuffix("* (given)")
    assert cls.code.startswith(family) if family != code else cls.code == code
    assert cls.retryable is {"yes": True, "no": False}[retryable]


@pytest.mark.parametrize("cls", error_classes().values())
def test_an_error_says_what_can_be_done(cls: type[SSError]) -> None:
    assert cls.advice.strip()
    assert (cls.__doc__ or "").strip()


def test_codes_are_used_once() -> None:
    codes = [cls.code for cls in error_classes().values() if "code" in vars(cls)]
    assert sorted(codes) == sorted(set(codes))


def test_an_error_shows_code_message_advice_and_whether_to_try_again() -> None:
    assert StoreUnavailableError("the disk is full", todo="Make room.").as_document() == {
        "code": "STORE_UNAVAILABLE",
        "message": "the disk is full",
        "todo": "Make room.",
        "retryable": True,
    }


def test_a_family_is_raised_with_a_code_of_its_own() -> None:
    error = errors.InputRefusedError("the file is empty", code="INPUT_EMPTY")
    assert (error.error_code, errors.InputRefusedError.code) == ("INPUT_EMPTY", "INPUT_UNREADABLE")
    assert error.todo == errors.InputRefusedError.advice


@pytest.mark.seed("S1.2.4")
def test_a_version_conflict_carries_both_numbers() -> None:
    error = JobVersionConflictError("job_1", expected_version=3, actual_version=5)
    assert (error.job_id, error.expected_version, error.actual_version, str(error)) == (
        "job_1", 3, 5, "job 'job_1' is at version 5, not 3",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JobDataCorruptedError("not valid JSON"), "the document is corrupted: not valid JSON"),
        (JobDataCorruptedError("x", job_id="job_1"), "job 'job_1': the document is corrupted: x"),
        (errors.JobNotFoundError("job_1", tenant_id="acme"), "there is no job 'job_1' for tenant 'acme'"),
        (errors.JobExistsError("job_1", tenant_id="acme"), "job 'job_1' of tenant 'acme' exists already"),
        (
            errors.JobIllegalTransitionError("job_1", from_status="created", to_status="running"),
            "job 'job_1' cannot go from created to running",
        ),
    ],
)
def test_an_error_names_the_thing(error: SSError, text: str) -> None:
    assert (str(error), error.message) == (text, text)
