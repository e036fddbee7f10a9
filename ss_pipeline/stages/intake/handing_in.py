"""Handing in a submission from this machine: complete the moment it can be seen in the inbox."""

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from ss_pipeline import durable
from ss_pipeline.errors import SubmissionRefusedError
from ss_pipeline.jobs.documents import is_safe_segment
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.jobs.requests import SubmissionRequest
from ss_pipeline.stages.intake.inbox import READY_FILE, REQUEST_FILE, check_name
from ss_pipeline.stages.intake.names import TENANT_MARK


def submit(
    inbox: Path,
    *,
    request: SubmissionRequest,
    files: Mapping[str, Path],
    name: str,
    tenant_id: str = DEFAULT_TENANT,
) -> Path:
    """Puts a complete submission into the inbox: written to a hidden folder there, then renamed once.

    Args:
        files: Name in the submission (an input's path in the request) to the file that is copied.
        name: The submission's folder name.

    Returns:
        The submission's folder in the inbox.

    Raises:
        SubmissionRefusedError: SUBMISSION_NAME_UNSAFE, SUBMISSION_NAME_TAKEN, SUBMISSION_INCOMPLETE or
            SUBMISSION_UNREADABLE; nothing is in the inbox.
        OSError: the inbox cannot be written.
    """
    target = _target(inbox, name=name, tenant_id=tenant_id)
    _check_files(request, files)
    staged = inbox / f".submitting-{secrets.token_hex(8)}"
    durable.make_folder(target.parent)
    staged.mkdir()
    try:
        for file_name, source in files.items():
            _copy(source, staged / file_name)
        durable.write_file(staged / REQUEST_FILE, (request.model_dump_json(exclude_none=True) + "\n").encode())
        durable.write_file(staged / READY_FILE, b"")
        _publish(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _target(inbox: Path, *, name: str, tenant_id: str) -> Path:
    check_name(name)
    if not is_safe_segment(tenant_id):
        raise SubmissionRefusedError(f"{tenant_id!r} cannot be a tenant's id", code="SUBMISSION_NAME_UNSAFE")
    parent = inbox if tenant_id == DEFAULT_TENANT else inbox / f"{TENANT_MARK}{tenant_id}"
    return parent / name


def _check_files(request: SubmissionRequest, files: Mapping[str, Path]) -> None:
    named = {item.path for item in request.inputs}
    odd = sorted(named.symmetric_difference(files))
    if odd:
        raise SubmissionRefusedError(
            f"{odd[0]!r} is {'named by the request but not given' if odd[0] in named else 'not named by the request'}",
            code="SUBMISSION_INCOMPLETE",
            todo="Give exactly the files that the request names as inputs.",
        )
    for name, source in files.items():
        if "/" in name:
            raise SubmissionRefusedError(f"the input {name!r} is in a subfolder", code="SUBMISSION_PATH_TOO_DEEP")
        if not source.is_file():
            raise SubmissionRefusedError(f"{source} is no file", code="SUBMISSION_UNREADABLE")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("xb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def _publish(staged: Path, target: Path) -> None:
    taken = SubmissionRefusedError(
        f"there is a submission {target.name!r} in the inbox",
        code="SUBMISSION_NAME_TAKEN",
        todo="Submit under another name.",
    )
    if os.path.lexists(target):
        raise taken
    try:
        staged.rename(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise taken from error
    except OSError as error:
        if target.is_dir():  # of two submitters at once, the other was quicker
            raise taken from error
        raise
    durable.sync_folder(target.parent)
