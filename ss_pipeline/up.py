"""`ss-pipeline up`: the Dagster UI and daemon on this machine until Ctrl-C, with PostgreSQL under them if wanted.

What lives here: which database it is, what the processes are told about it, that it is kept up, and that other commands
find the UI's address. How processes are started and stopped is the business of local_stack and local_servers.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from ss_pipeline import local_stack, wiring
from ss_pipeline.console import OUT, print_fields, print_list
from ss_pipeline.errors import SettingsError, StoreSealedError
from ss_pipeline.local_servers import PostgresServer
from ss_pipeline.local_stack import StackHome, check_alive
from ss_pipeline.settings import Settings, load_settings
from ss_pipeline.store.jobs import JOBS
from ss_pipeline.webserver import Address, address_file, announced

POSTGRES_INSTANCE: Final = "deploy/dagster.postgres.yaml"
POSTGRES_SLOTS: Final = 12
"""Runs at once, as POSTGRES_INSTANCE says."""
WATCH_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Database:
    """PostgreSQL for a stack: its address, and its server if that was started here."""

    address: str
    server: PostgresServer | None = None


def run_up(*, port: int, postgres: bool) -> None:
    """Runs the stack until it is interrupted, which it takes for its end.

    Raises:
        StackError: the port is taken, the database or a process did not come up, or a process died.
        SettingsError: a setting cannot be used.
        StoreError: the store of the jobs cannot be used: it does not answer, or is sealed.
    """
    local_stack.check_port_free(port)
    project = local_stack.find_project()
    with ExitStack() as started:  # what was started last is stopped first: Dagster before its database
        database = started.enter_context(_database()) if postgres else None
        settings = _settings(database)
        left_behind = _look_at_store(settings)
        data = settings.data_dir.absolute()
        instance = POSTGRES_INSTANCE if postgres else "dagster.yaml"
        home = StackHome(project=project, dagster_home=data / "dagster", data=data, instance=instance)
        command = local_stack.development_command(home, port=port)
        process = started.enter_context(
            local_stack.running(home, command, environment=_environment(settings, database))
        )
        url = f"http://{local_stack.LOOPBACK}:{port}"
        local_stack.wait_for_page(f"{url}/server_info", process=process, home=home, seconds=90)
        started.enter_context(announced(address_file(data), Address(url=url, pipeline=settings.pipeline_id())))
        _say_where(url, settings, home, database)
        print_list("Note", left_behind)
        try:
            for news in _watch(process, home, database):
                OUT.print(news)
        except KeyboardInterrupt:
            OUT.print("stopping …")


def dagster_address(address: str) -> str:
    """The address of a PostgreSQL as Dagster's storage takes it: with the one driver it can use.

    Raises:
        SettingsError: it is no address of a PostgreSQL. The address itself is not shown: it may hold a password.
    """
    changed, found = re.subn(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg2://", address)
    if not found:
        raise SettingsError(
            "the address of PostgreSQL for Dagster does not begin with postgresql://",
            todo="Write SS_JOB_STORE_POSTGRES_DSN (and SS_DAGSTER_POSTGRES_URL) as a URL; see docs/configuration.md.",
        )
    return changed


@contextmanager
def _database() -> Iterator[Database]:
    """The database that the settings name; else one in `<data_dir>/postgres`, up for the length of the block."""
    asked = load_settings(job_store_backend="file", job_store_mirror=None)  # one that is still to start has no address
    if asked.job_store_postgres_dsn is not None:
        yield Database(asked.job_store_postgres_dsn.get_secret_value())
        return
    with PostgresServer(asked.data_dir / "postgres") as server:
        yield Database(server.url, server)


def _settings(database: Database | None) -> Settings:
    """The settings, in which the database decides what the user left open."""
    if database is None:
        return load_settings()
    address = {"job_store_postgres_dsn": database.address}
    given = load_settings(**address)
    fitting = {"job_store_backend": "postgres", "claim_slots": POSTGRES_SLOTS}
    left_open = {name: value for name, value in fitting.items() if name not in given.model_fields_set}
    return load_settings(**address, **left_open)


def _environment(settings: Settings, database: Database | None) -> dict[str, str]:
    """What the processes are told besides the environment of this one."""
    places = {  # relative ones are relative to here, not to the project, where the stack runs
        "SS_INBOX_DIR": str(settings.inbox_path()),
        "SS_JOBS_DIR": str(settings.jobs_path()),
        "SS_ARTIFACTS_URL": settings.artifacts_location(),
    }
    if database is None:
        return places
    own = settings.dagster_postgres_url
    return places | {
        "SS_JOB_STORE_BACKEND": settings.job_store_backend,
        "SS_JOB_STORE_POSTGRES_DSN": database.address,
        "SS_DAGSTER_POSTGRES_URL": dagster_address(own.get_secret_value() if own else database.address),
        "SS_CLAIM_SLOTS": str(settings.claim_slots),
    }


def _look_at_store(settings: Settings) -> list[str]:
    """Raises what is wrong with the store here and not in a log file; returns what its user may not expect."""
    with closing(wiring.open_backend(settings, settings.job_store_backend)) as backend:
        successor = backend.sealed_for()
        if successor is not None:
            raise StoreSealedError(successor)
        is_new = settings.job_store_backend == "postgres" and not backend.counts(JOBS)
    left = _jobs_in_files(settings) if is_new else 0
    if not left:
        return []
    return [f"jobs in files: {left}, in PostgreSQL: 0. Bring them over before you hand in others: docs/storage.md"]


def _jobs_in_files(settings: Settings) -> int:
    if not settings.jobs_path().is_dir():
        return 0
    with closing(wiring.open_backend(settings, "file")) as backend:
        return 0 if backend.sealed_for() else sum(backend.counts(JOBS).values())


def _say_where(url: str, settings: Settings, home: StackHome, database: Database | None) -> None:
    server = database and database.server
    fields = {
        "UI": url,
        "inbox": settings.inbox_path(),
        "jobs": f"in the {settings.job_store_backend} back end",
        "database": server and server.folder,
        "log": home.log_file,
        "stop": "press Ctrl-C",
    }
    print_fields("up", fields)
    if database:
        variables: dict[str, str] = {"SS_JOB_STORE_BACKEND": settings.job_store_backend}
        if server:  # another one's address may hold a password, and is set there already
            variables["SS_JOB_STORE_POSTGRES_DSN"] = server.url
        assigned = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        print_list("For ss-pipeline in another terminal", [f"export {assigned}"])


def _watch(process: subprocess.Popen[bytes], home: StackHome, database: Database | None) -> Iterator[str]:
    """Waits until the process ends, which is an error; a database that died is started again, and that is yielded."""
    server = database and database.server
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(WATCH_SECONDS if server else None)
        check_alive(process, home)
        if server and not server.is_running:
            server.start()
            yield f"{server.name} had ended and runs again; its log is {server.log_file}"
