"""What is in the inbox: who submitted under which name, and whether a submission is complete.

Only looks; taking and refusing is done by taking.py and stage.py. The content of data files is not read here.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Final

from ss_pipeline.errors import InputRefusedError, SubmissionRefusedError
from ss_pipeline.jobs.documents import is_safe_segment
from ss_pipeline.jobs.inputs import FORMAT_OF_SUFFIX
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.jobs.requests import RequestedInput, SubmissionRequest, parse_request
from ss_pipeline.stages.intake.folder_safety import Signature, check_plain, opened_folder, read_unchanged, signature_of
from ss_pipeline.stages.intake.names import TENANT_MARK, is_usable_name

REQUEST_FILE: Final = "request.json"
READY_FILE: Final = ".ready"

_MAX_REQUEST_BYTES: Final = 1_000_000
"""20,000 characters of requirement are at most 240 kB of JSON, the rest is names."""

_SPARE_ENTRIES: Final = 100
"""Files beside the data files (notes, thumbnails) that a submission may hold."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class IntakeLimits:
    """What a submission may be: bytes of one data file, number of data files, and how long is quiet, in seconds."""

    max_bytes: int
    max_files: int
    quiet_seconds: float
    incomplete_after_seconds: float


@dataclass(frozen=True)
class Entry:
    """Something in the inbox that may be a submission, and how it was seen."""

    name: str
    tenant_id: str
    seen: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder itself, not a link to one."""
        return stat.S_ISDIR(self.seen.st_mode)


@dataclass(frozen=True)
class Listing:
    """The inbox at one instant: what may be a submission, and which tenants' folders cannot be listed, and why."""

    entries: list[Entry]
    unlisted: list[tuple[Entry, str]]


@dataclass(frozen=True)
class Complete:
    """A submission that has all it needs, as it was seen; `ignored` are files its request does not name."""

    request: SubmissionRequest
    signatures: dict[str, Signature]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class NotYet:
    """A submission that still waits for something, in words."""

    reason: str


@dataclass(frozen=True)
class _Contents:
    entries: dict[str, os.stat_result]
    overfull: bool
    age: float
    """Seconds since anything in it changed."""


@contextmanager
def opened_inbox(inbox: Path, *, tenant_id: str) -> Iterator[int]:
    """A descriptor of a tenant's inbox folder; the inbox itself may be a link (the operator's), a tenant's may not.

    Raises:
        OSError: it cannot be opened; FileNotFoundError where it is gone or no folder any more.
    """
    with ExitStack() as opened:
        try:
            descriptor = opened.enter_context(opened_folder(inbox.resolve()))
            if tenant_id != DEFAULT_TENANT:
                descriptor = opened.enter_context(opened_folder(f"{TENANT_MARK}{tenant_id}", parent=descriptor))
        except SubmissionRefusedError as error:
            raise FileNotFoundError(errno.ENOENT, "the inbox folder was replaced", str(inbox)) from error
        yield descriptor


def listing_of(inbox: Path) -> Listing:
    """What lies in the inbox, the oldest of each tenant first, the tenants taking turns.

    Names that start with a dot are none of the inbox's business.

    Raises:
        OSError: the inbox cannot be listed.
    """
    of_tenant: dict[str, list[Entry]] = {}
    unlisted: list[tuple[Entry, str]] = []
    for entry in _listed(inbox, DEFAULT_TENANT):
        tenant_id = entry.name.removeprefix(TENANT_MARK)
        if not (entry.is_folder and entry.name.startswith(TENANT_MARK) and is_safe_segment(tenant_id)):
            of_tenant.setdefault(DEFAULT_TENANT, []).append(entry)
            continue
        try:
            of_tenant.setdefault(tenant_id, []).extend(_listed(inbox, tenant_id))
        except OSError as error:
            unlisted.append((entry, f"this tenant's folder cannot be listed: {error.strerror}"))
    return Listing(list(_in_turn(of_tenant.values())), unlisted)


def entry_of(inbox: Path, name: str, *, tenant_id: str) -> Entry:
    """One submission in the inbox, by the name of its folder.

    Raises:
        OSError: the inbox cannot be looked into; FileNotFoundError where there is no such submission.
    """
    with opened_inbox(inbox, tenant_id=tenant_id) as descriptor:
        return Entry(name, tenant_id, os.stat(name, dir_fd=descriptor, follow_symlinks=False))


def age_of(seen: os.stat_result, *, now: datetime) -> float:
    """Seconds since an entry was last changed; never negative.

    The change time counts, which no copying tool can set back; a modification time counts unless it is in the future.
    """
    now_ns = (now - _EPOCH) // timedelta(microseconds=1) * 1_000
    mtime_ns = seen.st_mtime_ns if seen.st_mtime_ns <= now_ns else 0
    return max(0, now_ns - max(seen.st_ctime_ns, mtime_ns)) / 1e9


def check_name(name: str) -> None:
    """Refuses the name of a submission that no folder of ours can have.

    Raises:
        SubmissionRefusedError: SUBMISSION_NAME_UNSAFE.
    """
    if not is_usable_name(name):
        raise SubmissionRefusedError(
            "the folder's name cannot be used",
            code="SUBMISSION_NAME_UNSAFE",
            todo="Rename it: valid UTF-8 of at most 200 bytes, no control characters or backslashes, "
            "not starting with '~', '.' or '@' ('@' and a tenant's id is that tenant's inbox).",
        )


def examine(
    folder: int, *, tenant_id: str, now: datetime, limits: IntakeLimits, moved: bool = False
) -> Complete | NotYet:
    """Whether a submission is complete: its request reads, its inputs are there, and it is ready or quiet.

    Args:
        folder: Descriptor of the submission's folder.
        moved: The folder was moved by us, so that its own times say nothing.

    Raises:
        SubmissionRefusedError, InputRefusedError: it can never become a job as it is.
        SubmissionChangedError: it changes while it is looked at.
        OSError: it cannot be read.
    """
    contents = _contents_of(folder, now=now, most=limits.max_files + _SPARE_ENTRIES, moved=moved)
    if READY_FILE not in contents.entries and contents.age < limits.quiet_seconds:
        return NotYet(f"it changed less than {limits.quiet_seconds:g} s ago and holds no {READY_FILE} file")
    if contents.overfull:
        raise _too_many(limits)
    if REQUEST_FILE not in contents.entries:
        return _missing(REQUEST_FILE, contents, limits=limits)
    request = parse_request(_read_request(contents.entries[REQUEST_FILE], folder=folder))
    _check_request(request, tenant_id=tenant_id, limits=limits)
    absent = next((item.path for item in request.inputs if item.path not in contents.entries), None)
    if absent is not None:
        return _missing(absent, contents, limits=limits)
    for item in request.inputs:
        _check_input(contents.entries[item.path], name=item.path, limits=limits)
    return _complete(request, contents)


def _listed(inbox: Path, tenant_id: str) -> Iterator[Entry]:
    with opened_inbox(inbox, tenant_id=tenant_id) as descriptor, os.scandir(descriptor) as found:
        for item in found:
            if item.name.startswith("."):
                continue
            try:
                yield Entry(item.name, tenant_id, item.stat(follow_symlinks=False))
            except FileNotFoundError:  # taken by another since
                continue


def _in_turn(of_tenant: Iterable[list[Entry]]) -> Iterator[Entry]:
    lines = deque(deque(sorted(line, key=lambda entry: (entry.seen.st_ctime_ns, entry.name))) for line in of_tenant)
    while lines:
        line = lines.popleft()
        if line:
            yield line.popleft()
            lines.append(line)


def _contents_of(folder: int, *, now: datetime, most: int, moved: bool) -> _Contents:
    entries: dict[str, os.stat_result] = {}
    overfull = False
    with os.scandir(folder) as found:
        for item in found:
            if len(entries) > most:
                overfull = True
                break
            entries[item.name] = item.stat(follow_symlinks=False)
    seen = [*entries.values(), *([] if moved else [os.fstat(folder)])]
    return _Contents(entries, overfull, min((age_of(each, now=now) for each in seen), default=0.0))


def _read_request(seen: os.stat_result, *, folder: int) -> bytes:
    check_plain(seen, name=REQUEST_FILE)
    if seen.st_size > _MAX_REQUEST_BYTES:
        raise SubmissionRefusedError(
            f"{REQUEST_FILE} has {seen.st_size:,} bytes; at most {_MAX_REQUEST_BYTES:,} are read",
            code="SUBMISSION_TOO_LARGE",
            todo=f"Shorten {REQUEST_FILE}; data belongs into the data files.",
        )
    return read_unchanged(REQUEST_FILE, folder=folder, expected=signature_of(seen))


def _check_request(request: SubmissionRequest, *, tenant_id: str, limits: IntakeLimits) -> None:
    if request.tenant_id not in {None, tenant_id}:
        raise SubmissionRefusedError(
            f"request.json says tenant {request.tenant_id!r}, but it lies in the inbox of tenant {tenant_id!r}",
            code="SUBMISSION_TENANT_MISMATCH",
            todo="Leave tenant_id out of request.json, or submit in that tenant's own inbox folder.",
        )
    if len(request.inputs) > limits.max_files:
        raise _too_many(limits)
    for item in request.inputs:
        _check_path(item)


def _check_path(item: RequestedInput) -> None:
    if "/" in item.path:
        raise SubmissionRefusedError(
            f"the input {item.path!r} is in a subfolder",
            code="SUBMISSION_PATH_TOO_DEEP",
            todo="Put the data files directly beside request.json.",
        )
    if PurePosixPath(item.path).suffix.lower() not in FORMAT_OF_SUFFIX:
        known = ", ".join(FORMAT_OF_SUFFIX)
        raise InputRefusedError(
            f"the input {item.path!r} has none of the suffixes {known}",
            code="INPUT_FORMAT_UNSUPPORTED",
            todo="Save the data in one of these formats, with its suffix, and submit again.",
        )


def _check_input(seen: os.stat_result, *, name: str, limits: IntakeLimits) -> None:
    check_plain(seen, name=name)
    if seen.st_size > limits.max_bytes:
        raise SubmissionRefusedError(
            f"{name} has {seen.st_size:,} bytes; at most {limits.max_bytes:,} are taken",
            code="SUBMISSION_TOO_LARGE",
            todo="Submit fewer rows or columns, or have SS_INPUT_MAX_BYTES raised.",
        )
    if seen.st_size == 0:
        raise InputRefusedError(f"{name} is empty", code="INPUT_EMPTY", todo="Submit the file with its data in it.")


def _missing(name: str, contents: _Contents, *, limits: IntakeLimits) -> NotYet:
    if contents.age < limits.incomplete_after_seconds:
        return NotYet(f"{name} is not there yet")
    raise SubmissionRefusedError(
        f"{name} is missing and nothing has changed for {contents.age:.0f} s",
        code="SUBMISSION_INCOMPLETE",
        todo=f"Submit again with {name} in the folder.",
    )


def _too_many(limits: IntakeLimits) -> SubmissionRefusedError:
    return SubmissionRefusedError(
        f"the submission holds too many files; at most {limits.max_files} data files are taken",
        code="SUBMISSION_TOO_MANY_FILES",
        todo="Leave out what the analysis does not need, or have SS_INPUT_MAX_FILES raised.",
    )


def _complete(request: SubmissionRequest, contents: _Contents) -> Complete:
    named = {REQUEST_FILE, *(item.path for item in request.inputs)}
    ignored = sorted(
        os.fsencode(name).decode("utf-8", "backslashreplace")
        for name in contents.entries
        if name not in named and name != READY_FILE
    )
    return Complete(request, {name: signature_of(contents.entries[name]) for name in named}, tuple(ignored))
