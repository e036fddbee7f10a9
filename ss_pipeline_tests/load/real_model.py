"""Ten drafts by a real model, whichever the settings name: whether each is its own, or says that the rules drafted.

    SS_LLM_PROVIDER=local SS_LLM_MODEL=m SS_LLM_BASE_URL=http://127.0.0.1:8080/v1 \
        python -m ss_pipeline_tests.load.real_model

Asks for real, and may cost money. Prints each draft; exits with 1 if one is neither.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ss_pipeline.console import OUT
from ss_pipeline.jobs.drafts import Draft
from ss_pipeline.settings import load_settings
from ss_pipeline_tests.pipeline import Pipeline, a_pipeline

REQUIREMENTS: Final = (
    "What is the effect of educ on wage, controlling for exper?",
    "Does one more year of education raise hourly wages?",
    "Describe how wages are distributed.",
    "Is wage higher for people with more experience (exper)? Control for educ.",
    "Estimate the return to experience, holding education constant.",
    "How do wage, educ and exper hang together?",
    "教育(educ)对工资(wage)有什么影响？控制工作经验(exper)。",
    "工作经验越多，工资越高吗？",
    "请描述工资的分布情况。",
    "控制教育年限后，经验(exper)对工资(wage)的影响是多少？",
)


@dataclass(frozen=True)
class Made:
    """A draft and how its job ended."""

    requirement: str
    ending: str
    draft: Draft | None

    @property
    def is_honest(self) -> bool:
        """Whether it is the model's, which is checked before it is taken, or says that it is not."""
        draft = self.draft
        if draft is None or draft.origin is None:
            return False
        return self.fell_back or draft.drafter in draft.origin.asked

    @property
    def fell_back(self) -> bool:
        """Whether the rules drafted, and the draft says why."""
        origin = self.draft.origin if self.draft else None
        return origin is not None and origin.fallback_code is not None


def drafts(pipeline: Pipeline) -> list[Made]:
    """All requirements, worked off in one claim."""
    job_ids = [pipeline.a_job(f"real-{n}", requirement=text) for n, text in enumerate(REQUIREMENTS)]
    _, ended = pipeline.run(*job_ids)
    return [
        Made(text, ended[job_id].ending, pipeline.job(job_id).draft)
        for text, job_id in zip(REQUIREMENTS, job_ids, strict=True)
    ]


def main() -> int:
    """Prints what was drafted; 1 if a draft is neither the model's nor marked as the rules'."""
    if load_settings().llm_provider == "stub":
        raise SystemExit("name a provider: SS_LLM_PROVIDER, SS_LLM_MODEL, SS_LLM_BASE_URL or SS_LLM_API_KEYS")
    with tempfile.TemporaryDirectory(prefix="ss-real-model-") as folder:
        made = drafts(a_pipeline(Path(folder), review_policy="always"))
    for one in made:
        OUT.print(_told(one), markup=False)
    own = sum(one.is_honest and not one.fell_back for one in made)
    OUT.print(f"{own} by the model, {sum(one.fell_back for one in made)} by the rules and marked so, of {len(made)}")
    return 0 if all(one.is_honest for one in made) else 1


def _told(made: Made) -> str:
    draft = made.draft
    if draft is None or draft.origin is None:
        return f"{made.requirement}\n    {made.ending}, no draft\n"
    roles = f"{draft.outcome_var} ~ {draft.treatment_var} + {', '.join(draft.controls) or 'nothing'}, {draft.method}"
    origin = draft.origin
    return (
        f"{made.requirement}\n    {draft.drafter} {origin.fallback_code or ''}, {origin.input_tokens} + "
        f"{origin.output_tokens} tokens, {len(origin.ledger_keys)} questions\n    {roles}\n    {draft.text}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
