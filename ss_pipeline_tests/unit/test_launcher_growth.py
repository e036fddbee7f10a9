"""The judgement of the load script on what grows with the number of runs."""

from dataclasses import replace

import pytest

from ss_pipeline_tests.load.launcher_growth import Sample, grown

AT_REST = Sample(
    runs=0,
    seconds=0.0,
    processes=3,
    zygote_descriptors=8,
    daemon_descriptors=50,
    zygote_memory=250.0,
    daemon_memory=140.0,
    server_memory=270.0,
    zygote_pid=100,
)


def samples(field: str, *values: float) -> list[Sample]:
    """Ten samples that differ in one field."""
    return [replace(AT_REST, **{field: value}) for value in values]  # type: ignore[arg-type]


@pytest.mark.guarantee("R17")
@pytest.mark.parametrize(
    ("field", "values", "faults"),
    [
        ("runs", range(50, 550, 50), 0),
        ("zygote_memory", (200, 240, *[250] * 8), 0),  # caches fill
        ("processes", (3, 3, 4, 3, 3, 4, 3, 4, 4, 4), 0),  # a code server is being replaced
        ("server_memory", (270, 540) * 5, 0),
        ("processes", (3, 3, 3, 3, 4, 4, 4, 4, 4, 4), 1),
        ("zygote_descriptors", range(8, 508, 50), 1),
        ("daemon_descriptors", range(50, 60), 1),
        ("daemon_memory", range(140, 190, 5), 1),
        ("zygote_pid", (*[100] * 9, 101), 1),
    ],
)
def test_what_grows_is_caught_and_what_only_varies_is_not(field: str, values: list[float], faults: int) -> None:
    assert len(grown(samples(field, *values))) == faults
