"""The providers over the official SDKs, against a server of their wire formats in another process."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from ss_pipeline.clock import SystemClock
from ss_pipeline.errors import LLMError, LLMOutcomeUnknownError, LLMRefusedError, LLMUnavailableError
from ss_pipeline.llm.breaker import Breaker
from ss_pipeline.llm.capabilities import Capabilities, capabilities_of
from ss_pipeline.llm.model import Completion, LanguageModel, Prompt, Question
from ss_pipeline.llm.providers.base import Endpoint
from ss_pipeline.llm.providers.claude import ClaudeModel
from ss_pipeline.llm.providers.faults import retry_after, status_fault
from ss_pipeline.llm.providers.openai import OpenAIModel
from ss_pipeline.llm.retrying import RetryingModel, RetryRules, TimedModel
from ss_pipeline_tests.fake_llm.faults import FAULTS, REFUSALS
from ss_pipeline_tests.fake_llm.process import FakeLLM, fake_llm

KINDS = ("openai", "claude")
ENDLESS = {"hang", "drip"}
"""Faults that only a time-out ends. It must be long enough for twenty connections on a busy machine."""
each_kind = pytest.mark.parametrize("kind", KINDS)
ANSWER = '{"draft_text": "A plan."}'


@pytest.fixture
def server() -> Iterator[FakeLLM]:
    with fake_llm() as running:
        running.does(answer=ANSWER)
        yield running


def a_question(**fields: Any) -> Question:
    values: dict[str, Any] = {
        "tenant_id": "default",
        "job_id": "job_abcdefghijklmnop",
        "operation": "draft",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "prompt": Prompt(system="Be brief.", user="What now?", version="draft/1"),
        "fingerprint": "f",
        "schema": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        **fields,
    }
    return Question(**values)


def an_endpoint(server: FakeLLM, kind: str, **fields: Any) -> Endpoint:
    values: dict[str, Any] = {
        "provider": kind,
        "model": "m-1",
        "base_url": server.openai_url if kind == "openai" else server.claude_url,
        "key": SecretStr("sk-test-0123456789abcdef"),
        "capabilities": Capabilities(),
        **fields,
    }
    return Endpoint(**values)


def a_model(server: FakeLLM, kind: str, **fields: Any) -> LanguageModel:
    endpoint = an_endpoint(server, kind, **fields)
    clock = SystemClock()
    return OpenAIModel(endpoint, clock=clock) if kind == "openai" else ClaudeModel(endpoint, clock=clock)


def asked(model: LanguageModel, *questions: Question) -> list[Completion | LLMError]:
    """All at once, on a loop of their own."""

    async def one(question: Question) -> Completion | LLMError:
        try:
            return await model.complete(question)
        except LLMError as error:
            return error

    async def together() -> list[Completion | LLMError]:
        return await asyncio.gather(*(one(question) for question in questions))

    return asyncio.run(together())


def retrying(inner: LanguageModel, *, timeout: float = 20.0, pauses: list[float] | None = None) -> LanguageModel:
    """As it is wired, with pauses that are only noted."""

    async def noted(seconds: float) -> None:
        if pauses is not None:
            pauses.append(seconds)
        await asyncio.sleep(0)

    clock = SystemClock()
    timed = TimedModel(inner, timeout=timeout, clock=clock)
    breaker = Breaker("p", clock=clock, faults=10_000)
    return RetryingModel(timed, rules=RetryRules(), breaker=breaker, sleep=noted, chance=lambda: 0.5)


@pytest.mark.seed("S2.1.6", "S2.1.7")
@each_kind
def test_an_answer_comes_with_its_tokens_its_model_and_its_id(server: FakeLLM, kind: str) -> None:
    (completion,) = asked(a_model(server, kind), a_question())

    assert isinstance(completion, Completion)
    assert (completion.text, completion.finish_reason, completion.request_id) == (ANSWER, "stop", "req_1")
    assert completion.model.startswith("gpt-4o-mini-20")
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens > 0
    assert completion.seconds > 0


@pytest.mark.seed("S2.1.9")
@pytest.mark.parametrize(
    ("provider", "model", "said"),
    [
        ("openai", "gpt-4o-mini", {"max_completion_tokens": 99, "temperature": 0.0, "form": "json_schema"}),
        ("openai", "gpt-4", {"max_tokens": 99, "temperature": 0.0, "form": None}),
        ("openai", "gpt-3.5-turbo", {"max_tokens": 99, "temperature": 0.0, "form": "json_object"}),
        ("openai", "gpt-5-mini", {"max_completion_tokens": 99, "temperature": None, "form": "json_schema"}),
        ("openai", "o3", {"max_completion_tokens": 99, "temperature": None, "form": "json_schema"}),
        ("qwen", "qwen-plus", {"max_tokens": 99, "temperature": 0.0, "form": "json_object"}),
        ("local", "smollm2", {"max_tokens": 99, "temperature": 0.0, "form": "json_schema"}),
    ],
)
def test_a_model_is_asked_in_the_words_it_takes(
    server: FakeLLM, provider: str, model: str, said: dict[str, Any]
) -> None:
    fields = {"provider": provider, "model": model, "capabilities": capabilities_of(f"{provider}/{model}")}
    asked(a_model(server, "openai", **fields), a_question(model=model, max_output_tokens=99, temperature=0.0))

    (body,) = server.seen().bodies
    told: dict[str, Any] = {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body}
    told |= {"temperature": body.get("temperature"), "form": body.get("response_format", {}).get("type")}
    assert told == said


def test_claude_is_given_the_schema_and_no_temperature_that_it_does_not_take(server: FakeLLM) -> None:
    takes = capabilities_of("claude/claude-sonnet-4-5")
    asked(a_model(server, "claude", capabilities=takes), a_question(max_output_tokens=99, temperature=0.5))
    asked(a_model(server, "claude", capabilities=Capabilities(form="plain")), a_question(temperature=0.5))

    first, second = server.seen().bodies
    assert first["output_config"]["format"]["type"] == "json_schema"
    assert (first["max_tokens"], "temperature" in first) == (99, False)
    assert (second["temperature"], "output_config" in second) == (0.5, False)


@pytest.mark.guarantee("L1")
@pytest.mark.seed("S2.1.6", "S2.1.7", "S2.1.10")
@each_kind
@pytest.mark.parametrize("mode", FAULTS)
def test_no_fault_is_asked_about_more_than_three_times_and_each_ends_in_a_word_of_ours(
    server: FakeLLM, kind: str, mode: str
) -> None:
    """Twelve kinds of fault and one that the issue adds, 20 calls of each at once."""
    server.does(then=mode, answer=ANSWER, retry_after="1")
    began = time.monotonic()

    model = retrying(a_model(server, kind), timeout=2.0 if mode in ENDLESS else 20.0)
    endings = asked(model, *[a_question() for _ in range(20)])

    seen, fault = server.seen(), FAULTS[mode]
    assert time.monotonic() - began < 60
    assert seen.calls == (60 if fault.asks_again else 20)
    if fault.asks_again:
        assert {type(ending) for ending in endings} <= {LLMUnavailableError, LLMOutcomeUnknownError}
    else:
        assert all(isinstance(ending, Completion) and ending.calls == 1 for ending in endings)
        reasons = {ending.finish_reason for ending in endings if isinstance(ending, Completion)}
        assert reasons == {{"length": "length", "refusal": "refusal"}.get(mode, "stop")}


@pytest.mark.guarantee("L1")
@each_kind
@pytest.mark.parametrize("mode", [mode for mode, fault in FAULTS.items() if fault.asks_again])
def test_after_a_fault_that_passes_the_answer_is_had(server: FakeLLM, kind: str, mode: str) -> None:
    server.does(mode, answer=ANSWER)

    model = retrying(a_model(server, kind), timeout=2.0 if mode in ENDLESS else 20.0)
    (completion,) = asked(model, a_question())

    assert isinstance(completion, Completion)
    assert (completion.text, completion.calls) == (ANSWER, 2)
    assert completion.unknowns == (mode in {"hang", "reset", "truncated", "drip"})


@pytest.mark.guarantee("L1")
@pytest.mark.seed("S2.1.10")
@each_kind
@pytest.mark.parametrize("step", REFUSALS)
def test_what_no_second_call_changes_is_asked_once(server: FakeLLM, kind: str, step: str) -> None:
    server.does(then=step)

    (ending,) = asked(retrying(a_model(server, kind)), a_question())

    assert isinstance(ending, LLMRefusedError)
    assert server.seen().calls == 1


@pytest.mark.guarantee("L1")
@pytest.mark.seed("S2.1.10")
@each_kind
def test_a_pause_is_never_shorter_than_the_provider_asks_for(server: FakeLLM, kind: str) -> None:
    pauses: list[float] = []
    server.does("rate_limited", "rate_limited", answer=ANSWER, retry_after="7")

    (ending,) = asked(retrying(a_model(server, kind), pauses=pauses), a_question())

    assert isinstance(ending, Completion)
    assert (server.seen().calls, ending.calls) == (3, 3)
    assert pauses == [7.5, 8.0]


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_form_of_answer_that_a_server_turns_down_is_lowered_at_once_and_remembered(
    server: FakeLLM, status: int
) -> None:
    server.does(answer=ANSWER, refused_forms={"json_schema": status, "json_object": status})
    model, pauses = a_model(server, "openai"), list[float]()

    first, second = (asked(retrying(model, pauses=pauses), a_question())[0] for _ in range(2))

    assert isinstance(first, Completion)
    assert isinstance(second, Completion)
    assert (first.calls, second.calls) == (3, 1)
    assert pauses == [0.0, 0.0]
    forms = [body.get("response_format", {}).get("type") for body in server.seen().bodies]
    assert forms == ["json_schema", "json_object", None, None]


def test_claude_has_no_json_without_a_schema(server: FakeLLM) -> None:
    server.does(answer=ANSWER, refused_forms={"json_schema": 400})

    (ending,) = asked(retrying(a_model(server, "claude")), a_question())

    assert isinstance(ending, Completion)
    assert ["output_config" in body for body in server.seen().bodies] == [True, False]


@each_kind
def test_a_server_that_is_not_there_was_not_asked(server: FakeLLM, kind: str) -> None:
    model = a_model(replace(server, port=1), kind)

    (ending,) = asked(model, a_question())

    assert isinstance(ending, LLMUnavailableError)
    assert ending.error_code == "LLM_UNREACHABLE"


@each_kind
def test_the_calls_of_a_claim_share_connections_and_the_next_loop_has_its_own(server: FakeLLM, kind: str) -> None:
    model = a_model(server, kind)

    for _ in range(2):
        endings = asked(model, *[a_question() for _ in range(5)])
        assert all(isinstance(ending, Completion) for ending in endings)

    assert server.seen().calls == 10


@pytest.mark.guarantee("L5")
@each_kind
def test_a_key_is_in_no_message(server: FakeLLM, kind: str) -> None:
    secret = "sk-test-0123456789abcdef"
    fault = status_fault("p/m", status=401, headers={}, body=f"Incorrect API key: {secret}", form_is_bound=False)

    assert secret not in fault.message
    assert secret not in repr(an_endpoint(server, kind))


def test_an_account_that_is_empty_is_not_asked_again() -> None:
    body = '{"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}}'

    fault = status_fault("openai/m", status=429, headers={}, body=body, form_is_bound=True)

    assert (type(fault), fault.error_code) == (LLMRefusedError, "LLM_ACCOUNT_EXHAUSTED")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Tue, 06 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Tue, 06 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_spellings(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, now=datetime(2026, 1, 6, 12, tzinfo=UTC)) == seconds
