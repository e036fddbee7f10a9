"""Looks into the zip container of a workbook without unpacking it: sizes, ratios, members, document types.

A small container can hold gigabytes, so this comes before any reader sees it (guarantee A8). Reading the sheets is
workbooks.py's business.
"""

import io
import re
import zipfile
import zlib
from typing import Final

from ss_pipeline.errors import InputRefusedError

MAX_MEMBERS: Final = 1_000
MAX_UNPACKED_BYTES: Final = 200_000_000
MAX_RATIO: Final = 100
_RATIO_MATTERS_FROM: Final = 1_000_000
"""Small parts compress as they like: a ratio costs nothing below this size."""
_PROLOG_BYTES: Final = 64_000
_ARCHIVES: Final = (".zip", ".xlsx", ".xlsm", ".xlsb", ".ods", ".gz", ".7z", ".rar", ".tar")
ZIP_MAGIC: Final = b"PK\x03\x04"
_ROOT_ELEMENT: Final = re.compile(rb"<(?:\x00)?[A-Za-z_]")
_DOCTYPE: Final = re.compile(
    rb"<\x00?!\x00?(?:D\x00?O\x00?C\x00?T\x00?Y\x00?P\x00?E|E\x00?N\x00?T\x00?I\x00?T\x00?Y)", re.I
)


def check_container(body: bytes) -> int:
    """Looks at a zip container's directory and at the beginning of its XML parts.

    Returns:
        The unpacked size in bytes.

    Raises:
        InputRefusedError: INPUT_COMPRESSION_BOMB, INPUT_UNSAFE_WORKBOOK, INPUT_UNREADABLE.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as container:
            members = container.infolist()
            _check_members(members)
            for member in members:
                if member.filename.lower().endswith((".xml", ".rels", ".vml")):
                    _check_prolog(container, member)
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error) as error:  # RuntimeError: encrypted
        raise damaged() from error
    return sum(member.file_size for member in members)


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    unpacked = sum(member.file_size for member in members)
    dense = [
        member
        for member in members
        if member.file_size > _RATIO_MATTERS_FROM and member.file_size > MAX_RATIO * max(member.compress_size, 1)
    ]
    if len(members) > MAX_MEMBERS or unpacked > MAX_UNPACKED_BYTES or dense:
        raise InputRefusedError(
            f"would unpack to {unpacked:,} bytes in {len(members):,} parts, out of proportion to its size",
            code="INPUT_COMPRESSION_BOMB",
            todo="Export the sheet as CSV and hand that in.",
        )
    nested = [name for name in names if name.lower().endswith(_ARCHIVES) and "/embeddings/" not in name]
    if nested or len(set(names)) < len(names):
        raise _unsafe("holds archives inside it" if nested else "holds parts of the same name twice")


def _check_prolog(container: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """A document type, where entities are declared, stands before the first element; in texts its `<` is escaped."""
    with container.open(member) as part:
        start = part.read(_PROLOG_BYTES)
    root = _ROOT_ELEMENT.search(start)
    if _DOCTYPE.search(start) or (root is None and len(start) == _PROLOG_BYTES):
        raise _unsafe("declares XML entities, which a workbook does not need")


def damaged() -> InputRefusedError:
    """The refusal of what cannot be opened."""
    return InputRefusedError(
        "is no Excel workbook, or it is damaged",
        code="INPUT_UNREADABLE",
        todo="Open it in a spreadsheet program and save it again as .xlsx or CSV.",
    )


def _unsafe(reason: str) -> InputRefusedError:
    return InputRefusedError(
        reason,
        code="INPUT_UNSAFE_WORKBOOK",
        todo="Open it in a spreadsheet program and save it again as .xlsx or CSV.",
    )
