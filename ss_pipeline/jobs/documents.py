"""Job documents as bytes: strict reading, one way of writing, and which names are safe in a path.

Stricter than the system the documents come from: invalid UTF-8, a byte-order mark, duplicate keys, NaN and infinity,
lone surrogates and deep nesting are all refused, because each of them loses or changes data on the next save.
No schema here (jobs/migrations.py, jobs/model.py) and no files (store/).
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeAlias

from ss_pipeline.errors import JobDataCorruptedError

JsonObject: TypeAlias = dict[str, Any]

MAX_NESTING = 100
"""Levels of lists and objects; a job needs 8, and the JSON writer itself fails near 1,000."""

MAX_SEGMENT_BYTES = 200
"""A file name may have 255 bytes; the stores append suffixes to a segment."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def parse_document(raw: bytes) -> JsonObject:
    """Reads a document strictly.

    Raises:
        JobDataCorruptedError: with the first reason found; never another exception type.
    """
    try:
        payload = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except UnicodeDecodeError as error:
        raise JobDataCorruptedError(f"not valid UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise JobDataCorruptedError("nested too deeply") from error
    except ValueError as error:  # includes JSONDecodeError and integers of more than 4,300 digits
        raise JobDataCorruptedError(f"not valid JSON: {error}") from error
    if not isinstance(payload, dict):
        raise JobDataCorruptedError(f"not a JSON object but {_json_type(payload)}")
    _check_depth_and_text(payload)
    return payload


def render_document(payload: JsonObject) -> bytes:
    """The one byte form of a document: UTF-8, sorted keys, indent 2, newline at the end (layout of CONTRACT 3.1)."""
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return (text + "\n").encode("utf-8")


def is_safe_segment(name: str) -> bool:
    """Whether a tenant or job id can be one folder name: no separators, no dots-only, no leading `~`, valid UTF-8."""
    return (
        bool(name)
        and name not in {".", ".."}
        and not name.startswith("~")
        and not _CONTROL.search(name)
        and "/" not in name
        and "\\" not in name
        and len(name.encode("utf-8", "surrogatepass")) <= MAX_SEGMENT_BYTES
    )


def is_safe_rel_path(path: str) -> bool:
    """Whether a path stays inside its job's folder: relative, POSIX, no `..`, no backslash, no `~` or `/` first."""
    return (
        bool(path)
        and not path.startswith(("/", "~"))
        and "\\" not in path
        and "\x00" not in path
        and ".." not in path.split("/")
    )


def job_folder(tenant_id: str, job_id: str) -> str:
    """The folder of a job relative to a root: `<shard>/<job_id>`, below `tenants/<tenant>` for others than `default`.

    The shard is the first two characters after `job_`, padded with `0` (CONTRACT 3.1).
    """
    shard = job_id.removeprefix("job_")[:2].ljust(2, "0")
    shard = shard if is_safe_segment(shard) else "00"
    prefix = "" if tenant_id == "default" else f"tenants/{tenant_id}/"
    return f"{prefix}{shard}/{job_id}"


def moment_of(time: str) -> datetime:
    """A time of a document; one without offset is UTC.

    Raises:
        ValueError: it is no ISO 8601 time.
    """
    moment = datetime.fromisoformat(time)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> JsonObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JobDataCorruptedError(f"duplicate key {twice!r}")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise JobDataCorruptedError(f"{name} is not JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JobDataCorruptedError(f"the number {text[:40]} is too large")
    return value


def _check_depth_and_text(payload: JsonObject) -> None:
    for depth, value in _walk(payload):
        if depth > MAX_NESTING:
            raise JobDataCorruptedError(f"nested deeper than {MAX_NESTING} levels")
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise JobDataCorruptedError("a text holds a lone surrogate")


def _walk(payload: JsonObject) -> Iterator[tuple[int, Any]]:
    pending: list[tuple[int, Any]] = [(1, payload)]
    while pending:
        depth, value = pending.pop()
        yield depth, value
        if isinstance(value, dict):
            yield from ((depth, key) for key in value)
            pending.extend((depth + 1, item) for item in value.values())
        elif isinstance(value, list):
            pending.extend((depth + 1, item) for item in value)


def _json_type(value: object) -> str:
    names = {"NoneType": "null", "list": "an array", "str": "a string", "bool": "a boolean"}
    return names.get(type(value).__name__, "a number")
