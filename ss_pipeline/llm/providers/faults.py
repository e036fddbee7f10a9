"""What went wrong with a call, in our words: from a status, its headers and body, or a broken connection.

A provider that answers with an error bills nothing; one that was asked and did not answer may have.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

from ss_pipeline.errors import LLMError, LLMOutcomeUnknownError, LLMRefusedError, LLMUnavailableError
from ss_pipeline.llm.redaction import redacted
from ss_pipeline.llm.retrying import FORM_REJECTED

_PASSING: Final = frozenset({408, 409, 425, 429})
_SPENT: Final = re.compile(r"insufficient_quota|credit balance|billing|Arrearage", re.IGNORECASE)
_ABOUT_THE_FORM: Final = re.compile(
    r"response_format|json_schema|json_object|structured output|output_config|output_format|grammar|schema",
    re.IGNORECASE,
)
_MAX_WORDS: Final = 300
_MAX_RETRY_AFTER: Final = 3_600.0


def status_fault(
    name: str, *, status: int, headers: Mapping[str, str], body: str, form_is_bound: bool, now: datetime | None = None
) -> LLMError:
    """The error for an answer with a status of 400 and above.

    Args:
        name: Who was asked: `<provider>/<model>`.
        form_is_bound: Whether the call asked for JSON in a way that this server may not know.
    """
    message = f"{name} answered {status}: {said(body)}"
    if form_is_bound and status in {400, 422, 500} and _ABOUT_THE_FORM.search(body):
        return LLMUnavailableError(message, code=FORM_REJECTED)
    if status == 429 and _SPENT.search(body):
        return LLMRefusedError(message, code="LLM_ACCOUNT_EXHAUSTED")
    if status in _PASSING or status >= 500:
        code = "LLM_RATE_LIMITED" if status == 429 else "LLM_UNAVAILABLE"
        return LLMUnavailableError(message, code=code, retry_after=retry_after(headers, now=now))
    return LLMRefusedError(message, code="LLM_KEY_REFUSED" if status in {401, 403} else None)


def connection_fault(name: str, error: BaseException) -> LLMError:
    """The error for a call without an answer: harmless where nothing can have been sent, else of unknown outcome."""
    if isinstance(error, LLMUnavailableError):  # of connections.py, about an answer: an SDK takes it for a broken line
        return LLMUnavailableError(error.message, code=error.error_code)  # a new one: no error is its own cause
    what = type(error).__name__
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout | httpx2.ProxyError):
        return LLMUnavailableError(f"{name} cannot be reached ({what})", code="LLM_UNREACHABLE")
    return LLMOutcomeUnknownError(f"the connection to {name} broke before the answer was there ({what})")


def malformed(name: str, why: str) -> LLMUnavailableError:
    """The error for an answer with a good status that is none."""
    return LLMUnavailableError(f"{name} answered with what is no answer: {why}", code="LLM_ANSWER_MALFORMED")


def said(body: str) -> str:
    """The provider's own words, in one line, without what looks like a key."""
    return redacted(" ".join(body.split()))[:_MAX_WORDS] or "nothing"


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds that the provider asks to wait for: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    for header, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(header, "")
        if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text):
            return min(float(text) * scale, _MAX_RETRY_AFTER)
    return _until(headers.get("retry-after", ""), now or datetime.now(UTC))


def _until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), _MAX_RETRY_AFTER)
