"""The settings: read from the environment, each wrong one named, none of their values repeated, all documented."""

from dataclasses import fields

import pytest
from click.testing import CliRunner

from cli.main import main
from service.settings import Settings, SettingsError, load

SETTINGS = [field.name for field in fields(Settings)]
NAMES = [f"ZENSTEP_{name.upper()}" for name in SETTINGS]
WRONG = {
    "ZENSTEP_LOG_URL": ["", "planted", "amqp://planted", "sqlite://planted"],
    "ZENSTEP_STORE_URL": ["", "planted", "mysql://u:planted@h/d"],
    "ZENSTEP_LIMITS_URL": [
        "planted",
        "http://planted",
        "redis://",
        "redis:///0",
        "redis://:planted@host:port/0",
        "redis://:planted@host/one",
        "redis://:planted@host/0?socket_timeout=9",
    ],
    "ZENSTEP_PARTITIONS": ["0", "-1", "planted", "1.5"],
    "ZENSTEP_REPLICATION": ["0", "planted"],
    "ZENSTEP_USER_HASH_SECRET": ["", "planted"],
    "ZENSTEP_EDGE_PORT": ["-1", "65536", "planted"],
    "ZENSTEP_EDGE_ADMIN_PORT": ["planted"],
    "ZENSTEP_PRODUCE_TIMEOUT": ["0", "-1", "planted", "nan", "inf"],
    "ZENSTEP_SPOOL_MAX_BYTES": ["0", "planted"],
    "ZENSTEP_SPOOL_MAX_AGE": ["0", "nan", "planted"],
    "ZENSTEP_TRUSTED_PROXIES": ["planted", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8 planted", "10.0.0.0/8,planted"],
    "ZENSTEP_WORKER_ADMIN_PORT": ["planted"],
    "ZENSTEP_BATCH_RECORDS": ["0", "planted"],
    "ZENSTEP_POISON_IN_A_ROW": ["0", "planted"],
    "ZENSTEP_POISON_SHARE": ["0", "1.1", "planted"],
    "ZENSTEP_READER_PORT": ["planted"],
    "ZENSTEP_READER_ADMIN_PORT": ["planted"],
    "ZENSTEP_DASHBOARD_ORIGINS": [
        "*",
        "null",
        "planted.example",
        "https://planted.example/",
        "https://Planted.example",
        "https://*.planted.example",
        "https://user@planted.example",
        "https://app.example, planted",
    ],
    "ZENSTEP_JWT_ALGORITHM": ["none", "hs256", "planted"],
    "ZENSTEP_JWT_SECRET": ["", "planted"],
    "ZENSTEP_LOG_LEVEL": ["planted", "INFO"],
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_everything_has_a_default_but_the_secrets() -> None:
    settings = load()
    unset = {name for name in SETTINGS if getattr(settings, name) is None}
    assert unset == {"user_hash_secret", "jwt_secret", "jwks_url", "spool_path", "jwt_issuer", "limits_url"}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named_by_its_variable_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load()
    assert str(error.value).startswith(f"{name}: ")
    assert "planted" not in str(error.value)
    assert "\n" not in str(error.value)


def test_all_wrong_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in WRONG.items():
        monkeypatch.setenv(name, values[-1])
    with pytest.raises(SettingsError) as error:
        load()
    assert [name for name in NAMES if f"{name}: " in str(error.value)] == list(WRONG)


def test_what_is_set_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENSTEP_LOG_URL", "kafka://one:9092,two:9092")
    monkeypatch.setenv("ZENSTEP_PARTITIONS", "32")
    monkeypatch.setenv("ZENSTEP_SOMETHING_ELSE", "ignored")
    settings = load(edge_port=1234)
    assert (settings.log_url, settings.partitions, settings.edge_port) == ("kafka://one:9092,two:9092", 32, 1234)


def test_numbers_are_numbers_and_names_are_read_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"spool_max_age": "60", "spool_max_bytes": " 2097152 ", "poison_share": "1"}.items():
        monkeypatch.setenv(f"zenstep_{name}", value)
    settings = load()
    assert repr([settings.spool_max_age, settings.spool_max_bytes, settings.poison_share]) == "[60.0, 2097152, 1.0]"


@pytest.mark.parametrize("name", ["user_hash_secret", "jwt_secret", "jwks_url", "jwt_issuer"])
def test_a_setting_that_a_role_needs_is_asked_for_by_its_variable(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^ZENSTEP_{name.upper()} is not set$"):
        load().require(name)


def test_a_secret_is_not_in_what_is_printed_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENSTEP_USER_HASH_SECRET", "planted-and-long-enough")
    settings = load()
    assert "planted" not in f"{settings!r} {settings}"
    assert settings.require("user_hash_secret") == "planted-and-long-enough"


def test_the_command_prints_every_setting_with_its_sentence_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZENSTEP_USER_HASH_SECRET", "planted-and-long-enough")
    monkeypatch.setenv("ZENSTEP_STORE_URL", "postgresql://u:planted@h/d")
    printed = CliRunner().invoke(main, ["settings"])
    assert printed.exit_code == 0
    assert "planted" not in printed.output
    head, rule, *rows = printed.output.splitlines()
    assert (head, rule) == ("| variable | default | what it is |", "|---|---|---|")
    assert [row.split("|")[1].strip(" `") for row in rows] == NAMES
    for row in rows:
        sentence = row.split("|", 3)[3].strip(" |")
        assert sentence[0].isupper() or sentence.startswith("`")
        assert sentence.endswith(".")


def test_lists_and_addresses_that_are_right_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "ZENSTEP_LIMITS_URL": ["redis://host", "redis://:secret@host:6379/", "rediss://user:secret@host/15"],
        "ZENSTEP_TRUSTED_PROXIES": ["", "10.0.0.1", "10.0.0.0/8, fd00::/8,"],
        "ZENSTEP_DASHBOARD_ORIGINS": ["", "https://app.example", "http://localhost:3000, https://[::1]:8443"],
    }
    for name, values in given.items():
        for value in values:
            monkeypatch.setenv(name, value)
            assert getattr(load(), name.removeprefix("ZENSTEP_").lower()) == value
    monkeypatch.setenv("ZENSTEP_LIMITS_URL", "")
    assert load().limits_url is None
