"""The tenants' file: what it may say, and what is refused at start instead of at the first call."""

import json
import os
from pathlib import Path
from typing import assert_type

import pytest

from ss_pipeline import wiring
from ss_pipeline.definitions import build_definitions
from ss_pipeline.errors import SettingsError
from ss_pipeline.jobs.drafts import DraftAnswer
from ss_pipeline.llm.base import Drafted, DraftRequest, LLMClient
from ss_pipeline.llm.choosing import import_sdk
from ss_pipeline.llm.drafter import DrafterByTenant, ModelDrafter
from ss_pipeline.llm.fences import installation_secret
from ss_pipeline.llm.policies import LLMConfig, Policies, load_policies
from ss_pipeline.llm.rules.client import RuleDrafter
from ss_pipeline.settings import load_settings
from ss_pipeline_tests.conftest import PROJECT_ROOT

EXAMPLE = """
[default]
llm = { provider = "openai", model = "gpt-4o-mini" }
fallback = [{ provider = "qwen", model = "qwen-plus" }]

[tenants.acme]
llm = { provider = "claude", model = "claude-sonnet-4-5", max_output_tokens = 3000 }
on_failure = "fail"
review = "always"
budget = { tokens_per_job = 20000, tokens_per_day = 5000000 }

[tenants.quiet]
llm = { provider = "stub" }

[tenants.lab]
llm = { provider = "local", model = "smollm2", temperature = 0.0 }

[providers.local]
base_url = "http://127.0.0.1:8080/v1"
needs_key = false
rate = { requests_per_minute = 60 }

[models."local/smollm2"]
form = "json_object"

[rates."openai/gpt-4o-mini"]
tokens_per_minute = 200000
"""
KEYS = json.dumps({"openai": "sk-a", "claude": "sk-b", "qwen": "sk-c"})


@pytest.fixture
def tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "tenants.toml"
    file.write_text(EXAMPLE, encoding="utf-8")
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SS_TENANTS_FILE", str(file))
    monkeypatch.setenv("SS_LLM_API_KEYS", KEYS)
    return file


def drafter() -> LLMClient:
    """As a run gets it under the settings of the environment."""
    parts = wiring.light_parts(load_settings())
    try:
        return wiring.work_parts(parts).client
    finally:
        parts.close()


@pytest.mark.seed("S2.1.1")
def test_the_defaults_are_those_of_the_seed() -> None:
    config = LLMConfig()

    assert (config.provider, config.model, config.temperature) == ("stub", None, None)
    assert (config.timeout_seconds, config.max_retries) == (30.0, 3)


def test_without_settings_the_rules_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path))

    assert isinstance(drafter(), RuleDrafter)
    assert not (tmp_path / "installation.secret").exists()


@pytest.mark.usefixtures("tenants")
@pytest.mark.seed("S2.1.2", "S2.1.3", "S2.1.8")
def test_each_tenant_is_drafted_for_by_its_own_model() -> None:
    client = drafter()

    assert isinstance(client, DrafterByTenant)
    names = {tenant: one.name for tenant, one in client._drafters.items()}
    assert names == {"acme": "claude/claude-sonnet-4-5", "quiet": "rules/1", "lab": "local/smollm2"}
    assert client.name == "openai/gpt-4o-mini"
    default = client._default
    assert isinstance(default, ModelDrafter)
    assert [candidate.model.name for candidate in default._candidates] == ["openai/gpt-4o-mini", "qwen/qwen-plus"]


async def _typed(client: LLMClient, request: DraftRequest) -> None:
    """Never run: mypy holds the port to what it says it gives."""
    assert_type(await client.draft_preview(request), DraftAnswer)
    assert_type(await client.draft(request), Drafted)


@pytest.mark.usefixtures("tenants")
def test_a_tenants_review_policy_goes_before_the_one_for_all() -> None:
    parts = wiring.light_parts(load_settings())
    work = wiring.work_parts(parts)
    parts.close()

    assert (work.review_policy_of("acme"), work.review_policy_of("lab")) == ("always", "auto")


def test_a_tenant_that_names_no_model_has_the_default_one(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('[tenants.a]\nreview = "always"\n')

    policies = load_policies(file, default=LLMConfig(provider="qwen", model="qwen-plus"))

    assert [config.name for config in policies.of("a").models()] == ["qwen/qwen-plus"]
    assert [config.name for config in policies.of("other").models()] == ["qwen/qwen-plus"]


def test_what_a_policy_leaves_out_is_the_defaults_but_for_anothers_fallback(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(
        '[default]\nreview = "always"\nbudget = { tokens_per_day = 7 }\n'
        'llm = { provider = "openai", model = "m" }\nfallback = [{ provider = "qwen", model = "q" }]\n'
        '[tenants.same]\non_failure = "fail"\n[tenants.own]\nllm = { provider = "claude", model = "c" }\n'
    )

    policies = load_policies(file, default=LLMConfig())

    same, own = policies.of("same"), policies.of("own")
    assert (same.review, same.budget.tokens_per_day, same.on_failure) == ("always", 7, "fail")
    assert [config.name for config in same.models()] == ["openai/m", "qwen/q"]
    assert (own.review, own.budget.tokens_per_day) == ("always", 7)
    assert [config.name for config in own.models()] == ["claude/c"]


def test_a_server_of_ones_own_needs_an_address_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PROVIDER": "mine", "MODEL": "m", "BASE_URL": "http://127.0.0.1:1/v1"}.items():
        monkeypatch.setenv(f"SS_LLM_{name}", value)
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path))

    assert drafter().name == "mine/m"


@pytest.mark.seed("S2.1.1", "S2.1.3")
@pytest.mark.parametrize(
    ("environment", "code", "named"),
    [
        ({"SS_LLM_PROVIDER": "gpt"}, "LLM_PROVIDER_UNKNOWN", "stub, openai, claude, qwen"),
        ({"SS_LLM_PROVIDER": "openai", "SS_LLM_MODEL": "m"}, "LLM_KEY_MISSING", "SS_LLM_API_KEYS"),
        ({"SS_LLM_PROVIDER": "openai", "SS_LLM_API_KEYS": '{"openai": "k"}'}, "LLM_MODEL_MISSING", "SS_LLM_MODEL"),
        (
            {
                "SS_LLM_PROVIDER": "openai",
                "SS_LLM_MODEL": "gpt-5-mini",
                "SS_LLM_TEMPERATURE": "0",
                "SS_LLM_API_KEYS": '{"openai": "k"}',
            },
            "LLM_CONFIG_INVALID",
            "temperature",
        ),
    ],
)
def test_what_could_only_fail_at_the_first_call_is_refused_at_start(
    environment: dict[str, str], code: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SS_DATA_DIR", str(tmp_path))

    with pytest.raises(SettingsError) as refused:
        build_definitions(load_settings())
    assert refused.value.error_code == code
    assert named in f"{refused.value.message} {refused.value.todo}"

    with pytest.raises(SettingsError):
        wiring.light_parts(load_settings())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[default\n", "cannot be read"),
        ("[tenant.a]\n", "tenant: Extra inputs"),
        ('[default]\nllm = { provider = "openai", key = "sk-x" }\n', "default.llm.key"),
        ('[default]\non_failure = "ignore"\n', "default.on_failure"),
        ('[providers.x]\nbase_url = "ftp://x"\n', "providers.x.base_url"),
        ("[default]\nbudget = { tokens_per_day = -1 }\n", "default.budget.tokens_per_day"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(text: str, named: str, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)

    with pytest.raises(SettingsError, match=r"SS_TENANTS_FILE") as refused:
        load_policies(file, default=LLMConfig())

    assert named in refused.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_policies(tmp_path / "none.toml", default=LLMConfig())


@pytest.mark.guarantee("L5")
@pytest.mark.usefixtures("tenants")
def test_keys_are_in_no_text_of_the_settings() -> None:
    settings = load_settings()

    assert "sk-" not in repr(settings) + settings.model_dump_json() + repr(Policies())


@pytest.mark.guarantee("L5")
def test_a_key_of_the_wrong_kind_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_LLM_API_KEYS", '{"openai": {"key": "sk-hidden"}}')

    with pytest.raises(SettingsError) as refused:
        load_settings()

    assert "SS_LLM_API_KEYS" in refused.value.message
    assert "sk-hidden" not in refused.value.message


def test_a_package_that_is_not_installed_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "anthropic", None)
    monkeypatch.delitem(__import__("sys").modules, "ss_pipeline.llm.providers.claude", raising=False)

    with pytest.raises(SettingsError) as refused:
        import_sdk("claude")

    assert refused.value.error_code == "LLM_PACKAGE_MISSING"
    assert "ss-pipeline[claude]" in refused.value.todo


def test_the_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first, second = (installation_secret(tmp_path / "data", given=None) for _ in range(2))

    assert first == second
    assert len(first) == 64
    file = tmp_path / "data" / "installation.secret"
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(file.parent) == [file.name]  # noqa: PTH208


def test_the_file_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (PROJECT_ROOT / "docs" / "drafting.md").read_text(encoding="utf-8")
    file = tmp_path / "t.toml"
    file.write_text(page.split("```toml\n")[1].split("```")[0], encoding="utf-8")

    policies = load_policies(file, default=LLMConfig())

    assert policies.of("quiet").models() == ()
    assert policies.provider("local").rate.requests_per_minute == 60
    assert policies.capabilities(LLMConfig(provider="local", model="smollm2")).form == "json_object"
