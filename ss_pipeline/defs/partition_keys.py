"""From a job to its partition key and back. No dagster, so that whoever hands in a job can name its partition, too.

The key of a job made here is its id. Dagster takes keys such as `[x...y]` or `a,b` for ranges and lists, so imported
ids with other characters than [a-z0-9_-] get an alias; so do jobs of other tenants, whose key must name the tenant.
Aliases are documents of the store.
"""

import hashlib
import json
import re
from contextlib import suppress
from typing import Final

from ss_pipeline.errors import DocumentExistsError, DocumentNotFoundError
from ss_pipeline.jobs.documents import parse_document
from ss_pipeline.jobs.model import DEFAULT_TENANT
from ss_pipeline.store.base import DocumentKey, Facets
from ss_pipeline.store.jobs import JobStore, job_key

ALIASES: Final = "partition_aliases"
_PLAIN: Final = re.compile(r"^[a-z0-9_-]{1,100}$")
_ALIAS_PREFIX: Final = "alias_"


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
