"""Documents move between real back ends under live writers, are killed on the way, and come back byte for byte."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import pairwise, permutations
from pathlib import Path
from threading import Timer
from typing import Final

import pytest

from ss_pipeline.errors import StaleFenceError, StoreSealedError
from ss_pipeline.store.base import Backend, DocumentKey, Facets
from ss_pipeline.store.comparing import MOVES, compare_documents
from ss_pipeline.store.copying import Pace, Phase, copy_documents
from ss_pipeline.store.jobs import JOBS, ORIGINALS, JobStore, facets_of_body, job_key
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.retrying import RetryingBackend
from ss_pipeline.store.switching import switch
from ss_pipeline.store.syncing import NamedBackend
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.reliability import forking
from ss_pipeline_tests.reliability.store_addresses import SHARED, an_address, open_address
from ss_pipeline_tests.reliability.store_moves import files_digest
from ss_pipeline_tests.servers import own_postgres, own_redis

FIXTURES: Final = Path(__file__).parent.parent / "fixtures"
BROKEN: Final = b'{"job_id": "job_broken00000000", "status": \xff\xfe\x00'
RING: Final = ("file", "redis", "postgres", "file")
HOPS: Final = list(pairwise(RING))

run = partial(forking.run, "ss_pipeline_tests.reliability.store_moves")


@contextmanager
def a_store(name: str, folder: Path) -> Iterator[NamedBackend]:
    """A new, empty store on a back end."""
    if name == "memory":
        yield NamedBackend(name, MemoryBackend())
        return
    with an_address(name, folder) as address, closing(open_address(address)) as backend:
        yield NamedBackend(name, backend)


def odd_documents() -> dict[DocumentKey, bytes]:
    """Documents of old schemas, a broken one, and one of another collection and tenant."""
    old = [(FIXTURES / name).read_bytes() for name in ("job_v1.json", "job_v2.json")]
    return {
        **{job_key(json.loads(body)["job_id"]): body for body in old},
        job_key("job_broken00000000"): BROKEN,
        DocumentKey(ORIGINALS, "ann", "job_0000000000000001"): b"\x00\xffbefore",
        DocumentKey("ledger", "ann", "Call-1.2_3"): b"",
    }


def fill(backend: Backend, jobs: int = 40) -> None:
    """Jobs of two tenants, and the odd documents."""
    store = JobStore(backend)
    for number in range(jobs):
        store.create(a_job(f"job_{number:016d}", tenant_id="ann" if number % 2 else "default", priority=number))
    for key, body in odd_documents().items():
        backend.create(key, body, facets_of_body(key, body))


def documents_of(backend: Backend) -> dict[DocumentKey, tuple[bytes, Facets]]:
    """Every document with what it is listed by."""
    rows = [row for name in backend.collections() if name != MOVES for row in backend.page(name, limit=10_000)]
    return {row.key: (backend.read(row.key), row.facets) for row in rows}


# --- every pair ------------------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
@pytest.mark.guarantee("R7")
@pytest.mark.guarantee("R14")
@pytest.mark.guarantee("F24")
@pytest.mark.parametrize(("here", "there"), list(permutations(("memory", *SHARED), 2)))
def test_documents_move_from_any_back_end_to_any_other_and_back(tmp_path: Path, here: str, there: str) -> None:
    key = job_key("job_0000000000000000")
    with a_store(here, tmp_path / "a") as source, a_store(there, tmp_path / "b") as target:
        fill(source.backend)
        before = documents_of(source.backend)
        source.backend.release(key, source.backend.lease([key], claim_id="c", owner="r", ttl=60).fences[key])
        zombie = source.backend.lease([key], claim_id="zombie", owner="r", ttl=3_600).fences[key]

        result = copy_documents(source, target, facets_of=facets_of_body, verify=True)
        assert (result.copied, result.differences, result.removed) == (45, 0, ())
        assert switch(source, target, facets_of=facets_of_body)
        assert documents_of(target.backend) == before
        assert {row: target.backend.read(row) for row in odd_documents()} == odd_documents()
        waiting = [{head.key for head in store.backend.heads(JOBS, per_group=99)} for store in (source, target)]
        assert waiting[1] - waiting[0] == {key}, "only what a run held in the old store waits again"

        body = target.backend.read(key)
        with pytest.raises(StoreSealedError):
            source.backend.replace(key, body + b" ", Facets(), expected=body, fence=zombie)
        with pytest.raises(StaleFenceError):
            target.backend.replace(key, body + b" ", Facets(), expected=body, fence=zombie)
        lease = target.backend.lease([key], claim_id="next", owner="r", ttl=60)
        assert (lease.fences[key].number, lease.attempts[key]) == (zombie.number + 1, 2)
        target.backend.complete(key, lease.fences[key])
        source.backend.release(key, zombie)

        assert switch(target, source, facets_of=facets_of_body)
        assert documents_of(source.backend) == before
        again = source.backend.lease([key], claim_id="again", owner="r", ttl=60)
        assert (again.fences[key].number, again.attempts[key]) == (zombie.number + 2, 1)


@pytest.mark.seed("S2.3.8")
@pytest.mark.parametrize("there", [name for name in SHARED if name != "file"])
def test_the_files_of_a_store_that_was_left_and_gone_back_to_are_the_same_bytes(tmp_path: Path, there: str) -> None:
    with a_store("file", tmp_path) as source, a_store(there, tmp_path) as target:
        fill(source.backend, jobs=100)
        before = files_digest(tmp_path / "jobs")
        assert switch(source, target, facets_of=facets_of_body)
        assert files_digest(tmp_path / "jobs") == before
        assert switch(target, source, facets_of=facets_of_body)
        assert files_digest(tmp_path / "jobs") == before
        store = JobStore(source.backend)
        store.save(store.load("job_0000000000000000").changed(priority=1))
        assert files_digest(tmp_path / "jobs") != before


def test_files_move_to_another_folder(tmp_path: Path) -> None:
    with a_store("file", tmp_path / "a") as source, a_store("file", tmp_path / "b") as target:
        fill(source.backend)
        there = NamedBackend(f"file:{tmp_path / 'b'}", target.backend)
        assert switch(source, there, facets_of=facets_of_body)
        assert files_digest(tmp_path / "a" / "jobs") == files_digest(tmp_path / "b" / "jobs")


# --- killed on the way -----------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
@pytest.mark.guarantee("R1")
@pytest.mark.parametrize(("here", "there"), HOPS)
def test_a_copy_killed_at_random_pages_goes_on_and_ends_without_a_difference(
    tmp_path: Path, here: str, there: str
) -> None:
    with an_address(here, tmp_path / "a") as source, an_address(there, tmp_path / "b") as target:
        found = run("killed_copies", source=source, target=target, jobs=150, kills=3)
    assert (found["differences"], found["after"]) == (0, 0)
    assert found["done_by_the_last"] < 150


@pytest.mark.guarantee("R1")
@pytest.mark.parametrize(("here", "there"), HOPS)
def test_a_switch_killed_at_random_moments_never_leaves_two_stores_in_use(
    tmp_path: Path, here: str, there: str
) -> None:
    with an_address(here, tmp_path / "a") as source, an_address(there, tmp_path / "b") as target:
        found = run("killed_switch", source=source, target=target, jobs=100, kills=6)
    assert max(found["in_use"]) <= 1
    assert (found["differences"], found["lost"]) == (0, 0)
    assert found["sealed"] == [there, None]


@pytest.mark.guarantee("F6")
@pytest.mark.guarantee("F7")
@pytest.mark.parametrize("there", ["redis", "postgres"])
def test_a_server_that_crashes_during_a_copy_is_waited_for(tmp_path: Path, there: str) -> None:
    started = list[Timer]()

    def crash(_phase: Phase, done: int, _total: int) -> None:
        if done == 60:
            server.kill()
            started.append(Timer(0.5, server.start))
            started[-1].start()

    with ExitStack() as stack:
        server = stack.enter_context(own_redis() if there == "redis" else own_postgres())
        backend = open_address(f"{server.url}#t")
        source = stack.enter_context(a_store("file", tmp_path))
        fill(source.backend, jobs=100)
        target = NamedBackend(there, RetryingBackend(backend, patience=60.0))
        stack.enter_context(closing(backend))
        result = copy_documents(
            source, target, facets_of=facets_of_body, verify=True, progress=crash, pace=Pace(page_size=20)
        )
        for timer in started:
            timer.join()
        assert (result.copied, result.differences, len(started)) == (105, 0, 2)
        assert documents_of(backend) == documents_of(source.backend)


# --- under live writers ----------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.8")
@pytest.mark.guarantee("R3")
@pytest.mark.parametrize("mirrored", [True, False])
@pytest.mark.parametrize(("here", "there"), HOPS)
def test_under_live_writers_nothing_acknowledged_is_lost_in_a_move(
    tmp_path: Path, here: str, there: str, mirrored: bool
) -> None:
    with an_address(here, tmp_path / "a") as source, an_address(there, tmp_path / "b") as target:
        found = run(
            "moved",
            source=source,
            target=target,
            notes=str(tmp_path / "notes"),
            jobs=200,
            writers=3,
            mirrored=mirrored,
        )
    assert (found["differences"], found["lost"]) == (0, 0)
    assert found["operations"] > 30


def moved_without_a_mirror(folder: Path, *, kind: str) -> forking.Found:
    """A move from files to files under writers that bring nothing over themselves."""
    with an_address("file", folder / "a") as source, an_address("file", folder / "b") as target:
        return run(
            "moved",
            source=source,
            target=target,
            notes=str(folder / "notes"),
            jobs=100,
            writers=2,
            mirrored=False,
            kind=kind,
        )


def test_a_copy_alone_under_writers_without_a_mirror_is_seen_to_be_behind(tmp_path: Path) -> None:
    assert moved_without_a_mirror(tmp_path, kind="real")["behind_after_copy"] > 0


def test_a_switch_without_a_seal_is_caught_losing_what_was_acknowledged(tmp_path: Path) -> None:
    assert moved_without_a_mirror(tmp_path, kind="unsealed")["lost"] > 0


@pytest.mark.seed("S2.3.8")
@pytest.mark.guarantee("R3")
@pytest.mark.guarantee("R7")
def test_from_files_to_redis_to_postgresql_and_back_under_writers_nothing_is_lost(tmp_path: Path) -> None:
    with ExitStack() as stack:
        addresses = [stack.enter_context(an_address(name, tmp_path)) for name in RING[:-1]]
        found = run("chain", addresses=[*addresses, addresses[0]], notes=str(tmp_path / "notes"), jobs=150, writers=2)
        with closing(open_address(addresses[0])) as files, closing(open_address(addresses[2])) as postgres:
            compared = compare_documents(NamedBackend("postgres", postgres), NamedBackend("file", files))
    assert [(hop["from"], hop["to"]) for hop in found["hops"]] == HOPS
    assert [(hop["differences"], hop["lost"]) for hop in found["hops"]] == [(0, 0)] * 3
    assert compared.differences == ()
