"""Every back end keeps every case of the contract (store_contract.py)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ss_pipeline_tests.store_contract import CASES, STANDS, Stand, create_race


@pytest.fixture(params=sorted(STANDS))
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with STANDS[request.param](tmp_path) as stand:
        yield stand


@pytest.mark.seed("S2.3.3")
@pytest.mark.guarantee("R7")
@pytest.mark.guarantee("R9")
@pytest.mark.guarantee("F22")
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_back_end_keeps_the_contract(stand: Stand, name: str) -> None:
    CASES[name](stand)


@pytest.mark.seed("S1.2.8")
@pytest.mark.guarantee("R4")
def test_of_eight_threads_that_create_a_document_one_succeeds(stand: Stand) -> None:
    assert create_race(stand, rounds=20) == [1] * 20
