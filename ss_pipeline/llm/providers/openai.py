"""Chat completions: OpenAI, Qwen, and every server that speaks the same (`base_url`), over the openai SDK."""

from typing import Any, Final

import httpx2
import openai
from pydantic import BaseModel, ConfigDict

from ss_pipeline.clock import Clock
from ss_pipeline.llm.capabilities import AnswerForm
from ss_pipeline.llm.model import Completion, FinishReason, Question, Usage
from ss_pipeline.llm.providers.base import HEADERS, Endpoint, ProvidedModel, parsed
from ss_pipeline.llm.providers.connections import TIMEOUT, Connections
from ss_pipeline.llm.providers.faults import connection_fault, malformed, status_fault

_REASONS: Final[dict[str | None, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "refusal",
}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Message(_Wire):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Wire):
    message: _Message
    finish_reason: str | None = None


class _Tokens(_Wire):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(_Wire):
    choices: list[_Choice]
    model: str | None = None
    usage: _Tokens | None = None


class OpenAIModel(ProvidedModel):
    """A model that is asked by chat completions."""

    def __init__(self, endpoint: Endpoint, *, clock: Clock) -> None:
        super().__init__(endpoint, clock=clock)
        self._connections = Connections(self._client)

    def _client(self, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
        endpoint = self._endpoint
        return openai.AsyncOpenAI(
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
            raw = await client.chat.completions.with_raw_response.create(**self._request(question, form))
        except openai.APIStatusError as error:
            response = error.response
            raise status_fault(
                self.name,
                status=error.status_code,
                headers=response.headers,
                body=response.text,
                form_is_bound=form != "plain",
            ) from error
        except openai.APIConnectionError as error:
            raise connection_fault(self.name, error.__cause__ or error) from error
        answer = parsed(_Answer, raw.http_response.content, name=self.name)
        return self._completion(answer, request_id=raw.headers.get("x-request-id"))

    def _request(self, question: Question, form: AnswerForm) -> dict[str, Any]:
        takes = self._endpoint.capabilities
        request: dict[str, Any] = {
            "model": question.model,
            "messages": [
                {"role": "system", "content": question.prompt.system},
                {"role": "user", "content": question.prompt.user},
            ],
            takes.limit_parameter: question.max_output_tokens,
        }
        if takes.temperature and question.temperature is not None:
            request["temperature"] = question.temperature
        if form == "json_schema":
            schema = {"name": question.operation, "schema": question.schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form == "json_object":
            request["response_format"] = {"type": "json_object"}
        return request

    def _completion(self, answer: _Answer, *, request_id: str | None) -> Completion:
        if not answer.choices:
            raise malformed(self.name, "no choices")
        choice, tokens = answer.choices[0], answer.usage or _Tokens()
        message = choice.message
        reason: FinishReason = "refusal" if message.refusal else _REASONS.get(choice.finish_reason, "other")
        if reason == "stop" and not message.content:
            raise malformed(self.name, "no content")
        return Completion(
            text=message.content or message.refusal or "",
            finish_reason=reason,
            model=answer.model or self._endpoint.model,
            usage=Usage(tokens.prompt_tokens, tokens.completion_tokens),
            request_id=request_id,
        )
