from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinker_ray.config import Secret, Settings, engine_environment, stored_key
from tinker_ray.errors import ConfigurationError

STORED = {
    "version": 1,
    "default": "mine",
    "keys": {
        "mine": {"type": "manual", "key": "tml-stored", "name": "laptop"},
        "other": {"type": "generated", "key": "tml-other", "name": "cli"},
    },
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, without any credential in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TINKER_API_KEY", "TINKER_CREDENTIAL_CMD", "TINKER_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def store(home: Path, content: object) -> Path:
    path = home / ".tinker" / "credentials.json"
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- stored keys ----------------------------------------------------------------------------------


def test_the_stored_default_key_is_used_when_there_is_no_other(home: Path) -> None:
    store(home, STORED)
    assert Secret("tml-stored") == Settings.from_env().api_key


def test_a_key_that_was_given_wins_over_the_environments_and_that_over_the_stored_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(home, STORED)
    monkeypatch.setenv("TINKER_API_KEY", "tml-environment")
    assert Secret("tml-environment") == Settings.from_env().api_key
    assert Secret("tml-given") == Settings.from_env(api_key="tml-given").api_key


def test_a_credential_command_wins_over_the_stored_key(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(home, STORED)
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "print-a-token")
    settings = Settings.from_env()
    assert (None, Secret("print-a-token")) == (settings.api_key, settings.credential_cmd)


@pytest.mark.parametrize(
    "content",
    [{"version": 1, "keys": {}}, {"default": None, "keys": {}}, {"default": "gone", "keys": {}}],
)
def test_a_file_without_a_default_key_gives_none(home: Path, content: object) -> None:
    assert stored_key(store(home, content)) is None


@pytest.mark.parametrize(
    "content",
    ["", "tml-secret", "[]", '{"default": "a"}', '{"default": "a", "keys": {"a": {"name": "x"}}}'],
)
def test_a_file_that_cannot_be_understood_is_named_and_not_quoted(home: Path, content: str) -> None:
    path = store(home, content)
    with pytest.raises(ConfigurationError, match="stored credentials") as caught:
        Settings.from_env()
    assert str(path) in str(caught.value)
    assert "tml-secret" not in str(caught.value)


def test_an_embedded_engine_needs_no_stored_key(home: Path) -> None:
    store(home, "nonsense")
    assert Settings.from_env(base_url="embedded").api_key is None


# --- options of a client --------------------------------------------------------------------------


def test_options_of_a_client_are_settings(home: Path) -> None:
    settings = Settings.from_env(
        project_id="p",
        default_headers={"a": "1", "b": "1"},
        default_headers_overrides={"b": "2"},
        default_query={"n": 3},
        timeout_s=5,
        max_retries=0,
    )
    assert ("p", 5, 0) == (settings.project_id, settings.timeout_s, settings.max_retries)
    assert {"a": "1", "b": "2"} == settings.default_headers
    assert {"n": "3"} == settings.default_query


def test_headers_and_query_may_hold_secrets_and_are_not_shown(home: Path) -> None:
    settings = Settings.from_env(
        default_headers={"authorization": "very-secret"}, default_query={"t": "very-secret"}
    )
    assert "very-secret" not in f"{settings!r}{settings}"


@pytest.mark.parametrize(
    "option,words",
    [
        ({"timeout_s": 0}, "timeout=0"),
        ({"timeout_s": float("nan")}, "timeout=nan"),
        ({"max_retries": -1}, "max_retries=-1"),
    ],
)
def test_an_option_that_cannot_work_is_named(
    home: Path, option: dict[str, float], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings.from_env(**option)  # type: ignore[arg-type]  # wrong on purpose


def test_the_environment_names_the_project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_env().project_id is None
    monkeypatch.setenv("TINKER_PROJECT_ID", "environment")
    assert "environment" == Settings.from_env().project_id
    assert "given" == Settings.from_env(project_id="given").project_id


@pytest.mark.parametrize(
    "value,expected",
    [("1", True), ("True", True), ("yes", True), ("on", True), ("0", False), ("", False)],
)
def test_telemetry_is_switched_off_by_anything_but_a_yes(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    expected: bool,  # noqa: FBT001
) -> None:
    monkeypatch.delenv("TINKER_TELEMETRY", raising=False)
    assert Settings.from_env().report
    monkeypatch.setenv("TINKER_TELEMETRY", value)
    assert expected is Settings.from_env().report


def test_an_engine_is_started_without_the_credential_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "print-a-token")
    assert "TINKER_CREDENTIAL_CMD" not in engine_environment()
