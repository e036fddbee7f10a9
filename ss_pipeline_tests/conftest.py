"""Fixtures every test may use: the corpus of real inputs, a clock that stands still, temporary stores."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
