"""The whole way of a job with its documents in each shared back end: chosen by settings alone, nothing else changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline, a_pipeline
from ss_pipeline_tests.servers import empty_redis, new_database

SETTINGS: Final[dict[str, Callable[[], dict[str, object]]]] = {
    "file": lambda: {"job_store_backend": "file"},
    "postgres": lambda: {"job_store_backend": "postgres", "job_store_postgres_dsn": new_database()},
    "redis": lambda: {"job_store_backend": "redis", "redis_url": empty_redis()},
}


@pytest.fixture(params=sorted(SETTINGS))
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path, **SETTINGS[request.param]())


@pytest.mark.seed("S2.3.4")
@pytest.mark.seed("S2.3.5")
def test_submissions_become_claims_and_reports_or_wait_for_a_person(pipeline: Pipeline) -> None:
    parts = pipeline.parts
    clear = [pipeline.a_job(f"wages-{number}", priority=number) for number in range(3)]
    unclear = pipeline.a_job("unclear", requirement=AMBIGUOUS_REQUIREMENT, tenant_id="acme")
    claims = pipeline.claims(room=9)
    assert [id_ for claim in claims if claim.tenant_id == "default" for id_ in claim.job_ids] == clear[::-1]
    assert [claim.job_ids for claim in claims if claim.tenant_id == "acme"] == [(unclear,)]
    for claim in claims:
        pipeline.run(*claim.job_ids, claim_id=claim.claim_id, tenant_id=claim.tenant_id)
    assert [pipeline.job(job_id).status for job_id in clear] == ["succeeded"] * 3
    assert pipeline.job(unclear, "acme").status == "draft_ready"
    assert parts.jobs.backend.counts("jobs") == {("default", "succeeded"): 3, ("acme", "draft_ready"): 1}
    assert pipeline.claims(room=9) == []
    assert {"aliases", "jobs", "references", "scheduling"} >= set(parts.jobs.backend.collections()) >= {"jobs"}


def test_the_same_reference_is_the_same_job(pipeline: Pipeline) -> None:
    pipeline.hand_in("first", job_id="our-42")
    pipeline.hand_in("second", job_id="our-42")
    accepted = pipeline.take_in().accepted
    assert len({one.job_id for one in accepted}) == 1
    assert len(list(pipeline.parts.jobs.rows())) == 1
