"""Dagster's webserver as it is asked: what fits its schema, what is no answer, and which address is believed."""

import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from dagster_graphql.schema import create_schema
from graphql import parse, validate

from ss_pipeline import webserver
from ss_pipeline.definitions import build_definitions
from ss_pipeline.defs.partitions import IN_FLIGHT, JOB_PARTITIONS
from ss_pipeline.errors import WebserverRefusedError, WebserverUnreachableError
from ss_pipeline.settings import Settings
from ss_pipeline.webserver import Address, address_file, announced, announced_in, connected
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.stacks import free_port
from ss_pipeline_tests.webservers import LOOK, READ_ONLY, FakeWebserver, a_webserver

ADDRESS = Address(url="http://127.0.0.1:3000", pipeline="digest")


@pytest.mark.parametrize("document", [webserver._LOOK, webserver._LAUNCH])
def test_what_is_asked_fits_the_schema_of_the_installed_dagster(document: str) -> None:
    assert validate(create_schema().graphql_schema, parse(document)) == []


def test_the_names_are_those_of_our_definitions_and_of_the_workspace(tmp_path: Path) -> None:
    repository = build_definitions(Settings(data_dir=tmp_path)).get_repository_def()
    assert repository.name == webserver.REPOSITORY["repositoryName"]
    assert repository.get_job(webserver.JOB).partitions_def == JOB_PARTITIONS
    assert repository.has_sensor_def(webserver.CLAIM_SENSOR)
    assert JOB_PARTITIONS.name == webserver.PARTITIONS
    assert list(webserver.IN_FLIGHT) == [status.value for status in IN_FLIGHT]
    (location,) = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert location["python_module"]["location_name"] == webserver.REPOSITORY["repositoryLocationName"]


def test_runs_in_flight_are_known_by_their_tags_and_a_launched_one_by_its_id() -> None:
    runs = {"kind": "Runs", "runs": [{"tags": [{"key": "ss/tenant", "value": "acme"}]}, {"tags": []}]}
    with a_webserver(FakeWebserver(look=LOOK | {"runs": runs})) as fake, connected(f"{fake.url}/prefix/") as found:
        look = found.look(most=4)
        run_id = found.launch("job_1", tags={"dagster/partition": "job_1"})
    assert (look.in_flight, look.claims) == ([{"ss/tenant": "acme"}, {}], True)
    assert (run_id, fake.launched_tags()) == ("run-1", [{"dagster/partition": "job_1"}])
    assert {question["path"] for question in fake.asked} == {"/prefix/graphql"}
    assert fake.asked[0]["variables"]["most"] == 4


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        (FakeWebserver(launch=READ_ONLY), "UnauthorizedError: Authorization failed"),
        (FakeWebserver(launch={}), "without launched"),
        (FakeWebserver(raw=(400, b'{"errors": [{"message": "Unknown type"}]}')), "status 400: Unknown type"),
        (FakeWebserver(raw=(200, b'{"data": null}')), "nothing"),
        (FakeWebserver(raw=(200, b"<html>hello</html>")), "is not Dagster's webserver"),
        (FakeWebserver(raw=(502, b"")), "status 502 is not"),
    ],
)
def test_an_answer_that_is_no_is_an_error_that_says_what_was_answered(fake: FakeWebserver, said: str) -> None:
    with a_webserver(fake), connected(fake.url) as found, pytest.raises(WebserverRefusedError, match=said):
        found.launch("job_1", tags={})


def test_nobody_at_the_address_is_known_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(WebserverUnreachableError), connected(f"http://127.0.0.1:{free_port()}"):
        pass
    assert time.monotonic() - began < webserver.ALL_SECONDS


def test_one_that_takes_no_more_connections_is_given_up_sooner_than_one_that_thinks() -> None:
    with ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = opened.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        began = time.monotonic()
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(WebserverUnreachableError, match="is not at"), connected(url):
            pass
        assert time.monotonic() - began < webserver.ALL_SECONDS


def test_one_that_hangs_is_given_up_when_the_time_for_all_questions_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webserver, "ALL_SECONDS", 0.4)
    fake = FakeWebserver(before=lambda kind: time.sleep(0.25 if kind == "query" else 5))
    with a_webserver(fake), connected(fake.url) as found:
        found.look(most=1)
        began = time.monotonic()
        with pytest.raises(WebserverUnreachableError):
            found.launch("job_1", tags={})
        assert time.monotonic() - began < 1


def test_one_that_dies_before_its_answer_leaves_unknown_what_it_did() -> None:
    def dies(_: str) -> None:
        raise ConnectionError

    fake = FakeWebserver(before=dies)
    with a_webserver(fake), connected(fake.url) as found, pytest.raises(WebserverUnreachableError):
        found.look(most=1)


def test_an_address_is_there_for_as_long_as_its_stack_and_for_its_user_only(tmp_path: Path) -> None:
    file = address_file(tmp_path)
    file.parent.mkdir()
    assert announced_in(file) is None
    with announced(file, ADDRESS):
        assert announced_in(file) == ADDRESS
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == []


def test_what_a_killed_stack_left_behind_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "webserver.json"
    code = f"""
import pathlib, time
from ss_pipeline.webserver import Address, announced
with announced(pathlib.Path({str(file)!r}), Address(url="http://127.0.0.1:1", pipeline="digest")):
    print("up", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert announced_in(file) is not None
        process.kill()
    assert file.exists()
    assert announced_in(file) is None


def test_the_end_of_an_earlier_stack_takes_no_later_ones_address_away(tmp_path: Path) -> None:
    file, later = tmp_path / "webserver.json", ADDRESS.model_copy(update={"url": "http://127.0.0.1:3001"})
    earlier = announced(file, ADDRESS)
    earlier.__enter__()
    with announced(file, later):
        earlier.__exit__(None, None, None)
        assert announced_in(file) == later


@pytest.mark.parametrize("content", [b"", b"[]", b'{"url": 1}', b"\xff"])
def test_a_file_that_holds_no_address_counts_as_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "webserver.json"
    with announced(file, ADDRESS):
        os.truncate(file, 0)
        file.write_bytes(content)
        assert announced_in(file) is None
