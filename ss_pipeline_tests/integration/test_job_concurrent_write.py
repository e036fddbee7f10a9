"""Many threads that write the same jobs, on every back end. Processes: reliability/test_store_races.py."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from ss_pipeline.errors import JobExistsError, JobVersionConflictError
from ss_pipeline.store.jobs import JobStore, facets_of_body
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.store_contract import STANDS

ID = "job_abcdefghijklmnop"


@pytest.fixture(params=sorted(STANDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    with STANDS[request.param](tmp_path, facets_of=facets_of_body) as stand:
        yield JobStore(stand.backend)


@pytest.mark.seed("S1.2.3")
@pytest.mark.seed("S1.2.6")
def test_fifty_threads_lose_no_save(store: JobStore) -> None:
    store.create(a_job(ID))

    def increments(_: int) -> int:
        succeeded = 0
        for _ in range(20):
            job = store.load(ID)
            with suppress(JobVersionConflictError):
                store.save(job.changed(attempts=job.attempts + 1))
                succeeded += 1
        return succeeded

    with ThreadPoolExecutor(50) as threads:
        succeeded = sum(threads.map(increments, range(50)))
    job = store.load(ID)
    assert (job.version, job.attempts) == (1 + succeeded, succeeded)
    assert succeeded > 0


@pytest.mark.seed("S1.2.8")
def test_of_four_threads_that_create_a_job_one_succeeds(store: JobStore) -> None:
    def create(number: int) -> int:
        try:
            store.create(a_job(f"job_{number // 4:016d}"))
        except JobExistsError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as threads:
        created = list(threads.map(create, range(4 * 150)))
    assert [sum(created[start : start + 4]) for start in range(0, 600, 4)] == [1] * 150
