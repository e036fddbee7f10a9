"""The records of the call ledger: one document a question, and how it is read and listed.

When a record is written and who may ask is ledger.py's business; what is asked, nobody's here. The text of a prompt is
not in a record (it is in the trace of the call, beside the job), the answer is.
"""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from ss_pipeline.errors import DocumentNotFoundError, LLMRefusedError
from ss_pipeline.llm.model import Completion, FinishReason, Question, Usage
from ss_pipeline.store.base import Backend, DocumentKey

LEDGER: Final = "ledger"
"""The collection; a record's tenant is the question's, its id the question's key."""

CallState: TypeAlias = Literal["intent", "settled", "failed", "unknown"]
"""About to be asked or being asked; answered; not answered and not billed; asked, and nobody knows what came of it."""

_PAGE: Final = 500


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class TokensAndCost(_Part):
    """Tokens, and their cost where the model has a price."""

    input_tokens: int
    output_tokens: int
    cost: Decimal | None

    @property
    def tokens(self) -> int:
        """Both kinds together."""
        return self.input_tokens + self.output_tokens


class Answer(_Part):
    """What the model answered, as it came: nobody had parsed it when it was written."""

    text: str
    finish_reason: FinishReason
    model: str
    usage: TokensAndCost
    request_id: str | None
    seconds: float
    calls: int

    def completion(self) -> Completion:
        """The answer as whoever asks again gets it: without a call."""
        usage = Usage(self.usage.input_tokens, self.usage.output_tokens)
        return Completion(
            text=self.text,
            finish_reason=self.finish_reason,
            model=self.model,
            usage=usage,
            request_id=self.request_id,
            calls=0,
        )


class CallRecord(_Part):
    """What is known of a question.

    Args:
        job_id: The job it was asked for first, or last where it had to be asked again.
        call_id: The folder of the trace below the job's `artifacts/llm/`.
        expected: The most it may take.
        unknowns: How often it was asked and nobody knows what came of it; each may have been billed.
        code: Why it failed.
    """

    schema_version: int = 1
    key: str
    tenant_id: str
    job_id: str
    operation: str
    provider: str
    model: str
    prompt_version: str
    state: CallState
    asked_at: str
    call_id: str
    expected: TokensAndCost
    unknowns: int = 0
    ended_at: str | None = None
    answer: Answer | None = None
    code: str | None = None
    message: str | None = None

    def changed(self, **fields: object) -> "CallRecord":
        """A copy with other fields."""
        return self.model_copy(update=fields)

    def as_bytes(self) -> bytes:
        """The document. A lone surrogate, which a model may answer, is escaped."""
        return (json.dumps(self.model_dump(), default=str, indent=1, sort_keys=True) + "\n").encode()


def ledger_key(tenant_id: str, key: str) -> DocumentKey:
    """Where the record of a question is."""
    return DocumentKey(LEDGER, tenant_id, key)


def key_of(question: Question) -> DocumentKey:
    """Where the record of this question is."""
    return ledger_key(question.tenant_id, question.key)


def read_record(documents: Backend, key: DocumentKey) -> tuple[bytes, CallRecord] | None:
    """A record and its bytes, for a compare-and-set; None where there is none.

    Raises:
        LLMRefusedError: LLM_RECORD_UNREADABLE; what it says of money that was spent is not overwritten.
    """
    try:
        body = documents.read(key)
    except DocumentNotFoundError:
        return None
    try:
        return body, CallRecord.model_validate(json.loads(body))
    except ValueError as error:
        raise LLMRefusedError(
            f"{key.name} is no record of a call", code="LLM_RECORD_UNREADABLE", todo="Bring it back from a backup."
        ) from error


def records(documents: Backend, *, tenant_id: str | None = None) -> Iterator[CallRecord]:
    """All records in the order of their keys, read page by page."""
    after: DocumentKey | None = None
    while True:
        page = documents.page(LEDGER, tenant_id=tenant_id, after=after, limit=_PAGE)
        for row in page:
            if (stored := read_record(documents, row.key)) is not None:
                yield stored[1]
        if len(page) < _PAGE:
            return
        after = page[-1].key
