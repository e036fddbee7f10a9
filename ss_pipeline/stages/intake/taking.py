"""Taking a submission out of the inbox, and where it ends: accepted, refused, or back in the inbox.

`<inbox>/.taken/[@tenant/]<job_id>__<label>/` is the desk of one submission: `submission` is what lay in the inbox,
moved by one rename; `lock` is held by whoever works on it: a desk without a holder was left by a killed process.
The outcome is written on the desk first (`reason.json`, `receipt.json`) and the desk is then renamed to where outcomes
are kept; each step can be repeated. What the outcome is, stage.py decides.
"""

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline import durable
from ss_pipeline.errors import SettingsError, SubmissionRefusedError
from ss_pipeline.jobs.documents import JsonObject
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.stages.intake.folder_safety import opened_folder
from ss_pipeline.stages.intake.inbox import Entry, opened_inbox
from ss_pipeline.stages.intake.names import TENANT_MARK, label_of

REASON_FILE: Final = "reason.json"
RECEIPT_FILE: Final = "receipt.json"

_SUBMISSION: Final = "submission"
_LOCK: Final = "lock"
_DESK_NAME: Final = re.compile(r"(job_[a-z0-9]{16,32})__(.+)", re.DOTALL)
_NAME_IN_USE: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


@dataclass(frozen=True)
class Desk:
    """One taken submission and its folder."""

    inbox: Path
    tenant_id: str
    job_id: str
    label: str

    @property
    def folder(self) -> Path:
        """The desk's own folder."""
        return _tenant_folder(self.inbox / ".taken", self.tenant_id) / f"{self.job_id}__{self.label}"

    @property
    def submission(self) -> Path:
        """What lay in the inbox."""
        return self.folder / _SUBMISSION

    def outcome(self, file_name: str) -> JsonObject | None:
        """The outcome written on the desk before, or None."""
        try:
            document: JsonObject = json.loads((self.folder / file_name).read_bytes())
        except FileNotFoundError:
            return None
        return document

    def write_outcome(self, file_name: str, document: JsonObject) -> None:
        """Writes an outcome durably; from here on the desk only has to be cleared away."""
        durable.write_file(self.folder / file_name, _json_bytes(document))

    def close_refused(self) -> Path:
        """Moves reason and submission to `refused/[@tenant/]<label>`; returns that folder."""
        return self._close("refused")

    def close_accepted(self) -> Path:
        """Removes the submission and moves the receipt to `accepted/[@tenant/]<label>`; returns that folder."""
        if os.path.lexists(self.submission):
            shutil.rmtree(self.submission)
        return self._close("accepted")

    def put_back(self) -> None:
        """Moves the submission back into the inbox, under a name with a number where its own is in use."""
        durable.make_folder(_tenant_folder(self.inbox, self.tenant_id))
        with opened_inbox(self.inbox, tenant_id=self.tenant_id) as parent:
            _move_to_free_name(self.submission, parent, self.label)
        self.discard()

    def discard(self) -> None:
        """Removes the desk if there is no submission on it; a submission is never removed here."""
        if os.path.lexists(self.submission):
            return
        with suppress(OSError):  # gone already, or in use: the next call sees it again
            for entry in self.folder.iterdir():
                entry.unlink()
            self.folder.rmdir()

    def _close(self, kept_in: str) -> Path:
        final = self._move_to(self.inbox.parent / kept_in) or self._move_to(self.inbox / f".{kept_in}")
        if final is None:
            raise OSError(errno.EXDEV, "no folder for outcomes on the inbox's file system", str(self.folder))
        (final / _LOCK).unlink(missing_ok=True)
        return final

    def _move_to(self, kept_in: Path) -> Path | None:
        parent = _tenant_folder(kept_in, self.tenant_id)
        durable.make_folder(parent)
        try:
            with opened_folder(parent) as descriptor:
                return parent / _move_to_free_name(self.folder, descriptor, self.label)
        except OSError as error:
            if error.errno == errno.EXDEV:  # the inbox is a mount of its own: outcomes stay inside, hidden
                return None
            raise


def prepare(inbox: Path) -> None:
    """Makes the inbox and the private folder in it.

    Raises:
        SettingsError: they cannot be made, or the private folder is not one of ours.
    """
    private = inbox / ".taken"
    try:
        durable.make_folder(inbox)
        private.mkdir(mode=0o700, exist_ok=True)
        with opened_folder(private) as descriptor:
            owner = os.fstat(descriptor).st_uid
    except OSError as error:
        raise unusable(inbox, error) from error
    except SubmissionRefusedError as error:
        raise SettingsError(f"{private}: {error.message}", todo="Remove it; it is made again.") from error
    if owner != os.geteuid():
        raise SettingsError(f"{private} belongs to another user", todo="Remove it; it is made again.")


def unusable(inbox: Path, error: OSError) -> SettingsError:
    """The error of an inbox that cannot be made or listed."""
    return SettingsError(
        f"the inbox {inbox} cannot be used: {error.strerror}",
        todo="Correct SS_INBOX_DIR or SS_DATA_DIR, or the permissions of this folder.",
    )


def desks_left(inbox: Path) -> list[Desk]:
    """The desks there are, in the order of their names; each may have a living holder."""
    private = inbox / ".taken"
    found: list[Desk | None] = []
    for folder in sorted(private.iterdir()):
        if folder.name.startswith(TENANT_MARK):
            tenant_id = folder.name.removeprefix(TENANT_MARK)
            found += [_desk(inbox, tenant_id, inner.name) for inner in sorted(folder.iterdir())]
        else:
            found.append(_desk(inbox, DEFAULT_TENANT, folder.name))
    return [desk for desk in found if desk is not None]


@contextmanager
def held(desk: Desk) -> Iterator[bool]:
    """Holds the desk's lock; yields False where another holds it or the desk is gone."""
    try:
        descriptor = os.open(desk.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _locked(descriptor) and _is_still(desk.folder / _LOCK, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def taken(entry: Entry, *, inbox: Path, job_id: str, reason: JsonObject | None = None) -> Iterator[Desk | None]:
    """Moves an entry of the inbox to a desk of its own and holds that; yields None where another was quicker.

    Args:
        reason: Why it is refused, where that is known already; so it is never without its reason.

    Raises:
        OSError: it cannot be moved; it is where it was.
    """
    desk = Desk(inbox, entry.tenant_id, job_id, label_of(entry.name))
    durable.make_folder(desk.folder)
    with held(desk) as mine:
        yield desk if mine and _fetch(entry, desk, reason) else None


def _fetch(entry: Entry, desk: Desk, reason: JsonObject | None) -> bool:
    if reason:
        desk.write_outcome(REASON_FILE, reason)
    try:
        with opened_inbox(desk.inbox, tenant_id=desk.tenant_id) as parent:
            os.rename(entry.name, desk.submission, src_dir_fd=parent)
            os.fsync(parent)
    except FileNotFoundError:
        desk.discard()
        return False
    except OSError:
        desk.discard()
        raise
    durable.sync_folder(desk.folder)
    if not os.path.samestat(desk.submission.lstat(), entry.seen):  # another lies under the name since it was looked at
        desk.put_back()
        return False
    return True


def _desk(inbox: Path, tenant_id: str, name: str) -> Desk | None:
    match = _DESK_NAME.fullmatch(name)
    return Desk(inbox, tenant_id, match[1], match[2]) if match else None


def _tenant_folder(root: Path, tenant_id: str) -> Path:
    return root if tenant_id == DEFAULT_TENANT else root / f"{TENANT_MARK}{tenant_id}"


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the locked file is the one at this path: a desk cleared away in between took its lock with it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _move_to_free_name(source: Path, parent: int, label: str) -> str:
    """Renames without replacing: a folder that is not empty is never replaced, an empty one is looked for first."""
    for number in itertools.count(1):
        name = label if number == 1 else f"{label}-{number}"
        if _is_free(name, parent) and _moved(source, parent, name):
            os.fsync(parent)
            return name
    raise AssertionError("unreachable")


def _is_free(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _moved(source: Path, parent: int, name: str) -> bool:
    try:
        os.rename(source, name, dst_dir_fd=parent)
    except OSError as error:
        if error.errno in _NAME_IN_USE:
            return False
        raise
    return True


def _json_bytes(document: JsonObject) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
