"""What a tenant asks for: the request of a submission (DESIGN §10.5), strictly read."""

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ss_pipeline.errors import JobDataCorruptedError, SubmissionRefusedError
from ss_pipeline.jobs.documents import is_safe_rel_path, is_safe_segment, parse_document
from ss_pipeline.jobs.inputs import PRIMARY_ROLE, Role

MAX_REQUIREMENT_CHARACTERS = 20_000
_BLANK = re.compile(r"^\s*$")


class RequestedInput(BaseModel):
    """A data file of the submission: its path inside it, and its role."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: Annotated[str, Field(max_length=255)]
    role: Role | None = None

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        if not is_safe_rel_path(value) or not all(is_safe_segment(part) for part in value.split("/")):
            raise ValueError("must be a plain relative path inside the submission (no '..', no absolute path)")
        return value


class SubmissionRequest(BaseModel):
    """`request.json`. `job_id` is the submitter's own reference; the pipeline makes the job's id itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    requirement: Annotated[str, Field(min_length=1, max_length=MAX_REQUIREMENT_CHARACTERS)]
    inputs: Annotated[list[RequestedInput], Field(min_length=1)]
    job_id: str | None = None
    tenant_id: str | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    callback_url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://")] | None = None
    language: Annotated[str, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] | None = None

    @field_validator("requirement")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if _BLANK.match(value):
            raise ValueError("says nothing")
        return value

    @field_validator("job_id", "tenant_id")
    @classmethod
    def _is_safe(cls, value: str | None) -> str | None:
        if value is not None and not is_safe_segment(value):
            raise ValueError("must be usable as a folder name (no '/', no '..', no control characters)")
        return value

    @model_validator(mode="after")
    def _has_one_primary(self) -> "SubmissionRequest":
        roles = [item.role for item in self.inputs]
        if roles.count(PRIMARY_ROLE) > 1:
            raise ValueError("inputs: exactly one may have the role primary_dataset")
        if PRIMARY_ROLE not in roles and None not in roles:
            raise ValueError("inputs: one must have the role primary_dataset")
        if len({item.path for item in self.inputs}) != len(self.inputs):
            raise ValueError("inputs: a path is named twice")
        return self

    def role_of(self, index: int) -> Role:
        """The role of the input at `index`: as given, else primary for the first where none is given so."""
        given = self.inputs[index].role
        if given:
            return given
        has_primary = any(item.role == PRIMARY_ROLE for item in self.inputs)
        first_free = next(i for i, item in enumerate(self.inputs) if item.role is None)
        return "primary_dataset" if not has_primary and index == first_free else "secondary_dataset"


def parse_request(raw: bytes) -> SubmissionRequest:
    """Reads request.json.

    Raises:
        SubmissionRefusedError: SUBMISSION_REQUEST_UNREADABLE or SUBMISSION_REQUEST_INVALID, naming the field.
    """
    try:
        return SubmissionRequest.model_validate(parse_document(raw))
    except JobDataCorruptedError as error:
        raise SubmissionRefusedError(
            f"request.json is {error.reason}" if error.reason.startswith("not ") else f"request.json: {error.reason}",
            code="SUBMISSION_REQUEST_UNREADABLE",
            todo="Write request.json as plain UTF-8 JSON (docs/quickstart.md shows one) and submit again.",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "request.json"
        raise SubmissionRefusedError(
            f"request.json: {where}: {first['msg'].removeprefix('Value error, ')}",
            code="SUBMISSION_REQUEST_INVALID",
            todo="Correct this field in request.json and submit again.",
        ) from error
