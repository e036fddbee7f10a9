"""What tests do to a server of the store and find afterwards: killed under writers, or with a disk that fills up."""

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from ss_pipeline.errors import DocumentNotFoundError, StoreUnavailableError
from ss_pipeline.store.base import Backend, DocumentKey
from ss_pipeline_tests.reliability.forking import Found
from ss_pipeline_tests.reliability.server_writers import FACETS, body, kept, made
from ss_pipeline_tests.store_contract import a_key

WRITERS: Final = 4


def wait_for_documents(backend: Backend, number: int) -> None:
    """Returns once a store has so many documents."""
    deadline = time.monotonic() + 60
    while sum(backend.counts("jobs").values()) < number:
        assert time.monotonic() < deadline, "the writers do not write"
        time.sleep(0.02)


def killed_under_writers(write: Callable[[], Found], kill: Callable[[], None], looker: Backend) -> list[int]:
    """Kills a server after two seconds of writing; how far each writer was acknowledged.

    Args:
        write: Runs the writers until the server is gone.
        looker: The store, to see that they have begun; closed before the kill.
    """
    with ThreadPoolExecutor(1) as thread:
        writing: Future[Found] = thread.submit(write)
        with closing(looker):
            wait_for_documents(looker, WRITERS + 1)
        time.sleep(2)
        kill()
        acked: list[int] = writing.result()["acked"]
    return acked


def lost(backend: Backend, acked: list[int]) -> int:
    """How many acknowledged documents and replacements are not there."""
    result = 0
    for writer, reached in enumerate(acked):
        result += sum(_read(backend, made(writer, number)) != body(number) for number in range(reached))
        result += _read(backend, kept(writer)) not in {body(reached), body(reached + 1)}
    return result


def _read(backend: Backend, key: DocumentKey) -> bytes | None:
    try:
        return backend.read(key)
    except DocumentNotFoundError:
        return None


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 8 MB; the test is skipped where none may be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def filled(backend: Backend, ballast: bytes) -> tuple[int, StoreUnavailableError]:
    """Creates documents until the server can keep no more; how many it acknowledged, and what it said then."""
    for number in range(100):
        try:
            backend.create(a_key(number), ballast, FACETS)
        except StoreUnavailableError as error:
            return number, error
    raise AssertionError("the disk does not fill up")
