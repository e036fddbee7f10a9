"""The two wire formats: what a request asks for, and how an answer or an error is written."""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

Format = Literal["openai", "claude"]

PATHS: Final[dict[str, Format]] = {"/v1/chat/completions": "openai", "/v1/messages": "claude"}

_ERROR_TYPES: Final = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Request:
    """A request as the server got it."""

    format: Format
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def form(self) -> str:
        """How the answer is bound: json_schema, json_object or plain."""
        if self.format == "claude":
            return str(self.body.get("output_config", {}).get("format", {}).get("type", "plain"))
        return str(self.body.get("response_format", {}).get("type", "plain"))

    @property
    def prompt(self) -> str:
        """All that the model is told."""
        messages = [message["content"] for message in self.body["messages"]]
        return "\n".join([self.body.get("system", ""), *messages])


def answer(request: Request, text: str, *, reason: str = "stop") -> dict[str, Any]:
    """A whole answer with this text; a reason other than "stop" is "length" or "refusal"."""
    tokens = len(request.prompt) // 4, max(len(text) // 4, 1)
    if request.format == "claude":
        reasons = {"stop": "end_turn", "length": "max_tokens"}
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request.body["model"] + "-20260101",
            "content": [{"type": "text", "text": text}],
            "stop_reason": reasons.get(reason, reason),
            "usage": {"input_tokens": tokens[0], "output_tokens": tokens[1]},
        }
    message = {"role": "assistant", "content": text, "refusal": None}
    if reason == "refusal":
        message, reason = {"role": "assistant", "content": None, "refusal": text}, "stop"
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_767_700_000,
        "model": request.body["model"] + "-2026-01-01",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
    }


def empty(request: Request) -> dict[str, Any]:
    """An answer that says nothing."""
    found = answer(request, "")
    return found | ({"content": []} if request.format == "claude" else {"choices": []})


def error(request: Request, status: int, message: str) -> dict[str, Any]:
    """The body of an error."""
    kind = _ERROR_TYPES.get(status, "api_error")
    if request.format == "claude":
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def encoded(body: object) -> bytes:
    """A body as it is sent."""
    return json.dumps(body).encode()
