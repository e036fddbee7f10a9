"""The steps by which a job store and its model (store_model.py) are compared, in any order Hypothesis thinks of.

Every step is made on both; then results, errors, documents, claims and listings must be the same. Examples share a back
end: each works with tenants of its own and leaves no document behind.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Barrier
from typing import Final, TypeAlias, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from ss_pipeline.errors import JobExistsError, SSError
from ss_pipeline.jobs.documents import JsonObject, render_document
from ss_pipeline.jobs.lifecycle import transition
from ss_pipeline.jobs.model import Job, Parked, Publication
from ss_pipeline.store.base import Backend, ClaimHistory, DocumentKey, Fence, Lease, Listed
from ss_pipeline.store.jobs import JOBS, JobStore, facets_of_body, job_key
from ss_pipeline_tests.builders import CREATED_AT, a_job
from ss_pipeline_tests.reliability.store_model import StoreModel
from ss_pipeline_tests.store_contract import Stand

Result = TypeVar("Result")
Change: TypeAlias = Callable[[Job], Job]

TTL: Final = 70.0
PARKED: Final = 30.0
"""Seconds of a reservation, of a lease, of a parking. Time passes by 20 or 80, so that a server's clock, which runs on
meanwhile, is never within 10 seconds of an end."""
SLACK: Final = 10.0
NUMBERS: Final = st.integers(0, 3)
CLAIMS: Final = st.sampled_from(["c1", "c2", "c3"])
_EXAMPLES: Final = count(1)


class InterruptedJobStore(JobStore):
    """A store in which something happens once, right after it read a document and before it goes on."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.meanwhile: Callable[[], object] | None = None

    def _read(self, key: DocumentKey) -> bytes:
        body = super()._read(key)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return body


@dataclass(frozen=True)
class Held:
    """What a run knows of its lease on one document; it may have lost it since."""

    key: DocumentKey
    fence: Fence


class StoreMachine(RuleBasedStateMachine):
    """One store and its model.

    Args:
        stand: The back end and its clock.
        job_store: The store on top of it.
    """

    held = Bundle("held")
    loaded = Bundle("loaded")

    def __init__(self, stand: Stand, job_store: type[InterruptedJobStore] = InterruptedJobStore) -> None:
        super().__init__()
        self.clock = stand.clock
        self.backend = stand.backend
        self.store = job_store(stand.backend)
        self.other = JobStore(stand.backend)
        self.model = StoreModel(wall=stand.clock.now())
        self.tenants = [f"{name}{next(_EXAMPLES)}" for name in "ab"]
        self.sealed_steps = 0
        self.changes = 0

    # --- documents ---------------------------------------------------------------------------------------------------

    @initialize(target=held)
    def begin(self) -> object:
        """Of four jobs two are new, one is older, one is missing; a run works on the first."""
        for number in (0, 1):
            self.create(number, priority=0, day=1)
        self.put_a_document_of_another_schema(2, schema=1, spaces=0)
        return multiple(*self._leased([self._key(0)], "c0"))

    @rule(target=loaded, number=NUMBERS, priority=st.sampled_from([-5, 0, 0, 50]), day=st.integers(1, 9))
    def create(self, number: int, priority: int, day: int) -> object:
        key, created_at = self._key(number), f"2026-01-{day:02d}T12:00:00+00:00"
        job = a_job(key.document_id, tenant_id=key.tenant_id, priority=priority, created_at=created_at)
        return _entered(self._change(lambda: self.store.create(job), lambda: self.model.create(job)))

    @rule(number=NUMBERS)
    def two_create_at_once(self, number: int) -> None:
        key, barrier = self._key(number), Barrier(2)
        jobs = [a_job(key.document_id, tenant_id=key.tenant_id, requirement=who) for who in ("one", "other")]

        def create(job: Job) -> object:
            barrier.wait()
            return _outcome(lambda: self.store.create(job))

        with ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(create, jobs))
        if not self.sealed_steps:
            winners = [outcome for outcome in outcomes if isinstance(outcome, Job)]
            assert len(winners) == (key not in self.model.bodies), f"{len(winners)} creators succeeded"
            assert outcomes.count(JobExistsError) == 2 - len(winners)
            for winner in winners:
                self.model.create(winner)

    @rule(number=NUMBERS, schema=st.sampled_from([1, 1, 2, 4]), spaces=st.integers(0, 1))
    def put_a_document_of_another_schema(self, number: int, schema: int, spaces: int) -> None:
        key = self._key(number)
        body = _document(key, schema=schema) + b"\n" * spaces
        facets = facets_of_body(key, body)
        self._change(lambda: self.backend.create(key, body, facets), lambda: self.model.put(key, body))

    @rule(target=loaded, number=NUMBERS)
    def load(self, number: int) -> object:
        key = self._key(number)
        expected = self.model.job if self.sealed_steps else self.model.load
        return _entered(self._same(lambda: self._loaded(self.store, key), lambda: expected(key)))

    @rule(target=loaded, number=NUMBERS, how=st.sampled_from(["saves", "loads", "rolls back"]))
    def load_while_another(self, number: int, how: str) -> object:
        if self.sealed_steps:
            return multiple()
        key = self._key(number)
        is_older, before = self.model.is_older(key), _outcome(lambda: self.model.job(key))
        self.store.meanwhile = self._anothers_act(how, key)
        found = _outcome(lambda: self._loaded(self.store, key))
        self.store.meanwhile = None
        _check_same(found, _outcome(lambda: self.model.load(key)) if is_older else before)
        return _entered(found if isinstance(found, Job) else None)

    @rule(number=NUMBERS, how=st.sampled_from(["saves", "loads", "rolls back", "deletes"]))
    def save_while_another(self, number: int, how: str) -> None:
        key = self._key(number)
        job = _outcome(lambda: self.model.job(key))
        if self.sealed_steps or not isinstance(job, Job):
            return
        change = self._a_change()
        self.store.meanwhile = self._anothers_act(how, key)
        found = _outcome(lambda: self.store.save(change(job)))
        _check_same(found, _outcome(lambda: self.model.save(change(job))))

    @rule(job=loaded)
    def save_what_was_loaded_once(self, job: Job) -> None:
        changed = self._a_change()(job)
        self._change(lambda: self.store.save(changed), lambda: self.model.save(changed))

    @rule(number=NUMBERS)
    def a_person_saves(self, number: int) -> None:
        self._update(self._key(number), self._a_change())

    @rule(number=NUMBERS)
    def a_person_cancels(self, number: int) -> None:
        self._update(self._key(number), lambda job: transition(job, "cancelled", at=CREATED_AT, by="ann"))

    @rule(number=NUMBERS)
    def park(self, number: int) -> None:
        until = datetime.fromtimestamp(self.clock.now() + PARKED, UTC).isoformat()
        if self._update(self._key(number), lambda job: job.changed(parked=Parked(until=until, reason="budget"))):
            self.model.parked_until[self._key(number)] = self.model.wall + PARKED

    @rule(number=NUMBERS, how=st.sampled_from(["replace", "delete", "a mover's replace"]), is_stale=st.booleans())
    def change_bytes(self, number: int, how: str, is_stale: bool) -> None:
        key = self._key(number)
        expected, body = b"{}" if is_stale else self.model.bodies.get(key, b""), _document(key, schema=1)
        facets = facets_of_body(key, body)
        if how == "a mover's replace":
            with closing(self.backend.for_moving()) as mover:
                self._same(
                    lambda: mover.replace(key, body, facets, expected=expected),
                    lambda: self.model.replace(key, body, expected=expected),
                )
        elif how == "replace":
            self._change(
                lambda: self.backend.replace(key, body, facets, expected=expected),
                lambda: self.model.replace(key, body, expected=expected),
            )
        else:
            self._change(
                lambda: self.backend.delete(key, expected=expected), lambda: self.model.delete(key, expected=expected)
            )

    @rule(number=NUMBERS)
    def roll_back(self, number: int) -> None:
        key = self._key(number)
        self._change(lambda: self.store.roll_back(key), lambda: self.model.roll_back(key))

    # --- claims ------------------------------------------------------------------------------------------------------

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def reserve(self, numbers: list[int], claim_id: str) -> None:
        keys = [self._key(number) for number in numbers]
        self._change(
            lambda: self.backend.reserve(keys, claim_id=claim_id, ttl=TTL),
            lambda: self.model.reserve(keys, claim_id=claim_id, ttl=TTL),
        )

    @rule(target=held, numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def lease(self, numbers: list[int], claim_id: str) -> object:
        return multiple(*self._leased([self._key(number) for number in numbers], claim_id))

    @rule(lease=held)
    def heartbeat(self, lease: Held) -> None:
        fences = {lease.key: lease.fence}
        beat = Lease(lease.fence.claim_id, "run", fences)
        self._same(lambda: self.backend.heartbeat(beat, ttl=TTL), lambda: self.model.heartbeat(fences, ttl=TTL))

    @rule(lease=held)
    def save_under_a_lease(self, lease: Held) -> None:
        self._save_under(lease, self._a_change())

    @rule(lease=held)
    def complete(self, lease: Held) -> None:
        if lease.key in self.model.bodies:  # what becomes of the claims of a document that is gone is not promised
            self._same(
                lambda: self.backend.complete(lease.key, lease.fence),
                lambda: self.model.complete(lease.key, lease.fence),
            )

    @rule(lease=held, refund=st.booleans())
    def release(self, lease: Held, refund: bool) -> None:
        if lease.key in self.model.bodies:
            self._same(
                lambda: self.backend.release(lease.key, lease.fence, refund=refund),
                lambda: self.model.release(lease.key, lease.fence, refund=refund),
            )

    @rule(number=NUMBERS, has_rival=st.booleans())
    def sleep_through_a_lease(self, number: int, has_rival: bool) -> None:
        """A run that stands still until its time is up, and then goes on as if nothing had happened."""
        for lease in self._leased([self._key(number)], "sleeper"):
            self.time_passes(80.0)
            if has_rival:
                self._leased([lease.key], "rival")
            self.heartbeat(lease)
            self.save_under_a_lease(lease)
            self.release(lease, refund=True)

    @rule(number=NUMBERS, claim_id=CLAIMS)
    def publish_and_crash(self, number: int, claim_id: str) -> None:
        """A run that commits a version under its fence and is never heard of again."""
        for lease in self._leased([self._key(number)], claim_id):
            self._save_under(lease, partial(_published, fence=lease.fence))

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def cancel_reservation(self, numbers: list[int], claim_id: str) -> None:
        keys = [self._key(number) for number in numbers]
        self._same(
            lambda: self.backend.cancel_reservation(keys, claim_id=claim_id),
            lambda: self.model.cancel_reservation(keys, claim_id=claim_id),
        )

    @rule(number=NUMBERS, fence=st.integers(0, 9), attempts=st.integers(0, 4))
    def adopt_history(self, number: int, fence: int, attempts: int) -> None:
        key, history = self._key(number), ClaimHistory(fence, attempts)
        if not self.model.has_lapsed_lease(key):  # whether that may still be completed is not promised
            self._change(
                lambda: self.backend.adopt_history(key, history), lambda: self.model.adopt_history(key, history)
            )

    # --- time and seal -----------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([20.0, 80.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.wall += seconds

    @rule(steps=st.integers(1, 4))
    def seal(self, steps: int) -> None:
        self.backend.seal("the next store")
        self.sealed_steps = steps + 1

    @invariant()
    def the_seal_is_lifted_after_some_steps(self) -> None:
        self.sealed_steps -= self.sealed_steps > 0
        if not self.sealed_steps:
            self.backend.unseal()

    # --- what is shown -----------------------------------------------------------------------------------------------

    @rule(tenant=st.none() | st.integers(0, 1), status=st.sampled_from([None, "created", "corrupted"]),
          after=st.none() | NUMBERS, limit=st.integers(1, 3))  # fmt: skip
    def look_at_a_page(self, tenant: int | None, status: str | None, after: int | None, limit: int) -> None:
        tenant_id = None if tenant is None else self.tenants[tenant]
        cursor = None if after is None else self._key(after)
        page = self.backend.page(JOBS, tenant_id=tenant_id, status=status, after=cursor, limit=limit)
        self._check_listed(page, self.model.page(tenant_id=tenant_id, status=status, after=cursor, limit=limit))

    @invariant()
    def listings_show_what_is_stored(self) -> None:
        everything = self.model.page(tenant_id=None, status=None, after=None, limit=100)
        self._check_listed(self.backend.page(JOBS), everything)
        assert self.backend.counts(JOBS) == self.model.counts()
        assert self.backend.collections() == sorted({key.collection for key in self.model.bodies})

    @invariant()
    def who_is_next_is_first_of_its_group(self) -> None:
        groups: dict[tuple[str, str], list[DocumentKey]] = {}
        for head in self.backend.heads(JOBS, per_group=2):
            groups.setdefault((head.key.tenant_id, head.facets.priority_class), []).append(head.key)
        assert groups == self.model.heads(per_group=2)

    @invariant()
    def documents_and_claims_are_as_expected(self) -> None:
        for key, body in self.model.bodies.items():
            assert self.backend.read(key) == body
            assert self.backend.history_of(key) == self.model.history(key)
            view, hold = self.backend.claim_of(key), self.model.live_hold(key)
            shown = view and (view.state, view.claim_id, view.owner)
            assert shown == (hold and (hold.state, hold.claim_id, hold.owner))
            assert view is None or hold is None or abs(view.expires_in - (hold.until - self.model.wall)) < SLACK

    def teardown(self) -> None:
        """Leaves the back end without documents."""
        self.backend.unseal()
        for key in self.model.bodies:
            with suppress(SSError):  # where the store is broken, an invariant has said so
                self.backend.delete(key, expected=self.backend.read(key))

    # --- how both sides are asked ------------------------------------------------------------------------------------

    def _key(self, number: int) -> DocumentKey:
        """One of four jobs: two ids, the same for both tenants."""
        return job_key(f"job_{number % 2:016d}", self.tenants[number // 2])

    def _check_listed(self, page: list[Listed], expected: list[DocumentKey]) -> None:
        """Keys and facets; but for the end of a parking, which who_is_next sees."""
        found = [Listed(row.key, replace(row.facets, not_before=0)) for row in page]
        assert found == [Listed(key, replace(self.model.facets(key), not_before=0)) for key in expected]

    def _a_change(self) -> Change:
        """A change that no other save has made; it ends a parking."""
        self.changes += 1
        fields = {"priority": self.changes % 30 - 10, "x_change": self.changes, "parked": None}
        return lambda job: job.changed(**fields)

    def _change(self, real: Callable[[], Result], expected: Callable[[], Result]) -> Result | None:
        """Makes a change on both sides; a sealed store refuses it, or finds nothing to change."""
        if not self.sealed_steps:
            return self._same(real, expected)
        outcome = _outcome(real)
        assert isinstance(outcome, type) or not outcome, f"a sealed store answered {outcome}"
        return None

    def _same(self, real: Callable[[], Result], expected: Callable[[], Result]) -> Result | None:
        """The answer of both sides; None where both refused, with the same error."""
        found = _outcome(real)
        _check_same(found, _outcome(expected))
        return None if isinstance(found, type) else found

    def _loaded(self, store: JobStore, key: DocumentKey) -> Job:
        return store.load(key.document_id, tenant_id=key.tenant_id)

    def _update(self, key: DocumentKey, change: Change) -> bool:
        """Whether the change was made or there was nothing to change."""
        outcome = _outcome(lambda: self.store.update(key.document_id, change, tenant_id=key.tenant_id))
        if self.sealed_steps:
            assert isinstance(outcome, type) or outcome == self.model.job(key), f"a sealed store answered {outcome}"
            return False
        _check_same(outcome, _outcome(lambda: self.model.update(key, change)))
        return isinstance(outcome, Job)

    def _anothers_act(self, how: str, key: DocumentKey) -> Callable[[], object]:
        """What another process does with the same job, on both sides."""
        other, model, change, body = self.other, self.model, self._a_change(), self.model.bodies.get(key, b"")
        acts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "saves": (
                lambda: other.update(key.document_id, change, tenant_id=key.tenant_id),
                lambda: model.update(key, change),
            ),
            "loads": (lambda: self._loaded(other, key), lambda: model.load(key)),
            "rolls back": (lambda: other.roll_back(key), lambda: model.roll_back(key)),
            "deletes": (
                lambda: self.backend.delete(key, expected=body),
                lambda: model.delete(key, expected=body),
            ),
        }
        return lambda: self._same(*acts[how])

    def _leased(self, keys: list[DocumentKey], claim_id: str) -> list[Held]:
        if self.sealed_steps:
            outcome = _outcome(lambda: self.backend.lease(keys, claim_id=claim_id, owner="run", ttl=TTL).fences)
            assert isinstance(outcome, type) or not outcome, f"a sealed store leased {outcome}"
            return []
        expected = self.model.leasable(keys, claim_id=claim_id)
        lease = self.backend.lease(keys, claim_id=claim_id, owner="run", ttl=TTL)
        assert list(lease.fences) == expected
        attempts = {key: self.model.leased(key, fence, owner="run", ttl=TTL) for key, fence in lease.fences.items()}
        assert lease.attempts == attempts
        return [Held(key, fence) for key, fence in lease.fences.items()]

    def _save_under(self, lease: Held, change: Change) -> None:
        job = _outcome(lambda: self.model.job(lease.key))
        if isinstance(job, Job):
            changed = change(job)
            self._change(
                lambda: self.store.save(changed, fence=lease.fence),
                lambda: self.model.save(changed, fence=lease.fence),
            )


def _outcome(call: Callable[[], Result]) -> Result | type[SSError]:
    """What a call returned, or the class of the error it raised."""
    try:
        return call()
    except SSError as error:
        return type(error)


def _check_same(found: object, expected: object) -> None:
    assert found == expected, f"the store answered {found}, the model {expected}"


def _entered(job: Job | None) -> object:
    """The job for the bundle, or nothing."""
    return multiple() if job is None else job


def _document(key: DocumentKey, *, schema: int) -> bytes:
    """A document of schema 1, 2 or (unknown yet) 4, with a field nobody knows."""
    kept = {"job_id": key.document_id, "tenant_id": key.tenant_id, "status": "created", "created_at": CREATED_AT}
    lists: JsonObject = {"runs": [], "artifacts_index": []} if schema > 1 else {}
    return render_document({"schema_version": schema, "x_unknown": [None, {"é": 2**70}], **kept, **lists})


def _published(job: Job, *, fence: Fence) -> Job:
    """A job with one more published version."""
    digest = "0" * 64
    version = Publication(
        version=len(job.publications) + 1,
        manifest_sha256=digest,
        at=CREATED_AT,
        fence=fence.number,
        draft_sha256=digest,
    )
    return job.changed(publications=[*job.publications, version], parked=None)
