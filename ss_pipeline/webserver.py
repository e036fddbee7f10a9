"""Dagster's webserver, as this package asks it: where it listens, which runs are in flight, start this one now.

GraphQL over one HTTP connection with time-outs. No dagster: what is named here of its schema and of our definitions is
compared with both by a test. When something is asked, and what is done about a refusal, is immediate.py's business.
"""

import fcntl
import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from ss_pipeline.errors import WebserverRefusedError, WebserverUnreachableError

CONNECT_SECONDS: Final = 0.5
ALL_SECONDS: Final = 3.0
"""From the connection to the last answer; a person waits for it."""
_LEAST_SECONDS: Final = 0.01

JOB: Final = "process_jobs"
PARTITIONS: Final = "jobs"
CLAIM_SENSOR: Final = "claim_sensor"
REPOSITORY: Final = {"repositoryLocationName": "ss_pipeline", "repositoryName": "__repository__"}
IN_FLIGHT: Final = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")

_LOOK: Final = """
query Look($runs: RunsFilter!, $most: Int!, $sensor: SensorSelector!) {
  runs: runsOrError(filter: $runs, limit: $most) {
    kind: __typename
    ... on Runs { runs: results { tags { key value } } }
    ... on Error { message }
  }
  sensor: sensorOrError(sensorSelector: $sensor) {
    kind: __typename
    ... on Sensor { state: sensorState { status } }
    ... on Error { message }
  }
}
"""

_LAUNCH: Final = """
mutation Launch($repository: RepositorySelector!, $set: String!, $key: String!, $run: ExecutionParams!) {
  added: addDynamicPartition(repositorySelector: $repository, partitionsDefName: $set, partitionKey: $key) {
    kind: __typename
  }
  launched: launchRun(executionParams: $run) {
    kind: __typename
    ... on LaunchRunSuccess { run { id: runId } }
    ... on Error { message }
  }
}
"""


class Address(BaseModel):
    """Where a webserver listens, and of which pipeline it is (`Settings.pipeline_id`)."""

    url: str
    pipeline: str


def address_file(data_dir: Path) -> Path:
    """Where `ss-pipeline up` leaves the address of its webserver."""
    return data_dir.absolute() / "dagster" / "webserver.json"


@contextmanager
def announced(file: Path, address: Address) -> Iterator[None]:
    """Leaves an address in a file for the length of the block.

    The file is locked as long as this process lives, so that what a killed one left behind is not believed.
    """
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        kept.write(address.model_dump_json())
        kept.flush()
        staged.replace(file)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(file.stat(), os.fstat(kept.fileno())):  # else a later stack's
                    file.unlink()


def announced_in(file: Path) -> Address | None:
    """The address that a living process has left in this file, or None."""
    try:
        with file.open("rb") as kept:
            if not _is_locked(kept.fileno()):
                return None
            return Address.model_validate_json(kept.read())
    except (OSError, ValidationError):
        return None


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextmanager
def connected(url: str) -> Iterator["Webserver"]:
    """A webserver, connected to for the length of the block.

    Raises:
        WebserverUnreachableError: nothing listens at this address, or does not take the connection in time.
    """
    deadline = time.monotonic() + ALL_SECONDS
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    with closing(kind(address.hostname or "", address.port, timeout=CONNECT_SECONDS)) as connection:
        try:
            connection.connect()
        except OSError as error:
            raise WebserverUnreachableError(f"Dagster's webserver is not at {url}: {error}") from error
        yield Webserver(connection, path=f"{address.path.rstrip('/')}/graphql", deadline=deadline)


@dataclass(frozen=True)
class Look:
    """What Dagster does now: the tags of each run of the job that is queued or running, and whether it claims jobs."""

    in_flight: list[dict[str, str]]
    claims: bool


class _Tag(BaseModel):
    key: str
    value: str


class _Run(BaseModel):
    id: str = ""
    tags: list[_Tag] = []


class _State(BaseModel):
    status: str = ""


class _Result(BaseModel):
    """One field of an answer: what type of Dagster's schema it is, and what of that type was asked for."""

    kind: str
    message: str = ""
    runs: list[_Run] = []
    run: _Run = _Run()
    state: _State = _State()


class _Fault(BaseModel):
    message: str


class _Answer(BaseModel):
    data: dict[str, _Result] | None = None
    errors: list[_Fault] = []


class Webserver:
    """A connection to Dagster's webserver, good for a few questions until its deadline.

    Each method raises WebserverUnreachableError where no whole answer comes in time (what was asked for may be done all
    the same), and WebserverRefusedError where the answer is no.
    """

    def __init__(self, connection: http.client.HTTPConnection, *, path: str, deadline: float) -> None:
        self._connection = connection
        self._path = path
        self._deadline = deadline

    def look(self, *, most: int) -> Look:
        """What Dagster does now, with at most so many runs."""
        runs = {"pipelineName": JOB, "statuses": IN_FLIGHT}
        sensor = REPOSITORY | {"sensorName": CLAIM_SENSOR}
        answer = self._ask(_LOOK, {"runs": runs, "most": most, "sensor": sensor})
        in_flight = [{tag.key: tag.value for tag in run.tags} for run in _part(answer, "runs", kind="Runs").runs]
        return Look(in_flight, claims=_part(answer, "sensor", kind="Sensor").state.status == "RUNNING")

    def launch(self, partition_key: str, *, tags: Mapping[str, str]) -> str:
        """Adds the partition where it is not there yet and launches the job's run for it; returns the run's id.

        Args:
            tags: All of the run's, that of the partition included.
        """
        run = {
            "selector": REPOSITORY | {"pipelineName": JOB},
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        variables = {"repository": REPOSITORY, "set": PARTITIONS, "key": partition_key, "run": run}
        return _part(self._ask(_LAUNCH, variables), "launched", kind="LaunchRunSuccess").run.id

    def _ask(self, document: str, variables: Mapping[str, object]) -> dict[str, _Result]:
        status, raw = self._exchange(json.dumps({"query": document, "variables": variables}).encode())
        try:
            answer = _Answer.model_validate_json(raw)
        except ValidationError as error:
            raise WebserverRefusedError(f"what answers with status {status} is not Dagster's webserver") from error
        if answer.errors or answer.data is None:
            said = answer.errors[0].message if answer.errors else "nothing"
            raise WebserverRefusedError(f"Dagster's webserver answered with status {status}: {said}")
        return answer.data

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        try:
            if self._connection.sock is None:  # the last answer said that it was the last
                self._connection.connect()
            self._connection.sock.settimeout(max(_LEAST_SECONDS, self._deadline - time.monotonic()))
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise WebserverUnreachableError(f"Dagster's webserver gave no answer within {ALL_SECONDS:g} s") from error


def _part(answer: Mapping[str, _Result], name: str, *, kind: str) -> _Result:
    result = answer.get(name)
    if result is None or result.kind != kind:
        said = f"{result.kind}: {result.message}" if result else f"without {name}"
        raise WebserverRefusedError(f"Dagster's webserver answered {said}")
    return result
