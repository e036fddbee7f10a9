"""From a submission in the inbox to a published report through Dagster, on an ephemeral instance: what CI does."""

import json

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from ss_pipeline.defs.partition_keys import job_of_partition, recorded_partition_key
from ss_pipeline.defs.partitions import JOB_PARTITIONS
from ss_pipeline.defs.tags import CLAIM_TAG, RANGE_END_TAG, RANGE_START_TAG
from ss_pipeline.stages import decision
from ss_pipeline.store.jobs import job_key
from ss_pipeline_tests.pipeline import AMBIGUOUS_REQUIREMENT, Pipeline

ASSETS = ["submission", "job_record", "input_profile", "analysis_draft", "publication"]


def _tick(repository: dg.RepositoryDefinition, name: str, instance: dg.DagsterInstance) -> dg.SensorResult:
    sensor = repository.get_sensor_def(name)
    resources = repository.get_top_level_resources()
    with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
        result = sensor(context)
    return result if isinstance(result, dg.SensorResult) else dg.SensorResult(skip_reason=str(result))


def _add_partitions(tick: dg.SensorResult, instance: dg.DagsterInstance) -> None:
    for request in tick.dynamic_partitions_requests or []:
        assert isinstance(request, dg.AddDynamicPartitionsRequest)
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))


def _launch(
    repository: dg.RepositoryDefinition, request: dg.RunRequest, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    job = repository.get_job("process_jobs")
    return job.execute_in_process(
        partition_key=request.partition_key, tags=dict(request.tags), instance=instance, raise_on_error=False
    )


def _materialized(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def _failed(instance: dg.DagsterInstance, asset: str) -> set[str]:
    """The partitions that the UI shows as failed."""
    status = get_and_update_asset_status_cache_value(instance, dg.AssetKey(asset), JOB_PARTITIONS)
    assert status is not None
    return set(status.deserialize_failed_partition_subsets(JOB_PARTITIONS).get_partition_keys())


@pytest.mark.seed("S1.3.3")
def test_a_submission_in_the_inbox_becomes_five_green_assets(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    pipeline.hand_in("wages")
    tick = _tick(repository, "inbox_sensor", instance)  # makes the job and asks for its run
    assert _tick(repository, "claim_sensor", instance).run_requests == []
    _add_partitions(tick, instance)
    assert tick.run_requests is not None
    (request,) = tick.run_requests
    result = _launch(repository, request, instance)
    assert result.success
    key = request.partition_key
    assert key is not None
    for asset in ASSETS:
        assert _materialized(instance, asset) == {key}
    job = pipeline.job(key)
    assert job.status == "succeeded"
    checks = result.get_asset_check_evaluations()
    assert {check.check_name for check in checks} == {
        "profile_has_rows", "draft_names_real_columns", "draft_matches_schema", "manifest_hashes_match",
    }  # fmt: skip
    assert all(check.passed and check.partition == key for check in checks)


def test_every_materialization_carries_something_worth_looking_at(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    instance.add_dynamic_partitions("jobs", [key])
    assert _launch(repository, dg.RunRequest(partition_key=key), instance).success
    wanted = {
        "submission": {"preview", "inputs"},
        "job_record": {"history", "schema_version"},
        "input_profile": {"preview", "columns", "plot"},
        "analysis_draft": {"preview", "decision", "drafter"},
        "publication": {"preview", "report", "version"},
    }
    for asset, names in wanted.items():
        event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None
        assert event.asset_materialization is not None
        assert names | {"seconds", "reused"} <= set(event.asset_materialization.metadata)


def test_a_claim_of_twenty_with_two_broken_jobs_fails_exactly_two_partitions(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    keys = [
        pipeline.a_job(
            f"s{i:02d}", csv="wage,educ,exper\n" if i in {4, 17} else None, requirement=f"Effect of educ on wage, {i}"
        )
        for i in range(20)
    ]
    instance.add_dynamic_partitions("jobs", keys)
    pipeline.parts.jobs.backend.reserve([job_key(key) for key in keys], claim_id="claim_20", ttl=600)
    tags = {CLAIM_TAG: "claim_20", RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]}
    result = repository.get_job("process_jobs").execute_in_process(tags=tags, instance=instance, raise_on_error=False)
    assert not result.success
    broken = {keys[4], keys[17]}
    assert _materialized(instance, "publication") == set(keys) - broken
    assert _failed(instance, "publication") == broken
    assert _failed(instance, "submission") == set()
    for key in keys:
        job = pipeline.job(key)
        assert job.status == ("failed" if key in broken else "succeeded")
        if key in broken:
            assert job.failure is not None
            assert job.failure.code.startswith("INPUT_")
    failure = next(event for event in result.all_events if event.is_step_failure)
    data = failure.step_failure_data
    assert data.user_failure_data is not None
    assert "2 of 20" in (data.user_failure_data.description or "")


def test_a_job_in_review_has_no_publication_until_it_is_confirmed(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    instance.add_dynamic_partitions("jobs", [key])
    assert _launch(repository, dg.RunRequest(partition_key=key), instance).success
    assert _materialized(instance, "analysis_draft") == {key}
    assert _materialized(instance, "publication") == set()
    answers = {"outcome_var": "wage", "treatment_var": "educ"}
    job = decision.confirm(pipeline.job(key), by="ann", at=pipeline.parts.clock.timestamp(), answers=answers)
    pipeline.parts.jobs.save(job)
    tick = _tick(repository, "claim_sensor", instance)
    assert tick.run_requests is not None
    (request,) = tick.run_requests
    assert (request.partition_key, tick.dynamic_partitions_requests) == (key, [])
    assert _launch(repository, request, instance).success
    assert _materialized(instance, "publication") == {key}


def test_a_long_backlog_becomes_range_runs_that_cover_each_job_once(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    for i in range(10):
        pipeline.hand_in(f"s{i}", requirement=f"Effect of educ on wage, {i}")
    pipeline.take_in()
    tick = _tick(repository, "claim_sensor", instance)
    _add_partitions(tick, instance)
    assert tick.run_requests is not None
    assert len(tick.run_requests) == 4
    for request in tick.run_requests:
        assert _launch(repository, request, instance).success
    assert len(_materialized(instance, "publication")) == 10
    again = _tick(repository, "claim_sensor", instance)
    assert not again.run_requests


def test_the_claim_sensor_leaves_what_is_reserved_alone(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    pipeline.a_job()
    first = _tick(repository, "claim_sensor", instance)
    second = _tick(repository, "claim_sensor", instance)
    assert first.run_requests is not None
    assert len(first.run_requests) == 1
    assert not second.run_requests


def test_one_asset_is_materialized_alone(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    instance.add_dynamic_partitions("jobs", [key])
    _launch(repository, dg.RunRequest(partition_key=key), instance)
    result = repository.get_job("process_jobs").execute_in_process(
        partition_key=key, instance=instance, asset_selection=[dg.AssetKey("input_profile")]
    )
    assert result.success
    made = [event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key]
    assert made == ["input_profile"]


@pytest.mark.parametrize("asset", ASSETS)
def test_every_asset_loads_as_json(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, asset: str
) -> None:
    key = pipeline.a_job()
    pipeline.run(key)
    instance.add_dynamic_partitions("jobs", [key])
    value = repository.load_asset_value(dg.AssetKey(asset), partition_key=key, instance=instance)
    assert json.loads(json.dumps(value)) == value
    assert value


def test_jobs_of_other_tenants_have_a_partition_of_their_own(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    pipeline.hand_in("theirs", tenant_id="acme")
    (accepted,) = pipeline.take_in().accepted
    tick = _tick(repository, "claim_sensor", instance)
    _add_partitions(tick, instance)
    assert tick.run_requests is not None
    (request,) = tick.run_requests
    assert request.partition_key is not None
    assert job_of_partition(pipeline.parts.jobs, request.partition_key) == job_key(accepted.job_id, "acme")
    assert _launch(repository, request, instance).success
    assert pipeline.job(accepted.job_id, "acme").status == "succeeded"


@pytest.mark.parametrize("job_id", ["[a...b]", "a,b", "Job 1", "alias_x", "任务"])
def test_imported_ids_that_dagster_would_misread_get_an_alias(pipeline: Pipeline, job_id: str) -> None:
    key = job_key(job_id)
    alias = recorded_partition_key(pipeline.parts.jobs, key)
    assert alias.startswith("alias_")
    assert job_of_partition(pipeline.parts.jobs, alias) == key


def test_process_job_runs_the_stages_step_by_step(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    result = repository.get_job("process_job").execute_in_process(
        run_config={"ops": {"ingest": {"config": {"job_id": key}}}}, instance=instance
    )
    assert result.success
    assert pipeline.job(key).status == "succeeded"
    assert {event.step_key for event in result.all_events if event.is_step_success} == {
        "ingest", "migrate", "profile", "draft", "publish",
    }  # fmt: skip
    assert pipeline.parts.jobs.backend.claim_of(job_key(key)) is None


def test_finished_partitions_are_retired_and_the_store_keeps_the_job(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    finished, waiting = pipeline.a_job("a"), pipeline.a_job("b", requirement="Effect of exper on wage")
    pipeline.run(finished)
    instance.add_dynamic_partitions("jobs", [finished, waiting])
    assert repository.get_job("retire_partitions_job").execute_in_process(instance=instance).success
    assert list(instance.get_dynamic_partitions("jobs")) == [waiting]
    assert pipeline.job(finished).status == "succeeded"


def test_a_draft_is_confirmed_from_the_launchpad(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job(requirement=AMBIGUOUS_REQUIREMENT)
    pipeline.run(key)
    config = {"job_ids": [key], "by": "ann", "answers": {"outcome_var": "wage", "treatment_var": "educ"}}
    run_config = {"ops": {"decide": {"config": config}}}
    job = repository.get_job("decide_job")
    assert job.execute_in_process(run_config=run_config, instance=instance).success
    assert pipeline.job(key).status == "confirmed"
    refused = job.execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)
    assert not refused.success


def test_the_reservations_of_a_run_that_never_began_are_freed(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    pipeline.parts.jobs.backend.reserve([job_key(key)], claim_id="claim_x", ttl=600)
    instance.add_dynamic_partitions("jobs", [key])
    job = repository.get_job("process_jobs")
    run = instance.create_run_for_job(job, tags={CLAIM_TAG: "claim_x", "dagster/partition": key})
    event = instance.report_run_failed(run)
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_run_sensor",
        dagster_instance=instance,
        dagster_run=run,
        dagster_event=event,
        repository_def=repository,
        resources={"parts": pipeline.parts},
    )
    repository.get_sensor_def("failed_run_sensor")(context.for_run_failure())
    assert pipeline.parts.jobs.backend.claim_of(job_key(key)) is None


def test_the_backlog_says_who_waits_and_why(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    assert repository.get_job("observe_backlog").execute_in_process(instance=instance).success
    (record,) = instance.fetch_observations(dg.AssetKey("backlog"), limit=1).records
    observation = record.asset_observation
    assert observation is not None
    assert observation.metadata["waiting"].value == 1
    shown = str(observation.metadata["who_waits"].value).replace("\\", "")
    assert f"| {key} | default | 0 |" in shown
    assert "no run has claimed it yet" in shown
