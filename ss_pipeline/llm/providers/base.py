"""What the providers have in common: the form of an answer, lowered where the server turns it down; time; faults."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from ss_pipeline.clock import Clock
from ss_pipeline.errors import LLMError
from ss_pipeline.llm.capabilities import AnswerForm, Capabilities, lowered
from ss_pipeline.llm.model import Completion, LanguageModel, Question
from ss_pipeline.llm.providers.faults import malformed
from ss_pipeline.llm.retrying import FORM_REJECTED
from ss_pipeline.telemetry.events import emit

HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "ss-pipeline"}
"""An answer is not compressed: its size is bounded as it comes."""

Wire = TypeVar("Wire", bound=BaseModel)


@dataclass(frozen=True)
class Endpoint:
    """A model and where it is asked.

    Args:
        provider: Its name in the settings.
        key: None for a server that wants none.
    """

    provider: str
    model: str
    base_url: str
    key: SecretStr | None
    capabilities: Capabilities

    @property
    def name(self) -> str:
        """As drafts name it: `<provider>/<model>`."""
        return f"{self.provider}/{self.model}"

    @property
    def secret(self) -> str:
        """The key for the SDK, which wants one even for a server that does not."""
        return self.key.get_secret_value() if self.key else "none"


class ProvidedModel(LanguageModel):
    """A model behind an SDK. One call for each `complete`; asking again is retrying.py's business."""

    def __init__(self, endpoint: Endpoint, *, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._form: AnswerForm = endpoint.capabilities.form

    @property
    def name(self) -> str:
        return self._endpoint.name

    async def complete(self, question: Question) -> Completion:
        """One call. Where the server turns the form of the answer down, the next call asks for a lower one."""
        form = self._form
        started = self._clock.monotonic()
        try:
            completion = await self._call(question, form)
        except LLMError as error:
            if error.error_code == FORM_REJECTED:
                self._lower(form)
            raise
        return replace(completion, seconds=self._clock.monotonic() - started)

    @abstractmethod
    async def _call(self, question: Question, form: AnswerForm) -> Completion:
        """One call through the SDK; raises what `complete` does."""

    def _lower(self, form: AnswerForm) -> None:
        lower = lowered(form)
        if lower is not None and self._form == form:  # another call of this claim may have been here before
            self._form = lower
            emit("SS_LLM_FORM_LOWERED", model=self.name, refused=form, used=lower)


def parsed(wire: type[Wire], body: bytes, *, name: str) -> Wire:
    """The body as the wire format has it.

    Raises:
        LLMUnavailableError: LLM_ANSWER_MALFORMED.
    """
    try:
        return wire.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise malformed(name, f"{'.'.join(map(str, fault['loc']))[:80]} {fault['msg'][:120]}".strip()) from None
