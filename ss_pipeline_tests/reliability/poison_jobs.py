"""A job that kills every run that drafts it, among sound ones, on any back end; test_poison_jobs.py judges the outcome.

Each claim is worked off by a process of its own, as runs are; the parent is the sensor that makes the claims.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.stages.claiming import Claim, make_claims
from ss_pipeline.store.base import DocumentKey, Lease
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.jobs import JobStore, facets_of_body, job_key
from ss_pipeline.wiring import work_parts
from ss_pipeline_tests.pipeline import WAGES_REQUIREMENT, Pipeline, a_pipeline
from ss_pipeline_tests.reliability.forking import Found, fork, run_tasks
from ss_pipeline_tests.reliability.store_addresses import open_address

POISON: Final = "poison"
ANSWER: Final = DraftAnswer(
    draft_text="Wage on education.", outcome_var="wage", treatment_var="educ", controls=["exper"]
)
LEASE_SECONDS: Final = 1.0
MOST_KILLS: Final = 8
"""Where it ends if the attempts are not counted."""


class KillingDrafter(LLMClient):
    """Dies on the poison job, as a run does that is out of memory; answers for the others."""

    @property
    def name(self) -> str:
        return "killing/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        if POISON in request.requirement:
            os.kill(os.getpid(), signal.SIGKILL)
        return ANSWER


class ForgetfulBackend(FileBackend):
    """Broken: every lease is said to be the first."""

    def lease(self, keys: Sequence[DocumentKey], *, claim_id: str, owner: str, ttl: float) -> Lease:
        lease = super().lease(keys, claim_id=claim_id, owner=owner, ttl=ttl)
        return replace(lease, attempts=dict.fromkeys(lease.fences, 1))


@contextmanager
def opened(address: str, folder: str, kind: str) -> Iterator[Pipeline]:
    """The pipeline of one process: its artifacts in a folder, its jobs at an address."""
    files = Path(address.removeprefix("file:"))
    backend = ForgetfulBackend(files, facets_of=facets_of_body) if kind == "forgetful" else open_address(address)
    with closing(backend):
        parts = replace(a_pipeline(Path(folder)).parts, jobs=JobStore(backend))
        work = replace(
            work_parts(parts), client=KillingDrafter(), lease_seconds=LEASE_SECONDS, heartbeat_seconds=LEASE_SECONDS / 6
        )
        yield Pipeline(parts, work)


def kills(*, address: str, folder: str, others: int, kind: str = "real") -> Found:
    """Claims are made and worked off until nothing waits; how often a run was killed, and how the jobs ended."""
    with opened(address, folder, kind) as pipeline:
        poison = pipeline.a_job(POISON, requirement=f"{WAGES_REQUIREMENT} {POISON}")
        sound = [pipeline.a_job(f"s{n}", requirement=f"{WAGES_REQUIREMENT} {n}") for n in range(others)]
        killed: list[list[str]] = []
        while _is_any_open(pipeline, [poison, *sound]) and len(killed) < MOST_KILLS:
            claims = _claims(pipeline)
            killed += [list(claim.job_ids) for claim in claims if _is_killed_by(claim, address, folder, kind)]
            if not claims:
                time.sleep(LEASE_SECONDS / 10)
        failure = pipeline.job(poison).failure
        return {
            "killed": killed,
            "poison": poison,
            "failure": failure and failure.code,
            "attempts": pipeline.parts.jobs.backend.attempts_of(job_key(poison)),
            "versions": [[version.version for version in pipeline.job(job_id).publications] for job_id in sound],
            "sound": [pipeline.job(job_id).status for job_id in sound],
        }


def _is_any_open(pipeline: Pipeline, job_ids: list[str]) -> bool:
    return any(pipeline.job(job_id).status not in {"succeeded", "failed"} for job_id in job_ids)


def _claims(pipeline: Pipeline) -> list[Claim]:
    parts = pipeline.parts
    now = datetime.now(UTC)
    return make_claims(parts.jobs, room=2, rules=parts.claim_rules, now=now, shareable=lambda _: True)


def _is_killed_by(claim: Claim, address: str, folder: str, kind: str) -> bool:
    """Whether the process that works the claim off is killed by it."""

    def work(_out: int) -> None:
        with opened(address, folder, kind) as pipeline:
            pipeline.run(*claim.job_ids, claim_id=claim.claim_id, tenant_id=claim.tenant_id)

    child, pipe = fork(work)
    status = os.waitpid(child, 0)[1]
    os.close(pipe)
    assert status == 0 or os.WIFSIGNALED(status), f"a run ended with {status}"
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    run_tasks({"kills": kills})
