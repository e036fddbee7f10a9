"""What is swept: the history of old runs, and partition keys once there are too many."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ss_pipeline.clock import SystemClock
from ss_pipeline.definitions import build_definitions
from ss_pipeline.defs import retention
from ss_pipeline.defs.io_manager import op_outputs_folder
from ss_pipeline.defs.partitions import JOB_PARTITIONS
from ss_pipeline_tests.pipeline import Pipeline


class _Later(SystemClock):
    """A clock that is so far ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance as `dagster.yaml` makes it: SQLite files below its root."""
    root = tmp_path / "dagster"
    root.mkdir()
    with dg.DagsterInstance.local_temp(str(root)) as instance:
        yield instance


def _repository(pipeline: Pipeline, *, ahead: timedelta) -> dg.RepositoryDefinition:
    later = replace(pipeline.parts, clock=_Later(ahead))
    return build_definitions(pipeline.parts.settings, overrides={"parts": later}).get_repository_def()


def _run_step_by_step(pipeline: Pipeline, instance: dg.DagsterInstance, name: str) -> str:
    """Runs `process_job` on a new job; the run's id."""
    job_id = pipeline.a_job(name, requirement=f"Effect of educ on wage, {name}")
    job = build_definitions(pipeline.parts.settings).get_repository_def().get_job("process_job")
    run_config = {"ops": {"ingest": {"config": {"job_id": job_id}}}}
    return job.execute_in_process(run_config=run_config, instance=instance).run_id


def _files_of(run_id: str, instance: dg.DagsterInstance, pipeline: Pipeline) -> list[str]:
    places = [Path(instance.root_directory), Path(str(op_outputs_folder(pipeline.parts)))]
    return [path.name for place in places for path in place.rglob(f"*{run_id}*")]


def test_runs_that_ended_long_ago_leave_no_history_and_no_file_and_their_jobs_stay(
    pipeline: Pipeline, on_disk: dg.DagsterInstance
) -> None:
    run_id = _run_step_by_step(pipeline, on_disk, "a")
    assert {f"{run_id}.db", run_id} <= set(_files_of(run_id, on_disk, pipeline))
    repository = _repository(pipeline, ahead=timedelta(days=31))
    purge = repository.get_job("purge_runs_job").execute_in_process(instance=on_disk)
    assert on_disk.get_run_by_id(run_id) is None
    assert _files_of(run_id, on_disk, pipeline) == []
    assert [run.run_id for run in on_disk.get_runs()] == [purge.run_id]
    assert [row.facets.status for row in pipeline.parts.jobs.rows()] == ["succeeded"]


def test_runs_younger_than_the_retention_and_runs_in_flight_stay(
    pipeline: Pipeline, on_disk: dg.DagsterInstance
) -> None:
    ended = _run_step_by_step(pipeline, on_disk, "a")
    repository = _repository(pipeline, ahead=timedelta(days=29))
    assert repository.get_job("purge_runs_job").execute_in_process(instance=on_disk).success
    assert on_disk.get_run_by_id(ended) is not None
    in_flight = on_disk.create_run_for_job(repository.get_job("process_jobs")).run_id
    repository = _repository(pipeline, ahead=timedelta(days=31))
    assert repository.get_job("purge_runs_job").execute_in_process(instance=on_disk).success
    assert on_disk.get_run_by_id(ended) is None
    assert on_disk.get_run_by_id(in_flight) is not None


def test_finished_keys_are_retired_at_once_when_there_are_too_many_and_never_twice_at_a_time(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    def asked() -> int:
        context = dg.build_sensor_context(instance=instance, repository_def=repository)
        result = retention.retirement_sensor(context)
        assert isinstance(result, dg.SensorResult)
        return len(result.run_requests or [])

    name = JOB_PARTITIONS.name or ""
    instance.add_dynamic_partitions(name, [f"job_{number:016d}" for number in range(retention.RETIRE_ABOVE)])
    assert asked() == 0
    instance.add_dynamic_partitions(name, ["job_one_more"])
    assert asked() == 1
    instance.create_run_for_job(repository.get_job("retire_partitions_job"))
    assert asked() == 0
