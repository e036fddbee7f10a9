"""A whole pipeline in a temporary folder, for tests that go from a submission to a report."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ss_pipeline import wiring
from ss_pipeline.claim_run import work_off
from ss_pipeline.job_run import ALL_STAGES, JobEnded, Stage, StageDone, WorkParts
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.model import Job
from ss_pipeline.llm.base import DraftRequest, LLMClient
from ss_pipeline.settings import Settings
from ss_pipeline.stages.claiming import Claim, make_claims
from ss_pipeline.stages.intake.stage import IntakeReport, take_in

WAGES_REQUIREMENT = "What is the effect of educ on wage, controlling for exper?"
AMBIGUOUS_REQUIREMENT = "Please have a look at this and tell us something interesting."


def wages_csv(rows: int = 60) -> str:
    """Sixty people's wages: wage grows with education and experience."""
    lines = [f"{5 + i % 7 + i * 0.1:.2f},{8 + i % 9},{i % 30}" for i in range(rows)]
    return "wage,educ,exper\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Pipeline:
    """The parts of one temporary pipeline and what tests do with them."""

    parts: wiring.Parts
    work: WorkParts

    def hand_in(
        self, name: str, *, requirement: str = WAGES_REQUIREMENT, csv: str | None = None, **request: object
    ) -> None:
        """Puts a complete submission into the inbox."""
        tenant = str(request.get("tenant_id", "default"))
        folder = self.parts.inbox / name if tenant == "default" else self.parts.inbox / f"@{tenant}" / name
        folder.mkdir(parents=True)
        (folder / "data.csv").write_text(wages_csv() if csv is None else csv, encoding="utf-8")
        body = {"requirement": requirement, "inputs": [{"path": "data.csv"}], **request}
        (folder / "request.json").write_text(json.dumps(body), encoding="utf-8")
        (folder / ".ready").touch()

    def take_in(self) -> IntakeReport:
        """One look at the inbox."""
        parts = self.parts
        return take_in(
            parts.inbox, jobs=parts.jobs, artifacts=parts.artifacts, clock=parts.clock, limits=parts.intake_limits
        )

    def a_job(self, name: str = "wages", **submission: object) -> str:
        """The id of a job made from a submission."""
        self.hand_in(name, **submission)  # type: ignore[arg-type]
        accepted = self.take_in().accepted
        return accepted[0].job_id

    def claims(self, *, room: int, shareable: bool = True) -> list[Claim]:
        """What the claim sensor would reserve now."""
        parts = self.parts
        now = parts.clock.now()
        return make_claims(parts.jobs, room=room, rules=parts.claim_rules, now=now, shareable=lambda _: shareable)

    def run(
        self,
        *job_ids: str,
        claim_id: str = "claim_1",
        stages: frozenset[Stage] = ALL_STAGES,
        tenant_id: str = "default",
    ) -> tuple[list[StageDone], dict[str, JobEnded]]:
        """Works the jobs off in one claim; what was done, and how each job ended."""
        events = list(
            work_off(job_ids, tenant_id=tenant_id, claim_id=claim_id, owner="run:test", parts=self.work, stages=stages)
        )
        done = [event for event in events if isinstance(event, StageDone)]
        ended = {event.job_id: event for event in events if isinstance(event, JobEnded)}
        return done, ended

    def job(self, job_id: str, tenant_id: str = "default") -> Job:
        """The job as stored."""
        return self.parts.jobs.load(job_id, tenant_id=tenant_id)

    def with_client(self, client: LLMClient) -> "Pipeline":
        """The same pipeline with another drafter."""
        return replace(self, work=replace(self.work, client=client))


class ScriptedDrafter(LLMClient):
    """Answers what it is told to, or raises; counts its calls."""

    def __init__(self, *answers: DraftAnswer | Exception) -> None:
        self._answers = list(answers)
        self.calls = 0

    @property
    def name(self) -> str:
        return "scripted/1"

    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        self.calls += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_pipeline(folder: Path, **settings: object) -> Pipeline:
    """A pipeline with the file back end in this folder."""
    values: dict[str, object] = {"data_dir": folder, "inbox_quiet_seconds": 0.0, **settings}
    parts = wiring.light_parts(Settings(**values))  # type: ignore[arg-type]
    return Pipeline(parts, wiring.work_parts(parts))
