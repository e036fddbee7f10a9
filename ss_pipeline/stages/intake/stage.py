"""Intake: each complete submission in the inbox becomes one job, each impossible one is set aside with its reason.

The order for one submission: look (inbox.py), take it to a desk (taking.py), make the job (ingestion.py), close the
desk. A killed process leaves desks; the next call goes on with them. Who works on the job is not decided here.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import (
    InputRefusedError,
    SSError,
    SubmissionChangedError,
    SubmissionRefusedError,
)
from ss_pipeline.jobs.documents import JsonObject
from ss_pipeline.stages.intake.folder_safety import not_a_folder, opened_folder, unreadable
from ss_pipeline.stages.intake.handing_in import submit
from ss_pipeline.stages.intake.inbox import (
    Complete,
    Entry,
    IntakeLimits,
    NotYet,
    age_of,
    check_name,
    entry_of,
    examine,
    listing_of,
    opened_inbox,
)
from ss_pipeline.stages.intake.ingestion import Ingested, Ingestion
from ss_pipeline.stages.intake.names import label_of
from ss_pipeline.stages.intake.outcomes import Accepted, IntakeReport, Outcome, Refused, Waiting, report_of
from ss_pipeline.stages.intake.taking import (
    REASON_FILE,
    RECEIPT_FILE,
    Desk,
    desks_left,
    held,
    prepare,
    taken,
    unusable,
)
from ss_pipeline.store.jobs import JobStore
from ss_pipeline.telemetry.events import emit

__all__ = ["Accepted", "IntakeLimits", "IntakeReport", "Refused", "Waiting", "submit", "take_in", "take_in_one"]

_REFUSALS: Final = (SubmissionRefusedError, InputRefusedError)


def take_in(
    inbox: Path, *, jobs: JobStore, artifacts: ArtifactStore, clock: Clock, limits: IntakeLimits, most: int = 50
) -> IntakeReport:
    """Makes jobs of the complete submissions in the inbox, and goes on with those a killed process had taken.

    Several processes may call this at once: each submission is worked on by one of them.

    Args:
        inbox: The inbox folder; made where it is missing. `refused` and `accepted` are beside it.
        most: Submissions accepted or refused in this call; the others stay for the next.

    Raises:
        SettingsError: the inbox itself cannot be made or listed.
    """
    inbox = inbox.absolute()
    prepare(inbox)
    intake = _Intake(inbox, Ingestion(jobs, artifacts, clock), clock, limits)
    try:
        desks, listing = desks_left(inbox), listing_of(inbox)
    except OSError as error:
        raise unusable(inbox, error) from error
    outcomes = [intake.resume(desk) for desk in desks]
    outcomes += [Waiting(label_of(entry.name), entry.tenant_id, reason) for entry, reason in listing.unlisted]
    outcomes += intake.attend_to(listing.entries, most=most)
    return report_of([outcome for outcome in outcomes if outcome is not None])


def take_in_one(
    inbox: Path,
    name: str,
    *,
    tenant_id: str,
    jobs: JobStore,
    artifacts: ArtifactStore,
    clock: Clock,
    limits: IntakeLimits,
) -> Outcome | None:
    """Makes a job of one submission, as `take_in` does of all; None where it is gone: another process takes it.

    Args:
        name: The submission's folder name in the tenant's inbox.

    Raises:
        SettingsError: the inbox itself cannot be made or looked into.
    """
    inbox = inbox.absolute()
    prepare(inbox)
    try:
        entry = entry_of(inbox, name, tenant_id=tenant_id)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(inbox, error) from error
    (outcome,) = _Intake(inbox, Ingestion(jobs, artifacts, clock), clock, limits).attend_to([entry], most=1)
    return outcome


@dataclass(frozen=True)
class _Intake:
    inbox: Path
    ingestion: Ingestion
    clock: Clock
    limits: IntakeLimits

    def attend_to(self, entries: list[Entry], *, most: int) -> Iterator[Outcome | None]:
        """What becomes of each entry, until `most` are settled."""
        left = most
        for entry in entries:
            if left <= 0:
                return
            outcome = self._attend(entry)
            left -= isinstance(outcome, Accepted | Refused)
            yield outcome

    def resume(self, desk: Desk) -> Outcome | None:
        """Goes on with a taken submission, unless it has a living holder."""
        with held(desk) as mine:
            return self._settled(desk, lambda: self._go_on(desk)) if mine else None

    def _attend(self, entry: Entry) -> Outcome | None:
        """None where it vanished: another process took it, or its owner removed it."""
        try:
            seen = self._look(entry)
            return _waiting(entry, seen.reason) if isinstance(seen, NotYet) else self._take(entry, seen)
        except _REFUSALS as error:
            return self._refuse_entry(entry, error)
        except SubmissionChangedError as error:
            return _waiting(entry, error.message)
        except FileNotFoundError:
            return None
        except OSError as error:
            return self._attend_to_fault(entry, error)

    def _attend_to_fault(self, entry: Entry, fault: OSError) -> Outcome | None:
        if isinstance(fault, PermissionError) and self._age(entry) >= self.limits.quiet_seconds:
            return self._refuse_entry(entry, unreadable("the submission", fault))
        return _waiting(entry, f"it cannot be read or taken: {fault.strerror}")

    def _look(self, entry: Entry) -> Complete | NotYet:
        if not entry.is_folder or label_of(entry.name) != entry.name:
            if self._age(entry) < self.limits.quiet_seconds:
                return NotYet("it has only just appeared")
            check_name(entry.name)
            raise not_a_folder(entry.seen)
        with (
            opened_inbox(self.inbox, tenant_id=entry.tenant_id) as parent,
            opened_folder(entry.name, parent=parent) as f,
        ):
            return examine(f, tenant_id=entry.tenant_id, now=self.clock.now(), limits=self.limits)

    def _take(self, entry: Entry, complete: Complete) -> Outcome | None:
        with taken(entry, inbox=self.inbox, job_id=self.clock.new_job_id()) as desk:
            if desk is None:
                return None
            _tell("SS_SUBMISSION_TAKEN", desk, job_id=desk.job_id)
            return self._settled(desk, lambda: self._ingest(desk, complete))

    def _settled(self, desk: Desk, work: Callable[[], Outcome | None]) -> Outcome | None:
        """The outcome of the work on a desk; where a medium fails, the desk stays for the next call."""
        try:
            try:
                return work()
            except _REFUSALS as error:
                return self._refuse(desk, error)
            except SubmissionChangedError as error:
                return _put_back(desk, error.message)
        except (SSError, OSError) as error:
            reason = error.message if isinstance(error, SSError) else str(error.strerror)
            _tell("SS_SUBMISSION_STALLED", desk, level=logging.WARNING, reason=reason)
            return Waiting(desk.label, desk.tenant_id, f"it is taken, but cannot become a job now: {reason}")

    def _ingest(self, desk: Desk, complete: Complete) -> Accepted:
        with opened_folder(desk.submission) as folder:
            made = self.ingestion.ingest(folder, complete, tenant_id=desk.tenant_id, job_id=desk.job_id)
        return self._accept(desk, made, complete.ignored)

    def _go_on(self, desk: Desk) -> Outcome | None:
        receipt, reason = desk.outcome(RECEIPT_FILE), desk.outcome(REASON_FILE)
        if receipt:
            return _close_accepted(desk, receipt)
        if not os.path.lexists(desk.submission):
            desk.discard()
            return None
        if reason:
            return _close_refused(desk, reason)
        if self.ingestion.exists(desk.tenant_id, desk.job_id):
            datasets = self.ingestion.datasets_of(desk.tenant_id, desk.job_id)
            return self._accept(desk, Ingested(desk.job_id, duplicate=False, datasets=datasets), ())
        with opened_folder(desk.submission) as folder:
            now = self.clock.now()
            seen = examine(folder, tenant_id=desk.tenant_id, now=now, limits=self.limits, moved=True)
        return _put_back(desk, seen.reason) if isinstance(seen, NotYet) else self._ingest(desk, seen)

    def _accept(self, desk: Desk, made: Ingested, ignored: tuple[str, ...]) -> Accepted:
        receipt: JsonObject = {
            "job_id": made.job_id,
            "tenant_id": desk.tenant_id,
            "submission": desk.label,
            "duplicate": made.duplicate,
            "at": self.clock.timestamp(),
            "inputs": [
                {"path": d.original_name, "sha256": d.sha256, "size_bytes": d.size_bytes} for d in made.datasets
            ],
            "ignored": list(ignored),
        }
        desk.write_outcome(RECEIPT_FILE, receipt)
        return _close_accepted(desk, receipt)

    def _refuse(self, desk: Desk, error: SSError) -> Refused:
        reason = self._reason(desk.label, desk.tenant_id, error)
        desk.write_outcome(REASON_FILE, reason)
        return _close_refused(desk, reason)

    def _refuse_entry(self, entry: Entry, error: SSError) -> Outcome | None:
        reason = self._reason(_shown(entry.name), entry.tenant_id, error)
        try:
            with taken(entry, inbox=self.inbox, job_id=self.clock.new_job_id(), reason=reason) as desk:
                return self._settled(desk, lambda: _close_refused(desk, reason)) if desk else None
        except OSError as fault:
            return _waiting(entry, f"{error.message}; and it cannot be moved to the refused ones: {fault.strerror}")

    def _reason(self, name: str, tenant_id: str, error: SSError) -> JsonObject:
        return {
            "code": error.error_code,
            "message": error.message,
            "todo": error.todo,
            "at": self.clock.timestamp(),
            "submission": name,
            "tenant_id": tenant_id,
        }

    def _age(self, entry: Entry) -> float:
        return age_of(entry.seen, now=self.clock.now())


def _close_accepted(desk: Desk, receipt: JsonObject) -> Accepted:
    desk.close_accepted()
    accepted = Accepted(desk.label, desk.tenant_id, receipt["job_id"], receipt["duplicate"])
    event = "SS_SUBMISSION_DUPLICATE" if accepted.duplicate else "SS_SUBMISSION_ACCEPTED"
    _tell(event, desk, job_id=accepted.job_id)
    return accepted


def _close_refused(desk: Desk, reason: JsonObject) -> Refused:
    code, message, todo = reason["code"], reason["message"], reason["todo"]
    folder = desk.close_refused()
    _tell("SS_SUBMISSION_REFUSED", desk, level=logging.WARNING, code=code, reason=message)
    return Refused(desk.label, desk.tenant_id, code, message, todo, folder)


def _put_back(desk: Desk, reason: str) -> Waiting:
    desk.put_back()
    _tell("SS_SUBMISSION_PUT_BACK", desk, reason=reason)
    return Waiting(desk.label, desk.tenant_id, reason)


def _tell(event: str, desk: Desk, *, level: int = logging.INFO, **fields: object) -> None:
    emit(event, level=level, name=desk.label, tenant_id=desk.tenant_id, **fields)


def _waiting(entry: Entry, reason: str) -> Waiting:
    return Waiting(label_of(entry.name), entry.tenant_id, reason)


def _shown(name: str) -> str:
    """The name as text: bytes that are no UTF-8 as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
