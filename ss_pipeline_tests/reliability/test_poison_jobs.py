"""Fault: a job kills every run that works on it, or its document is damaged behind the store's back. Promise (R8, F24):
it is given up after five attempts with its reason, its bytes are left alone, and the other jobs are all published.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from ss_pipeline.job_run import JobEnded
from ss_pipeline.jobs.documents import parse_document, render_document
from ss_pipeline.jobs.lifecycle import phase
from ss_pipeline.stages.claiming import make_claims
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, job_key
from ss_pipeline.wiring import work_parts
from ss_pipeline_tests.pipeline import WAGES_REQUIREMENT, Pipeline, a_pipeline
from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address
from ss_pipeline_tests.store_contract import STANDS

# --- a job that kills its runs ---------------------------------------------------------------------------------------


@pytest.fixture(params=SHARED)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with an_address(request.param, tmp_path) as address:
        yield address


def kills(address: str, folder: Path, *, others: int, kind: str = "real") -> Found:
    module = "ss_pipeline_tests.reliability.poison_jobs"
    return forking.run(module, "kills", address=address, folder=str(folder), others=others, kind=kind)


@pytest.mark.guarantee("R8")
@pytest.mark.guarantee("R6")
def test_a_job_that_kills_its_run_is_given_up_after_five_attempts_and_the_others_are_published_once(
    address: str, tmp_path: Path
) -> None:
    found = kills(address, tmp_path, others=4)
    assert len(found["killed"]) == 5
    assert found["failure"] == "CLAIM_ATTEMPTS_EXHAUSTED"
    assert (found["sound"], found["versions"]) == (["succeeded"] * 4, [[1]] * 4)
    assert found["killed"][1:] == [[found["poison"]]] * 4, "after its first run it shares none"
    assert found["attempts"] == 0, "a person who asks for it again gets five attempts more"


@pytest.mark.guarantee("R8")
def test_a_store_that_does_not_count_attempts_is_caught(tmp_path: Path) -> None:
    found = kills(f"file:{tmp_path / 'jobs'}", tmp_path, others=0, kind="forgetful")
    assert (len(found["killed"]), found["failure"]) == (8, None)


# --- damaged documents -----------------------------------------------------------------------------------------------


def _changed(**fields: object) -> Callable[[bytes], bytes]:
    return lambda body: render_document({**parse_document(body), **fields})


DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "cut short": lambda body: body[: len(body) // 2],
    "empty": lambda _body: b"",
    "zeros": lambda body: bytes(len(body)),
    "a bit turned": lambda body: body[:100] + bytes([body[100] ^ 0x80]) + body[101:],
    "a newer schema": _changed(schema_version=4),
    "a newer status": _changed(status="dreaming"),
    "another job's": _changed(job_id="job_somebodyelses0000"),
    "another tenant's": _changed(tenant_id="acme"),
    "no object": lambda body: json.dumps([body.decode()]).encode(),
}


@pytest.fixture(params=sorted(STANDS))
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pipeline]:
    with STANDS[request.param](tmp_path / "store", facets_of=facets_of_body) as stand:
        parts = replace(a_pipeline(tmp_path).parts, jobs=JobStore(stand.backend))
        yield Pipeline(parts, work_parts(parts))


def damaged(pipeline: Pipeline, name: str) -> tuple[DocumentKey, bytes]:
    """A job that is still listed as waiting, with a document that no load understands any more."""
    backend = pipeline.parts.jobs.backend
    key = job_key(pipeline.a_job(name.replace(" ", "_").replace("'", ""), requirement=f"{WAGES_REQUIREMENT} {name}"))
    body = backend.read(key)
    broken = DAMAGES[name](body)
    backend.replace(key, broken, facets_of_body(key, body), expected=body)
    return key, broken


def work_all_off(pipeline: Pipeline) -> list[JobEnded]:
    """Claims and works off whatever is offered, until nothing is; how each job ended each time."""
    parts = pipeline.parts
    ended: list[JobEnded] = []
    while claims := make_claims(
        parts.jobs, room=3, rules=parts.claim_rules, now=datetime.now(UTC), shareable=lambda _: True
    ):
        for claim in claims:
            ended += pipeline.run(*claim.job_ids, claim_id=claim.claim_id, tenant_id=claim.tenant_id)[1].values()
    return ended


@pytest.mark.guarantee("R8")
@pytest.mark.guarantee("F24")
@pytest.mark.guarantee("F25")
def test_damaged_documents_are_claimed_once_left_as_they_are_and_hold_up_nobody(pipeline: Pipeline) -> None:
    backend = pipeline.parts.jobs.backend
    broken = dict(damaged(pipeline, name) for name in DAMAGES)
    sound = [pipeline.a_job(f"s{n}", requirement=f"{WAGES_REQUIREMENT} {n}") for n in range(3)]
    ended = work_all_off(pipeline)
    assert sorted(end.job_id for end in ended) == sorted([*sound, *(key.document_id for key in broken)])
    assert {end.code for end in ended if end.job_id not in sound} == {"JOB_DATA_CORRUPTED"}
    assert [pipeline.job(job_id).status for job_id in sound] == ["succeeded"] * 3
    assert {key: backend.read(key) for key in broken} == broken
    assert [row.key for row in backend.page(JOBS, status="corrupted")] == sorted(broken)
    assert {backend.claim_of(key) for key in broken} == {None}


@pytest.mark.guarantee("F24")
def test_a_document_that_is_put_back_after_its_damage_is_published(pipeline: Pipeline) -> None:
    backend = pipeline.parts.jobs.backend
    key = job_key(pipeline.a_job())
    whole = backend.read(key)
    backend.replace(key, b"{", facets_of_body(key, whole), expected=whole)
    work_all_off(pipeline)
    backend.replace(key, whole, facets_of_body(key, whole), expected=b"{")
    work_all_off(pipeline)
    assert phase(pipeline.job(key.document_id)).phase == "published"
