"""A pipeline in a temporary folder and Dagster around it: its definitions and an ephemeral instance."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ss_pipeline.definitions import build_definitions
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return a_pipeline(tmp_path, claim_slots=2)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def repository(pipeline: Pipeline) -> dg.RepositoryDefinition:
    return build_definitions(pipeline.parts.settings).get_repository_def()
