"""Runs as Celery tasks, as deploy/celery sets them up: two workers share the jobs, and one of them dies at work."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ss_pipeline_tests.celery_cluster import Cluster, Worker, celery_cluster, dagster_and_workers
from ss_pipeline_tests.pipeline import wages_csv
from ss_pipeline_tests.stacks import wait_for

pytestmark = pytest.mark.stack
QUICK_JOBS = 8
SECONDS = 240
RUNTIME_SECONDS = 45


@dataclass(frozen=True)
class Story:
    """What the two workers did, and what became of the jobs.

    Args:
        fence_at_death: Of the slow job's lease when its worker was dead; None if there was none.
        publications: Of each job the versions that are published, with the fences they were published under.
    """

    killed: Worker
    left: Worker
    slow_job: str
    fence_at_death: int | None
    publications: dict[str, list[tuple[int, int]]]


@contextmanager
def _two_workers(folder: Path, **changes: int) -> Iterator[tuple[Cluster, list[Worker]]]:
    """A cluster that has published its first jobs. Leases are short, since workers die here."""
    settings = {"SS_CLAIM_SLOTS": "4", "SS_CLAIM_MAX_JOBS": "2"}
    leases = {"SS_CLAIM_LEASE_SECONDS": "6", "SS_CLAIM_HEARTBEAT_SECONDS": "1"}
    with celery_cluster(folder, changes=changes, **settings, **leases) as cluster:
        for number in range(QUICK_JOBS):
            cluster.pipeline.hand_in(f"quick-{number}", csv=wages_csv(60 + number))
        with dagster_and_workers(cluster, names=["one", "other"], processes=2) as workers:
            wait_for(lambda: cluster.published() == QUICK_JOBS, SECONDS)
            yield cluster, workers


def _at_work(cluster: Cluster, workers: list[Worker]) -> tuple[str, Worker, Worker]:
    """A slow job with the worker that works on it now, and the other worker."""
    cluster.pipeline.hand_in(f"slow-{cluster.published()}", csv=wages_csv(200_000 + cluster.published()))
    wait_for(lambda: bool(cluster.leases()), SECONDS)
    [(job_id, task)] = cluster.leases().items()
    busy, other = sorted(workers, key=lambda worker: task not in worker.taken())
    return job_id, busy, other


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """One worker dies in the middle of a slow job, with all its processes."""
    with _two_workers(tmp_path_factory.mktemp("celery")) as (cluster, workers):
        slow_job, killed, left = _at_work(cluster, workers)
        killed.kill()
        fence = cluster.fence_of(slow_job)
        wait_for(lambda: cluster.published() == QUICK_JOBS + 1, SECONDS)
        return Story(killed, left, slow_job, fence, cluster.publications())


def test_two_workers_share_the_runs(story: Story) -> None:
    assert story.killed.finished()
    assert story.left.finished()
    assert set(story.killed.taken()).isdisjoint(story.left.taken())


@pytest.mark.guarantee("R6")
def test_the_job_of_a_worker_that_is_killed_is_finished_by_the_other_one(story: Story) -> None:
    assert story.fence_at_death is not None
    [(_, fence)] = story.publications[story.slow_job]
    assert fence > story.fence_at_death


@pytest.mark.guarantee("R6")
def test_every_job_is_published_once(story: Story) -> None:
    assert len(story.publications) == QUICK_JOBS + 1
    assert [[version for version, _ in published] for published in story.publications.values()] == [[1]] * 9


@pytest.mark.soak
@pytest.mark.guarantee("R12")
def test_a_dead_run_leaves_its_slot_at_the_next_look_or_at_the_end_of_its_time_if_the_whole_worker_died(
    tmp_path: Path,
) -> None:
    with _two_workers(tmp_path, max_runtime_seconds=RUNTIME_SECONDS) as (cluster, workers):
        _, busy, _ = _at_work(cluster, workers)
        os.kill(_process_at_work(busy), signal.SIGKILL)
        wait_for(lambda: cluster.runs_in("FAILURE") == 1, RUNTIME_SECONDS / 2)
        wait_for(lambda: cluster.published() == QUICK_JOBS + 1, SECONDS)
        _, busy, _ = _at_work(cluster, workers)
        busy.kill()
        wait_for(lambda: cluster.published() == QUICK_JOBS + 2, SECONDS)
        wait_for(lambda: cluster.runs_in("STARTED") == 1, SECONDS)
        wait_for(lambda: cluster.runs_in("FAILURE") == 2, 2 * RUNTIME_SECONDS)
        assert cluster.runs_in("STARTED") == 0


def _process_at_work(worker: Worker) -> int:
    """The process of a worker's only run."""
    at_work = re.findall(r"Executing steps in process \(pid: (\d+)\)", worker.logged())
    return int(at_work[-1])
