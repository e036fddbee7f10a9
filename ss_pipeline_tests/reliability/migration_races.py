"""Processes that load older jobs while another saves them, on any back end; test_migration_races.py judges it."""

import random
import time
from contextlib import closing, suppress
from multiprocessing import get_context
from typing import Any, Final

from ss_pipeline.errors import DocumentChangedError
from ss_pipeline.jobs.documents import render_document
from ss_pipeline.jobs.migrations import Migration
from ss_pipeline.jobs.model import Job
from ss_pipeline.store.base import DocumentKey
from ss_pipeline.store.jobs import ORIGINALS, JobStore, facets_of_body, facets_of_job, job_key
from ss_pipeline_tests.reliability.forking import Found, run_tasks, together
from ss_pipeline_tests.reliability.store_addresses import open_address
from ss_pipeline_tests.reliability.store_writers import v1_document

_STUCK_SECONDS: Final = 60.0
_DICE: Final = random.SystemRandom()
"""Not the same numbers in each child of a fork."""


class BlindJobStore(JobStore):
    """Broken: its load writes the migrated document over whatever is stored by then."""

    def _write_back(self, key: DocumentKey, body: bytes, job: Job, migration: Migration) -> bool:
        self._keep_original(key, body)
        time.sleep(_DICE.random() * 0.02)  # of another length in each process: some write after the save on any machine
        with suppress(DocumentChangedError):
            now = self.backend.read(key)
            self.backend.replace(key, render_document(migration.payload), facets_of_job(job), expected=now)
        return True


KINDS: Final[dict[str, type[JobStore]]] = {"real": JobStore, "blind": BlindJobStore}


def loads_against_saves(*, address: str, loaders: int, rounds: int, kind: str = "real") -> Found:
    """In each round all loaders load one job of schema 1 at once, and a saver saves it."""
    job_ids = [f"job_{number:016d}" for number in range(rounds)]
    with closing(open_address(address)) as backend:
        for job_id in job_ids:
            key, body = job_key(job_id), v1_document(job_id)
            backend.create(key, body, facets_of_body(key, body))
    at_once = get_context("fork").Barrier(loaders + 1)

    def work(index: int) -> list[dict[str, Any]]:
        with closing(open_address(address)) as backend:
            store = KINDS[kind](backend)
            seen = []
            for job_id in job_ids:
                at_once.wait(_STUCK_SECONDS)
                if index == 0:
                    job = store.update(job_id, lambda job: job.changed(priority=7, x_saved=job.job_id))
                else:
                    job = store.load(job_id)
                seen.append(job.as_payload())
            return seen

    saved, *loaded = together(loaders + 1, work)
    with closing(open_address(address)) as backend:
        stored = [JobStore(backend).load(job_id).as_payload() for job_id in job_ids]
        originals = [backend.read(DocumentKey(ORIGINALS, "default", job_id)) for job_id in job_ids]
        listed = [row.facets for row in JobStore(backend).rows()]
    by_round = list(zip(saved, *loaded, strict=True))
    return {
        "saved": len(saved),
        "lost": sum(now != acknowledged for now, acknowledged in zip(stored, saved, strict=True)),
        "trace_ids": max(len({payload["trace_id"] for payload in payloads}) for payloads in by_round),
        "originals_kept": originals == [v1_document(job_id) for job_id in job_ids],
        "listed": sum(facets.priority == 7 for facets in listed),
        "loaded_before": sum(payload["version"] == 1 for payloads in by_round for payload in payloads[1:]),
    }


if __name__ == "__main__":
    run_tasks({"loads_against_saves": loads_against_saves})
