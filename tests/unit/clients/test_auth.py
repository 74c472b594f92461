from __future__ import annotations

import pytest

from tinker_ray import auth
from tinker_ray.clients.access import check_access
from tinker_ray.config import Secret, Settings
from tinker_ray.errors import APIConnectionError, AuthenticationError, ConfigurationError
from tinker_ray.transport.scripted import ScriptedTransport, answer

CONFIG, CAPABILITIES = "/api/v1/client/config", "/api/v1/get_server_capabilities"
KEY = "tml-mine"
SETTINGS = Settings(base_url="http://service", api_key=Secret(KEY))


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    for name in ("TINKER_API_KEY", "TINKER_BASE_URL", "TINKER_CREDENTIAL_CMD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_a_process_without_credentials_says_so() -> None:
    assert (None, False) == (auth.get_tinker_token(), auth.tinker_has_credentials())
    with pytest.raises(ConfigurationError, match="TINKER_API_KEY"):
        auth.raise_if_tinker_not_accessible()


def test_a_key_of_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    assert (KEY, True) == (auth.get_tinker_token(), auth.tinker_has_credentials())


def test_a_command_counts_without_being_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_CREDENTIAL_CMD", "false")
    assert (None, True) == (auth.get_tinker_token(), auth.tinker_has_credentials())


def test_a_key_of_another_service_is_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "sk-somebody-elses")
    assert not auth.tinker_has_credentials()


def test_a_service_that_lets_us_in_is_asked_once_for_each_thing() -> None:
    transport = ScriptedTransport(
        {CONFIG: [answer({})], CAPABILITIES: [answer({"supported_models": []})]}
    )
    check_access(SETTINGS, lambda *_: transport)
    assert [CONFIG, CAPABILITIES] == transport.paths()
    assert transport.closed


@pytest.mark.parametrize(
    "outcome,error",
    [
        (answer({"detail": "who?"}, status=401), AuthenticationError),
        (APIConnectionError("refused"), APIConnectionError),
    ],
)
def test_one_that_does_not_is_not_asked_again(outcome: object, error: type[Exception]) -> None:
    transport = ScriptedTransport({CONFIG: [outcome]})  # type: ignore[list-item]
    with pytest.raises(error):
        check_access(SETTINGS, lambda *_: transport)
    assert [CONFIG] == transport.paths()
    assert transport.closed
