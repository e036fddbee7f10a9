"""The trace of a call: prompt, response and what is known of both, as files of the job that asked (CONTRACT 3.9).

    artifacts/llm/<call id>/prompt.txt      before the call
    artifacts/llm/<call id>/response.txt    after it, empty where no answer came
    artifacts/llm/<call id>/meta.json       after it

Only their owner may read them. A trace is for people: what was paid for is in the ledger, so a trace that cannot be
written stops nothing. What leaves for a provider is redacted before it gets here (redaction.py).
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import ArtifactError
from ss_pipeline.jobs.documents import moment_of, render_document
from ss_pipeline.jobs.model import ArtifactKind
from ss_pipeline.llm.model import Completion, Prompt, Question
from ss_pipeline.telemetry.events import emit

TRACES: Final = "artifacts/llm"

TRACE_KINDS: Final[dict[str, ArtifactKind]] = {
    "prompt.txt": "llm.prompt",
    "response.txt": "llm.response",
    "meta.json": "llm.meta",
}
"""The files of a trace and their kinds in the job's artifact index."""

_BYTES_PER_TOKEN: Final = 4
"""Of English prose; a trace says what was estimated, the ledger what was counted."""


@dataclass(frozen=True)
class Ending:
    """How a call ended: with an answer, or with an error of this type.

    Args:
        error_type: An error's code, or `cancelled`; None after an answer.
    """

    completion: Completion | None = None
    error_type: str | None = None
    error_message: str | None = None


class TraceWriter:
    """Writes traces.

    Args:
        timeout_seconds, max_attempts: What calls are bounded by, as the traces say it.
    """

    def __init__(
        self, artifacts: ArtifactStore, *, clock: Clock, timeout_seconds: float = 30.0, max_attempts: int = 3
    ) -> None:
        self._artifacts = artifacts
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._max_attempts = max_attempts

    def begin(self, question: Question, *, call_id: str) -> None:
        """Writes the prompt."""
        self._write(question, call_id, "prompt.txt", text_of(question.prompt))

    def end(self, question: Question, *, call_id: str, started_at: str, ending: Ending) -> None:
        """Writes the response and how the call went.

        Args:
            started_at: ISO 8601 UTC.
        """
        response = ending.completion.text if ending.completion else ""
        self._write(question, call_id, "response.txt", response)
        meta = self._meta(question, call_id=call_id, started_at=started_at, ending=ending)
        self._write(question, call_id, "meta.json", render_document(meta).decode())

    def _meta(self, question: Question, *, call_id: str, started_at: str, ending: Ending) -> dict[str, Any]:
        ended_at = self._clock.now()
        prompt, completion = text_of(question.prompt), ending.completion
        response = completion.text if completion else None
        return {
            "schema_version": 1,
            "llm_call_id": call_id,
            "operation": question.operation,
            "started_at": started_at,
            "ended_at": ended_at.isoformat(timespec="microseconds"),
            "duration_ms": round((ended_at - moment_of(started_at)).total_seconds() * 1_000),
            "ok": completion is not None,
            "model": completion.model if completion else question.model,
            "temperature": question.temperature,
            "seed": None,
            "prompt_fingerprint": _sha256(prompt),
            "response_fingerprint": None if response is None else _sha256(response),
            "prompt_token_estimate": _estimate(prompt),
            "response_token_estimate": None if response is None else _estimate(response),
            "error_type": ending.error_type,
            "error_message": ending.error_message,
            "timeout_seconds": self._timeout_seconds,
            "max_attempts": self._max_attempts,
            "attempts": completion.calls if completion else None,
            "provider": question.provider,
            "prompt_version": question.prompt.version,
            "ledger_key": question.key,
            "finish_reason": completion.finish_reason if completion else None,
            "input_tokens": completion.usage.input_tokens if completion else None,
            "output_tokens": completion.usage.output_tokens if completion else None,
            "request_id": completion.request_id if completion else None,
        }

    def _write(self, question: Question, call_id: str, name: str, text: str) -> None:
        path, body = f"{TRACES}/{call_id}/{name}", text.encode("utf-8", "backslashreplace")
        try:
            self._artifacts.write(question.tenant_id, question.job_id, path, body, private=True)
        except ArtifactError as error:
            emit(
                "SS_LLM_TRACE_NOT_WRITTEN",
                level=logging.WARNING,
                job_id=question.job_id,
                path=path,
                code=error.error_code,
            )


def new_call_id(question: Question, *, at: datetime) -> str:
    """The id of a call that begins now: operation, time in UTC and the prompt's hash (CONTRACT 3.9)."""
    return f"{question.operation}-{at:%Y%m%dT%H%M%S%f}Z-{_sha256(text_of(question.prompt))[:12]}"


def trace_files(artifacts: ArtifactStore, *, tenant_id: str, job_id: str) -> dict[str, ArtifactKind]:
    """Every file of the job's traces and its kind."""
    calls = artifacts.names(tenant_id, job_id, TRACES)
    return {
        f"{TRACES}/{call}/{name}": TRACE_KINDS[name]
        for call in calls
        for name in artifacts.names(tenant_id, job_id, f"{TRACES}/{call}")
        if name in TRACE_KINDS
    }


def text_of(prompt: Prompt) -> str:
    """A prompt as one text."""
    return f"{prompt.system}\n\n{prompt.user}\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def _estimate(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace")) // _BYTES_PER_TOKEN
