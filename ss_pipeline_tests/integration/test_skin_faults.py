"""The Dagster skin where something is wrong: damaged documents, lost partitions, many ticks, hostile names."""

import re
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ss_pipeline.definitions import build_definitions
from ss_pipeline.defs.metadata import stage_metadata
from ss_pipeline.defs.partition_keys import job_of_partition, partition_key_of, recorded_partition_key
from ss_pipeline.defs.partitions import IN_FLIGHT, keys_of_run
from ss_pipeline.defs.tags import CLAIM_TAG, PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG, TENANT_TAG
from ss_pipeline.errors import JobDataCorruptedError, StoreUnavailableError
from ss_pipeline.job_run import Stage
from ss_pipeline.stages import decision
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline

HOSTILE_ID = "<img src=x onerror=alert(1)>|[a](javascript:b)"


def _tick(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    resources = repository.get_top_level_resources()
    with dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources) as context:
        result = repository.get_sensor_def("claim_sensor")(context)
    assert isinstance(result, dg.SensorResult)
    return list(result.run_requests or [])


def _execute(
    repository: dg.RepositoryDefinition, name: str, instance: dg.DagsterInstance, **ops: object
) -> dg.ExecuteInProcessResult:
    run_config = {"ops": ops} if ops else None
    return repository.get_job(name).execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)


def _run_in_flight(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, **tags: str) -> None:
    names = {"claim": CLAIM_TAG, "tenant": TENANT_TAG, "key": PARTITION_TAG}
    names |= {"start": RANGE_START_TAG, "end": RANGE_END_TAG}
    run = instance.create_run_for_job(
        repository.get_job("process_jobs"), tags={names[name]: value for name, value in tags.items()}
    )
    assert instance.get_run_by_id(run.run_id).status in IN_FLIGHT  # type: ignore[union-attr]


def _damage(pipeline: Pipeline, job_id: str) -> Path:
    path = next(pipeline.parts.settings.jobs_path().rglob(f"{job_id}/job.json"))
    path.write_bytes(b"{")
    return path


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _why_failed(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data.user_failure_data
    assert failure is not None, event.step_failure_data.error
    return failure.description or ""


@pytest.mark.guarantee("R17")
def test_many_ticks_use_no_more_descriptors_than_a_few(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    pipeline.a_job()
    _tick(repository, instance)
    before = _descriptors()
    for _ in range(10):
        _tick(repository, instance)
    assert _descriptors() <= before


@pytest.mark.seed("S3.3.3")
def test_a_flood_of_one_tenant_does_not_hold_up_another_when_slots_come_free_one_by_one(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    for i in range(5):
        pipeline.a_job(f"flood{i}", requirement=f"Effect of educ on wage, {i}")
    pipeline.hand_in("one", tenant_id="acme")
    pipeline.take_in()
    for i in range(3):  # all slots but one are taken by the flood's tenant
        _run_in_flight(repository, instance, claim=f"claim_{i}", tenant="default")
    (request,) = _tick(repository, instance)
    assert request.tags[TENANT_TAG] == "acme"


def test_the_claim_sensor_goes_on_where_one_document_is_damaged(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    damaged, whole = pipeline.a_job("a"), pipeline.a_job("b", requirement="Effect of exper on wage")
    _damage(pipeline, damaged)
    assert {request.partition_key for request in _tick(repository, instance)} == {damaged, whole}


def test_the_backlog_shows_damaged_imported_and_hostile_jobs_as_text(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    damaged = pipeline.a_job()
    _damage(pipeline, damaged)
    pipeline.parts.jobs.create(a_job("job_old", created_at="2026-01-06"))
    pipeline.parts.jobs.create(a_job(HOSTILE_ID))
    assert _execute(repository, "observe_backlog", instance).success
    (record,) = instance.fetch_observations(dg.AssetKey("backlog"), limit=1).records
    assert record.asset_observation is not None
    shown = str(record.asset_observation.metadata["who_waits"].value)
    assert "unreadable" in shown
    assert "job_old" in shown.replace("\\", "")
    assert not re.search(r"(?<!\\)<img|(?<!\\)\]\(", shown)
    assert "\\>\\|\\[" in shown


@pytest.mark.guarantee("L4")
def test_what_a_submitter_wrote_is_text_in_every_preview(pipeline: Pipeline) -> None:
    hostile = "Effect of educ on wage <script>alert(1)</script> ![x](http://evil.example/p.png) | # h"
    job_id = pipeline.a_job(requirement=hostile)
    done, _ = pipeline.run(job_id)
    for event in done:
        for name, value in stage_metadata(event, artifacts=pipeline.parts.artifacts).items():
            if isinstance(value, dg.MarkdownMetadataValue) and name != "plot":
                assert not re.search(r"(?<!\\)<script|(?<!\\)!\[x\]\(", str(value.value))


def test_a_partition_without_a_job_fails_its_run_and_says_so(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    instance.add_dynamic_partitions("jobs", ["job_nowhere"])
    result = repository.get_job("process_jobs").execute_in_process(
        partition_key="job_nowhere", instance=instance, raise_on_error=False
    )
    assert "JOB_NOT_FOUND" in _why_failed(result)


def test_a_report_that_was_removed_fails_its_check_and_not_the_run(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    key = pipeline.a_job()
    pipeline.run(key)
    published = pipeline.job(key).published
    assert published is not None
    report = pipeline.parts.artifacts.local_path("default", key, f"{published.folder}/report.md")
    assert report is not None
    report.unlink()
    instance.add_dynamic_partitions("jobs", [key])
    result = repository.get_job("process_jobs").execute_in_process(partition_key=key, instance=instance)
    assert result.success
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "manifest_hashes_match"]
    assert not check.passed
    event = instance.get_latest_materialization_event(dg.AssetKey("publication"))
    assert event is not None
    assert event.asset_materialization is not None
    assert "cannot be shown" in str(event.asset_materialization.metadata["preview"].value)


def test_a_draft_without_its_profile_is_shown_with_failed_checks(pipeline: Pipeline) -> None:
    from ss_pipeline.defs.checks import check_evaluations

    key = pipeline.a_job()
    done, _ = pipeline.run(key)
    (draft,) = [event for event in done if event.stage is Stage.ANALYSIS_DRAFT]
    profile = pipeline.parts.artifacts.local_path("default", key, "artifacts/profile.json")
    assert profile is not None
    profile.unlink()
    checks = list(check_evaluations(draft, partition=key, artifacts=pipeline.parts.artifacts))
    assert [check.passed for check in checks] == [False, False]


def test_keys_that_a_range_in_flight_needs_are_not_retired(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    keys = [pipeline.a_job(f"s{i}", requirement=f"Effect of educ on wage, {i}") for i in range(4)]
    pipeline.run(*keys)
    instance.add_dynamic_partitions("jobs", keys)
    _run_in_flight(repository, instance, claim="claim_1", start=keys[0], end=keys[2])
    assert _execute(repository, "retire_partitions_job", instance).success
    assert list(instance.get_dynamic_partitions("jobs")) == keys[:3]


def test_a_damaged_or_unknown_job_does_not_stop_the_retirement_of_others(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    damaged, finished = pipeline.a_job("a"), pipeline.a_job("b", requirement="Effect of exper on wage")
    pipeline.run(finished)
    _damage(pipeline, damaged)
    instance.add_dynamic_partitions("jobs", [damaged, "alias_unknown", finished])
    assert _execute(repository, "retire_partitions_job", instance).success
    assert list(instance.get_dynamic_partitions("jobs")) == [damaged]


def test_verification_names_changed_files_and_damaged_jobs_and_repairs_the_pointer(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    good, changed, damaged = (pipeline.a_job(f"s{i}", requirement=f"Effect of educ on wage, {i}") for i in range(3))
    pipeline.run(good, changed, damaged)
    pointer = pipeline.parts.artifacts.local_path("default", good, "publications/current.json")
    assert pointer is not None
    before = pointer.read_bytes()
    pointer.unlink()
    published = pipeline.job(changed).published
    assert published is not None
    report = pipeline.parts.artifacts.local_path("default", changed, f"{published.folder}/report.html")
    assert report is not None
    report.write_bytes(b"another")
    _damage(pipeline, damaged)
    result = _execute(repository, "verify_publications_job", instance)
    why = _why_failed(result)
    assert f"{changed} v1" in why
    assert f"{damaged}: JOB_DATA_CORRUPTED" in why
    assert good not in why
    assert pointer.read_bytes() == before


def test_the_op_graph_names_a_job_that_is_not_there_and_one_that_is_claimed(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    def run(job_id: str) -> str:
        return _why_failed(_execute(repository, "process_job", instance, ingest={"config": {"job_id": job_id}}))

    key = pipeline.a_job()
    pipeline.parts.jobs.backend.lease([job_key(key)], claim_id="other", owner="run:other", ttl=60)
    assert "JOB_NOT_FOUND" in run("job_nowhere")
    assert "CLAIM_ELSEWHERE: claimed elsewhere by run:other" in run(key)


@pytest.mark.parametrize("fault", ["cancelled", "damaged", "no rows"])
def test_the_op_graph_gives_back_a_job_it_cannot_work_on(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, fault: str
) -> None:
    key = pipeline.a_job(csv="wage,educ\n" if fault == "no rows" else None)
    at = pipeline.parts.clock.timestamp()
    if fault == "cancelled":
        pipeline.parts.jobs.update(key, lambda job: decision.cancel(job, by="ann", at=at))
    if fault == "damaged":
        _damage(pipeline, key)
    why = _why_failed(_execute(repository, "process_job", instance, ingest={"config": {"job_id": key}}))
    expected = {"cancelled": "not to be worked on: cancelled", "damaged": "JOB_DATA_CORRUPTED", "no rows": "INPUT_"}
    assert expected[fault] in why
    assert pipeline.parts.jobs.backend.claim_of(job_key(key)) is None


def test_the_op_graph_leaves_a_draft_in_review_for_a_person(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    repository = build_definitions(pipeline.parts.settings).get_repository_def()
    key = pipeline.a_job()
    result = _execute(repository, "process_job", instance, ingest={"config": {"job_id": key}})
    assert result.output_for_node("publish") == "in review"
    assert pipeline.job(key).status == "draft_ready"
    assert pipeline.parts.jobs.backend.claim_of(job_key(key)) is None


def test_a_draft_is_sent_back_from_the_launchpad(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    pipeline = a_pipeline(tmp_path, review_policy="always")
    repository = build_definitions(pipeline.parts.settings).get_repository_def()
    key = pipeline.a_job()
    pipeline.run(key)
    config = {"job_ids": [key], "by": "ann", "action": "send_back", "note": "use logs"}
    assert _execute(repository, "decide_job", instance, decide={"config": config}).success
    assert pipeline.job(key).status == "created"


@pytest.mark.parametrize("mode", ["dry_run", "apply", "roll_back"])
def test_the_store_is_migrated_from_the_launchpad(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, mode: str
) -> None:
    pipeline.a_job()
    result = _execute(repository, "migrate_store_job", instance, migrate_store={"config": {"mode": mode}})
    assert result.success


@pytest.mark.parametrize(
    ("tags", "keys"),
    [
        ({PARTITION_TAG: "b"}, ["b"]),
        ({RANGE_START_TAG: "b", RANGE_END_TAG: "d"}, ["b", "c", "d"]),
        ({RANGE_START_TAG: "b", RANGE_END_TAG: "retired"}, []),
        ({RANGE_START_TAG: "retired", RANGE_END_TAG: "d"}, []),
        ({}, []),
    ],
)
def test_the_keys_of_a_run_are_read_from_its_tags(tags: dict[str, str], keys: list[str]) -> None:
    assert keys_of_run(tags, ["a", "b", "c", "d", "e"]) == keys


def test_the_reservations_of_a_range_that_never_began_are_freed(
    pipeline: Pipeline, instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> None:
    keys = [pipeline.a_job(f"s{i}", requirement=f"Effect of educ on wage, {i}") for i in range(3)]
    backend = pipeline.parts.jobs.backend
    backend.reserve([job_key(key) for key in keys], claim_id="claim_x", ttl=600)
    instance.add_dynamic_partitions("jobs", keys)
    for claim, freed in ((None, False), ("claim_x", True)):
        tags = {RANGE_START_TAG: keys[0], RANGE_END_TAG: keys[-1]} | ({CLAIM_TAG: claim} if claim else {})
        run = instance.create_run_for_job(repository.get_job("process_jobs"), tags=tags)
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_run_sensor",
            dagster_instance=instance,
            dagster_run=run,
            dagster_event=instance.report_run_failed(run),
            repository_def=repository,
            resources={"parts": pipeline.parts},
        )
        repository.get_sensor_def("failed_run_sensor")(context.for_run_failure())
        assert [backend.claim_of(job_key(key)) is None for key in keys] == [freed] * 3


class _NoNewDocuments(MemoryBackend):
    """A store on which the aliases of partitions cannot be recorded."""

    def create(self, key: DocumentKey, body: bytes, facets: Facets) -> None:
        if key.collection == "partition_aliases":
            raise StoreUnavailableError("no space left on device")
        super().create(key, body, facets)


def test_jobs_whose_partition_keys_cannot_be_recorded_do_not_stay_reserved(
    pipeline: Pipeline, instance: dg.DagsterInstance
) -> None:
    parts = replace(pipeline.parts, jobs=JobStore(_NoNewDocuments()))
    repository = build_definitions(parts.settings, overrides={"parts": parts}).get_repository_def()
    parts.jobs.create(a_job("job_theirs", tenant_id="acme"))
    with pytest.raises(StoreUnavailableError):
        _tick(repository, instance)
    assert parts.jobs.backend.claim_of(job_key("job_theirs", "acme")) is None


def test_an_alias_is_recorded_once_and_a_damaged_record_is_named(pipeline: Pipeline) -> None:
    jobs, key = pipeline.parts.jobs, job_key("a,b", "acme")
    alias = partition_key_of(key)
    assert job_of_partition(jobs, alias) == job_key(alias)
    assert recorded_partition_key(jobs, key) == recorded_partition_key(jobs, key) == alias
    assert job_of_partition(jobs, alias) == key
    record = DocumentKey("partition_aliases", "default", alias)
    stored = jobs.backend.read(record)
    (row,) = jobs.backend.page("partition_aliases")
    jobs.backend.replace(record, b"{", row.facets, expected=stored)
    with pytest.raises(JobDataCorruptedError):
        job_of_partition(jobs, alias)
