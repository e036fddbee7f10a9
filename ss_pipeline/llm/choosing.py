"""From policies to drafters: which model behind which wrappers answers a tenant's jobs.

    ModelDrafter            prompt, answer, one repair, the next model, the rules
    └── LedgeredModel       an answer on record is not asked for again
        └── BudgetedModel   nothing is sent that there is no budget for
            └── RetryingModel   the one owner of retries
                └── GovernedModel   waits for its turn
                    └── TimedModel      the time-out of a call
                        └── the provider    one call over the vendor's SDK

A vendor's SDK is imported only where a model needs it. The settings behind all this are wiring.py's business.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

from pydantic import SecretStr

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock
from ss_pipeline.errors import SettingsError
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.jobs.profiles import JobProfile
from ss_pipeline.llm.answers import answer_schema
from ss_pipeline.llm.base import LLMClient
from ss_pipeline.llm.breaker import Breaker
from ss_pipeline.llm.budgets import BudgetedModel
from ss_pipeline.llm.drafter import Candidate, DrafterByTenant, Drafting, ModelDrafter
from ss_pipeline.llm.governor import GovernedModel
from ss_pipeline.llm.ledger import LedgeredModel, LedgerRules, RecordedModel
from ss_pipeline.llm.limits import Rate
from ss_pipeline.llm.model import LanguageModel
from ss_pipeline.llm.policies import LLMConfig, Policies, ProviderKind, TenantPolicy
from ss_pipeline.llm.prices import PriceTable
from ss_pipeline.llm.prompts.writing import Asking, QuestionWriter
from ss_pipeline.llm.providers.base import Endpoint
from ss_pipeline.llm.retrying import RetryingModel, RetryRules, TimedModel
from ss_pipeline.llm.rules.client import RuleDrafter
from ss_pipeline.llm.traces import TraceWriter
from ss_pipeline.store.base import Backend

_PACKAGE_OF_KIND: Final[dict[ProviderKind, str]] = {"openai": "ss-pipeline", "claude": "ss-pipeline[claude]"}
"""What has to be installed, by the kind of provider."""


@dataclass(frozen=True)
class DrafterParts:
    """What drafters are made of.

    Args:
        keys: By provider.
        secret: Of the installation, for the fences.
        check: Holds an answer against the profile; raises a DraftError.
        max_prompt_bytes: Of the data in a prompt.
        deadline_seconds: For all calls for a question and the pauses between them.
        from_record: Answers come from the ledger alone; nobody is asked, and no SDK is needed.
    """

    policies: Policies
    documents: Backend
    artifacts: ArtifactStore
    clock: Clock
    keys: Mapping[str, SecretStr]
    secret: bytes
    check: Callable[[DraftAnswer, JobProfile], None]
    prices: PriceTable
    ledger_rules: LedgerRules = field(default_factory=LedgerRules)
    max_prompt_bytes: int = 80_000
    deadline_seconds: float = 60.0
    from_record: bool = False


def drafter_of(parts: DrafterParts) -> LLMClient:
    """Whoever drafts for each tenant: the rules where no model is named, else models behind their wrappers.

    Raises:
        SettingsError: LLM_PACKAGE_MISSING.
    """
    makers = _Makers(parts)
    default = makers.drafter(parts.policies.default)
    tenants = {tenant: makers.drafter(policy) for tenant, policy in parts.policies.tenants.items()}
    return DrafterByTenant(tenants, default=default) if tenants else default


def import_sdk(kind: ProviderKind) -> None:
    """Imports the SDK of a kind of provider: in the process that forks runs, so that none of them does it again.

    Raises:
        SettingsError: LLM_PACKAGE_MISSING.
    """
    try:
        import_module(f"ss_pipeline.llm.providers.{kind}")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"a provider of kind {kind!r} needs a package that is not installed: {error.name}",
            code="LLM_PACKAGE_MISSING",
            todo=f"Install it: pip install '{_PACKAGE_OF_KIND[kind]}'",
        ) from error


class _Makers:
    """Makes drafters; tenants with the same model share it, and so its connections and its breaker."""

    def __init__(self, parts: DrafterParts) -> None:
        self._parts = parts
        self._models: dict[LLMConfig, LanguageModel] = {}
        self._breakers: dict[str, Breaker] = {}
        self._schema = answer_schema()
        self._drafting = Drafting(
            writer=QuestionWriter(secret=parts.secret),
            rules=RuleDrafter(),
            check=parts.check,
            max_prompt_bytes=parts.max_prompt_bytes,
        )

    def drafter(self, policy: TenantPolicy) -> LLMClient:
        candidates = [self._candidate(config) for config in policy.models()]
        if not candidates:
            return self._drafting.rules
        return ModelDrafter(candidates, drafting=self._drafting, on_failure=policy.on_failure)

    def _candidate(self, config: LLMConfig) -> Candidate:
        if config not in self._models:
            self._models[config] = self._wrapped(config)
        asking = Asking(
            provider=config.provider,
            model=config.model or "",
            schema=self._schema,
            max_output_tokens=config.max_output_tokens,
            temperature=config.temperature,
        )
        return Candidate(self._models[config], asking)

    def _wrapped(self, config: LLMConfig) -> LanguageModel:
        parts = self._parts
        if parts.from_record:
            return RecordedModel(parts.documents, name=config.name)
        timed = TimedModel(self._provided(config), timeout=config.timeout_seconds, clock=parts.clock)
        governed = GovernedModel(timed, rates=self._rates(), documents=parts.documents, clock=parts.clock)
        retrying = RetryingModel(governed, rules=self._retry_rules(config), breaker=self._breaker(config.provider))
        budgeted = BudgetedModel(
            retrying,
            budget_of=lambda tenant_id: parts.policies.of(tenant_id).budget,
            documents=parts.documents,
            prices=parts.prices,
            clock=parts.clock,
        )
        traces = TraceWriter(
            parts.artifacts,
            clock=parts.clock,
            timeout_seconds=config.timeout_seconds,
            max_attempts=config.max_retries,
        )
        return LedgeredModel(
            budgeted,
            documents=parts.documents,
            traces=traces,
            prices=parts.prices,
            clock=parts.clock,
            rules=parts.ledger_rules,
        )

    def _provided(self, config: LLMConfig) -> LanguageModel:
        provider = self._parts.policies.provider(config.provider)
        endpoint = Endpoint(
            provider=config.provider,
            model=config.model or "",
            base_url=provider.base_url,
            key=self._parts.keys.get(config.provider),
            capabilities=self._parts.policies.capabilities(config),
        )
        import_sdk(provider.kind)
        if provider.kind == "claude":
            from ss_pipeline.llm.providers.claude import ClaudeModel  # noqa: PLC0415

            return ClaudeModel(endpoint, clock=self._parts.clock)
        from ss_pipeline.llm.providers.openai import OpenAIModel  # noqa: PLC0415

        return OpenAIModel(endpoint, clock=self._parts.clock)

    def _rates(self) -> dict[str, Rate]:
        """Of models, and of providers for all models that have none of their own."""
        policies = self._parts.policies
        providers = {config.provider: policies.provider(config.provider).rate for config in policies.all_models()}
        return {name: rate for name, rate in {**providers, **policies.rates}.items() if rate != Rate()}

    def _retry_rules(self, config: LLMConfig) -> RetryRules:
        return RetryRules(
            max_calls=config.max_retries,
            deadline_seconds=self._parts.deadline_seconds,
            asks_again_after_unknown=self._parts.ledger_rules.unknown_policy == "ask_again",
        )

    def _breaker(self, provider: str) -> Breaker:
        if provider not in self._breakers:
            self._breakers[provider] = Breaker(provider, clock=self._parts.clock)
        return self._breakers[provider]
