"""The op job `copy_store`: documents brought into another store, with its progress on the run's page.

A thin shell over store/copying.py, as the command `ss-pipeline store copy` is. The switch to the other store is not
here: it ends the runs that use the store, this one among them.
"""

import time
from collections.abc import Callable
from typing import Final

import dagster as dg
from pydantic import Field

from ss_pipeline import wiring
from ss_pipeline.errors import SSError
from ss_pipeline.store.copying import CopyResult, Phase, Progress, copy_documents
from ss_pipeline.store.jobs import facets_of_body

_SECONDS_BETWEEN_LINES: Final = 5.0


class CopyStore(dg.Config):
    """From where, to where, and how sure."""

    source: str = Field(description="The store that has the documents: file, redis, postgres, or file:/folder.")
    target: str = Field(description="The store that they are brought into; empty, or sealed for the source.")
    verify: bool = Field(default=True, description="Compare the sha256 of every document afterwards.")
    resume: bool = Field(default=False, description="Go on where the last copy was broken off.")


@dg.op(name="copy_documents", description="Brings all documents into another store, while the first one is in use.")
def copy_all(context: dg.OpExecutionContext, config: CopyStore, parts: dg.ResourceParam[wiring.Parts]) -> None:
    """Fails where documents differ afterwards; what was copied stays, and a second run brings the rest."""
    progress = lines_of_progress(context.log.info)
    try:
        result = _copied(config, parts, progress)
    except SSError as error:
        failure = f"{error.error_code}: {error.message}. {error.todo}"
        raise dg.Failure(description=failure, allow_retries=False) from error
    metadata = _metadata(result)
    if result.differences:
        description = f"{result.differences} documents differ between {config.source} and {config.target}"
        raise dg.Failure(description=description, metadata=metadata, allow_retries=False)
    context.add_output_metadata(metadata)


@dg.job(
    name="copy_store",
    executor_def=dg.in_process_executor,
    description="Bring all job documents into another store (copy, compare); the switch is the command line's.",
)
def copy_store_job() -> None:
    """One op."""
    copy_all()


def lines_of_progress(write: Callable[[str], object], *, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Writes a line at the start and the end of each phase, and every few seconds in between."""
    written: dict[Phase, float] = {}

    def tell(phase: Phase, done: int, total: int) -> None:
        if done >= total or clock() - written.get(phase, float("-inf")) >= _SECONDS_BETWEEN_LINES:
            written[phase] = clock()
            write(f"{phase}: {done} of {total} documents")

    return tell


def _copied(config: CopyStore, parts: wiring.Parts, progress: Progress) -> CopyResult:
    with wiring.moving_between(parts.settings, config.source, config.target) as (source, target):
        return copy_documents(
            source, target, facets_of=facets_of_body, verify=config.verify, resume=config.resume, progress=progress
        )


def _metadata(result: CopyResult) -> dict[str, dg.MetadataValue]:
    compared = result.compared
    numbers = {"copied": result.copied, "unchanged": result.unchanged, "removed": len(result.removed)}
    found: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(number) for name, number in numbers.items()}
    found["seconds"] = dg.MetadataValue.float(round(result.seconds, 3))
    if result.removed:
        found["removed_documents"] = dg.MetadataValue.json([f"{k.tenant_id}/{k.document_id}" for k in result.removed])
    if compared:
        found["differences"] = dg.MetadataValue.int(len(compared.differences))
        found["digest"] = dg.MetadataValue.text(compared.target_digest)
    return found
