"""Messages: Claude, and every server that speaks the same (`base_url`), over the anthropic SDK."""

from typing import Any, Final

import anthropic
import httpx2
from pydantic import BaseModel, ConfigDict

from ss_pipeline.clock import Clock
from ss_pipeline.llm.capabilities import AnswerForm
from ss_pipeline.llm.model import Completion, FinishReason, Question, Usage
from ss_pipeline.llm.providers.base import HEADERS, Endpoint, ProvidedModel, parsed
from ss_pipeline.llm.providers.connections import TIMEOUT, Connections
from ss_pipeline.llm.providers.faults import connection_fault, malformed, status_fault

_REASONS: Final[dict[str | None, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Block(_Wire):
    type: str
    text: str = ""


class _Tokens(_Wire):
    input_tokens: int = 0
    output_tokens: int = 0


class _Answer(_Wire):
    content: list[_Block]
    stop_reason: str | None = None
    model: str | None = None
    usage: _Tokens | None = None


class ClaudeModel(ProvidedModel):
    """A model that is asked by messages. There is no JSON without a schema here: below it comes the prompt alone."""

    def __init__(self, endpoint: Endpoint, *, clock: Clock) -> None:
        super().__init__(endpoint, clock=clock)
        self._connections = Connections(self._client)

    def _client(self, http: httpx2.AsyncClient) -> anthropic.AsyncAnthropic:
        endpoint = self._endpoint
        return anthropic.AsyncAnthropic(
            api_key=endpoint.secret,
            base_url=endpoint.base_url,
            max_retries=0,
            timeout=TIMEOUT,
            http_client=http,
            default_headers=HEADERS,
        )

    async def _call(self, question: Question, form: AnswerForm) -> Completion:
        client = await self._connections.client()
        try:
            raw = await client.messages.with_raw_response.create(**self._request(question, form))
        except anthropic.APIStatusError as error:
            response = error.response
            raise status_fault(
                self.name,
                status=error.status_code,
                headers=response.headers,
                body=response.text,
                form_is_bound=form == "json_schema",
            ) from error
        except anthropic.APIConnectionError as error:
            raise connection_fault(self.name, error.__cause__ or error) from error
        answer = parsed(_Answer, raw.http_response.content, name=self.name)
        return self._completion(answer, request_id=raw.headers.get("request-id"))

    def _request(self, question: Question, form: AnswerForm) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": question.model,
            "system": question.prompt.system,
            "messages": [{"role": "user", "content": question.prompt.user}],
            "max_tokens": question.max_output_tokens,
        }
        if self._endpoint.capabilities.temperature and question.temperature is not None:
            request["extra_body"] = {"temperature": question.temperature}  # no parameter of the SDK's any more
        if form == "json_schema":
            request["output_config"] = {"format": {"type": "json_schema", "schema": question.schema}}
        return request

    def _completion(self, answer: _Answer, *, request_id: str | None) -> Completion:
        reason = _REASONS.get(answer.stop_reason, "other")
        text = "".join(block.text for block in answer.content if block.type == "text")
        tokens = answer.usage or _Tokens()
        if reason == "stop" and not text:
            raise malformed(self.name, "no text")
        return Completion(
            text=text,
            finish_reason=reason,
            model=answer.model or self._endpoint.model,
            usage=Usage(tokens.input_tokens, tokens.output_tokens),
            request_id=request_id,
        )
