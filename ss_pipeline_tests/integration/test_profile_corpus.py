"""Every odd real file of the corpus gets the outcome a careful reader would give it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.errors import InputRefusedError
from ss_pipeline.jobs.inputs import FORMAT_OF_SUFFIX
from ss_pipeline.jobs.profiles import SAMPLE_PATH, DataSample, DatasetProfile
from ss_pipeline.stages.profiling.stage import profile_job
from ss_pipeline_tests.conftest import PROJECT_ROOT
from ss_pipeline_tests.profiling_inputs import LIMITS, a_job_with

Item = dict[str, Any]


def corpus_items() -> list[Item]:
    """The lines of the corpus's manifest; none where there is no corpus."""
    folder = Path(os.environ.get("SS_CORPUS", PROJECT_ROOT.parent / "shared" / "corpus"))
    manifest = folder / "files" / "manifest.jsonl"
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines()] if manifest.is_file() else []


ITEMS = corpus_items()
READABLE = [item for item in ITEMS if Path(item["file"]).suffix in FORMAT_OF_SUFFIX]


def test_the_corpus_is_there(corpus: Path) -> None:
    assert len(ITEMS) == len((corpus / "files" / "manifest.jsonl").read_text("utf-8").splitlines()) > 0


@pytest.mark.guarantee("A8")
@pytest.mark.parametrize("item", READABLE, ids=lambda item: item["file"])
def test_an_odd_file_gets_the_outcome_it_wants(item: Item, corpus: Path, tmp_path: Path) -> None:
    artifacts = ArtifactStore(str(tmp_path))
    job = a_job_with(artifacts, {item["file"]: (corpus / "files" / "data" / item["file"]).read_bytes()})
    try:
        profile = profile_job(job, artifacts=artifacts, limits=LIMITS).primary
    except InputRefusedError as refusal:
        assert item["expect"] in {"refuse", "survive"}, refusal.message  # noqa: PT017
        assert item["file"] in refusal.message  # noqa: PT017
        return
    assert item["expect"] in {"accept", "warn", "survive"}
    assert item["expect"] != "warn" or profile.warnings
    assert disagreements(profile, item) == []
    if "expected_json" in item:
        sample = artifacts.read_model(job.tenant_id, job.job_id, SAMPLE_PATH, DataSample)
        wanted = json.loads((corpus / "files" / "data" / item["expected_json"]).read_text("utf-8"))
        assert records(sample) == wanted


@pytest.mark.parametrize("item", [i for i in ITEMS if i not in READABLE], ids=lambda item: item["file"])
def test_files_of_other_formats_need_only_be_survived(item: Item) -> None:
    assert item["expect"] in {"survive", "refuse"}


def disagreements(profile: DatasetProfile, item: Item) -> list[str]:
    """Where the profile differs from a careful reader's; `<field>_alt` names a second fair reading."""
    found = {
        "rows": profile.rows,
        "cols": profile.columns_total,
        "columns": [column.name for column in profile.columns],
        "encoding": profile.encoding,
        "delimiter": profile.delimiter,
        "decimal": profile.decimal,
        "header_line": profile.header_line,
        "sheet": profile.sheet,
    }
    return [
        f"{field}: {value!r}, wanted {item[field]!r}"
        for field, value in found.items()
        if field in item and value not in (item[field], item.get(f"{field}_alt", item[field]))
    ]


def records(sample: DataSample) -> list[dict[str, str]]:
    """The sample as rows of texts, blank where missing."""
    rows = zip(*sample.columns.values(), strict=True)
    return [
        {name: "" if cell is None else str(cell) for name, cell in zip(sample.columns, row, strict=True)}
        for row in rows
    ]
