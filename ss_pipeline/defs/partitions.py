"""The partition set `jobs` and the way from a job to its partition key and back.

The key of a job made here is its id. Dagster takes keys such as `[x...y]` or `a,b` for ranges and lists, so imported
ids with other characters than [a-z0-9_-] get an alias; so do jobs of other tenants, whose key must name the tenant.
Aliases are documents of the store.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

import dagster as dg

from ss_pipeline.defs.tags import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from ss_pipeline.errors import DocumentExistsError, DocumentNotFoundError
from ss_pipeline.jobs.documents import parse_document
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore, job_key

JOB_PARTITIONS: Final = dg.DynamicPartitionsDefinition(name="jobs")
ALIASES: Final = "partition_aliases"
_PLAIN: Final = re.compile(r"^[a-z0-9_-]{1,100}$")
_ALIAS_PREFIX: Final = "alias_"

IN_FLIGHT: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Statuses of runs that still need their partition keys."""


def partition_key_of(key: DocumentKey) -> str:
    """The partition key of a job: its id, or an alias where the id itself cannot serve."""
    plain = _PLAIN.match(key.document_id) and not key.document_id.startswith(_ALIAS_PREFIX)
    if plain and key.tenant_id == DEFAULT_TENANT:
        return key.document_id
    return _ALIAS_PREFIX + hashlib.sha256(f"{key.tenant_id}/{key.document_id}".encode()).hexdigest()[:26]


def recorded_partition_key(jobs: JobStore, key: DocumentKey) -> str:
    """The partition key of a job, recorded where it is an alias, so that `job_of_partition` finds the way back."""
    partition_key = partition_key_of(key)
    if partition_key != key.document_id:
        body = json.dumps({"tenant_id": key.tenant_id, "job_id": key.document_id}, ensure_ascii=False).encode()
        with suppress(DocumentExistsError):
            jobs.backend.create(_alias_key(partition_key), body, Facets())
    return partition_key


def keys_of_run(tags: Mapping[str, str], known: Sequence[str]) -> list[str]:
    """The partition keys of a run by its tags: one, or a range of the known keys."""
    if PARTITION_TAG in tags:
        return [tags[PARTITION_TAG]]
    start, end = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if start not in known or end not in known:
        return []
    return list(known[known.index(start) : known.index(end) + 1])


def job_of_partition(jobs: JobStore, partition_key: str) -> DocumentKey:
    """The job of a partition key.

    Raises:
        JobDataCorruptedError: an alias whose record cannot be read.
    """
    if not partition_key.startswith(_ALIAS_PREFIX):
        return job_key(partition_key)
    try:
        named = parse_document(jobs.backend.read(_alias_key(partition_key)))
    except DocumentNotFoundError:
        return job_key(partition_key)
    return job_key(str(named.get("job_id")), str(named.get("tenant_id")))


def _alias_key(alias: str) -> DocumentKey:
    return DocumentKey(ALIASES, DEFAULT_TENANT, alias)
