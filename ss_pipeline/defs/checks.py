"""Asset checks, evaluated per partition in the step that makes the asset.

The publication stage itself refuses what would fail a blocking check; a check here shows the result to people.
"""

from collections.abc import Iterator
from typing import Final

import dagster as dg

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.defs.partitions import JOB_PARTITIONS
from ss_pipeline.errors import ArtifactError
from ss_pipeline.job_run import Stage, StageDone
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.jobs.model import Publication
from ss_pipeline.jobs.profiles import PROFILE_PATH, JobProfile
from ss_pipeline.stages.publishing.stage import Check, checks_before_publishing, verify_publication

_OF_DRAFT: Final = {
    "draft_names_real_columns": "Every column the draft names is a column of the data.",
    "draft_matches_schema": "The draft has the fields and types of its schema.",
}

CHECK_SPECS: Final = [
    dg.AssetCheckSpec(
        "profile_has_rows",
        asset=Stage.INPUT_PROFILE.value,
        description="The primary data set has rows and columns.",
        partitions_def=JOB_PARTITIONS,
    ),
    *(
        dg.AssetCheckSpec(
            name, asset=Stage.ANALYSIS_DRAFT.value, description=description, partitions_def=JOB_PARTITIONS
        )
        for name, description in _OF_DRAFT.items()
    ),
    dg.AssetCheckSpec(
        "manifest_hashes_match",
        asset=Stage.PUBLICATION.value,
        description="Every published file has the hash its manifest says.",
        partitions_def=JOB_PARTITIONS,
    ),
]


def check_evaluations(
    done: StageDone, *, partition: str, artifacts: ArtifactStore
) -> Iterator[dg.AssetCheckEvaluation]:
    """The evaluated checks of the asset a stage has just made."""
    for check in _checks(done, artifacts):
        yield dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(done.stage.value),
            check_name=check.name,
            passed=check.passed,
            description=check.message,
            severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
            partition=partition,
        )


def _checks(done: StageDone, artifacts: ArtifactStore) -> list[Check]:
    result = done.result
    if isinstance(result, JobProfile):
        rows = result.primary.rows
        return [Check("profile_has_rows", passed=rows > 0, blocking=True, message=f"{rows} rows")]
    if isinstance(result, Draft):
        try:
            profile = artifacts.read_model(done.job.tenant_id, done.job.job_id, PROFILE_PATH, JobProfile)
        except ArtifactError as error:
            return [Check(name, passed=False, blocking=False, message=error.message) for name in _OF_DRAFT]
        return [c for c in checks_before_publishing(done.job, profile) if c.name in _OF_DRAFT]
    if isinstance(result, Publication):
        problems = verify_publication(done.job, result, artifacts=artifacts)
        message = "; ".join(problems) or "all files match"
        return [Check("manifest_hashes_match", passed=not problems, blocking=True, message=message)]
    return []
