"""Who drafts for whom: providers, models and tenants' policies, from the tenants' file (TOML) and the defaults.

What lives here: the models of that file and what they refuse. What does not: keys (only the environment has them) and
making the drafters (choosing.py).
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from ss_pipeline.errors import SettingsError
from ss_pipeline.llm.capabilities import Capabilities, capabilities_of
from ss_pipeline.llm.limits import Budget, Rate
from ss_pipeline.llm.prices import PriceTable

STUB: Final = "stub"
"""The provider that is none: the rule drafter."""

ReviewPolicy: TypeAlias = Literal["auto", "always"]
ProviderKind: TypeAlias = Literal["openai", "claude"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LLMConfig(_Section):
    """Which model is asked, and how (seed S2.1.1).

    Args:
        temperature: None = the model's own.
        timeout_seconds: For a call.
        max_retries: Calls in all, the first one included.
    """

    provider: str = STUB
    model: str | None = Field(None, max_length=200)
    temperature: float | None = Field(None, ge=0, le=2)
    timeout_seconds: float = Field(30.0, gt=0, le=600)
    max_retries: int = Field(3, ge=1, le=10)
    max_output_tokens: int = Field(2_000, ge=100, le=32_000)

    @property
    def name(self) -> str:
        """As drafts and prices name it: `<provider>/<model>`."""
        return f"{self.provider}/{self.model}"


class ProviderConfig(_Section):
    """A provider: what it speaks, and where.

    Args:
        kind: `openai` for chat completions, `claude` for messages.
        needs_key: False for a server of one's own that wants none.
        rate: Calls and tokens a minute, of all its models together.
    """

    kind: ProviderKind = "openai"
    base_url: str = Field(pattern=r"^https?://[^\s]+$")
    needs_key: bool = True
    rate: Rate = Rate()


PROVIDERS: Final[dict[str, ProviderConfig]] = {
    "openai": ProviderConfig(base_url="https://api.openai.com/v1"),
    "claude": ProviderConfig(kind="claude", base_url="https://api.anthropic.com"),
    "qwen": ProviderConfig(base_url="https://dashscope.aliyuncs.com/compatible-mode/v1"),
}


class TenantPolicy(_Section):
    """What holds for a tenant. What is left out is the default's.

    Args:
        fallback: Models that are asked in turn where the first gives no answer.
        on_failure: Where no model gives an answer: `rules` = the rule drafter, marked in the draft; `fail` = the job
            is failed with the reason, or given back where the fault may pass.
        review: None = as `SS_REVIEW_POLICY` says.
    """

    llm: LLMConfig | None = None
    fallback: tuple[LLMConfig, ...] = ()
    on_failure: Literal["rules", "fail"] = "rules"
    review: ReviewPolicy | None = None
    budget: Budget = Budget()

    def filled_from(self, default: "TenantPolicy") -> "TenantPolicy":
        """With the default's where it says nothing; but a tenant with a model of its own gets no other's fallback."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return default.model_copy(update=({"fallback": ()} if self.llm else {}) | own)

    def models(self) -> tuple[LLMConfig, ...]:
        """Who is asked, in turn; none where the rules draft."""
        return tuple(config for config in (self.llm, *self.fallback) if config and config.provider != STUB)


class Policies(_Section):
    """The tenants' file.

    Args:
        default: For tenants that are not named.
        models: Capabilities by `<provider>/<model>`, where the built-in table is wrong or has none.
        rates: Limits by `<provider>/<model>`, beside those of its provider.
    """

    default: TenantPolicy = TenantPolicy()
    tenants: dict[str, TenantPolicy] = {}
    providers: dict[str, ProviderConfig] = {}
    models: dict[str, Capabilities] = {}
    rates: dict[str, Rate] = {}

    def of(self, tenant_id: str) -> TenantPolicy:
        """The policy of a tenant."""
        return self.tenants.get(tenant_id, self.default)

    def provider(self, name: str) -> ProviderConfig:
        """The provider of this name; one in the file takes the place of the built-in one."""
        known = PROVIDERS | self.providers
        if name not in known:
            raise SettingsError(
                f"there is no LLM provider {name!r}",
                code="LLM_PROVIDER_UNKNOWN",
                todo=f"Use {', '.join([STUB, *known])}, or add [providers.{name}] to the file of SS_TENANTS_FILE.",
            )
        return known[name]

    def capabilities(self, config: LLMConfig) -> Capabilities:
        """What a model takes."""
        return capabilities_of(config.name, added=self.models)

    def all_models(self) -> Iterator[LLMConfig]:
        """Every model that is asked for some tenant, as it is configured."""
        seen: set[LLMConfig] = set()
        for policy in (self.default, *self.tenants.values()):
            for config in policy.models():
                if config not in seen:
                    seen.add(config)
                    yield config

    def kinds(self) -> set[ProviderKind]:
        """Which SDKs are needed."""
        return {self.provider(config.provider).kind for config in self.all_models()}


def load_policies(file: Path | None, *, default: LLMConfig, base_url: str | None = None) -> Policies:
    """The policies of the file, with the default model where a policy names none.

    Args:
        base_url: Where the default's provider is, if not where it is usually.

    Raises:
        SettingsError: naming the file and what in it cannot be used.
    """
    policies = _read(file) if file else Policies()
    if base_url is not None and default.provider != STUB:
        provider = policies.providers.get(default.provider) or PROVIDERS.get(default.provider)
        own = ProviderConfig(base_url=base_url, needs_key=False)
        placed = own if provider is None else provider.model_copy(update={"base_url": base_url})
        policies = policies.model_copy(update={"providers": policies.providers | {default.provider: placed}})
    common = policies.default.model_copy(update={"llm": policies.default.llm or default})
    tenants = {tenant: policy.filled_from(common) for tenant, policy in policies.tenants.items()}
    return policies.model_copy(update={"default": common, "tenants": tenants})


def check_policies(policies: Policies, *, keys: Mapping[str, SecretStr]) -> None:
    """Refuses what could only fail later: at the first call.

    Raises:
        SettingsError: LLM_PROVIDER_UNKNOWN, LLM_KEY_MISSING, LLM_MODEL_MISSING or LLM_CONFIG_INVALID.
    """
    for config in policies.all_models():
        provider = policies.provider(config.provider)
        if config.model is None:
            raise SettingsError(
                f"no model is named for the provider {config.provider!r}",
                code="LLM_MODEL_MISSING",
                todo="Set SS_LLM_MODEL, or `model` beside `provider` in the file of SS_TENANTS_FILE.",
            )
        if provider.needs_key and not keys.get(config.provider, SecretStr("")).get_secret_value():
            raise SettingsError(
                f"there is no key for the LLM provider {config.provider!r}",
                code="LLM_KEY_MISSING",
                todo=f'Set SS_LLM_API_KEYS=\'{{"{config.provider}": "…"}}\'.',
            )
        if config.temperature is not None and not policies.capabilities(config).temperature:
            raise SettingsError(
                f"{config.name} takes no temperature",
                code="LLM_CONFIG_INVALID",
                todo=f'Leave it out, or say otherwise under [models."{config.name}"].',
            )


def check_prices(policies: Policies, prices: PriceTable) -> None:
    """Refuses a budget in money for a model that has no price.

    Raises:
        SettingsError: LLM_PRICE_MISSING.
    """
    for policy in (policies.default, *policies.tenants.values()):
        for config in policy.models() if policy.budget.counts_money else ():
            if prices.price_of(config.provider, config.model or "") is None:
                raise SettingsError(
                    f"a budget counts money, and {config.name} has no price",
                    code="LLM_PRICE_MISSING",
                    todo=f'Set SS_LLM_PRICES=\'{{"{config.name}": {{"input": …, "output": …}}}}\', or count tokens.',
                )


def _read(file: Path) -> Policies:
    try:
        return Policies.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"SS_TENANTS_FILE={str(file)!r} cannot be read: {error}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise SettingsError(
            f"SS_TENANTS_FILE={str(file)!r}: {where}: {fault['msg']}",
            todo="docs/drafting.md shows what the file may hold.",
        ) from error
