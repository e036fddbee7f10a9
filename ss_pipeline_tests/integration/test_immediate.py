"""Starting a job at once: what is launched, what is left to the sensors, and that nothing is lost or doubled by it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ss_pipeline import immediate, webserver
from ss_pipeline.defs.partition_keys import job_of_partition
from ss_pipeline.defs.tags import CLAIM_TAG, CLASS_TAG, PARTITION_TAG, PRIORITY_TAG, TENANT_TAG
from ss_pipeline.errors import StoreUnavailableError, SubmissionRefusedError
from ss_pipeline.immediate import LAUNCH_SECONDS, Start, start_job, start_submission, webserver_of
from ss_pipeline.store.base import ClaimView, DocumentKey
from ss_pipeline.store.jobs import job_key
from ss_pipeline.webserver import Address, address_file, announced
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline
from ss_pipeline_tests.stacks import free_port
from ss_pipeline_tests.webservers import LOOK, READ_ONLY, FakeWebserver, a_webserver


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path, claim_slots=2)


@contextmanager
def beside(pipeline: Pipeline, fake: FakeWebserver) -> Iterator[FakeWebserver]:
    """A webserver whose address is known as `ss-pipeline up` makes it known."""
    settings = pipeline.parts.settings
    file = address_file(settings.data_dir)
    file.parent.mkdir(exist_ok=True)
    with a_webserver(fake), announced(file, Address(url=fake.url, pipeline=settings.pipeline_id())):
        yield fake


def _start(pipeline: Pipeline, name: str = "wages", *, tenant: str = "default", **request: Any) -> Start:
    if tenant != "default":
        request["tenant_id"] = tenant
    pipeline.hand_in(name, **request)
    return start_submission(pipeline.parts, name=name, tenant_id=tenant)


def _claim(pipeline: Pipeline, start: Start, tenant: str = "default") -> ClaimView | None:
    assert start.job_id is not None
    return pipeline.parts.jobs.backend.claim_of(job_key(start.job_id, tenant))


def test_a_submission_is_a_job_with_a_run_before_any_sensor_looks(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()) as fake:
        start = _start(pipeline, priority=20)
    claim = _claim(pipeline, start)
    assert (start.run_id, start.when) == ("run-1", "now")
    assert claim is not None
    assert fake.launched_tags() == [
        {
            CLAIM_TAG: claim.claim_id,
            TENANT_TAG: "default",
            CLASS_TAG: "high",
            PRIORITY_TAG: "20",
            PARTITION_TAG: start.job_id,
        }
    ]
    assert claim.expires_in > LAUNCH_SECONDS, "it waits in the run queue as long as one that a sensor reserved"
    assert pipeline.claims(room=5) == []


def test_the_run_of_another_tenants_job_finds_it_by_the_alias_of_its_partition(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()) as fake:
        start = _start(pipeline, tenant="acme")
    (tags,) = fake.launched_tags()
    assert start.job_id is not None
    assert job_of_partition(pipeline.parts.jobs, tags[PARTITION_TAG]) == job_key(start.job_id, "acme")


def test_without_a_known_webserver_the_submission_stays_in_the_inbox(pipeline: Pipeline) -> None:
    start = _start(pipeline)
    assert (start.job_id, start.run_id) == (None, None)
    assert "every 5 s: no webserver" in start.when
    assert len(pipeline.take_in().accepted) == 1


def test_a_webserver_beside_another_store_is_none_of_ours(pipeline: Pipeline) -> None:
    others = a_pipeline(pipeline.parts.settings.data_dir, jobs_dir=pipeline.parts.settings.data_dir / "other")
    with beside(pipeline, FakeWebserver()) as fake:
        assert _start(others).job_id is None
    assert fake.asked == []


def test_the_setting_names_the_webserver_before_what_a_stack_has_left(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, dagster_url="http://127.0.0.1:1")
    with beside(pipeline, FakeWebserver()):
        assert webserver_of(pipeline.parts.settings) == "http://127.0.0.1:1"


@pytest.mark.guarantee("R10")
@pytest.mark.parametrize(
    "fake",
    [
        FakeWebserver(launch=READ_ONLY),
        FakeWebserver(look={"runs": {"kind": "PythonError", "message": "database is locked"}}),
        FakeWebserver(raw=(502, b"bad gateway")),
    ],
)
def test_a_job_that_is_refused_at_once_waits_for_the_sensor_as_ever(pipeline: Pipeline, fake: FakeWebserver) -> None:
    with beside(pipeline, fake):
        start = _start(pipeline)
    assert (start.run_id, _claim(pipeline, start)) == (None, None)
    assert start.when.startswith("at the next look of the sensors")
    assert [claim.job_ids for claim in pipeline.claims(room=1)] == [(start.job_id,)]


@pytest.mark.guarantee("R10")
def test_where_nobody_listens_the_sensor_claims_the_job(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path, dagster_url=f"http://127.0.0.1:{free_port()}")
    start = _start(pipeline)
    assert "is not at http" in start.when
    assert [claim.job_ids for claim in pipeline.claims(room=1)] == [(start.job_id,)]


@pytest.mark.guarantee("R10")
def test_where_the_answer_never_comes_the_job_is_held_for_the_run_that_may_come_and_no_longer(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webserver, "ALL_SECONDS", 0.3)
    monkeypatch.setattr(immediate, "LAUNCH_SECONDS", 0.6)
    hangs = threading.Event()
    fake = FakeWebserver(before=lambda kind: kind == "mutation" and hangs.wait(5))
    with beside(pipeline, fake):
        start = _start(pipeline)
        claimed_at_once = pipeline.claims(room=1)
        hangs.set()
    assert "gave no answer" in start.when
    assert claimed_at_once == []
    time.sleep(0.6)
    assert [claim.job_ids for claim in pipeline.claims(room=1)] == [(start.job_id,)]


@pytest.mark.guarantee("R9")
def test_a_job_passes_nobody_who_waits(pipeline: Pipeline) -> None:
    first = pipeline.a_job("first")
    with beside(pipeline, FakeWebserver()) as fake:
        later = _start(pipeline, "later", requirement="Effect of exper on wage")
        urgent = _start(pipeline, "urgent", requirement="Effect of educ on exper", priority=90)
    assert (later.run_id, urgent.run_id) == (None, "run-1"), "the urgent one is next by the rules of the sensor, too"
    assert "it is not the next in turn" in later.when
    assert [tags[PARTITION_TAG] for tags in fake.launched_tags()] == [urgent.job_id]
    assert {id_ for claim in pipeline.claims(room=5) for id_ in claim.job_ids} == {first, later.job_id}


def _runs(*tags: dict[str, str]) -> dict[str, Any]:
    listed = [{"tags": [{"key": key, "value": value} for key, value in each.items()]} for each in tags]
    return {"kind": "Runs", "runs": listed}


@pytest.mark.guarantee("R9")
@pytest.mark.parametrize(
    ("look", "reason"),
    [
        (LOOK | {"runs": _runs({}, {})}, "no slot is free"),
        (LOOK | {"runs": _runs({CLASS_TAG: "normal"})}, "it is not the next in turn"),
        (LOOK | {"sensor": {"kind": "Sensor", "state": {"status": "STOPPED"}}}, "the claim sensor is stopped"),
    ],
    ids=["all slots are taken", "the last slot is reserved for the high ones", "claims are stopped"],
)
def test_a_job_takes_no_slot_that_the_sensor_would_not_give_it(
    tmp_path: Path, look: dict[str, Any], reason: str
) -> None:
    pipeline = a_pipeline(tmp_path, claim_slots=2, claim_reserved_slots={"high": 1})
    with beside(pipeline, FakeWebserver(look=look)) as fake:
        start = _start(pipeline)
    assert (start.run_id, _claim(pipeline, start), fake.launched_tags()) == (None, None, [])
    assert start.when.endswith(reason)


@pytest.mark.guarantee("R9")
def test_jobs_started_at_once_count_in_the_turns_of_the_tenants(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()):
        for number in range(3):
            assert _start(pipeline, f"a{number}", tenant="a", requirement=f"Effect {number} on wage").run_id
    for tenant in ("a", "b"):
        pipeline.a_job(f"{tenant}-waits", tenant_id=tenant, requirement="Effect of exper on wage")
    assert pipeline.claims(room=1)[0].tenant_id == "b"


@pytest.mark.guarantee("R10", "F21")
def test_of_a_sensor_and_several_hands_at_the_same_job_one_gets_it(pipeline: Pipeline) -> None:
    job_id = pipeline.a_job()
    together = threading.Barrier(9)
    with a_webserver(FakeWebserver()) as fake, ThreadPoolExecutor(9) as hands:

        def hand() -> int:
            together.wait()
            return start_job(job_key(job_id), parts=pipeline.parts, url=fake.url).run_id is not None

        def sensor() -> int:
            together.wait()
            return len(pipeline.claims(room=1))

        tries = [hands.submit(hand) for _ in range(8)] + [hands.submit(sensor)]
        assert sum(each.result() for each in tries) == 1


def test_a_sensor_that_is_quicker_keeps_the_job(pipeline: Pipeline) -> None:
    taken: list[str] = []
    fake = FakeWebserver(before=lambda _: taken.extend(claim.claim_id for claim in pipeline.claims(room=1)))
    with beside(pipeline, fake):
        start = _start(pipeline)
    claim = _claim(pipeline, start)
    assert (start.run_id, claim and claim.claim_id) == (None, taken[0])
    assert start.when == "now: a sensor was quicker"


def test_a_sensor_that_takes_the_submission_first_is_left_with_it(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()) as fake:
        pipeline.hand_in("wages")
        pipeline.take_in()
        start = start_submission(pipeline.parts, name="wages", tenant_id="default")
    assert (start.job_id, fake.asked) == (None, [])
    assert "taken it already" in start.when


def test_a_submission_that_can_be_no_job_is_refused_to_the_face_of_who_hands_it_in(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()), pytest.raises(SubmissionRefusedError) as caught:
        _start(pipeline, csv="")
    assert caught.value.error_code == "INPUT_EMPTY"
    assert (pipeline.parts.inbox.parent / "refused" / "wages" / "reason.json").is_file()


@pytest.mark.guarantee("F18")
def test_the_same_submission_again_starts_nothing(pipeline: Pipeline) -> None:
    with beside(pipeline, FakeWebserver()) as fake:
        first, again = _start(pipeline, "a", job_id="ref-1"), _start(pipeline, "b", job_id="ref-1")
    assert (again.job_id, again.run_id) == (first.job_id, None)
    assert "equal submission" in again.when
    assert len(fake.launched_tags()) == 1


class _FailsToProlong:
    """A store that fails once the run is launched."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._reserve = pipeline.parts.jobs.backend.reserve
        self.calls = 0

    def __call__(self, keys: list[DocumentKey], *, claim_id: str, ttl: float) -> list[DocumentKey]:
        self.calls += 1
        if self.calls == 2:
            raise StoreUnavailableError("no space left on device")
        return self._reserve(keys, claim_id=claim_id, ttl=ttl)


def test_a_run_that_is_launched_is_told_even_where_the_store_fails_after_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.parts.jobs.backend, "reserve", _FailsToProlong(pipeline))
    with beside(pipeline, FakeWebserver()):
        start = _start(pipeline)
    claim = _claim(pipeline, start)
    assert start.run_id == "run-1"
    assert claim is not None
    assert claim.expires_in <= LAUNCH_SECONDS


def test_where_the_store_fails_before_it_the_submission_is_kept_and_left_to_the_sensors(tmp_path: Path) -> None:
    pipeline = a_pipeline(tmp_path)
    (tmp_path / "inbox").mkdir()
    with beside(pipeline, FakeWebserver()):
        pipeline.hand_in("wages")
        (tmp_path / "inbox" / ".taken").touch()  # the private folder is none: the inbox cannot be worked on
        start = start_submission(pipeline.parts, name="wages", tenant_id="default")
    assert start.job_id is None
    assert (tmp_path / "inbox" / "wages").is_dir()


def test_a_job_of_any_origin_is_started_at_once_by_its_key(pipeline: Pipeline) -> None:
    created_at = pipeline.parts.clock.timestamp()
    pipeline.parts.jobs.create(a_job("job_by_another_way", created_at=created_at))
    with a_webserver(FakeWebserver()) as fake:
        start = start_job(job_key("job_by_another_way"), parts=pipeline.parts, url=fake.url)
    assert start == Start("job_by_another_way", "run-1", "now")
