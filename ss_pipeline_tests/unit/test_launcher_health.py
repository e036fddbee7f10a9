"""The health of a run's process is decided from what was seen, case by case."""

from dataclasses import replace

import pytest

from ss_pipeline.launcher.health import REPORT_SECONDS, Health, Sighting, how_it_ended, judge
from ss_pipeline.launcher.processes import Process
from ss_pipeline.launcher.records import RunRecord

PROCESS = Process(pid=100, started=5, boot="boot", namespace="pid:[1]")
RECORD = RunRecord("8a2b", PROCESS, zygote=replace(PROCESS, pid=90), key="k")
SETTLED = replace(RECORD, settled=True)
KILLED = replace(RECORD, exit_status=-9)
REPORTED = replace(KILLED, reported=True)
LATE = REPORT_SECONDS + 1


@pytest.mark.parametrize(
    ("seen", "health"),
    [
        (Sighting(RECORD, alive=True, zygote_alive=True), Health.RUNNING),
        (Sighting(RECORD, alive=True, zygote_alive=False), Health.RUNNING),  # it outlives its zygote
        (Sighting(SETTLED, alive=True), Health.RUNNING),  # on its way out
        (Sighting(SETTLED, alive=False), Health.SUCCESS),
        (Sighting(SETTLED, alive=False, zygote_alive=True), Health.SUCCESS),
        (Sighting(RECORD, alive=False, zygote_alive=True), Health.RUNNING),  # being reported
        (Sighting(KILLED, alive=False, zygote_alive=True), Health.RUNNING),
        (Sighting(KILLED, alive=False, zygote_alive=True, gone_for=LATE), Health.FAILED),  # the report does not come
        (Sighting(RECORD, alive=False, zygote_alive=True, gone_for=LATE), Health.FAILED),
        (Sighting(REPORTED, alive=False, zygote_alive=True), Health.FAILED),
        (Sighting(RECORD, alive=False, zygote_alive=False), Health.FAILED),  # host kill, reboot
        (Sighting(KILLED, alive=False, zygote_alive=False), Health.FAILED),
        (Sighting(None), Health.NOT_FOUND),
        (Sighting(None, elsewhere=True), Health.RUNNING),  # the default launcher's
    ],
)
@pytest.mark.guarantee("R12")
def test_the_health_is(seen: Sighting, health: Health) -> None:
    assert judge(seen).health == health


@pytest.mark.parametrize(
    ("record", "said"),
    [(RECORD, "nobody saw"), (KILLED, "signal 9"), (replace(RECORD, exit_status=3), "exited with status 3")],
)
def test_the_end_is_told(record: RunRecord, said: str) -> None:
    assert said in how_it_ended(record)
    assert "100" in how_it_ended(record)
