"""The port for whoever drafts: rules, or a language model behind wrappers with the same interface."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ss_pipeline.jobs.drafts import DraftAnswer, DraftOrigin
from ss_pipeline.jobs.profiles import JobProfile


@dataclass(frozen=True)
class DraftRequest:
    """What a drafter is told: the requirement and the profile, never rows of the data.

    Args:
        requirement: The requirement as the tenant wrote it, in any language.
        language: BCP 47 tag the answer should be in, or None for the requirement's own.
        profile: Names, labels, types and statistics of the columns.
    """

    job_id: str
    tenant_id: str
    requirement: str
    language: str | None
    profile: JobProfile


@dataclass(frozen=True)
class Drafted:
    """An answer, and whose it is.

    Args:
        drafter: Who answered: `rules/1`, `openai/<model>`.
        origin: Which models were asked; None where none was.
    """

    answer: DraftAnswer
    drafter: str
    origin: DraftOrigin | None = None


class LLMClient(ABC):
    """Answers a drafting request."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Who answers, as drafts record it: `rules/1`, `openai/<model>`."""

    @abstractmethod
    async def draft_preview(self, request: DraftRequest) -> DraftAnswer:
        """A draft for this request; the same request gives the same answer where the drafter is deterministic.

        Raises:
            DraftError: no answer that fits the schema could be had.
        """

    async def draft(self, request: DraftRequest) -> Drafted:
        """The draft and whose it is: a drafter that lets another one answer says so here.

        Raises:
            DraftError: as `draft_preview`.
            LLMError: a model was asked, none answered, and nobody may stand in for it.
        """
        return Drafted(await self.draft_preview(request), drafter=self.name)
