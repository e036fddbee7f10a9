"""Settings: read from the environment, frozen, and a bad value is named with its variable."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ss_pipeline.errors import SettingsError
from ss_pipeline.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SS_{name.upper()}", raising=False)
    monkeypatch.delenv("SS_JOB_STORE_REDIS_URL", raising=False)


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings()
    assert (settings.job_store_backend, settings.review_policy, settings.log_level) == ("file", "auto", "INFO")
    assert settings.inbox_path() == Path("var/data/inbox").absolute()
    assert settings.jobs_path() == Path("var/data/jobs").absolute()
    assert settings.artifacts_location() == str(Path("var/data/artifacts").absolute())


def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_DATA_DIR", "/data")
    monkeypatch.setenv("SS_CLAIM_SLOTS", "12")
    monkeypatch.setenv("SS_CLAIM_LEASE_SECONDS", "3.5")
    monkeypatch.setenv("SS_CLAIM_HEARTBEAT_SECONDS", "1")
    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "memory")
    settings = load_settings()
    assert (settings.data_dir, settings.claim_slots, settings.claim_lease_seconds) == (Path("/data"), 12, 3.5)
    assert settings.job_store_backend == "memory"


def test_what_is_given_in_code_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_CLAIM_SLOTS", "12")
    assert load_settings(claim_slots=2).claim_slots == 2


def test_a_variable_nobody_knows_is_not_our_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SS_OF_A_LATER_VERSION", "1")
    assert not hasattr(load_settings(), "of_a_later_version")


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("SS_LOG_LEVEL", "LOUD", "'DEBUG'"),
        ("SS_REVIEW_POLICY", "never", "'auto' or 'always'"),
        ("SS_CLAIM_SLOTS", "0", "greater than or equal to 1"),
        ("SS_CLAIM_SLOTS", "four", "valid integer"),
        ("SS_CLAIM_SLOTS", "", "valid integer"),
        ("SS_CLAIM_MAX_JOBS", "26", "less than or equal to 25"),
        ("SS_CLAIM_LEASE_SECONDS", "0", "greater than 0"),
        ("SS_CLAIM_LEASE_SECONDS", "soon", "valid number"),
        ("SS_INBOX_QUIET_SECONDS", "-1", "greater than or equal to 0"),
        ("SS_PROFILE_MEMORY_MB", "63", "greater than or equal to 64"),
        ("SS_DAGSTER_URL", "127.0.0.1:3000", "no address such as http://127.0.0.1:3000"),
        ("SS_DAGSTER_URL", "http://", "no address"),
        ("SS_DAGSTER_URL", "http://127.0.0.1:99999", "Port out of range"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert caught.value.message.startswith(f"{variable}={value!r}: ")
    assert complaint in caught.value.message
    assert caught.value.error_code == "SETTINGS_INVALID"
    assert "docs/configuration.md" in caught.value.todo


@pytest.mark.seed("S2.3.5")
@pytest.mark.parametrize("variable", ["SS_JOB_STORE_BACKEND", "SS_JOB_STORE_MIRROR"])
def test_a_back_end_that_is_not_there_is_refused_with_the_ones_that_are(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "mongodb")
    with pytest.raises(SettingsError, match=f"{variable}='mongodb'.*'file', 'memory', 'postgres' or 'redis'") as caught:
        load_settings()
    assert caught.value.error_code == "JOB_STORE_BACKEND_UNSUPPORTED"


@pytest.mark.seed("S2.3.5")
@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"SS_JOB_STORE_BACKEND": "postgres"}, "SS_JOB_STORE_POSTGRES_DSN is not set"),
        ({"SS_JOB_STORE_BACKEND": "redis"}, "SS_REDIS_URL is not set"),
        ({"SS_JOB_STORE_MIRROR": "redis"}, "SS_REDIS_URL is not set"),
        ({"SS_CLAIM_HEARTBEAT_SECONDS": "21"}, "more than a third of SS_CLAIM_LEASE_SECONDS=60"),
        ({"SS_CLAIM_TENANT_WEIGHTS": '{"acme": 0}'}, "the weight of 'acme' must be above 0"),
        ({"SS_CLAIM_TENANT_CAPS": '{"acme": 0}'}, "the cap of 'acme' must be at least 1"),
        ({"SS_CLAIM_RESERVED_SLOTS": '{"high": 8}'}, "fewer than SS_CLAIM_SLOTS=8"),
        ({"SS_JOB_STORE_MIRROR": "file"}, "SS_JOB_STORE_MIRROR='file': it is the back end itself"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert complaint in caught.value.message


@pytest.mark.seed("S2.3.5")
@pytest.mark.parametrize("variable", ["SS_REDIS_URL", "SS_JOB_STORE_REDIS_URL"])
def test_the_address_of_redis_is_read_under_both_names_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("SS_JOB_STORE_BACKEND", "redis")
    monkeypatch.setenv(variable, "redis://:hidden@127.0.0.1:6379/0")
    settings = load_settings()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().endswith("6379/0")
    assert "hidden" not in repr(settings)


def test_settings_do_not_change_after_they_were_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().claim_slots = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_url", "location"),
    [
        ("s3://bucket/folder", "s3://bucket/folder"),
        ("memory://tests", "memory://tests"),
        ("/srv/artifacts", "/srv/artifacts"),
    ],
)
def test_artifacts_live_in_a_folder_or_at_a_url(given_url: str, location: str) -> None:
    assert load_settings(artifacts_url=given_url).artifacts_location() == location


def test_places_of_their_own_win_over_the_data_folder() -> None:
    settings = load_settings(data_dir="/data", inbox_dir="/mnt/inbox", jobs_dir="/mnt/jobs")
    assert (settings.inbox_path(), settings.jobs_path()) == (Path("/mnt/inbox"), Path("/mnt/jobs"))
    assert settings.artifacts_location() == "/data/artifacts"


@pytest.mark.parametrize(
    ("other", "is_the_same"),
    [
        ({}, True),
        ({"claim_slots": 9, "redis_url": "redis://unused/0"}, True),
        ({"jobs_dir": "/data/jobs"}, True),
        ({"jobs_dir": "/elsewhere"}, False),
        ({"inbox_dir": "/elsewhere"}, False),
        ({"artifacts_url": "s3://elsewhere"}, False),
        ({"job_store_mirror": "redis", "redis_url": "redis://used/0"}, False),
    ],
)
def test_a_pipeline_is_known_by_its_places_and_by_nothing_else(other: dict[str, object], is_the_same: bool) -> None:
    one, another = load_settings(data_dir="/data"), load_settings(data_dir="/data", **other)
    assert (one.pipeline_id() == another.pipeline_id()) is is_the_same


def test_the_name_of_a_pipeline_shows_no_password() -> None:
    address = "postgresql://ann:secret@db.example/jobs"
    named = load_settings(job_store_backend="postgres", job_store_postgres_dsn=address).pipeline_id()
    assert "secret" not in named
    assert named != load_settings(job_store_backend="postgres", job_store_postgres_dsn=address + "2").pipeline_id()


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")] == []
