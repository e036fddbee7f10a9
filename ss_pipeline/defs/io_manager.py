"""The IO manager: op outputs as JSON in the artifact store, assets loaded from the store. Never a pickle (A9).

Dagster's default IO manager pickles: a replaced file would run code. Assets write nothing through here, their stages
do; `load_asset_value` reads what they wrote, as JSON values.
"""

import json
import re
from typing import Any

import dagster as dg
from upath import UPath

from ss_pipeline.defs.partition_keys import job_of_partition
from ss_pipeline.errors import ArtifactNotFoundError
from ss_pipeline.job_run import Stage
from ss_pipeline.jobs.inputs import MANIFEST_PATH
from ss_pipeline.jobs.model import Job
from ss_pipeline.jobs.profiles import PROFILE_PATH
from ss_pipeline.wiring import Parts


class JsonIOManager(dg.IOManager):
    """Reads and writes JSON values.

    Args:
        parts: The stores assets are loaded from.
        folder: Where op outputs go: `<folder>/<run id>/<step>/<output>.json`.
    """

    def __init__(self, parts: Parts, folder: UPath) -> None:
        self._parts = parts
        self._folder = folder

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Writes an op's output; nothing for None."""
        if obj is None:
            return
        target = self._path(context)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(json.dumps(obj, ensure_ascii=False, allow_nan=False).encode())

    def load_input(self, context: dg.InputContext) -> Any:
        """An upstream op's output, or the present value of a job's asset."""
        if context.has_asset_key:
            return self._asset_value(context)
        if context.upstream_output is None:
            raise ArtifactNotFoundError(f"input {context.name!r} has no upstream output")
        return json.loads(self._path(context.upstream_output).read_bytes())

    def _asset_value(self, context: dg.InputContext) -> Any:
        key = job_of_partition(self._parts.jobs, context.partition_key)
        job = self._parts.jobs.load(key.document_id, tenant_id=key.tenant_id)
        value = _value_of(Stage(context.asset_key.to_user_string()), job, self._parts)
        if value is None:
            raise ArtifactNotFoundError(f"job {job.job_id!r} has no {context.asset_key.to_user_string()} yet")
        return value

    def _path(self, context: dg.OutputContext) -> UPath:
        names = [re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in context.get_identifier()]
        return self._folder.joinpath(*names[:-1]) / f"{names[-1]}.json"


def op_outputs_folder(parts: Parts) -> UPath:
    """Where op outputs are, a folder for each run; purged with the run."""
    return UPath(parts.settings.data_dir.absolute() / "op_outputs")


def build_io_manager() -> dg.IOManagerDefinition:
    """The IO manager as a resource; its files live below the data folder."""

    def make(context: dg.InitResourceContext) -> JsonIOManager:
        parts: Parts = context.resources.parts
        return JsonIOManager(parts, op_outputs_folder(parts))

    return dg.IOManagerDefinition(make, required_resource_keys={"parts"}, description="JSON; never a pickle.")


def _value_of(stage: Stage, job: Job, parts: Parts) -> Any:
    match stage:
        case Stage.JOB_RECORD:
            return job.as_payload()
        case Stage.ANALYSIS_DRAFT:
            return job.draft.model_dump(mode="json") if job.draft else None
        case Stage.PUBLICATION:
            return job.published.model_dump(mode="json") if job.published else None
        case Stage.SUBMISSION:
            return json.loads(parts.artifacts.read(job.tenant_id, job.job_id, MANIFEST_PATH))
        case Stage.INPUT_PROFILE:
            return json.loads(parts.artifacts.read(job.tenant_id, job.job_id, PROFILE_PATH))
