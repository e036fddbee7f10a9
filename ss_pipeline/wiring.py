"""From settings to concrete parts: the only place that chooses a back end, a drafter, a clock.

Heavy parts (pandas behind the stages) are imported only by `work_parts`, so that the CLI's light verbs stay light.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ss_pipeline.artifacts.store import ArtifactStore
from ss_pipeline.clock import Clock, SystemClock
from ss_pipeline.errors import SettingsError
from ss_pipeline.jobs.fairness import FairnessRules
from ss_pipeline.llm.fences import installation_secret
from ss_pipeline.llm.policies import LLMConfig, Policies, check_policies, check_prices, load_policies
from ss_pipeline.llm.prices import PriceTable
from ss_pipeline.settings import BackendName, Settings
from ss_pipeline.stages.claiming import ClaimRules
from ss_pipeline.stages.intake.stage import IntakeLimits
from ss_pipeline.store.base import Backend
from ss_pipeline.store.file import FileBackend
from ss_pipeline.store.jobs import JobStore, facets_of_body
from ss_pipeline.store.memory import MemoryBackend
from ss_pipeline.store.mirroring import MirroringBackend
from ss_pipeline.store.retrying import RetryingBackend
from ss_pipeline.store.syncing import NamedBackend

if TYPE_CHECKING:
    from ss_pipeline.job_run import WorkParts
    from ss_pipeline.llm.base import LLMClient


_MIRROR_PATIENCE: Final = 1.0
"""Seconds that a change waits for a mirror that does not answer: the next copy brings what it misses."""

MOVABLE: Final[tuple[BackendName, ...]] = ("file", "redis", "postgres")
"""The back ends that documents are moved between; `memory` is gone at exit."""


@dataclass(frozen=True)
class Parts:
    """What every entry point needs: the stores, the clock, and how intake and claims are bounded."""

    settings: Settings
    clock: Clock
    jobs: JobStore
    artifacts: ArtifactStore
    inbox: Path
    intake_limits: IntakeLimits
    claim_rules: ClaimRules
    policies: Policies

    def close(self) -> None:
        """Lets go of files and connections."""
        self.jobs.backend.close()


def light_parts(settings: Settings) -> Parts:
    """The parts that need neither pandas nor dagster."""
    return Parts(
        settings=settings,
        clock=SystemClock(),
        jobs=JobStore(_backend(settings)),
        artifacts=ArtifactStore(settings.artifacts_location()),
        inbox=settings.inbox_path(),
        intake_limits=IntakeLimits(
            max_bytes=settings.input_max_bytes,
            max_files=settings.input_max_files,
            quiet_seconds=settings.inbox_quiet_seconds,
            incomplete_after_seconds=settings.inbox_incomplete_after_seconds,
        ),
        claim_rules=_claim_rules(settings),
        policies=checked_policies(settings),
    )


def _claim_rules(settings: Settings) -> ClaimRules:
    fairness = FairnessRules(
        max_jobs=settings.claim_max_jobs,
        weights=settings.claim_tenant_weights,
        caps=settings.claim_tenant_caps,
        reserved=settings.claim_reserved_slots,
    )
    return ClaimRules(fairness=fairness, reserve_seconds=settings.claim_reserve_seconds)


def work_parts(parts: Parts) -> "WorkParts":
    """What a run works with."""
    from ss_pipeline.job_run import WorkParts
    from ss_pipeline.stages.profiling.stage import ProfileLimits

    settings = parts.settings
    return WorkParts(
        jobs=parts.jobs,
        artifacts=parts.artifacts,
        client=_drafter(parts),
        clock=parts.clock,
        profile_limits=ProfileLimits(
            max_bytes=settings.input_max_bytes,
            max_columns=settings.profile_max_columns,
            max_rows=settings.profile_max_rows,
            cpu_seconds=settings.profile_cpu_seconds,
            wall_seconds=settings.profile_wall_seconds,
            memory_mb=settings.profile_memory_mb,
        ),
        review_policy=parts.policies.default.review or settings.review_policy,
        lease_seconds=settings.claim_lease_seconds,
        heartbeat_seconds=settings.claim_heartbeat_seconds,
        max_attempts=settings.claim_max_attempts,
        tenant_reviews={tenant: policy.review for tenant, policy in parts.policies.tenants.items() if policy.review},
    )


def checked_policies(settings: Settings) -> Policies:
    """Who drafts for whom.

    Raises:
        SettingsError: the tenants' file cannot be used, a provider is unknown, or its model, key or price is missing.
    """
    default = LLMConfig(
        provider=settings.llm_provider,
        model=settings.llm_model,
        temperature=settings.llm_temperature,
        timeout_seconds=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
        max_output_tokens=settings.llm_max_output_tokens,
    )
    policies = load_policies(settings.tenants_file, default=default, base_url=settings.llm_base_url)
    check_policies(policies, keys=settings.llm_api_keys)
    check_prices(policies, PriceTable(settings.llm_prices))
    return policies


def import_drafters(settings: Settings) -> None:
    """Imports what drafting needs under these settings, where all runs will be forked from.

    Raises:
        SettingsError: as `checked_policies`; or a package is missing.
    """
    if kinds := checked_policies(settings).kinds():
        from ss_pipeline.llm.choosing import import_sdk

        for kind in kinds:
            import_sdk(kind)


def recorded_drafter(parts: Parts) -> "LLMClient":
    """Whoever drafts, with answers from the call ledger alone: nobody is asked anything."""
    return _drafter(parts, from_record=True)


def _drafter(parts: Parts, *, from_record: bool = False) -> "LLMClient":
    settings = parts.settings
    if not any(parts.policies.all_models()):
        from ss_pipeline.llm.rules.client import RuleDrafter

        return RuleDrafter()
    from ss_pipeline.llm.choosing import DrafterParts, drafter_of
    from ss_pipeline.llm.ledger import LedgerRules
    from ss_pipeline.stages.drafting.stage import check_answer

    return drafter_of(
        DrafterParts(
            policies=parts.policies,
            documents=parts.jobs.backend,
            artifacts=parts.artifacts,
            clock=parts.clock,
            keys=settings.llm_api_keys,
            secret=installation_secret(settings.data_dir, given=settings.installation_secret),
            check=check_answer,
            prices=PriceTable(settings.llm_prices),
            ledger_rules=LedgerRules(
                unknown_policy=settings.llm_unknown_policy,
                max_unknowns=settings.llm_unknown_max,
                lease_seconds=settings.claim_lease_seconds,
                heartbeat_seconds=settings.claim_heartbeat_seconds,
            ),
            max_prompt_bytes=settings.llm_max_prompt_bytes,
            deadline_seconds=settings.llm_deadline_seconds,
            from_record=from_record,
        )
    )


def open_backend(settings: Settings, name: BackendName, *, patience: float | None = None) -> Backend:
    """The back end of this name, at the address that the settings give.

    Args:
        patience: Seconds for which a server that does not answer is waited for; default: those of the settings.

    Raises:
        SettingsError: its address is not set, or the package it needs is not installed.
        StoreUnavailableError: the server does not answer, or its settings would lose what it acknowledges.
    """
    if name == "memory":
        return MemoryBackend()
    if name == "file":
        return FileBackend(settings.jobs_path(), facets_of=facets_of_body)
    if patience is None:
        patience = settings.job_store_patience_seconds
    return RetryingBackend(_open_server(settings, name), patience=patience)


def open_store(settings: Settings, name: str) -> NamedBackend:
    """A store that documents are moved to or from: `file`, `redis` or `postgres` as the settings have it, or a folder.

    Args:
        name: One of these three, or `file:/folder`.

    Raises:
        SettingsError: no such store, or its address is not set.
    """
    kind, _, folder = name.partition(":")
    for movable in MOVABLE:
        if name == movable:
            return NamedBackend(name, open_backend(settings, movable))
    if kind != "file" or not folder:
        allowed = f"{', '.join(MOVABLE)} or file:/folder"
        raise SettingsError(f"documents cannot be moved to or from {name!r}", todo=f"Use {allowed}.")
    path = Path(folder).resolve()
    if path == settings.jobs_path().resolve():
        return open_store(settings, "file")
    return NamedBackend(f"file:{path}", FileBackend(path, facets_of=facets_of_body))


@contextmanager
def moving_between(settings: Settings, source: str, target: str) -> Iterator[tuple[NamedBackend, NamedBackend]]:
    """Two stores by their names, closed at the end of the block.

    Raises:
        SettingsError: as of `open_store`; or both are the same, or the source's folder is not there.
    """
    stores = open_store(settings, source), open_store(settings, target)
    with closing(stores[0].backend), closing(stores[1].backend):
        if stores[0].name == stores[1].name:
            raise SettingsError(f"{source} and {target} are the same store", todo="Name another one.")
        folder = stores[0].name.partition(":")[2]
        if folder and not Path(folder).is_dir():
            raise SettingsError(f"there is no folder {folder}", todo="Name the folder that has the documents.")
        yield stores


def _open_server(settings: Settings, name: Literal["postgres", "redis"]) -> Backend:
    address = settings.job_store_postgres_dsn if name == "postgres" else settings.redis_url
    if address is None:
        variable = "SS_JOB_STORE_POSTGRES_DSN" if name == "postgres" else "SS_REDIS_URL"
        raise SettingsError(f"{variable} is not set, and the back end `{name}` needs it")
    if name == "postgres":
        from ss_pipeline.store.postgres import PostgresBackend

        return PostgresBackend(address.get_secret_value())
    try:
        from ss_pipeline.store.redis import RedisBackend
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the back end `redis` needs a package that is not installed: {error.name}",
            todo="Install it: pip install 'ss-pipeline[redis]'",
        ) from error
    return RedisBackend(address.get_secret_value())


def _backend(settings: Settings) -> Backend:
    backend = open_backend(settings, settings.job_store_backend)
    if settings.job_store_mirror is None:
        return backend
    mirror = open_backend(settings, settings.job_store_mirror, patience=_MIRROR_PATIENCE)
    return MirroringBackend(backend, mirror, facets_of=facets_of_body, name=settings.job_store_backend)
