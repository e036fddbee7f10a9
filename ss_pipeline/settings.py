"""Every setting, in one frozen model: the only reader of the environment. docs/configuration.md is generated from it.

Choosing concrete parts by these settings is wiring.py's business.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    FilePath,
    PositiveFloat,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from ss_pipeline.errors import SettingsError
from ss_pipeline.jobs.model import PriorityClass
from ss_pipeline.llm.prices import Price

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

BackendName: TypeAlias = Literal["file", "memory", "postgres", "redis"]


class Settings(BaseSettings):
    """All settings; each is read from the environment variable `SS_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="SS_", frozen=True, extra="ignore", populate_by_name=True)

    data_dir: Path = Field(Path("var/data"), description="Where everything lives that has no setting of its own.")
    inbox_dir: Path | None = Field(None, description="The inbox folder; default `<data_dir>/inbox`.")
    jobs_dir: Path | None = Field(None, description="Job documents of the file back end; default `<data_dir>/jobs`.")
    artifacts_url: str | None = Field(
        None, description="Inputs, drafts and reports: a folder or an fsspec URL; default `<data_dir>/artifacts`."
    )
    job_store_backend: BackendName = Field(
        "file", description="Where job documents live. `memory` forgets everything at exit: tests only."
    )
    job_store_postgres_dsn: SecretStr | None = Field(
        None, description="Address of the `postgres` back end: `postgresql://user:password@host:5432/database`."
    )
    redis_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("ss_redis_url", "ss_job_store_redis_url"),
        description="Address of the `redis` back end: `redis://:password@host:6379/0`. "
        "`SS_JOB_STORE_REDIS_URL` is read, too.",
    )
    job_store_mirror: BackendName | None = Field(
        None, description="A second back end that gets every change, too, while jobs move to it or back from it."
    )
    job_store_patience_seconds: float = Field(
        15.0, ge=0, description="How long a `postgres` or `redis` server that does not answer is waited for."
    )
    dagster_postgres_url: SecretStr | None = Field(
        None,
        description="Where Dagster keeps its history with `deploy/dagster.postgres.yaml`, which reads it itself: "
        "`postgresql+psycopg2://…`. `ss-pipeline up --postgres` sets it to the address of the `postgres` back end.",
    )
    dagster_url: str | None = Field(
        None,
        description="Where Dagster's webserver listens: `ss-pipeline submit` has its job started there at once. Not "
        "needed beside `ss-pipeline up`, which leaves its address in `<data_dir>/dagster/webserver.json`. The pipeline "
        "there must have the store, the inbox and the artifacts of these settings.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Lowest level of event lines.")

    inbox_quiet_seconds: float = Field(
        2.0, ge=0, description="A submission without `.ready` is complete once nothing in it changed for so long."
    )
    inbox_incomplete_after_seconds: float = Field(
        3600.0, gt=0, description="A submission that stays incomplete and unchanged for so long is refused."
    )
    inbox_interval_seconds: int = Field(
        2,
        ge=1,
        description="Least seconds between two looks at the inbox. Dagster's daemon comes by every 5 s; with 5 here, "
        "the sensor would often count as too early and leave out every second time.",
    )

    claim_max_jobs: int = Field(
        25, ge=1, le=25, description="Most jobs one run works on; a short backlog gets a run for each job."
    )
    claim_slots: int = Field(8, ge=1, description="Runs at once; keep equal to max_concurrent_runs in dagster.yaml.")
    claim_interval_seconds: int = Field(
        2, ge=1, description="Least seconds between two looks at the backlog; see `SS_INBOX_INTERVAL_SECONDS`."
    )
    claim_reserve_seconds: float = Field(600.0, gt=0, description="How long a reservation waits for its run.")
    claim_lease_seconds: float = Field(60.0, gt=0, description="How long a lease lasts without a heartbeat.")
    claim_heartbeat_seconds: float = Field(10.0, gt=0, description="Seconds between two heartbeats of a run.")
    claim_tenant_weights: dict[str, float] = Field(
        {}, description='Shares of tenants against each other, as JSON: `{"acme": 2}`; 1 for whoever is not named.'
    )
    claim_tenant_caps: dict[str, int] = Field(
        {}, description='Most runs in flight of a tenant, as JSON: `{"acme": 2, "*": 8}`; `*` is for all others.'
    )
    claim_reserved_slots: dict[PriorityClass, int] = Field(
        {}, description='Slots that only this class may take, as JSON: `{"high": 1}`; see docs/scheduling.md.'
    )
    claim_max_attempts: int = Field(5, ge=1, description="Leases without success after which a job is failed.")

    run_retention_days: float = Field(
        30.0, gt=0, description="After so many days the history of a run is deleted; jobs and reports stay."
    )

    input_max_bytes: int = Field(100_000_000, gt=0, description="Largest data file, in bytes.")
    input_max_files: int = Field(20, ge=1, description="Most data files of one submission.")
    profile_max_columns: int = Field(2_000, ge=1, description="Columns profiled of a data file; more give a warning.")
    profile_max_rows: int = Field(5_000_000, ge=1, description="Most rows of a data file.")
    profile_cpu_seconds: int = Field(20, ge=1, description="CPU time the reading child process may use for a file.")
    profile_wall_seconds: float = Field(30.0, gt=0, description="Time the reading child process may take for a file.")
    profile_memory_mb: int = Field(1_024, ge=64, description="Memory the reading child may take beyond its parent's.")

    review_policy: Literal["auto", "always"] = Field(
        "auto",
        description="`auto` confirms drafts in which nothing blocks; `always` leaves each to a person. A tenant "
        "may have its own in `SS_TENANTS_FILE`.",
    )

    tenants_file: FilePath | None = Field(
        None, description="Policies of tenants and providers beyond these settings, as TOML; see docs/drafting.md."
    )
    llm_provider: str = Field(
        "stub", description="Who drafts: `stub` (rules), `openai`, `claude`, `qwen`, or one of `SS_TENANTS_FILE`."
    )
    llm_model: str | None = Field(None, description="The provider's model; there is no default.")
    llm_base_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s]+$",
        description="Where the provider is, for a server of one's own: `http://127.0.0.1:8080/v1`.",
    )
    llm_api_keys: dict[str, SecretStr] = Field({}, description='Keys by provider, as JSON: `{"openai": "…"}`.')
    llm_temperature: float | None = Field(None, ge=0, le=2, description="Default: the model's own.")
    llm_max_output_tokens: int = Field(
        2_000, ge=100, le=32_000, description="Most tokens of an answer; a model that reasons needs more, such as 8000."
    )
    llm_timeout_seconds: float = Field(30.0, gt=0, le=600, description="How long one call may take.")
    llm_max_retries: int = Field(3, ge=1, le=10, description="Most calls for a question, the first one included.")
    llm_deadline_seconds: PositiveFloat = Field(
        60.0, description="How long all calls for a question and the pauses between them may take."
    )
    llm_max_prompt_bytes: int = Field(
        80_000, ge=10_000, description="Most bytes of requirement and profile in a prompt; columns beyond are left out."
    )
    llm_prices: dict[str, Price] = Field(
        {},
        description="Prices for a million tokens, by model or provider, as JSON: "
        '`{"openai/gpt-4o-mini": {"input": 0.15, "output": 0.6}}`.',
    )
    llm_unknown_policy: Literal["ask_again", "fail"] = Field(
        "ask_again",
        description="What becomes of a question that was sent and never answered, and may have been billed.",
    )
    llm_unknown_max: int = Field(
        3, ge=0, description="So many unknown outcomes of one question are borne with `ask_again`; then it fails."
    )
    installation_secret: SecretStr | None = Field(
        None,
        description="Makes the marks around the data in prompts unguessable; default: made once and kept in "
        "`<data_dir>/installation.secret`. The same for all machines of an installation.",
    )

    @model_validator(mode="after")
    def _places_of_documents_are_complete(self) -> Self:
        used = {self.job_store_backend, self.job_store_mirror}
        if self.job_store_backend == self.job_store_mirror:
            raise ValueError(f"SS_JOB_STORE_MIRROR={self.job_store_mirror!r}: it is the back end itself")
        if "postgres" in used and self.job_store_postgres_dsn is None:
            raise ValueError("SS_JOB_STORE_POSTGRES_DSN is not set, and the back end `postgres` needs it")
        if "redis" in used and self.redis_url is None:
            raise ValueError("SS_REDIS_URL is not set, and the back end `redis` needs it")
        return self

    @field_validator("dagster_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        address = urlsplit(url or "http://localhost")
        if (
            address.scheme not in {"http", "https"} or not address.hostname or address.port == 0
        ):  # a port above 65535 raises
            raise ValueError("no address such as http://127.0.0.1:3000")
        return url

    @model_validator(mode="after")
    def _shares_can_be_kept(self) -> Self:
        if bad := sorted(name for name, weight in self.claim_tenant_weights.items() if weight <= 0):
            raise ValueError(f"SS_CLAIM_TENANT_WEIGHTS: the weight of {bad[0]!r} must be above 0")
        if bad := sorted(name for name, cap in self.claim_tenant_caps.items() if cap < 1):
            raise ValueError(f"SS_CLAIM_TENANT_CAPS: the cap of {bad[0]!r} must be at least 1")
        reserved = self.claim_reserved_slots.values()
        if min(reserved, default=0) < 0 or sum(reserved) >= self.claim_slots:
            raise ValueError(
                f"SS_CLAIM_RESERVED_SLOTS: 0 or more each, and in all fewer than SS_CLAIM_SLOTS={self.claim_slots}"
            )
        return self

    @model_validator(mode="after")
    def _leases_outlive_heartbeats(self) -> Self:
        if self.claim_heartbeat_seconds > self.claim_lease_seconds / 3:
            raise ValueError(
                f"SS_CLAIM_HEARTBEAT_SECONDS={self.claim_heartbeat_seconds:g} is more than a third of "
                f"SS_CLAIM_LEASE_SECONDS={self.claim_lease_seconds:g}: two late heartbeats would lose the lease"
            )
        return self

    def inbox_path(self) -> Path:
        """The inbox folder, absolute."""
        return (self.inbox_dir or self.data_dir / "inbox").absolute()

    def jobs_path(self) -> Path:
        """The folder of job documents, absolute."""
        return (self.jobs_dir or self.data_dir / "jobs").absolute()

    def pipeline_id(self) -> str:
        """A digest of where documents, files and submissions are: processes with the same one work on one pipeline."""
        addresses = {
            "file": str(self.jobs_path()),
            "postgres": self.job_store_postgres_dsn and self.job_store_postgres_dsn.get_secret_value(),
            "redis": self.redis_url and self.redis_url.get_secret_value(),
        }
        stores = [(name, addresses.get(name or "")) for name in (self.job_store_backend, self.job_store_mirror)]
        places = [stores, str(self.inbox_path()), self.artifacts_location()]
        return hashlib.sha256(json.dumps(places).encode()).hexdigest()

    def artifacts_location(self) -> str:
        """The artifact root as an absolute path or an fsspec URL."""
        if self.artifacts_url and "://" in self.artifacts_url:
            return self.artifacts_url
        return str(Path(self.artifacts_url or self.data_dir / "artifacts").absolute())


def load_settings(**overrides: object) -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: naming the variable, what it holds and what is allowed.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _named(error.errors(include_url=False, include_context=False)[0]) from error


def _named(fault: "ErrorDetails") -> SettingsError:
    if not fault["loc"]:  # several settings that do not go together: the message names them
        return SettingsError(fault["msg"].removeprefix("Value error, "))
    field = str(fault["loc"][0])
    if field == "llm_api_keys":
        return SettingsError(f"SS_LLM_API_KEYS: {fault['msg']}")
    code = "JOB_STORE_BACKEND_UNSUPPORTED" if field in {"job_store_backend", "job_store_mirror"} else None
    return SettingsError(f"SS_{field.upper()}={fault['input']!r}: {fault['msg']}", code=code)
