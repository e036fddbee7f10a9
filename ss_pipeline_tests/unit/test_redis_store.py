"""The Redis store beyond the contract: its keys, the servers it refuses, its faults, and what others do to its keys."""

import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import pytest
import redis

from ss_pipeline.errors import (
    DocumentExistsError,
    DocumentNotFoundError,
    SettingsError,
    SSError,
    StoreFormatError,
    StorePathUnsafeError,
    StoreUnavailableError,
    StoreUnsafeError,
)
from ss_pipeline.jobs.fairness import due_at
from ss_pipeline.local_servers import RedisServer
from ss_pipeline.store import redis_server, redis_upgrade
from ss_pipeline.store.base import DocumentKey, Facets, Listed
from ss_pipeline.store.redis import RedisBackend
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.event_tape import recorded_events
from ss_pipeline_tests.redis_namespaces import RedisNamespace, redis_namespace
from ss_pipeline_tests.reliability.redis_writers import UncheckedBackend
from ss_pipeline_tests.servers import own_redis, shared_redis
from ss_pipeline_tests.store_contract import (
    TTL,
    WAITING,
    ServerClock,
    Stand,
    a_body,
    a_key,
    keys_of,
    leased,
    stored,
)

SECRET: Final = "s3cret-w0rd"
SCRIPTS: Final = Path(redis_server.__file__).parent / "redis_lua"


@pytest.fixture
def space() -> Iterator[RedisNamespace]:
    with redis_namespace() as space:
        yield space


@pytest.fixture
def stand(space: RedisNamespace) -> Iterator[Stand]:
    with closing(RedisBackend(space.url, namespace=space.name)) as backend:
        yield Stand(backend, ServerClock(space.age))


@pytest.fixture(scope="module")
def changeable() -> Iterator[RedisServer]:
    """A server whose settings tests change and put back."""
    with own_redis() as server:
        yield server


def client_of(server: RedisServer) -> closing[redis.Redis]:
    """Administers a server."""
    return closing(redis.Redis.from_url(server.url))


def append_only(client: redis.Redis) -> None:
    """Has a server keep an append-only file; returns once its first one is written, before which it does not stop."""
    client.config_set("appendonly", "yes")
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.01)


def said_by(error: SSError) -> str:
    """All that a person may see of an error: itself, its advice, its traceback with everything it came from."""
    return "".join([str(error.as_document()), repr(error), *traceback.format_exception(error)])


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.seed("S2.3.4")
@pytest.mark.parametrize(
    ("key", "name"),
    [
        (DocumentKey("jobs", "default", "job_abcd"), "job:job_abcd"),
        (DocumentKey("jobs", "acme", "job_abcd"), "job:acme:job_abcd"),
        (DocumentKey("jobs", "default", "a:b%c"), "job:a%3Ab%25c"),
        (DocumentKey("jobs", "某公司", "职位 一"), "job:某公司:职位 一"),
        (DocumentKey("ledger", "acme", "x"), "doc:ledger:acme:x"),
    ],
)
def test_a_body_is_where_the_seed_says_byte_for_byte(
    stand: Stand, space: RedisNamespace, key: DocumentKey, name: str
) -> None:
    stored(stand, key)
    assert space.client.get(f"{space.name}/{name}") == a_body(WAITING)


def test_without_a_namespace_a_job_has_the_key_of_the_seed() -> None:
    key = DocumentKey("jobs", "default", "job_abcd")
    with own_redis() as server, closing(RedisBackend(server.url)) as backend, client_of(server) as client:
        backend.create(key, a_body(WAITING), WAITING)
        assert client.get("job:job_abcd") == a_body(WAITING)


def test_no_two_documents_share_a_key(stand: Stand) -> None:
    names = ["default", "jobs", "a", "a:b", "a%3Ab", "b:c", "%", "a b", "職", "\U0001f600", "\uffff"]
    keys = [DocumentKey(*parts) for parts in product(["jobs", "a", "a:b", "default:a"], names, names)]
    for key in keys:
        stand.backend.create(key, repr(key).encode(), WAITING)
    assert [stand.backend.read(key) for key in keys] == [repr(key).encode() for key in keys]
    for collection in ("jobs", "a", "a:b", "default:a"):
        of_it = sorted(key for key in keys if key.collection == collection)
        assert keys_of(stand.backend.page(collection, limit=1_000)) == of_it
        of_a = [key for key in of_it if key.tenant_id == "a"]
        assert keys_of(stand.backend.page(collection, tenant_id="a", status="created")) == of_a
        assert sorted(keys_of(stand.backend.heads(collection, per_group=1_000))) == of_it
    lease = stand.backend.lease(keys[::7], claim_id="c", owner="run", ttl=TTL)
    assert list(lease.fences) == keys[::7]
    assert set(keys_of(stand.backend.heads("a:b", per_group=1_000))).isdisjoint(lease.fences)


@pytest.mark.parametrize("part", ["..", "a/b", "", "~", "a\x00", "a\tb", "\ud83d"])
def test_an_unsafe_name_is_refused_everywhere(stand: Stand, part: str) -> None:
    for key in (DocumentKey("jobs", "t", part), DocumentKey("jobs", part, "x"), DocumentKey(part, "t", "x")):
        with pytest.raises(StorePathUnsafeError):
            stand.backend.create(key, b"{}", WAITING)
        with pytest.raises(StorePathUnsafeError):
            stand.backend.read(key)


@pytest.mark.parametrize("body", [b"", bytes(range(256)), bytes(range(256)) * 20_000], ids=["none", "all", "5 MB"])
def test_bytes_come_back_as_they_were_given(stand: Stand, body: bytes) -> None:
    key = a_key()
    stand.backend.create(key, body, WAITING)
    assert stand.backend.read(key) == body
    stand.backend.replace(key, body + b"\n", WAITING, expected=body)
    assert stand.backend.read(key) == body + b"\n"
    stand.backend.delete(key, expected=body + b"\n")


@pytest.mark.parametrize(
    "facets",
    [
        Facets(),
        Facets(status="a:b %\t", priority=-100, created_at="any\ttext", waiting=True, not_before=1_770_000_000.123456),
        Facets(status="职", priority=100, waiting=True, not_before=float("inf"), due_at=-1_770_000_000.123456),
    ],
)
def test_facets_come_back_as_they_were_given(stand: Stand, facets: Facets) -> None:
    key = a_key()
    stand.backend.create(key, b"{}", facets)
    assert stand.backend.page("jobs", status=facets.status) == [Listed(key, facets)]
    assert stand.backend.counts("jobs") == {("default", facets.status): 1}


def test_a_deleted_document_leaves_its_claim_history_and_nothing_else(stand: Stand, space: RedisNamespace) -> None:
    first, second = stored(stand), stored(stand, a_key(2), not_before=stand.clock.wall + 100, priority=50)
    lease = leased(stand, first, claim_id="c")
    stand.backend.release(first, lease.fences[first], refund=False)
    for key, priority, not_before in ((first, 0, 0.0), (second, 50, stand.clock.wall + 100)):
        facets = Facets("created", priority, WAITING.created_at, waiting=True, not_before=not_before)
        stand.backend.delete(key, expected=a_body(facets))
    assert space.names() == {"ss:format", f"ss:claim:jobs:default:{first.document_id}"}
    assert stand.backend.history_of(first).attempts == 1
    assert leased(stand, stored(stand), claim_id="d").fences[first].number == 2


def test_a_queue_that_is_empty_is_no_group_any_more(stand: Stand, space: RedisNamespace) -> None:
    keys = [stored(stand, a_key(number, tenant=f"t{number}"), priority=10 * number) for number in range(3)]
    assert space.client.zcard(f"{space.name}/ss:groups:jobs") == 3
    stand.backend.reserve(keys, claim_id="c", ttl=TTL)
    assert not {name for name in space.names() if name.startswith(("ss:groups", "ss:ready"))}
    stand.backend.cancel_reservation(keys, claim_id="c")
    assert sorted(keys_of(stand.backend.heads("jobs", per_group=1))) == keys


# --- who is next, and what that costs --------------------------------------------------------------------------------


def commands_of(client: redis.Redis, act: Callable[[], object]) -> tuple[int, float]:
    """How many commands the server ran for an act, those of scripts included, and how long it was busy, in µs."""
    client.config_resetstat()
    act()
    stats = client.info("commandstats")
    calls = sum(row["calls"] for name, row in stats.items() if name not in {"cmdstat_config|resetstat", "cmdstat_info"})
    return calls, stats["cmdstat_evalsha"]["usec"]


@pytest.mark.guarantee("R9")
def test_who_is_next_and_a_claim_cost_the_same_however_much_waits_or_is_held() -> None:
    def worked(backend: RedisBackend) -> None:
        for _ in range(20):
            heads = keys_of(backend.heads("jobs", per_group=4))
            backend.reserve(heads, claim_id="c", ttl=TTL)
            lease = backend.lease(heads, claim_id="c", owner="run", ttl=TTL)
            assert backend.heartbeat(lease, ttl=TTL) == heads
            for key, fence in lease.fences.items():
                backend.release(key, fence)
            assert keys_of(backend.page("jobs", status="created", limit=4)) != []

    with own_redis(appendfsync="no") as server, closing(UncheckedBackend(server.url)) as backend:
        fill(backend, range(200))
        with client_of(server) as client:
            worked(backend)
            few, few_usec = commands_of(client, lambda: worked(backend))
            fill(backend, range(200, 20_000))
            many, many_usec = commands_of(client, lambda: worked(backend))
    assert many == few
    assert many_usec < 5 * few_usec


def fill(backend: RedisBackend, numbers: range) -> None:
    """Documents of two tenants: of four one waits, one is held, one is parked, one is done."""
    for number in numbers:
        key = a_key(number, tenant=f"t{number % 2}")
        kind = number // 2 % 4
        not_before = time.time() + 10_000 if kind == 2 else 0.0
        facets = Facets("failed" if kind == 3 else "created", 0, "2026", kind != 3, not_before, due_at=float(number))
        backend.create(key, b"{}", facets)
        if kind == 1:
            backend.reserve([key], claim_id="other", ttl=10_000)


def test_what_comes_due_together_is_opened_in_portions(stand: Stand, space: RedisNamespace) -> None:
    keys = [stored(stand, a_key(number)) for number in range(1_200)]
    assert stand.backend.reserve(keys, claim_id="c", ttl=TTL) == keys
    assert stand.backend.heads("jobs", per_group=9) == []
    stand.clock.advance(TTL + 1)
    space.client.config_resetstat()
    assert keys_of(stand.backend.heads("jobs", per_group=2_000)) == keys
    assert space.client.info("commandstats")["cmdstat_evalsha"]["calls"] == 3


# --- what others do to its keys --------------------------------------------------------------------------------------


@pytest.mark.guarantee("R8")
def test_a_document_that_was_removed_by_hand_leaves_the_queue_when_it_is_asked_for(
    stand: Stand, space: RedisNamespace
) -> None:
    gone, there = stored(stand, a_key(1)), stored(stand, a_key(2))
    space.client.delete(f"{space.name}/job:{gone.document_id}")
    assert stand.backend.reserve([gone, there], claim_id="c", ttl=TTL) == [there]
    assert keys_of(stand.backend.page("jobs")) == [there]
    assert stand.backend.heads("jobs", per_group=9) == []
    assert stand.backend.counts("jobs") == {("default", "created"): 1}


def test_a_document_that_was_removed_by_hand_is_counted_once_when_it_is_created_again(
    stand: Stand, space: RedisNamespace
) -> None:
    key = stored(stand)
    space.client.delete(f"{space.name}/job:{key.document_id}")
    stored(stand, key, status="queued", created_at="2027")
    assert stand.backend.counts("jobs") == {("default", "queued"): 1}
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [key]


def test_a_job_that_another_program_put_there_is_read_and_is_listed_once_it_is_written(
    stand: Stand, space: RedisNamespace
) -> None:
    key = a_key()
    space.client.set(f"{space.name}/job:{key.document_id}", a_body(WAITING))
    with pytest.raises(DocumentExistsError):
        stored(stand, key)
    assert stand.backend.read(key) == a_body(WAITING)
    assert stand.backend.page("jobs") == []
    stand.backend.replace(key, a_body(WAITING), WAITING, expected=a_body(WAITING))
    assert keys_of(stand.backend.page("jobs")) == [key]


def test_listed_documents_whose_facets_were_removed_by_hand_stop_nobody(stand: Stand, space: RedisNamespace) -> None:
    lost, there = stored(stand, a_key(1)), stored(stand, a_key(2))
    space.client.delete(f"{space.name}/ss:facets:jobs:default:{lost.document_id}")
    assert keys_of(stand.backend.heads("jobs", per_group=9)) == [there]
    assert keys_of(stand.backend.page("jobs")) == [there]


def test_a_store_of_a_later_format_is_left_alone(stand: Stand, space: RedisNamespace) -> None:
    key = stored(stand)
    space.client.set(f"{space.name}/ss:format", "3")
    before = space.names()
    for act in (
        lambda: stored(stand, a_key(2)),
        lambda: stand.backend.read(key),
        lambda: stand.backend.reserve([key], claim_id="c", ttl=TTL),
        lambda: stand.backend.heads("jobs", per_group=1),
    ):
        with pytest.raises(StoreFormatError, match="format 3; this version knows 2"):
            act()
    assert space.names() == before
    assert "format 3" in stand.backend.check()[0]


IN_FORMAT_1: Final = """
for _, ready in ipairs(redis.call('KEYS', ARGV[1] .. '/ss:ready:*')) do
  local ids = redis.call('ZRANGE', ready, 0, -1)
  redis.call('DEL', ready)
  for _, id in ipairs(ids) do
    local facets = string.gsub(string.gsub(ready, ':[^:]*$', ':' .. id), '/ss:ready:', '/ss:facets:')
    local priority, created_at = unpack(redis.call('HMGET', facets, 'priority', 'created_at'))
    redis.call('ZADD', ready, -priority, created_at .. '\\t' .. id)
  end
end
for _, facets in ipairs(redis.call('KEYS', ARGV[1] .. '/ss:facets:*')) do
  redis.call('HDEL', facets, 'due_at')
end
redis.call('SET', ARGV[1] .. '/ss:format', '1')
"""
"""Turns the keys of a store into those of the format before: no `due_at`, queued by priority and age."""


def a_backlog(stand: Stand, *, documents: int) -> list[Listed]:
    """Documents of two tenants that wait, are held, are parked or are done; what is offered of them, in its order."""
    for number in range(documents):
        priority, created_at = -3 * (number % 5), f"2026-01-06T12:{number * 7 % 60:02d}:00"
        stored(
            stand,
            a_key(number, tenant=f"t{number % 2}"),
            priority=priority,
            created_at=created_at,
            due_at=due_at(created_at, priority=priority),
            waiting=number % 7 != 0,
            not_before=stand.clock.now() + 1_000 if number % 9 == 0 else 0.0,
        )
    stand.backend.create(a_key(1, collection="ledger"), b"{}", Facets())
    stand.backend.reserve([a_key(5, tenant="t1"), a_key(6, tenant="t0")], claim_id="c", ttl=TTL)
    return stand.backend.heads("jobs", per_group=documents)


def what_is_shown(stand: Stand) -> list[list[Listed]]:
    """What is listed and what is offered, all of it and the first of each group."""
    offered = [stand.backend.heads("jobs", per_group=number) for number in (1_000, 1)]
    return [stand.backend.page("jobs", limit=1_000), *offered]


def answer_of(stand: Stand, script: str, *given: bytes | str | float) -> list[Any]:
    """One step of an upgrade by itself."""
    assert isinstance(stand.backend, RedisBackend)
    return stand.backend._scripts._answer(script, *given)


@pytest.mark.guarantee("R9")
def test_a_store_of_the_format_before_is_put_in_order_by_whoever_comes_first(
    stand: Stand, space: RedisNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_upgrade, "_AT_ONCE", 7)
    assert len(a_backlog(stand, documents=60)) > 30
    before = what_is_shown(stand)
    space.client.eval(IN_FORMAT_1, 0, space.name)
    with recorded_events() as tape, ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: what_is_shown(stand), range(4))) == [before] * 4
    assert [event["version"] for event in tape.of("SS_STORE_FORMAT_UPGRADED")] == [2]
    stand.clock.advance(TTL + 1)
    freed = {a_key(5, tenant="t1"), a_key(6, tenant="t0")}
    assert set(keys_of(stand.backend.heads("jobs", per_group=99))) == {*keys_of(before[1]), *freed}


def test_an_upgrade_that_was_broken_off_is_gone_on_with(stand: Stand, space: RedisNamespace) -> None:
    a_backlog(stand, documents=20)
    before = what_is_shown(stand)
    space.client.eval(IN_FORMAT_1, 0, space.name)
    answer_of(stand, "upgrade_begin")
    answer_of(stand, "upgrade", "jobs", b"", 5)
    assert space.client.get(f"{space.name}/ss:format") not in {b"1", b"2"}, "a process of before would still go on"
    assert what_is_shown(stand) == before


def test_who_upgrades_late_changes_nothing_more(stand: Stand) -> None:
    key = stored(stand, due_at=5.0)
    entry = (key.tenant_id, key.document_id, 9.0)
    assert answer_of(stand, "upgrade", "jobs", b"", 5, *entry) == [b"done", b"", []]
    assert answer_of(stand, "upgrade_end") == [b"done", 0]
    assert [head.facets.due_at for head in stand.backend.heads("jobs", per_group=1)] == [5.0]


def test_a_former_document_that_was_created_at_no_time_is_due_at_once(stand: Stand, space: RedisNamespace) -> None:
    stored(stand, created_at="some day", due_at=7.0)
    space.client.eval(IN_FORMAT_1, 0, space.name)
    assert [head.facets.due_at for head in stand.backend.heads("jobs", per_group=1)] == [0.0]


@pytest.mark.guarantee("F7")
def test_a_server_that_forgot_the_scripts_is_given_them_again(stand: Stand, space: RedisNamespace) -> None:
    key = stored(stand)
    space.client.script_flush()
    assert stand.backend.read(key) == a_body(WAITING)
    space.client.script_flush()
    leased(stand, key, claim_id="c")


# --- servers that are refused ----------------------------------------------------------------------------------------


@pytest.mark.guarantee("F8")
@pytest.mark.parametrize(
    ("option", "value", "setting"),
    [
        ("appendonly", "no", "appendonly yes"),
        ("appendfsync", "everysec", "appendfsync always"),
        ("appendfsync", "no", "appendfsync always"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite no"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy noeviction"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy noeviction"),
        ("cluster-enabled", "yes", "cluster-enabled"),
    ],
)
def test_a_server_that_would_lose_data_is_refused_and_the_setting_named(option: str, value: str, setting: str) -> None:
    with own_redis(**{option: value}) as server, closing(RedisBackend(server.url)) as backend:
        for act in (
            lambda: backend.create(a_key(), b"{}", WAITING),
            lambda: backend.read(a_key()),
            lambda: backend.heads("jobs", per_group=1),
        ):
            with pytest.raises(StoreUnsafeError) as refused:
                act()
            assert (refused.value.error_code, refused.value.retryable) == ("STORE_UNSAFE", False)
            assert setting in refused.value.todo
        assert [setting in problem for problem in backend.check()] == [True]
        with client_of(server) as client:
            assert client.dbsize() == 0


@pytest.mark.guarantee("F8")
def test_a_server_that_was_set_right_is_used_at_once() -> None:
    with own_redis(appendonly="no") as server, closing(RedisBackend(server.url)) as backend:
        with pytest.raises(StoreUnsafeError):
            backend.create(a_key(), b"{}", WAITING)
        with client_of(server) as client:
            append_only(client)
        backend.create(a_key(), b"{}", WAITING)


@pytest.mark.guarantee("F8")
def test_a_server_that_comes_back_with_other_settings_is_refused() -> None:
    with own_redis() as server, closing(RedisBackend(server.url)) as backend:
        backend.create(a_key(), b"{}", WAITING)
        server.stop()
        server.options["maxmemory-policy"] = "allkeys-lru"
        server.start()
        with pytest.raises(StoreUnsafeError):
            backend.read(a_key())
        server.stop()
        del server.options["maxmemory-policy"]
        server.start()
        assert backend.read(a_key()) == b"{}"


def test_a_server_that_becomes_a_replica_takes_no_change_and_is_refused_from_then_on(changeable: RedisServer) -> None:
    with closing(RedisBackend(changeable.url, namespace="replica")) as backend, client_of(changeable) as client:
        backend.create(a_key(), b"{}", WAITING)
        client.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(StoreUnavailableError, match="has become a replica"):
                backend.replace(a_key(), b"[]", WAITING, expected=b"{}")
            with pytest.raises(StoreUnsafeError, match="is a replica"):
                backend.read(a_key())
        finally:
            client.replicaof("NO", "ONE")
        backend.replace(a_key(), b"[]", WAITING, expected=b"{}")


# --- addresses and passwords -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        f"http://:{SECRET}@localhost",
        "redis://",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@:6379/0",
        f"redis://:{SECRET}@localhost/jobs",
        f"redis://:{SECRET}@localhost/0/1",
        f"redis://:{SECRET}@localhost:port/0",
        f"redis://:{SECRET}/x@localhost",
        f"redis://:{SECRET}#x@localhost",
        f"redis://:1#{SECRET}@localhost",
        f"redis://:x?{SECRET}@localhost",
        f"redis://localhost?{SECRET}=1",
        f"redis://:{SECRET}@localhost?db=x",
        f"redis://:{SECRET}@localhost?decode_responses=1",
        f"redis://:{SECRET}@localhost?retry_on_timeout=1",
        f"redis://:{SECRET}@localhost?ssl_ca_certs=/x",
        f"rediss://:{SECRET}@localhost?ssl_cert_reqs=x",
        f"rediss://:{SECRET}@localhost?ssl_unknown=x",
        f"unix://:{SECRET}@",
        f"redis://:{SECRET}@[::1/0",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^SS_REDIS_URL: ") as refused:
        RedisBackend(url)
    assert SECRET not in said_by(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://user:p%40ss@localhost:6379/3",
        "rediss://:x@localhost:6379?ssl_cert_reqs=none&db=1",
        "unix:///tmp/redis.sock?db=1&password=x",
        "redis://[::1]:6379/",
    ],
)
def test_an_address_that_can_be_used_is_taken_without_connecting(url: str) -> None:
    RedisBackend(url).close()


def test_a_wrong_password_is_named_by_its_setting_and_never_shown(changeable: RedisServer) -> None:
    place = changeable.url.removeprefix("unix://")
    with client_of(changeable) as client:
        client.config_set("requirepass", "right")
        try:
            for url in (changeable.url, f"unix://:{SECRET}@{place}", f"unix://someone:{SECRET}@{place}"):
                with closing(RedisBackend(url)) as backend:
                    with pytest.raises(SettingsError, match="SS_REDIS_URL") as refused:
                        backend.read(a_key())
                    assert SECRET not in said_by(refused.value) + repr(backend) + repr(vars(backend))
                    assert ["SS_REDIS_URL" in problem for problem in backend.check()] == [True]
            with (
                closing(RedisBackend(f"unix://:right@{place}", namespace="locked")) as backend,
                pytest.raises(DocumentNotFoundError),
            ):
                backend.read(a_key())
        finally:
            client.config_set("requirepass", "")


def test_a_password_for_a_server_without_one_is_refused_and_never_shown(changeable: RedisServer) -> None:
    url = changeable.url.replace("unix://", f"unix://:{SECRET}@")
    with closing(RedisBackend(url)) as backend, pytest.raises(SettingsError, match="SS_REDIS_URL") as refused:
        backend.read(a_key())
    assert SECRET not in said_by(refused.value)


def test_a_user_without_the_permissions_is_told_which_one_is_missing(changeable: RedisServer) -> None:
    url = changeable.url.replace("unix://", f"unix://limited:{SECRET}@")
    with client_of(changeable) as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", f">{SECRET}", "~*", "+@all", "-evalsha")
        try:
            with closing(RedisBackend(url)) as backend, pytest.raises(SettingsError, match="evalsha") as refused:
                backend.read(a_key())
            assert SECRET not in said_by(refused.value)
        finally:
            client.acl_deluser("limited")


# --- faults ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with closing(RedisBackend(f"unix://:{SECRET}@{tmp_path}/none.sock")) as backend:
        with pytest.raises(StoreUnavailableError, match="does not answer") as refused:
            backend.create(a_key(), b"{}", WAITING)
        assert "SS_REDIS_URL" in refused.value.todo
        assert SECRET not in said_by(refused.value)
        assert ["does not answer" in problem for problem in backend.check()] == [True]


@pytest.mark.guarantee("F7")
def test_a_restarted_server_has_every_document_and_lease() -> None:
    with own_redis() as server, closing(RedisBackend(server.url)) as backend:
        stand = Stand(backend)
        keys = [stored(stand, a_key(number)) for number in range(3)]
        lease = leased(stand, keys[0], claim_id="c")
        backend.seal("another")
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                backend.read(keys[0])
        server.start()
        assert keys_of(backend.page("jobs")) == keys
        assert keys_of(backend.heads("jobs", per_group=9)) == keys[1:]
        assert backend.heartbeat(lease, ttl=TTL) == keys[:1]
        assert backend.sealed_for() == "another"
        backend.complete(keys[0], lease.fences[keys[0]])


def test_a_late_answer_is_not_taken_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_ANSWER_SECONDS", 0.3)
    with own_redis() as server, closing(RedisBackend(server.url)) as backend:
        for number in range(2):
            backend.create(a_key(number), f"{number}".encode(), WAITING)
        os.kill(server.pid, 19)
        try:
            with pytest.raises(StoreUnavailableError, match="does not answer") as refused:
                backend.replace(a_key(0), b"late", WAITING, expected=b"0")
            assert "may have been made" in refused.value.todo
        finally:
            os.kill(server.pid, 18)
        assert backend.read(a_key(1)) == b"1"
        assert backend.read(a_key(0)) in {b"0", b"late"}


@pytest.mark.guarantee("F9")
def test_a_full_memory_refuses_what_needs_more_and_takes_what_frees_it(changeable: RedisServer) -> None:
    ballast = b"x" * 100_000
    with closing(RedisBackend(changeable.url, namespace="full")) as backend, client_of(changeable) as client:
        stand = Stand(backend)
        held = stored(stand, a_key(1_000))
        lease = leased(stand, held, claim_id="c")
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 6_000_000)
        try:
            number, refusal = filled_up(backend, ballast)
            assert "out of memory" in refusal.message
            assert "Nothing was changed" in refusal.todo
            with pytest.raises(StoreUnavailableError, match="out of memory"):
                backend.replace(a_key(0), ballast * 2, WAITING, expected=ballast)
            assert backend.read(a_key(0)) == ballast
            assert len(backend.page("jobs")) == number + 1
            assert any("memory of Redis is nearly full" in problem for problem in backend.check())
            backend.complete(held, lease.fences[held])
            assert keys_of(backend.heads("jobs", per_group=1)) == [a_key(0)]
            for freed in range(5):
                backend.delete(a_key(freed), expected=ballast)
            stored(stand, a_key(2_000))
        finally:
            client.config_set("maxmemory", 0)
        assert backend.check() == []


def filled_up(backend: RedisBackend, body: bytes) -> tuple[int, StoreUnavailableError]:
    """Creates documents until one is refused; how many there are then, and the refusal."""
    for number in range(100):
        try:
            backend.create(a_key(number), body, WAITING)
        except StoreUnavailableError as refusal:
            return number, refusal
    raise AssertionError("the memory does not fill up")


def test_too_few_replicas_and_a_script_that_hangs_are_named(changeable: RedisServer) -> None:
    with closing(RedisBackend(changeable.url, namespace="named")) as backend, client_of(changeable) as client:
        client.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailableError, match="min-replicas-to-write"):
            backend.create(a_key(), b"{}", WAITING)
        client.config_set("min-replicas-to-write", 0)
        backend.create(a_key(), b"{}", WAITING)
        client.config_set("lua-time-limit", 10)
        hanging = threading.Thread(target=hang, args=(changeable,))
        hanging.start()
        time.sleep(0.2)
        try:
            with pytest.raises(StoreUnavailableError, match="busy with a script"):
                backend.read(a_key())
        finally:
            client.script_kill()
            hanging.join()
        assert backend.read(a_key()) == b"{}"


def hang(server: RedisServer) -> None:
    """A script that runs until it is killed."""
    with client_of(server) as client, pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)


def test_the_doctor_sees_that_the_append_only_file_was_switched_off_meanwhile(changeable: RedisServer) -> None:
    with closing(RedisBackend(changeable.url, namespace="switched")) as backend, client_of(changeable) as client:
        assert backend.check() == []
        client.config_set("appendonly", "no")
        try:
            assert ["appendonly yes" in problem for problem in backend.check()] == [True]
        finally:
            append_only(client)


def test_a_server_whose_settings_may_not_be_read_is_used_and_the_doctor_says_so(changeable: RedisServer) -> None:
    url = changeable.url.replace("unix://", "unix://rented:x@")
    with client_of(changeable) as client:
        client.execute_command("ACL", "SETUSER", "rented", "on", ">x", "~*", "+@all", "-config")
        try:
            with closing(RedisBackend(url, namespace="doctor")) as backend:
                backend.create(a_key(), b"{}", WAITING)
                assert ["CONFIG GET" in problem for problem in backend.check()] == [True]
        finally:
            client.acl_deluser("rented")


# --- processes and threads -------------------------------------------------------------------------------------------


def test_a_store_that_was_used_before_a_fork_is_used_by_parent_and_child_at_once(stand: Stand) -> None:
    keys = [stored(stand, a_key(number)) for number in range(2)]
    bodies = [a_body(WAITING), b"child"]
    stand.backend.replace(keys[1], bodies[1], WAITING, expected=a_body(WAITING))
    child = os.fork()
    if child == 0:
        wrong = 1
        try:
            wrong = sum(stand.backend.read(keys[1]) != bodies[1] for _ in range(300))
        finally:
            os._exit(min(wrong, 1))
    assert sum(stand.backend.read(keys[0]) != bodies[0] for _ in range(300)) == 0
    assert os.waitpid(child, 0)[1] == 0
    assert stand.backend.read(keys[0]) == bodies[0]


def test_threads_share_a_store_without_mixing_up_answers(stand: Stand) -> None:
    def work(number: int) -> int:
        key, body = a_key(number), f"{number}.0".encode()
        stand.backend.create(key, body, WAITING)
        for step in range(1, 100):
            after = f"{number}.{step}".encode()
            stand.backend.replace(key, after, WAITING, expected=body)
            body = stand.backend.read(key)
            assert body == after
        return number

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == list(range(8))


def test_a_mover_that_is_closed_leaves_the_store_it_came_from_open(stand: Stand) -> None:
    key = stored(stand)
    stand.backend.for_moving().close()
    assert stand.backend.read(key) == a_body(WAITING)


@pytest.mark.guarantee("R20")
def test_leases_go_by_the_clock_of_the_server(
    stand: Stand, space: RedisNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = stored(stand)
    leased(stand, key, claim_id="c")
    for skew in (-3_600, 3_600):
        monkeypatch.setattr(time, "time", lambda skew=skew, real=time.time: real() + skew)
        with closing(RedisBackend(space.url, namespace=space.name)) as elsewhere:
            assert elsewhere.lease([key], claim_id="d", owner="run", ttl=TTL).fences == {}
            view = elsewhere.claim_of(key)
            assert view is not None
            assert TTL - 5 < view.expires_in <= TTL
        monkeypatch.undo()


def test_two_namespaces_of_a_database_do_not_meet(stand: Stand) -> None:
    key = stored(stand)
    with redis_namespace() as other, closing(RedisBackend(shared_redis().url, namespace=other.name)) as backend:
        with pytest.raises(DocumentNotFoundError):
            backend.read(key)
        assert backend.page("jobs") == []
        assert backend.collections() == []


def test_the_scripts_are_in_the_wheel(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=PROJECT_ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    scripts = {f"ss_pipeline/store/redis_lua/{path.name}" for path in SCRIPTS.glob("*.lua")}
    assert scripts <= set(ZipFile(wheel).namelist())
    assert len(scripts) > 20


def test_no_script_uses_what_is_deprecated_or_newer_than_redis_6_2() -> None:
    used = {name for path in SCRIPTS.glob("*.lua") for name in re.findall(r"redis\.call\(\s*'(\w+)'", path.read_text())}
    with closing(redis.Redis.from_url(shared_redis().url)) as client:
        known = {name.upper() for name in client.command()}
    assert used <= known
    assert used.isdisjoint({"SETNX", "GETSET", "HMSET", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZREVRANGE", "RPOPLPUSH"})
