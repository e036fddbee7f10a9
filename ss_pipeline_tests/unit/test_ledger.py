"""The call ledger, on every back end: an answer is paid for once, and every call is on record."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ss_pipeline.clock import SystemClock
from ss_pipeline.errors import (
    LLMError,
    LLMOutcomeUnknownError,
    LLMRefusedError,
    LLMUnavailableError,
)
from ss_pipeline.llm.call_records import CallRecord, key_of, read_record, records
from ss_pipeline.llm.ledger import RecordedModel
from ss_pipeline.llm.model import NOT_SENT, Question
from ss_pipeline.store.base import Facets
from ss_pipeline_tests.llm_calls import Desk, ToldModel, a_completion, a_question
from ss_pipeline_tests.store_contract import STANDS, Stand

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path) as stand:
        yield stand


@pytest.fixture
def desk(stand: Stand, tmp_path: Path) -> Desk:
    return Desk.at(tmp_path, stand.backend, SystemClock())


def record_of(desk: Desk, question: Question) -> CallRecord:
    stored = read_record(desk.documents, key_of(question))
    assert stored is not None
    return stored[1]


def traced(desk: Desk, question: Question) -> dict[str, str]:
    """The files of the one trace of a question's job."""
    call_id = record_of(desk, question).call_id
    folder = f"artifacts/llm/{call_id}"
    return {
        name: desk.artifacts.read(question.tenant_id, question.job_id, f"{folder}/{name}").decode()
        for name in desk.artifacts.names(question.tenant_id, question.job_id, folder)
    }


async def test_an_answer_on_record_is_given_again_without_a_call(desk: Desk) -> None:
    model, question = ToldModel(), a_question()
    first = await desk.ledgered(model).complete(question)
    again = await desk.ledgered(model).complete(question)  # another process, a retry, a re-materialization
    other_job = await desk.ledgered(model).complete(a_question(job_id="job_bbbbbbbbbbbbbbbb"))
    assert (first.calls, again.calls, other_job.calls) == (1, 0, 0)
    assert first.text == again.text == other_job.text
    assert len(model.asked) == 1


async def test_another_tenant_pays_for_its_own_answer(desk: Desk) -> None:
    model = ToldModel()
    await desk.ledgered(model).complete(a_question())
    await desk.ledgered(model).complete(a_question(tenant_id="acme"))
    assert len(model.asked) == 2
    assert [record.tenant_id for record in records(desk.documents)] == ["acme", "default"]
    assert [record.tenant_id for record in records(desk.documents, tenant_id="acme")] == ["acme"]


async def test_the_record_says_who_asked_what_it_took_and_what_it_cost(desk: Desk) -> None:
    question = a_question()
    await desk.ledgered(ToldModel(completion=a_completion("yes", tokens=150))).complete(question)
    record = record_of(desk, question)
    assert (record.state, record.job_id, record.prompt_version) == ("settled", question.job_id, "draft/1")
    assert record.answer is not None
    assert (record.answer.text, record.answer.usage.tokens, record.answer.calls) == ("yes", 150, 1)
    assert str(record.answer.usage.cost) == "0.000045"
    assert record.expected.tokens >= 150
    assert desk.documents.claim_of(key_of(question)) is None


async def test_many_who_ask_the_same_at_once_make_one_call(desk: Desk) -> None:
    model = ToldModel(seconds=0.1)
    asking = [desk.ledgered(model).complete(a_question(job_id=f"job_{n:016d}")) for n in range(12)]
    answers = await asyncio.gather(*asking)
    assert len(model.asked) == 1
    assert sorted(answer.calls for answer in answers) == [0] * 11 + [1]


@pytest.mark.parametrize("fault", [LLMUnavailableError("503"), LLMRefusedError("401")])
async def test_a_question_that_failed_is_asked_again_when_somebody_asks(desk: Desk, fault: LLMError) -> None:
    model, question = ToldModel(fault), a_question()
    with pytest.raises(type(fault)):
        await desk.ledgered(model).complete(question)
    failed = record_of(desk, question)
    assert (failed.state, failed.code, failed.unknowns) == ("failed", fault.error_code, 0)
    assert (await desk.ledgered(model).complete(question)).calls == 1
    assert record_of(desk, question).unknowns == 0


async def test_an_unknown_outcome_is_asked_again_so_many_times_and_no_more(stand: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, stand.backend, SystemClock(), max_unknowns=2)
    model, question = ToldModel(*[LLMOutcomeUnknownError("no answer")] * 9), a_question()
    for _ in range(3):
        with pytest.raises(LLMOutcomeUnknownError):
            await desk.ledgered(model).complete(question)
    with pytest.raises(LLMRefusedError, match="asked 3 times") as refused:
        await desk.ledgered(model).complete(question)
    assert (refused.value.error_code, refused.value.retryable) == ("LLM_OUTCOME_UNKNOWN", False)
    record = record_of(desk, question)
    assert (len(model.asked), record.state, record.unknowns) == (3, "unknown", 3)


async def test_under_the_policy_fail_an_unknown_outcome_is_never_asked_again(stand: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, stand.backend, SystemClock(), unknown_policy="fail")
    model, question = ToldModel(LLMOutcomeUnknownError("no answer")), a_question()
    with pytest.raises(LLMOutcomeUnknownError):
        await desk.ledgered(model).complete(question)
    with pytest.raises(LLMRefusedError, match="asked once"):
        await desk.ledgered(model).complete(question)
    assert len(model.asked) == 1


@pytest.mark.parametrize(
    ("stop", "state", "unknowns"),
    [(asyncio.CancelledError(), "unknown", 1), (asyncio.CancelledError(NOT_SENT), "failed", 0)],
)
async def test_a_run_that_is_stopped_leaves_an_unknown_outcome_only_where_something_was_sent(
    desk: Desk, stop: asyncio.CancelledError, state: str, unknowns: int
) -> None:
    question = a_question()
    with pytest.raises(asyncio.CancelledError):
        await desk.ledgered(ToldModel(stop)).complete(question)
    record = record_of(desk, question)
    assert (record.state, record.unknowns) == (state, unknowns)
    assert (await desk.ledgered(ToldModel()).complete(question)).calls == 1


async def test_an_asker_that_vanished_is_waited_for_and_then_counted_as_unknown(stand: Stand, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path, stand.backend, SystemClock())
    model, question = ToldModel(), a_question()
    key = key_of(question)
    gone = desk.ledgered(model)
    gone._created(key, gone._intent(question))
    stand.backend.lease([key], claim_id="gone", owner="gone", ttl=60)
    waiting = asyncio.create_task(desk.ledgered(model).complete(question))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    stand.clock.advance(61)
    assert (await waiting).calls == 1
    assert record_of(desk, question).unknowns == 1


async def test_an_intent_that_nobody_ever_leased_was_never_sent(desk: Desk) -> None:
    question = a_question()
    gone = desk.ledgered(ToldModel())
    gone._created(key_of(question), gone._intent(question))
    await desk.ledgered(ToldModel()).complete(a_question(job_id="job_bbbbbbbbbbbbbbbb"))
    record = record_of(desk, question)
    assert (record.unknowns, record.job_id) == (0, "job_bbbbbbbbbbbbbbbb")


async def test_the_first_answer_stands_where_a_lease_ran_out_and_another_asked_too(
    stand: Stand, tmp_path: Path
) -> None:
    desk = Desk.at(tmp_path, stand.backend, SystemClock(), heartbeat_seconds=60.0)
    question = a_question()
    slow = asyncio.create_task(
        desk.ledgered(ToldModel(seconds=0.6, completion=a_completion("late"))).complete(question)
    )
    await asyncio.sleep(0.1)
    stand.clock.advance(61)
    assert (await desk.ledgered(ToldModel(completion=a_completion("first"))).complete(question)).text == "first"
    await slow
    record = record_of(desk, question)
    assert record.answer is not None
    assert (record.answer.text, record.unknowns) == ("first", 1)


async def test_an_answer_with_a_lone_surrogate_comes_back_as_it_was(desk: Desk) -> None:
    question = a_question()
    await desk.ledgered(ToldModel(completion=a_completion("a\ud800b"))).complete(question)
    assert (await desk.ledgered(ToldModel()).complete(question)).text == "a\ud800b"


async def test_a_record_that_cannot_be_read_is_left_alone(desk: Desk) -> None:
    question = a_question()
    desk.documents.create(key_of(question), b"{}", Facets())
    with pytest.raises(LLMRefusedError) as refused:
        await desk.ledgered(ToldModel()).complete(question)
    assert refused.value.error_code == "LLM_RECORD_UNREADABLE"
    assert desk.documents.read(key_of(question)) == b"{}"


async def test_from_the_record_alone_nobody_is_asked(desk: Desk) -> None:
    await desk.ledgered(ToldModel(completion=a_completion("yes"))).complete(a_question())
    recorded = RecordedModel(desk.documents, name="openai/small")
    assert (await recorded.complete(a_question())).text == "yes"
    with pytest.raises(LLMRefusedError, match="on record"):
        await recorded.complete(a_question("another"))


# --- traces --------------------------------------------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Desk]:
    with STANDS["memory"](tmp_path) as stand:
        yield Desk.at(tmp_path, stand.backend, SystemClock())


@pytest.mark.seed("S2.1.4")
@pytest.mark.parametrize(
    ("fault", "ok", "error_type"),
    [
        (None, True, None),
        (LLMUnavailableError("503 of the provider"), False, "LLM_UNAVAILABLE"),
        (LLMOutcomeUnknownError("timed out"), False, "LLM_OUTCOME_UNKNOWN"),
        (asyncio.CancelledError(), False, "cancelled"),
    ],
)
async def test_every_outcome_leaves_three_files(
    local: Desk, fault: BaseException | None, ok: bool, error_type: str | None
) -> None:
    question = a_question()
    model = local.ledgered(ToldModel(*([fault] if fault else []), completion=a_completion("yes")))
    try:
        await model.complete(question)
    except (LLMError, asyncio.CancelledError):
        assert not ok
    files = traced(local, question)
    meta = json.loads(files["meta.json"])
    assert sorted(files) == ["meta.json", "prompt.txt", "response.txt"]
    assert question.prompt.user in files["prompt.txt"]
    assert files["response.txt"] == ("yes" if ok else "")
    assert (meta["ok"], meta["error_type"], meta["schema_version"]) == (ok, error_type, 1)
    assert meta["llm_call_id"].startswith(f"draft-{meta['started_at'][:4]}")
    assert meta["ledger_key"] == question.key


async def test_only_the_owner_may_read_a_trace(local: Desk) -> None:
    question = a_question()
    await local.ledgered(ToldModel()).complete(question)
    folder = f"artifacts/llm/{record_of(local, question).call_id}"
    for name in traced(local, question):
        path = local.artifacts.local_path("default", question.job_id, f"{folder}/{name}")
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_trace_that_cannot_be_written_stops_nothing(local: Desk, caplog: pytest.LogCaptureFixture) -> None:
    question = a_question()
    local.artifacts.write("default", question.job_id, "artifacts/llm", b"a file in its place")
    assert (await local.ledgered(ToldModel()).complete(question)).calls == 1
    assert "SS_LLM_TRACE_NOT_WRITTEN" in caplog.text
