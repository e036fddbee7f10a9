"""The operations of the file store and of a publication, each with what is there before it, for power_cut.py."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.stages.publishing.stage import prepare_publication, write_current
from ss_pipeline.store.base import ClaimHistory, DocumentKey, Facets, Fence, Lease
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.file_claims import LeaseClock
from ss_pipeline.store.jobs import ORIGINALS, JobStore, facets_of_body, job_key
from ss_pipeline_tests.builders import a_job
from ss_pipeline_tests.fakes import StandingClock
from ss_pipeline_tests.publishing_builders import english_case
from ss_pipeline_tests.reliability.store_writers import v1_document

KEY: Final = job_key(english_case()[0].job_id)
ORIGINAL: Final = DocumentKey(ORIGINALS, KEY.tenant_id, KEY.document_id)
ENTRY: Final = DocumentKey("ledger", "default", "entry")
WATCHED: Final = (KEY, job_key(KEY.document_id, "acme"), job_key("job_0000000000000002"), ORIGINAL, ENTRY)


class Desk:
    """The store and the artifacts in a folder, as one process or one boot has them."""

    def __init__(self, folder: Path, *, boot_id: str = "before the cut") -> None:
        clock = LeaseClock(boot_id=lambda: boot_id)
        self.backend = FileBackend(folder / "jobs", facets_of=facets_of_body, clock=clock)
        self.jobs = JobStore(self.backend)
        self.artifacts = ArtifactStore(str(folder / "artifacts"))


# --- the operations --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What is there before, and the one operation; what the first returns is given to the second.

    Args:
        is_synced: Whether the operation promises to survive a power cut.
    """

    before: Callable[[Desk], Fence | None]
    act: Callable[[Desk, Fence | None], object]
    is_synced: bool = True


def _nothing(_desk: Desk) -> None:
    return None


def _another_job(desk: Desk) -> None:
    desk.jobs.create(a_job("job_0000000000000002"))


def _a_job(desk: Desk) -> None:
    desk.jobs.create(english_case()[0])


def _a_tried_job(desk: Desk) -> None:
    """A job with an attempt that counts."""
    _a_job(desk)
    desk.backend.release(KEY, _leased(desk), refund=False)


def _a_leased_job(desk: Desk) -> Fence:
    _a_tried_job(desk)
    return _leased(desk)


def _an_older_job(desk: Desk) -> None:
    body = v1_document(KEY.document_id)
    desk.backend.create(KEY, body, facets_of_body(KEY, body))


def _a_migrated_job(desk: Desk) -> None:
    _an_older_job(desk)
    desk.jobs.load(KEY.document_id)


def _a_sealed_store(desk: Desk) -> None:
    _a_job(desk)
    desk.backend.seal("the next store")


def _leased(desk: Desk) -> Fence:
    return desk.backend.lease([KEY], claim_id="c", owner="run", ttl=60).fences[KEY]


def _create_for_a_tenant(desk: Desk, _fence: Fence | None) -> None:
    desk.jobs.create(a_job(KEY.document_id, tenant_id="acme"))


def _save(desk: Desk, fence: Fence | None) -> None:
    desk.jobs.save(desk.jobs.load(KEY.document_id).changed(priority=7), fence=fence)


def _heartbeat(desk: Desk, fence: Fence | None) -> None:
    assert fence
    desk.backend.heartbeat(Lease(fence.claim_id, "run", {KEY: fence}), ttl=90)


def _complete(desk: Desk, fence: Fence | None) -> None:
    assert fence
    desk.backend.complete(KEY, fence)


def _release(desk: Desk, fence: Fence | None) -> None:
    assert fence
    desk.backend.release(KEY, fence)


def _publish(desk: Desk, fence: Fence | None) -> None:
    """The files, the commit, and the pointer that is derived from it."""
    assert fence
    job, profile, sample = english_case()
    version = prepare_publication(
        job, profile=profile, sample=sample, artifacts=desk.artifacts, fence=fence.number, clock=StandingClock()
    )
    saved = desk.jobs.save(job.changed(publications=[version]), fence=fence)
    write_current(saved, artifacts=desk.artifacts)


SCENARIOS: Final[dict[str, Scenario]] = {
    "first use": Scenario(_nothing, lambda desk, _: _a_job(desk)),
    "create": Scenario(_another_job, lambda desk, _: _a_job(desk)),
    "create for a tenant": Scenario(_a_job, _create_for_a_tenant),
    "create in another collection": Scenario(_a_job, lambda desk, _: desk.backend.create(ENTRY, b"{}", Facets())),
    "save": Scenario(_a_job, _save),
    "save under a fence": Scenario(_a_leased_job, _save),
    "migrate": Scenario(_an_older_job, lambda desk, _: desk.jobs.load(KEY.document_id)),
    "roll back": Scenario(_a_migrated_job, lambda desk, _: desk.jobs.roll_back(KEY)),
    "delete": Scenario(_a_job, lambda desk, _: desk.backend.delete(KEY, expected=desk.backend.read(KEY))),
    "reserve": Scenario(
        _a_tried_job, lambda desk, _: desk.backend.reserve([KEY], claim_id="c", ttl=60), is_synced=False
    ),
    "lease": Scenario(_a_tried_job, lambda desk, _: _leased(desk)),
    "heartbeat": Scenario(_a_leased_job, _heartbeat, is_synced=False),
    "complete": Scenario(_a_leased_job, _complete),
    "release": Scenario(_a_leased_job, _release),
    "adopt history": Scenario(_a_job, lambda desk, _: desk.backend.adopt_history(KEY, ClaimHistory(7, 2))),
    "seal": Scenario(_a_job, lambda desk, _: desk.backend.seal("the next store")),
    "unseal": Scenario(_a_sealed_store, lambda desk, _: desk.backend.unseal()),
    "publish": Scenario(_a_leased_job, _publish),
}
