"""How older job documents become current: V1 → V2 → V3, one pure function a step (CONTRACT 3.2, seed S1.1.*).

Pure and deterministic: the same bytes always migrate to the same document, so two loaders at once agree, and a
rollback can tell whether a document was saved since. Logging and writing back are store/jobs.py's business.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ss_pipeline.errors import JobDataCorruptedError
from ss_pipeline.jobs.documents import JsonObject
from ss_pipeline.jobs.model import (
    JOB_SCHEMA_VERSION_CURRENT,
    JOB_SCHEMA_VERSION_V1,
    JOB_SCHEMA_VERSION_V2,
    JOB_SCHEMA_VERSION_V3,
    SUPPORTED_JOB_SCHEMA_VERSIONS,
)


@dataclass(frozen=True)
class Migration:
    """A document at the current schema and what was done to get there.

    Args:
        payload: The document, at `JOB_SCHEMA_VERSION_CURRENT`.
        steps: `(from_version, to_version)` of every step, in order; empty where it was current.
        trace_id_backfilled: Whether a missing trace id was filled in.
    """

    payload: JsonObject
    steps: tuple[tuple[int, int], ...]
    trace_id_backfilled: bool

    @property
    def changed(self) -> bool:
        """Whether the payload differs from the document it was made of."""
        return bool(self.steps) or self.trace_id_backfilled


def assert_supported_schema_version(version: object) -> int:
    """The schema version, if it is one of the supported integers.

    Raises:
        JobDataCorruptedError: for anything else; `True` and `1.0` are no versions (stricter than the original).
    """
    if type(version) is not int or version not in SUPPORTED_JOB_SCHEMA_VERSIONS:
        allowed = ", ".join(map(str, SUPPORTED_JOB_SCHEMA_VERSIONS))
        raise JobDataCorruptedError(f"schema_version {str(version)[:40]!r} is not supported (supported: {allowed})")
    return version


def migrate_payload_to_current(payload: JsonObject) -> Migration:
    """Brings a document to the current schema; the given one is not changed.

    Raises:
        JobDataCorruptedError: for an unsupported version, or where a step finds the document malformed.
    """
    version = assert_supported_schema_version(payload.get("schema_version"))
    current = dict(payload)
    steps: list[tuple[int, int]] = []
    while version != JOB_SCHEMA_VERSION_CURRENT:
        target, step = _STEPS[version]
        current = step(current)
        steps.append((version, target))
        version = target
    backfilled = _trace_is_missing(current)
    if backfilled:
        current["trace_id"] = _derived_trace_id(payload)
    return Migration(payload=current, steps=tuple(steps), trace_id_backfilled=backfilled)


def _v1_to_v2(payload: JsonObject) -> JsonObject:
    for key in ("runs", "artifacts_index"):
        if not isinstance(payload.get(key, []), list):
            raise JobDataCorruptedError(f"{key}_not_list")
    lists = {"runs": payload.get("runs", []), "artifacts_index": payload.get("artifacts_index", [])}
    return {**payload, **lists, "schema_version": JOB_SCHEMA_VERSION_V2}


def _v2_to_v3(payload: JsonObject) -> JsonObject:
    version = payload.get("version")
    version = 1 if version is None else version
    if type(version) is not int or version < 1:
        raise JobDataCorruptedError("version_invalid")
    return {**payload, "version": version, "schema_version": JOB_SCHEMA_VERSION_V3}


_STEPS: Final[dict[int, tuple[int, Callable[[JsonObject], JsonObject]]]] = {
    JOB_SCHEMA_VERSION_V1: (JOB_SCHEMA_VERSION_V2, _v1_to_v2),
    JOB_SCHEMA_VERSION_V2: (JOB_SCHEMA_VERSION_V3, _v2_to_v3),
}


def _trace_is_missing(payload: JsonObject) -> bool:
    trace_id = payload.get("trace_id")
    return trace_id is None or (isinstance(trace_id, str) and not trace_id.strip())


def _derived_trace_id(payload: JsonObject) -> str:
    """32 hex digits of the original document's canonical form: every loader derives the same one."""
    canonical = json.dumps(payload, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
