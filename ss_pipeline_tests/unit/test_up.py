"""`ss-pipeline up`: which database it uses, what the processes are told, and that a database that died runs again."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import make_url

from ss_pipeline import local_stack, up, wiring
from ss_pipeline.errors import SettingsError, StackError, StoreSealedError, StoreUnavailableError
from ss_pipeline.local_stack import StackHome
from ss_pipeline.settings import Settings, load_settings
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.servers import new_database

ADDRESS = "postgresql://ann:secret@db.example/jobs"


class FakeServer:
    """Stands in for PostgreSQL: counts its starts and stops, and can be said to have died."""

    name = "PostgreSQL"
    url = "postgresql+psycopg2://postgres@/postgres?host=/run/db"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_file = folder / "server.log"
        self.is_running = False
        self.starts = 0

    def start(self) -> None:
        self.is_running = True
        self.starts += 1

    def __enter__(self) -> "FakeServer":
        self.start()
        return self

    def __exit__(self, *_raised: object) -> None:
        self.is_running = False


@pytest.fixture(autouse=True)
def _settings_of_this_test_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SS_{name.upper()}", raising=False)
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeServer:
    """The server that `up` would start."""
    made = FakeServer(tmp_path / "postgres")
    monkeypatch.setattr(up, "PostgresServer", lambda folder: made if folder == made.folder else None)
    return made


def _told(database: up.Database | None) -> dict[str, str]:
    return up._environment(up._settings(database), database)


def _instance(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / name).read_text(encoding="utf-8"))
    return found


def test_the_instance_on_postgresql_is_the_embedded_one_but_for_its_storage_and_its_slots() -> None:
    embedded, postgres = _instance("dagster.yaml"), _instance(up.POSTGRES_INSTANCE)
    assert postgres.pop("storage") == {"postgres": {"postgres_url": {"env": "SS_DAGSTER_POSTGRES_URL"}}}
    slots = [instance["concurrency"]["runs"].pop("max_concurrent_runs") for instance in (embedded, postgres)]
    assert slots == [load_settings().claim_slots, up.POSTGRES_SLOTS]
    assert postgres == embedded


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+psycopg"])
def test_dagster_gets_the_address_with_the_one_driver_it_can_use(scheme: str) -> None:
    rest = "://ann:p%40ss%2F@db.example:5433/jobs?sslmode=require"
    address = up.dagster_address(scheme + rest)
    assert address == f"postgresql+psycopg2{rest}"
    assert make_url(address).get_dialect().driver == "psycopg2"


def test_an_address_that_is_none_is_refused_without_showing_its_password() -> None:
    with pytest.raises(SettingsError, match="postgresql://") as caught:
        up.dagster_address("host=db.example password=secret")
    assert "secret" not in caught.value.message + caught.value.todo


def test_a_database_that_the_settings_name_is_used_and_none_is_started(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SS_JOB_STORE_POSTGRES_DSN", ADDRESS)
    with up._database() as database:
        assert database == up.Database(ADDRESS)
    assert server.starts == 0


@pytest.mark.parametrize("chosen", [None, "postgres"])
def test_otherwise_one_is_started_in_the_data_folder_for_as_long_as_the_stack(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    if chosen:  # asked for without an address: it is the one that is started
        monkeypatch.setenv("SS_JOB_STORE_BACKEND", chosen)
    with up._database() as database:
        assert server.is_running
        assert _told(database)["SS_JOB_STORE_BACKEND"] == "postgres"
        assert _told(database)["SS_JOB_STORE_POSTGRES_DSN"] == server.url
    assert (server.is_running, server.starts) == (False, 1)


def test_the_processes_are_told_the_database_the_back_end_and_as_many_slots_as_the_instance_has() -> None:
    assert _told(up.Database(ADDRESS)).items() >= {
        ("SS_JOB_STORE_BACKEND", "postgres"),
        ("SS_JOB_STORE_POSTGRES_DSN", ADDRESS),
        ("SS_DAGSTER_POSTGRES_URL", ADDRESS.replace("postgresql", "postgresql+psycopg2")),
        ("SS_CLAIM_SLOTS", "12"),
    }


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "SS_JOB_STORE_BACKEND": "file",
        "SS_CLAIM_SLOTS": "3",
        "SS_DAGSTER_POSTGRES_URL": "postgresql+psycopg2://ann@db.example/history",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert _told(up.Database(ADDRESS)).items() >= given.items()


def test_without_postgresql_the_processes_are_told_the_places_only(tmp_path: Path) -> None:
    assert _told(None) == {
        "SS_INBOX_DIR": str(tmp_path / "inbox"),
        "SS_JOBS_DIR": str(tmp_path / "jobs"),
        "SS_ARTIFACTS_URL": str(tmp_path / "artifacts"),
    }


def test_a_database_that_died_is_started_again_until_the_stack_itself_ends(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "WATCH_SECONDS", 0.05)
    home = StackHome(project=PROJECT_ROOT, dagster_home=tmp_path / "dagster", data=tmp_path)
    with local_stack.running(home, [sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        news = up._watch(process, home, up.Database(server.url, server))  # type: ignore[arg-type]
        assert next(news) == f"PostgreSQL had ended and runs again; its log is {server.log_file}"
        server.is_running = False
        next(news)
        assert server.starts == 2
        process.kill()
        with pytest.raises(StackError, match="status -9"):
            next(news)


def test_a_database_that_does_not_answer_is_said_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SS_JOB_STORE_POSTGRES_DSN", f"postgresql://ann:secret@/jobs?host={tmp_path}")
    monkeypatch.setenv("SS_JOB_STORE_PATIENCE_SECONDS", "0")
    with pytest.raises(StoreUnavailableError) as caught:
        up.run_up(port=0, postgres=True)
    assert "secret" not in caught.value.message
    assert not (tmp_path / "dagster").exists()


def test_a_store_whose_documents_have_moved_is_said_before_anything_is_started(tmp_path: Path) -> None:
    backend = wiring.open_backend(load_settings(), "file")
    backend.seal("postgres")
    backend.close()
    with pytest.raises(StoreSealedError, match="postgres"):
        up.run_up(port=0, postgres=False)
    assert not (tmp_path / "dagster").exists()


def test_jobs_that_are_still_in_files_are_spoken_of_while_the_database_is_empty() -> None:
    files = wiring.light_parts(load_settings())
    files.jobs.create(a_job("job_in_a_file"))
    files.close()
    settings = load_settings(job_store_backend="postgres", job_store_postgres_dsn=SecretStr(new_database()))
    (note,) = up._look_at_store(settings)
    assert note.startswith("jobs in files: 1, in PostgreSQL: 0.")
    database = wiring.light_parts(settings)
    database.jobs.create(a_job("job_in_the_database"))
    database.close()
    assert up._look_at_store(settings) == []


def test_the_terminal_says_how_other_commands_find_the_jobs_but_no_password(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    home = StackHome(project=PROJECT_ROOT, dagster_home=Path("dagster"), data=Path("data"))
    own, others = up.Database(server.url, server), up.Database(ADDRESS)  # type: ignore[arg-type]
    for database in (own, others):
        up._say_where("http://127.0.0.1:3000", up._settings(database), home, database)
    shown = capsys.readouterr().out
    assert f"export SS_JOB_STORE_BACKEND=postgres SS_JOB_STORE_POSTGRES_DSN='{server.url}'\n" in shown
    assert "export SS_JOB_STORE_BACKEND=postgres\n" in shown
    assert "secret" not in shown
