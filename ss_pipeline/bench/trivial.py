"""Stages that do next to nothing, in place of the real ones: what is left of a job's cost is the engine's.

They leave what the code around them needs: a profile with one column, a draft that nothing blocks, a version of five
files of one line. Everything else is the production code: intake, claim, store, decision, checks, events.
"""

from collections.abc import Callable
from typing import Any, Final

from ss_pipeline import job_run
from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.inputs import PRIMARY_ROLE
from ss_pipeline.jobs.model import Job, Publication, publication_folder
from ss_pipeline.jobs.profiles import PROFILE_PATH, SAMPLE_PATH, ColumnProfile, DataSample, DatasetProfile, JobProfile
from ss_pipeline.llm.base import LLMClient
from ss_pipeline.stages.profiling.stage import ProfileLimits
from ss_pipeline.stages.publishing.manifest import (
    CONTENT_TYPES,
    MANIFEST_NAME,
    ManifestDecision,
    PublicationManifest,
    listed,
    sha256_of,
)

_COLUMN: Final = ColumnProfile(
    name="y", original_name="y", normalized_name="y", inferred_type="number", count=1, missing=0, distinct=1
)
_DATASET: Final = DatasetProfile(
    dataset_key="ds_1",
    role=PRIMARY_ROLE,
    original_name="data.csv",
    format="csv",
    rows=1,
    columns_total=1,
    columns_profiled=1,
    columns=[_COLUMN],
)
_SAMPLE: Final = DataSample(dataset_key="ds_1", rows_total=1, columns={"y": [1.0]})
_FILES: Final = dict.fromkeys(CONTENT_TYPES, b"trivial\n")


def profile_job(job: Job, *, artifacts: ArtifactStore, limits: ProfileLimits) -> JobProfile:  # noqa: ARG001
    """A profile of one column; no data file is read."""
    profile = JobProfile(job_id=job.job_id, datasets=[_DATASET])
    artifacts.write_model(job.tenant_id, job.job_id, SAMPLE_PATH, _SAMPLE)
    artifacts.write_model(job.tenant_id, job.job_id, PROFILE_PATH, profile)
    return profile


async def draft_job(job: Job, *, profile: JobProfile, client: LLMClient, clock: Clock) -> Draft:  # noqa: ARG001
    """A draft that describes the one column; nobody is asked."""
    return Draft(text="y is described.", created_at=clock.timestamp(), outcome_var="y", method="descriptive")


def prepare_publication(
    job: Job,
    *,
    profile: JobProfile,  # noqa: ARG001
    sample: DataSample | None,  # noqa: ARG001
    artifacts: ArtifactStore,
    fence: int,
    clock: Clock,
) -> Publication:
    """A version whose files hold one word each; its manifest is a whole one, so that the check of it passes.

    Raises:
        TypeError: there is no draft, or no decision on it.
    """
    if job.draft is None or job.decision is None:
        raise TypeError(f"job {job.job_id!r} has no decided draft")
    version, draft, decision = len(job.publications) + 1, job.draft.sha256, job.decision
    manifest = PublicationManifest(
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        version=version,
        fence=fence,
        created_at=clock.timestamp(),
        draft_sha256=draft,
        decision=ManifestDecision(by=decision.by, at=decision.at, action=decision.action),
        requirement_sha256="",
        inputs=[],
        files=listed(_FILES),
        software={},
    )
    folder = publication_folder(version=version, fence=fence)
    for name, body in {**_FILES, MANIFEST_NAME: manifest.as_bytes()}.items():
        artifacts.write(job.tenant_id, job.job_id, f"{folder}/{name}", body)
    hashed = sha256_of(manifest.as_bytes())
    return Publication(version=version, manifest_sha256=hashed, at=manifest.created_at, fence=fence, draft_sha256=draft)


_TRIVIAL: Final[dict[str, Callable[..., Any]]] = {
    function.__name__: function for function in (profile_job, draft_job, prepare_publication)
}
_REAL: Final = {name: vars(job_run)[name] for name in _TRIVIAL}


def install() -> None:
    """From now on, jobs of this process go through the trivial stages."""
    vars(job_run).update(_TRIVIAL)


def uninstall() -> None:
    """From now on, jobs of this process go through the real stages again."""
    vars(job_run).update(_REAL)
