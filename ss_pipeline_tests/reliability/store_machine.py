"""The steps by which a job store and its model (store_model.py) are compared, in any order Hypothesis thinks of.

Every step is made on both; then answers, errors, documents, claims and listings must be the same.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from threading import Barrier
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from ss_pipeline.errors import JobExistsError
from ss_pipeline.jobs.documents import JsonObject, render_document
from ss_pipeline.jobs.lifecycle import transition
from ss_pipeline.jobs.model import Job, Parked, Publication
from ss_pipeline.store.base import ClaimHistory, DocumentKey, Fence, Lease
from ss_pipeline.store.jobs import JOBS, facets_of_body
from ss_pipeline_tests.builders import CREATED_AT, a_job
from ss_pipeline_tests.reliability.both_stores import TTL, BothStores, Held, answer_of, check_same

PARKED: Final = 30.0
"""Seconds of a parking. Time passes by 20 or 80, so that a server's clock, which runs on meanwhile, is never within 10
seconds of the end of a parking, a reservation or a lease."""
SLACK: Final = 10.0
NUMBERS: Final = st.integers(0, 3)
CLAIMS: Final = st.sampled_from(["c1", "c2", "c3"])


class StoreMachine(BothStores, RuleBasedStateMachine):
    """One store and its model, step by step."""

    held = Bundle("held")
    loaded = Bundle("loaded")

    # --- documents ---------------------------------------------------------------------------------------------------

    @initialize(target=held)
    def begin(self) -> object:
        """Of four jobs two are new, one is older, one is missing; a run works on the first."""
        for number in (0, 1):
            self.create(number, priority=0, day=1)
        self.put_a_document_of_another_schema(2, schema=1, spaces=0)
        return multiple(*self.lease_from_both([self.key(0)], "c0"))

    @rule(target=loaded, number=NUMBERS, priority=st.sampled_from([-5, 0, 0, 9, 50]), day=st.integers(1, 9))
    def create(self, number: int, priority: int, day: int) -> object:
        key, created_at = self.key(number), f"2026-01-{day:02d}T12:00:00+00:00"
        job = a_job(key.document_id, tenant_id=key.tenant_id, priority=priority, created_at=created_at)
        return _entered(self.change(lambda: self.store.create(job), lambda: self.model.create(job)))

    @rule(number=NUMBERS)
    def two_create_at_once(self, number: int) -> None:
        key, barrier = self.key(number), Barrier(2)
        jobs = [a_job(key.document_id, tenant_id=key.tenant_id, requirement=who) for who in ("one", "other")]

        def create(job: Job) -> object:
            barrier.wait()
            return answer_of(lambda: self.store.create(job))

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(create, jobs))
        if not self.sealed_steps:
            winners = [answer for answer in answers if isinstance(answer, Job)]
            assert len(winners) == (key not in self.model.bodies), f"{len(winners)} creators succeeded"
            assert answers.count(JobExistsError) == 2 - len(winners)
            for winner in winners:
                self.model.create(winner)

    @rule(number=NUMBERS, schema=st.sampled_from([1, 1, 2, 4]), spaces=st.integers(0, 1))
    def put_a_document_of_another_schema(self, number: int, schema: int, spaces: int) -> None:
        key = self.key(number)
        body = _document(key, schema=schema) + b"\n" * spaces
        facets = facets_of_body(key, body)
        self.change(lambda: self.backend.create(key, body, facets), lambda: self.model.put(key, body))

    @rule(target=loaded, number=NUMBERS)
    def load(self, number: int) -> object:
        key = self.key(number)
        expected = self.model.job if self.sealed_steps else self.model.load
        return _entered(self.same(lambda: self.load_from(self.store, key), lambda: expected(key)))

    @rule(target=loaded, number=NUMBERS, how=st.sampled_from(["saves", "loads", "rolls back"]))
    def load_while_another(self, number: int, how: str) -> object:
        if self.sealed_steps:
            return multiple()
        key = self.key(number)
        is_older, before = self.model.is_older(key), answer_of(lambda: self.model.job(key))
        self.store.meanwhile = self.anothers_act(how, key)
        found = answer_of(lambda: self.load_from(self.store, key))
        self.store.meanwhile = None
        check_same(found, answer_of(lambda: self.model.load(key)) if is_older else before)
        return _entered(found if isinstance(found, Job) else None)

    @rule(number=NUMBERS, how=st.sampled_from(["saves", "loads", "rolls back", "deletes"]))
    def save_while_another(self, number: int, how: str) -> None:
        key = self.key(number)
        job = answer_of(lambda: self.model.job(key))
        if self.sealed_steps or not isinstance(job, Job):
            return
        change = self.a_change()
        self.store.meanwhile = self.anothers_act(how, key)
        found = answer_of(lambda: self.store.save(change(job)))
        check_same(found, answer_of(lambda: self.model.save(change(job))))

    @rule(job=loaded)
    def save_what_was_loaded_once(self, job: Job) -> None:
        changed = self.a_change()(job)
        self.change(lambda: self.store.save(changed), lambda: self.model.save(changed))

    @rule(number=NUMBERS)
    def a_person_saves(self, number: int) -> None:
        self.update(self.key(number), self.a_change())

    @rule(number=NUMBERS)
    def a_person_cancels(self, number: int) -> None:
        self.update(self.key(number), lambda job: transition(job, "cancelled", at=CREATED_AT, by="ann"))

    @rule(number=NUMBERS)
    def park(self, number: int) -> None:
        until = datetime.fromtimestamp(self.clock.now() + PARKED, UTC).isoformat()
        if self.update(self.key(number), lambda job: job.changed(parked=Parked(until=until, reason="budget"))):
            self.model.parked_until[self.key(number)] = self.model.wall + PARKED

    @rule(number=NUMBERS, how=st.sampled_from(["replace", "delete", "a mover's replace"]), is_stale=st.booleans())
    def change_bytes(self, number: int, how: str, is_stale: bool) -> None:
        key = self.key(number)
        expected, body = b"{}" if is_stale else self.model.bodies.get(key, b""), _document(key, schema=1)
        facets = facets_of_body(key, body)
        if how == "a mover's replace":
            with closing(self.backend.for_moving()) as mover:
                self.same(
                    lambda: mover.replace(key, body, facets, expected=expected),
                    lambda: self.model.replace(key, body, expected=expected),
                )
        elif how == "replace":
            self.change(
                lambda: self.backend.replace(key, body, facets, expected=expected),
                lambda: self.model.replace(key, body, expected=expected),
            )
        else:
            self.change(
                lambda: self.backend.delete(key, expected=expected), lambda: self.model.delete(key, expected=expected)
            )

    @rule(number=NUMBERS)
    def roll_back(self, number: int) -> None:
        key = self.key(number)
        self.change(lambda: self.store.roll_back(key), lambda: self.model.roll_back(key))

    # --- claims ------------------------------------------------------------------------------------------------------

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def reserve(self, numbers: list[int], claim_id: str) -> None:
        keys = [self.key(number) for number in numbers]
        self.change(
            lambda: self.backend.reserve(keys, claim_id=claim_id, ttl=TTL),
            lambda: self.model.reserve(keys, claim_id=claim_id, ttl=TTL),
        )

    @rule(target=held, numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def lease(self, numbers: list[int], claim_id: str) -> object:
        return multiple(*self.lease_from_both([self.key(number) for number in numbers], claim_id))

    @rule(lease=held)
    def heartbeat(self, lease: Held) -> None:
        fences = {lease.key: lease.fence}
        beat = Lease(lease.fence.claim_id, "run", fences)
        self.same(lambda: self.backend.heartbeat(beat, ttl=TTL), lambda: self.model.heartbeat(fences, ttl=TTL))

    @rule(lease=held)
    def save_under_a_lease(self, lease: Held) -> None:
        self.save_under(lease, self.a_change())

    @rule(lease=held)
    def complete(self, lease: Held) -> None:
        if lease.key in self.model.bodies:  # what becomes of the claims of a document that is gone is not promised
            self.same(
                lambda: self.backend.complete(lease.key, lease.fence),
                lambda: self.model.complete(lease.key, lease.fence),
            )

    @rule(lease=held, refund=st.booleans())
    def release(self, lease: Held, refund: bool) -> None:
        if lease.key in self.model.bodies:
            self.same(
                lambda: self.backend.release(lease.key, lease.fence, refund=refund),
                lambda: self.model.release(lease.key, lease.fence, refund=refund),
            )

    @rule(number=NUMBERS, has_rival=st.booleans())
    def sleep_through_a_lease(self, number: int, has_rival: bool) -> None:
        """A run that stands still until its time is up, and then goes on as if nothing had happened."""
        for lease in self.lease_from_both([self.key(number)], "sleeper"):
            self.time_passes(80.0)
            if has_rival:
                self.lease_from_both([lease.key], "rival")
            self.heartbeat(lease)
            self.save_under_a_lease(lease)
            self.release(lease, refund=True)

    @rule(number=NUMBERS, claim_id=CLAIMS)
    def publish_and_crash(self, number: int, claim_id: str) -> None:
        """A run that commits a version under its fence and is never heard of again."""
        for lease in self.lease_from_both([self.key(number)], claim_id):
            self.save_under(lease, partial(_published, fence=lease.fence))

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=3, unique=True), claim_id=CLAIMS)
    def cancel_reservation(self, numbers: list[int], claim_id: str) -> None:
        keys = [self.key(number) for number in numbers]
        self.same(
            lambda: self.backend.cancel_reservation(keys, claim_id=claim_id),
            lambda: self.model.cancel_reservation(keys, claim_id=claim_id),
        )

    @rule(number=NUMBERS, fence=st.integers(0, 9), attempts=st.integers(0, 4))
    def adopt_history(self, number: int, fence: int, attempts: int) -> None:
        key, history = self.key(number), ClaimHistory(fence, attempts)
        if not self.model.has_lapsed_lease(key):  # whether that may still be completed is not promised
            self.change(
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
        cursor = None if after is None else self.key(after)
        page = self.backend.page(JOBS, tenant_id=tenant_id, status=status, after=cursor, limit=limit)
        self.check_listed(page, self.model.page(tenant_id=tenant_id, status=status, after=cursor, limit=limit))

    @invariant()
    def listings_show_what_is_stored(self) -> None:
        everything = self.model.page(tenant_id=None, status=None, after=None, limit=100)
        self.check_listed(self.backend.page(JOBS), everything)
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
