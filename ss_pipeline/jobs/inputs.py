"""A job's data files: the manifest that lists them and the fingerprint of their content (CONTRACT 3.7)."""

import hashlib
import json
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_PATH: Final = "inputs/manifest.json"
PRIMARY_ROLE: Final = "primary_dataset"

Role: TypeAlias = Literal["primary_dataset", "secondary_dataset", "auxiliary_data", "other"]
InputFormat: TypeAlias = Literal["csv", "tsv", "excel", "dta", "sav", "parquet"]

FORMAT_OF_SUFFIX: Final[dict[str, InputFormat]] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "tsv", ".tab": "tsv", ".xlsx": "excel", ".xls": "excel",
    ".dta": "dta", ".sav": "sav", ".parquet": "parquet",
}  # fmt: skip
"""Which suffixes are data files, in lower case. Others are refused with this list."""


class InputDataset(BaseModel):
    """One data file of a job. `rel_path` is relative to the job's folder: `inputs/<dataset_key><suffix>`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dataset_key: str
    role: Role
    rel_path: str
    original_name: str
    size_bytes: int = Field(ge=0)
    sha256: str
    fingerprint: str
    format: InputFormat
    uploaded_at: str
    content_type: str | None = None


class InputsManifest(BaseModel):
    """All data files of a job; exactly one is the primary data set."""

    model_config = ConfigDict(extra="allow", frozen=True)

    schema_version: Literal[2] = 2
    datasets: list[InputDataset]

    @property
    def primary(self) -> InputDataset:
        """The data set the analysis is about."""
        return next(d for d in self.datasets if d.role == PRIMARY_ROLE)


def dataset_key(sha256: str, role: str, original_name: str) -> str:
    """`ds_` and 16 hex digits, the same for the same file in the same place of a submission."""
    return "ds_" + hashlib.sha256(f"{role}\n{original_name}\n{sha256}".encode()).hexdigest()[:16]


def inputs_fingerprint(datasets: list[InputDataset]) -> str:
    """ "sha256:" + sha256 of the canonical JSON of [{role, sha256, size_bytes}] sorted by role, then sha256."""
    rows = [{"role": d.role, "sha256": d.sha256, "size_bytes": d.size_bytes} for d in datasets]
    rows.sort(key=lambda row: (row["role"], row["sha256"]))
    canonical = json.dumps(rows, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
