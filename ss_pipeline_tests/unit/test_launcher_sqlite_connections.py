"""Kept SQLite connections change what Dagster's storages cost and nothing of what they hold."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from ss_pipeline.launcher.sqlite_connections import SqliteConnections

NOTHING = dg.GraphDefinition(name="nothing").to_job()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The instance as Dagster opens it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The same instance, opened once more, with connections that are kept."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, closing(keep(instance)):
        yield instance


def keep(instance: dg.DagsterInstance) -> SqliteConnections:
    found = SqliteConnections.keep(instance)
    assert found is not None
    return found


def say(instance: dg.DagsterInstance, run: dg.DagsterRun, text: str) -> None:
    instance.report_engine_event(text, run)


def said(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    return [entry.message for entry in instance.all_logs(run.run_id)]


def database_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Path:
    return Path(instance.event_log_storage.path_for_shard(run.run_id))  # type: ignore[attr-defined]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers


def test_what_is_stored_with_kept_connections_is_read_without_and_the_other_way_round(
    plain: dg.DagsterInstance, kept: dg.DagsterInstance
) -> None:
    one, other = kept.create_run_for_job(NOTHING), plain.create_run_for_job(NOTHING)
    for run in (one, other):
        say(kept, run, "kept")
        say(plain, run, "plain")
    assert said(kept, one) == said(plain, one) == said(kept, other) == said(plain, other) == ["kept", "plain"]
    assert {run.run_id for run in plain.get_runs()} == {one.run_id, other.run_id}
    kept.add_dynamic_partitions("jobs", ["a"])
    assert plain.get_dynamic_partitions("jobs") == ["a"]


def test_a_step_s_events_reach_runs_assets_and_checks(kept: dg.DagsterInstance, plain: dg.DagsterInstance) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("fine", asset="thing")])
    def thing() -> Iterator[object]:
        yield dg.Output(None)
        yield dg.AssetCheckResult(passed=True)

    result = dg.materialize([thing], instance=kept)
    assert result.success
    assert plain.get_latest_materialization_event(dg.AssetKey("thing")) is not None
    check = plain.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("thing"), "fine"), limit=5
    )
    assert [record.run_id for record in check] == [result.run_id]
    found = plain.get_run_by_id(result.run_id)
    assert found is not None
    assert found.is_success


def test_the_database_of_a_new_run_is_the_one_that_dagster_makes(
    plain: dg.DagsterInstance, kept: dg.DagsterInstance
) -> None:
    def content(instance: dg.DagsterInstance) -> list[tuple[object, ...]]:
        run = instance.create_run_for_job(NOTHING)
        say(instance, run, "here")
        with closing(sqlite3.connect(database_of(instance, run))) as database:
            tables = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name")
            revision = database.execute("SELECT * FROM alembic_version")
            return [*tables, *revision, *database.execute("PRAGMA journal_mode")]

    assert content(kept) == content(plain)


def test_many_who_make_the_same_database_at_once_lose_nothing(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as first:
        run = first.create_run_for_job(NOTHING)
        start = threading.Barrier(6)

        def write(number: int) -> None:
            with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, closing(keep(instance)):
                start.wait()
                say(instance, run, str(number))

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(write, range(6)))
        assert sorted(said(first, run)) == list("012345")
        assert not list(database_of(first, run).parent.glob("*.new"))


def test_a_database_that_somebody_removed_is_made_anew(plain: dg.DagsterInstance, kept: dg.DagsterInstance) -> None:
    before = kept.create_run_for_job(NOTHING)
    say(kept, before, "before")
    plain.wipe()
    after = kept.create_run_for_job(NOTHING)
    say(kept, after, "after")
    assert said(plain, after) == ["after"]
    assert plain.get_run_by_id(before.run_id) is None


def test_few_files_stay_open_and_none_after_the_end(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)):
        pass  # what is made once
    before = open_files()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        connections = keep(instance)
        for _ in range(20):
            say(instance, instance.create_run_for_job(NOTHING), "here")
        assert open_files() - before <= 3 * (8 + 3)
        connections.close()
        assert open_files() == before
        assert len(instance.get_runs()) == 20
        connections.close()
    assert not list(tmp_path.rglob("*.db-wal"))


def test_who_follows_a_run_hears_of_its_events_while_it_goes_on(
    plain: dg.DagsterInstance, kept: dg.DagsterInstance
) -> None:
    run = kept.create_run_for_job(NOTHING)
    say(kept, run, "first")
    heard = threading.Event()
    plain.watch_event_logs(run.run_id, None, lambda entry, _: heard.set() if entry.message == "second" else None)
    say(kept, run, "second")
    assert heard.wait(10)


def test_storages_that_are_not_dagster_s_sqlite_are_left_alone() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert SqliteConnections.keep(instance) is None
