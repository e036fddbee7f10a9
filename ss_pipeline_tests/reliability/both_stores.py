"""A job store and its model, asked the same: whoever is asked through `BothStores` has both answers compared.

Which steps are made in which order is store_machine.py's business.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Final, TypeAlias, TypeVar

from ss_pipeline.errors import SSError
from ss_pipeline.jobs.model import Job
from ss_pipeline.store.base import Backend, DocumentKey, Fence, Listed
from ss_pipeline.store.jobs import JobStore, job_key
from ss_pipeline_tests.reliability.store_model import StoreModel
from ss_pipeline_tests.store_contract import Stand

Result = TypeVar("Result")
Change: TypeAlias = Callable[[Job], Job]

TTL: Final = 70.0
"""Seconds of a reservation or lease."""
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


class BothStores:
    """A store and its model. The back end may be shared: the tenants are new, and nothing is left behind.

    Args:
        stand: The back end and its clock.
        job_store: The store on top of it.
    """

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

    def key(self, number: int) -> DocumentKey:
        """One of four jobs: two ids, the same for both tenants."""
        return job_key(f"job_{number % 2:016d}", self.tenants[number // 2])

    def check_listed(self, page: list[Listed], expected: list[DocumentKey]) -> None:
        """Keys and facets; but for the end of a parking, which who_is_next sees."""
        found = [Listed(row.key, replace(row.facets, not_before=0)) for row in page]
        assert found == [Listed(key, replace(self.model.facets(key), not_before=0)) for key in expected]

    def a_change(self) -> Change:
        """A change that no other save has made; it ends a parking."""
        self.changes += 1
        fields = {"priority": self.changes % 30 - 10, "x_change": self.changes, "parked": None}
        return lambda job: job.changed(**fields)

    def change(self, real: Callable[[], Result], expected: Callable[[], Result]) -> Result | None:
        """Makes a change on both sides; a sealed store refuses it, or finds nothing to change."""
        if not self.sealed_steps:
            return self.same(real, expected)
        answer = answer_of(real)
        assert isinstance(answer, type) or not answer, f"a sealed store answered {answer}"
        return None

    def same(self, real: Callable[[], Result], expected: Callable[[], Result]) -> Result | None:
        """The answer of both sides; None where both refused, with the same error."""
        found = answer_of(real)
        check_same(found, answer_of(expected))
        return None if isinstance(found, type) else found

    def load_from(self, store: JobStore, key: DocumentKey) -> Job:
        """A load of the real store, or of another process on it."""
        return store.load(key.document_id, tenant_id=key.tenant_id)

    def update(self, key: DocumentKey, change: Change) -> bool:
        """Whether the change was made or there was nothing to change."""
        answer = answer_of(lambda: self.store.update(key.document_id, change, tenant_id=key.tenant_id))
        if self.sealed_steps:
            assert isinstance(answer, type) or answer == self.model.job(key), f"a sealed store answered {answer}"
            return False
        check_same(answer, answer_of(lambda: self.model.update(key, change)))
        return isinstance(answer, Job)

    def anothers_act(self, how: str, key: DocumentKey) -> Callable[[], object]:
        """What another process does with the same job, on both sides."""
        other, model, change, body = self.other, self.model, self.a_change(), self.model.bodies.get(key, b"")
        acts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "saves": (
                lambda: other.update(key.document_id, change, tenant_id=key.tenant_id),
                lambda: model.update(key, change),
            ),
            "loads": (lambda: self.load_from(other, key), lambda: model.load(key)),
            "rolls back": (lambda: other.roll_back(key), lambda: model.roll_back(key)),
            "deletes": (
                lambda: self.backend.delete(key, expected=body),
                lambda: model.delete(key, expected=body),
            ),
        }
        return lambda: self.same(*acts[how])

    def lease_from_both(self, keys: list[DocumentKey], claim_id: str) -> list[Held]:
        """What a run gets; the model takes the fences of the store, which must be higher than those before."""
        if self.sealed_steps:
            answer = answer_of(lambda: self.backend.lease(keys, claim_id=claim_id, owner="run", ttl=TTL).fences)
            assert isinstance(answer, type) or not answer, f"a sealed store leased {answer}"
            return []
        expected = self.model.leasable(keys, claim_id=claim_id)
        lease = self.backend.lease(keys, claim_id=claim_id, owner="run", ttl=TTL)
        assert list(lease.fences) == expected
        attempts = {key: self.model.leased(key, fence, owner="run", ttl=TTL) for key, fence in lease.fences.items()}
        assert lease.attempts == attempts
        return [Held(key, fence) for key, fence in lease.fences.items()]

    def save_under(self, lease: Held, change: Change) -> None:
        """A run's save under its lease, if the document can be understood."""
        job = answer_of(lambda: self.model.job(lease.key))
        if isinstance(job, Job):
            changed = change(job)
            self.change(
                lambda: self.store.save(changed, fence=lease.fence),
                lambda: self.model.save(changed, fence=lease.fence),
            )

    def teardown(self) -> None:
        """Leaves the back end without documents."""
        self.backend.unseal()
        for key in self.model.bodies:
            with suppress(SSError):  # where the store is broken, an invariant has said so
                self.backend.delete(key, expected=self.backend.read(key))


def answer_of(call: Callable[[], Result]) -> Result | type[SSError]:
    """What a call returned, or the class of the error it raised."""
    try:
        return call()
    except SSError as error:
        return type(error)


def check_same(found: object, expected: object) -> None:
    """Fails where the store's answer is not the model's."""
    assert found == expected, f"the store answered {found}, the model {expected}"
