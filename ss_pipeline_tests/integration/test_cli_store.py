"""`ss-pipeline store …` as a person types it, and the op job `copy_store` as the launchpad runs it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ss_pipeline import cli_store, console
from ss_pipeline.definitions import build_definitions
from ss_pipeline.defs import store_ops
from ss_pipeline.defs.store_ops import lines_of_progress
from ss_pipeline.errors import StoreSealedError
from ss_pipeline.settings import load_settings
from ss_pipeline.store.comparing import Comparison
from ss_pipeline.store.copying import CopyResult, Pace, Phase, copy_documents
from ss_pipeline.store.jobs import JobStore, facets_of_body, job_key
from ss_pipeline.wiring import light_parts, moving_between, open_store
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.flaky_store import SleptClock
from ss_pipeline_tests.servers import shared_redis
from ss_pipeline_tests.typed import Run, typist

PASSWORD = "open-sesame-17"


@pytest.fixture(autouse=True)
def _a_wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of temporary folders are long, and longer with several workers: nothing is folded."""
    monkeypatch.setattr(console.OUT, "_width", 250)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Types a command after `ss-pipeline store`, in a store of twelve jobs in files."""
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path))
    for name in ("SS_REDIS_URL", "SS_JOB_STORE_REDIS_URL", "SS_JOB_STORE_POSTGRES_DSN", "SS_JOB_STORE_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    with_jobs()
    return typist(monkeypatch, capsys, "store")


def with_jobs() -> None:
    """Twelve jobs in the store of the settings."""
    parts = light_parts(load_settings())
    for number in range(12):
        parts.jobs.create(a_job(f"job_{number:016d}"))
    parts.close()


def change(name: str, job_id: str = "job_0000000000000003") -> None:
    """Saves a job in the store of this name."""
    store = open_store(load_settings(), name).backend
    JobStore(store).update(job_id, lambda job: job.changed(priority=job.priority + 1))
    store.close()


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
def test_a_copy_says_what_it_did_and_a_second_one_that_nothing_was_left_to_do(run: Run, tmp_path: Path) -> None:
    there = f"file:{tmp_path / 'there'}"
    first = run("copy", "--from", "file", "--to", there, "--verify", "--json")
    assert first.status == 0
    assert (first.document["copied"], first.document["differences"], first.document["documents"]) == (12, [], 12)
    assert first.document["source_digest"] == first.document["target_digest"]
    change("file")
    second = run("copy", "--from", "file", "--to", there, "--verify")
    assert second.status == 0
    for line in ("copied       1", "unchanged    11", "differences  0", f"to           {there}"):
        assert line in second.out
    assert "not compared" in run("copy", "--from", "file", "--to", there).out


def test_what_was_removed_is_listed(run: Run, tmp_path: Path) -> None:
    there = f"file:{tmp_path / 'there'}"
    run("copy", "--from", "file", "--to", there)
    store = open_store(load_settings(), "file").backend
    for number in range(12):
        key = job_key(f"job_{number:016d}")
        if number:
            store.delete(key, expected=store.read(key))
    store.close()
    copied = run("copy", "--from", "file", "--to", there, "--json")
    assert copied.document["removed"] == [f"jobs/default/job_{number:016d}" for number in range(1, 12)]
    JobStore(open_store(load_settings(), "file").backend).create(a_job("job_0000000000000001"))
    run("copy", "--from", "file", "--to", there)
    store = open_store(load_settings(), "file").backend
    store.delete(job_key("job_0000000000000001"), expected=store.read(job_key("job_0000000000000001")))
    assert "jobs/default/job_0000000000000001" in run("copy", "--from", "file", "--to", there).out


def test_a_copy_goes_on_with_resume(run: Run, tmp_path: Path) -> None:
    there = f"file:{tmp_path / 'there'}"

    def break_off(_phase: Phase, done: int, _total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with moving_between(load_settings(), "file", there) as stores, pytest.raises(KeyboardInterrupt):
        copy_documents(*stores, facets_of=facets_of_body, progress=break_off, pace=Pace(page_size=4))
    resumed = run("copy", "--from", "file", "--to", there, "--resume", "--json").document
    assert resumed["copied"] + resumed["unchanged"] <= 8
    again = run("copy", "--from", "file", "--to", there, "--json").document
    assert (again["copied"], again["unchanged"]) == (0, 12)


@pytest.mark.seed("S2.3.8", "S2.D5")
def test_a_switch_says_what_to_set_and_how_to_go_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_REDIS_URL", f"{shared_redis().url}?db=7")
    switched = run("switch", "--from", "file", "--to", "redis")
    assert switched.status == 0, switched.err
    for line in (
        "copied               12",
        "changes refused for",
        "  SS_JOB_STORE_BACKEND=redis\n  SS_JOB_STORE_MIRROR=file\n",
        "  ss-pipeline store switch --from redis --to file\n",
    ):
        assert line in switched.out
    with pytest.raises(StoreSealedError):
        change("file")

    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "redis")
    monkeypatch.setenv("SS_JOB_STORE_MIRROR", "file")
    parts = light_parts(load_settings())
    parts.jobs.create(a_job("job_new0000000000000"))
    parts.close()
    rows = run("status", "--json").document
    assert [(row["store"], row["role"], row["sealed_for"], row["documents"]) for row in rows] == [
        ("file", "mirror", "redis", {"jobs": 13}),
        ("redis", "in use", None, {"jobs": 13}),
    ]
    assert "sealed: documents are in redis" in run("status").out

    assert run("switch", "--from", "file", "--to", "redis", "--json").document["switched"] is False
    assert "switched before" in run("switch", "--from", "file", "--to", "redis").out
    back = run("switch", "--from", "redis", "--to", "file", "--json").document
    assert back["set"] == {"SS_JOB_STORE_BACKEND": "file", "SS_JOB_STORE_MIRROR": "redis"}
    assert (back["copied"], back["differences"], back["documents"]) == (0, [], 13)
    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "file")
    monkeypatch.setenv("SS_JOB_STORE_MIRROR", "redis")
    change("file")


def test_a_switch_to_a_folder_says_which(run: Run, tmp_path: Path) -> None:
    there = tmp_path / "there"
    found = run("switch", "--from", "file", "--to", f"file:{there}", "--json").document
    assert found["set"] == {"SS_JOB_STORE_BACKEND": "file", "SS_JOBS_DIR": str(there)}


def test_a_sealed_store_is_unsealed_by_name(run: Run, tmp_path: Path) -> None:
    there = f"file:{tmp_path / 'there'}"
    assert "was not sealed" in run("unseal", "file").out
    run("switch", "--from", "file", "--to", there)
    unsealed = run("unseal", "file")
    assert f"sealed for {there}" in unsealed.out
    assert "Two stores must not take changes" in unsealed.out
    change("file")
    assert run("unseal", there, "--json").document == {"store": there, "was_sealed_for": None}


@pytest.mark.parametrize(
    ("from_", "to", "code", "says"),
    [
        ("file", "file", "SETTINGS_INVALID", "the same store"),
        ("file", "file:{jobs}", "SETTINGS_INVALID", "the same store"),
        ("file:{jobs}", "file:{jobs}/../jobs", "SETTINGS_INVALID", "the same store"),
        ("memory", "file", "SETTINGS_INVALID", "Use file, redis, postgres or file:/folder"),
        ("file", "mongodb", "SETTINGS_INVALID", "Use file, redis, postgres or file:/folder"),
        ("file", "file:", "SETTINGS_INVALID", "Use file, redis, postgres or file:/folder"),
        ("file:/nowhere/at/all", "file", "SETTINGS_INVALID", "there is no folder"),
        ("file", "redis", "SETTINGS_INVALID", "SS_REDIS_URL is not set"),
        ("file", "postgres", "SETTINGS_INVALID", "SS_JOB_STORE_POSTGRES_DSN is not set"),
    ],
)
@pytest.mark.parametrize("verb", ["copy", "switch"])
def test_stores_that_cannot_be_moved_between_are_refused(
    run: Run, tmp_path: Path, verb: str, from_: str, to: str, code: str, says: str
) -> None:
    jobs = str(tmp_path / "jobs")
    outcome = run(verb, "--from", from_.format(jobs=jobs), "--to", to.format(jobs=jobs))
    assert outcome.status == 1
    assert code in outcome.err
    assert says in outcome.err


def test_a_store_that_is_in_use_is_not_copied_into(run: Run, tmp_path: Path) -> None:
    there = f"file:{tmp_path / 'there'}"
    JobStore(open_store(load_settings(), there).backend).create(a_job("job_other00000000000"))
    outcome = run("copy", "--from", "file", "--to", there, "--json")
    assert (outcome.status, outcome.document["error"]["code"]) == (1, "STORE_IN_USE")


@pytest.mark.parametrize("verb", [("status",), ("status", "--json"), ("copy", "--from", "file", "--to", "redis")])
def test_no_password_is_ever_printed(run: Run, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]) -> None:
    monkeypatch.setenv("SS_REDIS_URL", f"redis://:{PASSWORD}@127.0.0.1:1/0")
    monkeypatch.setenv("SS_JOB_STORE_POSTGRES_DSN", f"postgresql://me:{PASSWORD}@127.0.0.1:1/jobs")
    monkeypatch.setenv("SS_JOB_STORE_PATIENCE_SECONDS", "0")
    outcome = run(*verb)
    assert "STORE_UNAVAILABLE" in outcome.out + outcome.err
    assert PASSWORD not in outcome.out + outcome.err


def test_a_store_that_does_not_answer_hides_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("SS_JOB_STORE_PATIENCE_SECONDS", "0")
    rows = {row["store"]: row for row in run("status", "--json").document}
    assert rows["file"]["documents"] == {"jobs": 12}
    assert rows["redis"]["problem"].startswith("STORE_UNAVAILABLE")


def what_differs(*_stores: object, **_options: object) -> CopyResult:
    """Stands in for a copy after which a document differs for good."""
    compared = Comparison(12, (job_key("job_0000000000000003"),), "source", "target")
    return CopyResult(copied=1, unchanged=11, removed=(), held=(), compared=compared, seconds=1.0)


def test_documents_that_differ_are_named_and_the_exit_status_is_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli_store, "copy_documents", what_differs)
    arguments = ("copy", "--from", "file", "--to", f"file:{tmp_path / 'there'}", "--verify")
    outcome = run(*arguments)
    assert outcome.status == 1
    assert "jobs/default/job_0000000000000003" in outcome.out
    assert "STORE_COPY_INCOMPLETE" in outcome.err
    with_json = run(*arguments, "--json")
    assert (with_json.status, with_json.document["differences"]) == (1, ["jobs/default/job_0000000000000003"])


def test_the_program_itself_prints_one_document_and_nothing_else(run: Run, tmp_path: Path) -> None:
    del run
    command = [sys.executable, "-m", "ss_pipeline.cli", "store", "copy", "--from", "file", "--to"]
    done = subprocess.run([*command, f"file:{tmp_path / 'there'}", "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["copied"] == 12
    assert done.stderr == b""


@pytest.mark.parametrize("vendor", ["dagster", "pandas", "sqlalchemy", "redis"])
def test_the_verbs_start_without_heavy_vendors(vendor: str) -> None:
    probe = f"import ss_pipeline.cli_store, sys; sys.exit({vendor!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


# --- the op job ------------------------------------------------------------------------------------------------------


def execute(instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    """A run of the job with this config of its op."""
    job = build_definitions(load_settings()).get_repository_def().get_job("copy_store")
    run_config = {"ops": {"copy_documents": {"config": config}}}
    return job.execute_in_process(run_config=run_config, instance=instance, raise_on_error=False)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the op says of its output."""
    (output,) = [event for event in result.all_events if event.is_successful_output]
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


@pytest.mark.seed("S2.3.8")
def test_the_op_job_copies_and_shows_its_progress_and_figures(
    run: Run, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SS_REDIS_URL", f"{shared_redis().url}?db=8")
    result = execute(instance, source="file", target="redis")
    assert result.success
    found = metadata_of(result)
    assert (found["copied"], found["unchanged"], found["removed"], found["differences"]) == (12, 0, 0, 0)
    assert found["seconds"] >= 0
    assert (
        found["digest"]
        == run("copy", "--from", "file", "--to", "redis", "--verify", "--json").document["target_digest"]
    )
    lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert "copying: 12 of 12 documents" in lines
    assert "comparing: 12 of 12 documents" in lines


def test_the_op_job_fails_with_the_error_and_what_to_do(run: Run, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    for source, target in (("file", "file"), ("memory", "file"), (f"file:{tmp_path / 'none'}", "file")):
        result = execute(instance, source=source, target=target)
        assert not result.success
        (failed,) = result.get_step_failure_events()
        assert "SETTINGS_INVALID" in str(failed.step_failure_data.user_failure_data)
    del run


def test_the_op_job_fails_where_documents_still_differ(
    run: Run, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del run
    monkeypatch.setattr(store_ops, "copy_documents", what_differs)
    result = execute(instance, source="file", target=f"file:{tmp_path / 'there'}")
    assert not result.success
    (failed,) = result.get_step_failure_events()
    told = failed.step_failure_data.user_failure_data
    assert told is not None
    assert "1 documents differ" in str(told.description)
    assert told.metadata["differences"].value == 1


def test_progress_is_a_line_at_the_start_at_the_end_and_every_few_seconds() -> None:
    clock, lines = SleptClock(), list[str]()
    tell = lines_of_progress(lines.append, clock=clock)
    for done in range(0, 101, 10):
        tell("copying", done, 100)
        clock.sleep(1.0)
    assert lines == [f"copying: {done} of 100 documents" for done in (0, 50, 100)]
