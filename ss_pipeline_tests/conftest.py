"""Fixtures every test may use: the corpus of real inputs, a clock that stands still, temporary stores."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from ss_pipeline_tests.postgres_schemas import PostgresSchema

PROJECT_ROOT = Path(__file__).parent.parent

settings.register_profile("house", deadline=None)  # a busy machine is no finding
settings.load_profile("house")


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real inputs (`SS_CORPUS`, else `../shared/corpus`); the test is skipped where there is none."""
    folder = Path(os.environ.get("SS_CORPUS", PROJECT_ROOT.parent / "shared" / "corpus"))
    if not folder.is_dir():
        pytest.skip(f"the corpus of real inputs is not at {folder} (set SS_CORPUS)")
    return folder


@pytest.fixture
def schema() -> Iterator["PostgresSchema"]:
    """A new schema of the shared PostgreSQL."""
    from ss_pipeline_tests.postgres_schemas import postgres_schema  # not for tests that need no server

    with postgres_schema() as schema:
        yield schema


@pytest.fixture
def anyio_backend() -> str:
    """What tests marked `anyio` run on: the event loop the pipeline runs on."""
    return "asyncio"
