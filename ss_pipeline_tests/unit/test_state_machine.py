"""The lifecycle: every pair of statuses, the history's chain, random walks, phases, holding and adopting."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ss_pipeline.errors import JobIllegalTransitionError
from ss_pipeline.jobs.documents import parse_document, render_document
from ss_pipeline.jobs.drafts import Draft, OpenUnknown, Stage1Question
from ss_pipeline.jobs.lifecycle import (
    CLAIMABLE_STATUSES,
    TRANSITIONS,
    adopt,
    born,
    history_is_intact,
    hold_reason,
    phase,
    transition,
)
from ss_pipeline.jobs.model import (
    JOB_STATUSES,
    TERMINAL_STATUSES,
    FailureRecord,
    Job,
    JobStatus,
    Parked,
    Publication,
    job_from_payload,
)
from ss_pipeline_tests.builders import CREATED_AT, a_job

AT: Final = "2026-01-06T12:00:01.000000+00:00"

TABLE: Final = """
              created draft_ready confirmed queued running succeeded failed cancelled
created          =        x           .       .      .         .       x        x
draft_ready      x        =           x       .      .         .       .        x
confirmed        .        .           =       x      .         .       .        x
queued           .        .           .       =      x         .       .        x
running          .        .           .       x      =         x       x        x
succeeded        .        .           .       .      .         =       .        .
failed           x        .           .       x      .         .       =        x
cancelled        .        .           .       .      .         .       .        =
"""
"""From the row's status to the column's: x is an arrow, = changes nothing, . is refused."""


def cells() -> list[tuple[str, str, str]]:
    """Every pair of the table above with its mark."""
    head, *rows = TABLE.strip().splitlines()
    marks = {row.split()[0]: row.split()[1:] for row in rows}
    return [
        (source, target, mark) for source in marks for target, mark in zip(head.split(), marks[source], strict=True)
    ]


def forged(job: Job, position: int, **fields: object) -> Job:
    """The job with other fields in one history entry, its hash left as it was."""
    entries = list(job.history)
    entries[position] = entries[position].model_copy(update=fields)
    return job.changed(history=entries)


def published_job() -> Job:
    """A job that went all the way."""
    job = a_job()
    path: tuple[JobStatus, ...] = ("draft_ready", "confirmed", "queued", "running", "succeeded")
    for status in path:
        job = transition(job, status, at=AT, by="run:1", reason=f"to_{status}")
    return job


@pytest.mark.seed("S1.D7")
def test_the_table_names_every_pair_of_statuses_once() -> None:
    assert [(source, target) for source, target, _ in cells()] == [(a, b) for a in JOB_STATUSES for b in JOB_STATUSES]


@pytest.mark.seed("S1.D7")
@pytest.mark.parametrize(("source", "target", "mark"), cells())
def test_a_job_goes_only_along_the_arrows(source: JobStatus, target: JobStatus, mark: str) -> None:
    job = a_job(status=source)
    if mark == ".":
        with pytest.raises(JobIllegalTransitionError, match=f"from {source} to {target}") as caught:
            transition(job, target, at=AT, by="test")
        assert (caught.value.from_status, caught.value.to_status) == (source, target)
        return
    changed = transition(job, target, at=AT, by="test", reason="because")
    assert changed.status == target
    assert (changed is job) is (mark == "=")
    assert len(changed.history) == (1 if mark == "=" else 2)


def test_no_arrow_leaves_a_terminal_status_and_every_other_can_be_cancelled() -> None:
    assert {status for status, targets in TRANSITIONS.items() if not targets} == TERMINAL_STATUSES
    assert all("cancelled" in targets for status, targets in TRANSITIONS.items() if status not in TERMINAL_STATUSES)


def test_what_waits_for_a_run_is_neither_done_nor_in_a_persons_hands() -> None:
    assert set(CLAIMABLE_STATUSES) == set(JOB_STATUSES) - TERMINAL_STATUSES - {"draft_ready", "failed"}


def test_a_change_says_who_when_and_why_in_the_history() -> None:
    job = transition(a_job(), "draft_ready", at=AT, by="run:7", reason="drafted")
    first, second = job.history
    assert (first.from_status, first.to_status, first.by, first.at) == ("new", "created", "test", CREATED_AT)
    assert (second.from_status, second.to_status, second.by, second.reason) == (
        "created", "draft_ready", "run:7", "drafted",
    )  # fmt: skip
    assert (job.updated_at, second.prev) == (AT, first.hash)


def test_the_history_of_a_job_that_went_all_the_way_is_intact_and_survives_storage() -> None:
    job = published_job()
    assert history_is_intact(job)
    assert history_is_intact(job_from_payload(parse_document(render_document(job.as_payload()))))


def test_a_job_without_history_was_imported_and_has_nothing_to_tamper_with() -> None:
    assert history_is_intact(a_job().changed(history=[]))


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at", "2030-01-01T00:00:00+00:00"),
        ("by", "somebody else"),
        ("from_status", "failed"),
        ("to_status", "cancelled"),
        ("reason", "another"),
        ("prev", "0" * 64),
        ("hash", "0" * 64),
        ("unknown", "added"),
    ],
)
def test_a_changed_entry_of_the_history_is_found(position: int, field: str, value: str) -> None:
    assert not history_is_intact(forged(published_job(), position, **{field: value}))


@pytest.mark.parametrize("position", range(5))
def test_a_removed_entry_of_the_history_is_found(position: int) -> None:
    job = published_job()
    assert not history_is_intact(job.changed(history=job.history[:position] + job.history[position + 1 :]))


def test_two_entries_that_changed_places_are_found() -> None:
    job = published_job()
    assert not history_is_intact(
        job.changed(history=[*job.history[:3], job.history[4], job.history[3], job.history[5]])
    )


@pytest.mark.seed("S1.D7")
@given(st.lists(st.sampled_from(JOB_STATUSES), max_size=30))
def test_whatever_is_tried_the_history_tells_the_whole_way(wishes: list[JobStatus]) -> None:
    job = a_job()
    way = ["created"]
    for wish in wishes:
        if wish in TRANSITIONS[job.status]:
            way.append(wish)
        elif wish != job.status:
            with pytest.raises(JobIllegalTransitionError):
                transition(job, wish, at=AT, by="test")
            continue
        job = transition(job, wish, at=AT, by="test")
    assert job.status == way[-1]
    assert [entry.to_status for entry in job.history] == way
    assert [entry.from_status for entry in job.history] == ["new", *way[:-1]]
    assert history_is_intact(job)


@pytest.mark.parametrize("status", JOB_STATUSES)
def test_an_imported_job_past_its_confirmation_is_held_until_it_is_adopted(status: JobStatus) -> None:
    imported = a_job(status=status).changed(history=[])
    held = status in {"confirmed", "queued", "running"}
    assert hold_reason(imported) == (f"imported while it was {status}" if held else None)
    adopted = adopt(imported, at=AT, by="ops")
    assert hold_reason(adopted) is None
    assert (adopted.status, adopted.history[-1].reason, adopted.updated_at) == (status, "adopted", AT)
    assert history_is_intact(adopted)


def test_a_job_that_is_held_says_why_until_it_is_adopted() -> None:
    job = a_job(held="copied from elsewhere")
    assert hold_reason(job) == "copied from elsewhere"
    assert hold_reason(adopt(job, at=AT, by="ops")) is None


def test_a_new_job_was_born_when_it_was_created() -> None:
    job = born(a_job().changed(history=[]), by="inbox")
    assert (job.updated_at, len(job.history), job.history[0].by) == (job.created_at, 1, "inbox")


FAILURE: Final = FailureRecord(code="INPUT_EMPTY", message="the file is empty", at=AT)
PARKED: Final = Parked(until="2026-01-07T00:00:00+00:00", reason="over budget")
PUBLICATION: Final = Publication(version=2, manifest_sha256="m", at=AT, fence=1, draft_sha256="d")
QUESTION: Final = Stage1Question(question_id="q", question_text="Which wage?", question_type="single_choice")
BLOCKING: Final = OpenUnknown(field="treatment_var", description="No treatment was named.", impact="high")
DRAFT: Final = Draft(text="t", created_at=AT)


@pytest.mark.parametrize(
    ("job", "claimed", "shown", "reason", "next_step"),
    [
        (a_job(), False, "waiting", "no run has claimed it yet", "a run claims it"),
        (a_job(), True, "drafting", "a run works on it", "a draft"),
        (a_job(status="draft_ready"), False, "in review", "the draft waits for a person", "ss-pipeline confirm"),
        (a_job(status="draft_ready", draft=DRAFT), False, "in review", "waits for a person", "ss-pipeline confirm"),
        (
            a_job(status="draft_ready", draft=DRAFT.model_copy(update={"stage1_questions": [QUESTION]})),
            False, "in review", "Which wage?", "ss-pipeline confirm",
        ),
        (
            a_job(status="draft_ready", draft=DRAFT.model_copy(update={"open_unknowns": [BLOCKING]})),
            False, "in review", "No treatment was named.", "ss-pipeline confirm",
        ),
        (a_job(status="confirmed"), False, "publishing", "the draft is confirmed", "the report is published"),
        (a_job(status="queued"), False, "publishing", "the draft is confirmed", "the report is published"),
        (a_job(status="running"), True, "publishing", "the draft is confirmed", "the report is published"),
        (a_job(status="succeeded"), False, "published", "published elsewhere", "it is done"),
        (a_job(status="succeeded", publications=[PUBLICATION]), False, "published", "version 2", "it is done"),
        (a_job(status="failed"), False, "failed", "no reason was recorded", "ss-pipeline retry"),
        (a_job(status="failed", failure=FAILURE), False, "failed", "INPUT_EMPTY: the file is", "ss-pipeline retry"),
        (
            a_job(status="failed", failure=FAILURE.model_copy(update={"todo": "Replace the file."})),
            False, "failed", "INPUT_EMPTY", "Replace the file.",
        ),
        (a_job(failure=FAILURE), False, "waiting", "no run has claimed it yet", "a run claims it"),
        (a_job(status="cancelled"), False, "cancelled", "a person cancelled it", "it is done"),
        (a_job(parked=PARKED), False, "parked", "over budget", "after 2026-01-07"),
        (a_job(status="succeeded", parked=PARKED), False, "published", "published elsewhere", "it is done"),
        (a_job(held="copied"), False, "waiting", "held: copied", "ss-pipeline adopt"),
        (a_job(status="queued").changed(history=[]), False, "waiting", "held: imported while", "ss-pipeline adopt"),
        (a_job(status="cancelled", held="copied"), False, "cancelled", "a person cancelled it", "it is done"),
    ],
)  # fmt: skip
def test_people_see_a_phase_its_reason_and_what_comes_next(
    job: Job, claimed: bool, shown: str, reason: str, next_step: str
) -> None:
    view = phase(job, claimed=claimed)
    assert view.phase == shown
    assert reason in view.reason
    assert next_step in view.next_step
