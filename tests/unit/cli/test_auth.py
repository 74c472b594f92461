from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.rest import FakeClients, FakeRest
from tests.unit.cli.runner import run
from tinker_ray.cli.credential import CredentialFile, StoredKey
from tinker_ray.errors import AuthenticationError, UnfulfilledError
from tinker_ray.types.service import SelfApiKeyResponse

SERVICE = ("--base-url", "http://service")
PLAIN = UnfulfilledError("the credential is a plain API key")


def a_record() -> SelfApiKeyResponse:
    details: dict[str, Any] = {
        "org_details": {"name": "Org"},
        "user_details": {"email": "me@example.org"},
    }
    return SelfApiKeyResponse(key_id=7, name="laptop", note="mine", details=details)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".tinker" / "credentials.json"


def test_logging_in_stores_a_key_that_the_service_knows(path: Path) -> None:
    clients = FakeClients(known_keys={"tml-secret": a_record()})
    outcome = run(
        *SERVICE, "auth", "login", clients=clients, answer="tml-secret\n", credentials=path
    )
    assert 0 == outcome.code
    assert f"Logged in as me@example.org (Org); the API key 'laptop' is stored in {path}" in (
        outcome.output
    )
    stored = CredentialFile(path).default()
    assert stored is not None
    assert ("7", "tml-secret", "manual", "Org") == (
        stored.key_id,
        stored.key,
        stored.kind,
        stored.organization,
    )
    assert [("http://service", "tml-secret")] == clients.asked
    assert "tml-secret" not in outcome.output + outcome.errors


def test_a_key_that_the_service_does_not_know_is_not_stored(path: Path) -> None:
    outcome = run(*SERVICE, "auth", "login", answer="tml-wrong\n", credentials=path)
    assert (1, False) == (outcome.code, path.exists())
    assert "unknown key" in outcome.errors


@pytest.mark.parametrize("answer", ["\n", "   \n"])
def test_an_empty_key_is_refused(path: Path, answer: str) -> None:
    outcome = run(*SERVICE, "auth", "login", answer=answer, credentials=path)
    assert (1, False) == (outcome.code, path.exists())


def test_a_second_login_asks_to_log_out_first(path: Path) -> None:
    CredentialFile(path).store(StoredKey("1", "tml-a", "first"))
    outcome = run(*SERVICE, "auth", "login", answer="tml-b\n", credentials=path)
    assert 1 == outcome.code
    assert "auth logout" in outcome.errors


def test_logging_out_forgets_a_key_and_says_that_it_is_still_valid(path: Path) -> None:
    CredentialFile(path).store(StoredKey("1", "tml-a", "first"))
    clients = FakeClients()
    outcome = run("auth", "logout", clients=clients, credentials=path)
    assert (0, None, []) == (outcome.code, CredentialFile(path).default(), clients.asked)
    assert "still valid; delete it at https://" in outcome.output


def test_logging_out_revokes_a_key_that_only_this_machine_has(path: Path) -> None:
    CredentialFile(path).store(StoredKey("1", "tml-a", "first", "generated"))
    clients = FakeClients(known_keys={"tml-a": a_record()})
    outcome = run("auth", "logout", "-f", "json", clients=clients, credentials=path)
    assert {"key_id": "1", "name": "first", "revoked": True} == outcome.value
    assert ["tml-a"] == clients.revoked


def test_a_key_that_cannot_be_revoked_is_forgotten_all_the_same(path: Path) -> None:
    CredentialFile(path).store(StoredKey("1", "tml-a", "first", "generated"))
    outcome = run("auth", "logout", credentials=path)
    assert (1, None) == (outcome.code, CredentialFile(path).default())
    assert "Delete it by hand" in outcome.errors


def test_there_may_be_nothing_to_log_out_from(path: Path) -> None:
    assert 1 == run("auth", "logout", credentials=path).code


def test_a_tokens_claims_say_who_this_is() -> None:
    value = run("auth", "whoami", "-f", "json").value
    assert {"user_urn": "u", "org_urn": "tml:organization:o", "email": "me@x.org"} == value


def test_of_a_plain_key_the_service_says_whose_it_is() -> None:
    clients = FakeClients(FakeRest(failing={"whoami": PLAIN}), known_keys={None: a_record()})
    lines = run("auth", "whoami", clients=clients).lines
    assert ["Email me@example.org", "Organization Org", "API key laptop"] == lines[2:]


def test_if_nobody_says_whose_a_key_is_the_first_reason_is_given() -> None:
    outcome = run("auth", "whoami", rest=FakeRest(failing={"whoami": PLAIN}))
    assert (1, "Error: the credential is a plain API key\n") == (outcome.code, outcome.errors)


@pytest.fixture
def with_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-a")


@pytest.mark.usefixtures("with_key")
def test_a_credential_that_works_is_told() -> None:
    outcome = run(*SERVICE, "auth", "status")
    assert [
        "http://service",
        "Property Value",
        "Credentials available yes",
        "Service accessible yes",
    ] == outcome.lines


@pytest.mark.usefixtures("with_key")
def test_a_credential_that_is_refused_is_told_with_the_reason() -> None:
    refusal = AuthenticationError("Error code: 401", status_code=401)
    rest = FakeRest(failing={"get_server_capabilities": refusal})
    outcome = run(*SERVICE, "auth", "status", "-f", "json", rest=rest)
    assert {"credentials_available": True, "accessible": False} == outcome.value
    assert (1, True) == (outcome.code, "authentication failed" in outcome.errors)


def test_without_a_credential_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    rest = FakeRest()
    outcome = run(*SERVICE, "auth", "status", "-f", "json", rest=rest)
    assert {"credentials_available": False, "accessible": False} == outcome.value
    assert (1, []) == (outcome.code, rest.calls)
    assert "auth login" in outcome.errors


def test_the_stored_key_is_the_one_that_clients_find(path: Path) -> None:
    from tinker_ray.config import stored_key

    CredentialFile(path).store(StoredKey("1", "tml-a", "first"))
    assert "tml-a" == stored_key(path)
    assert 1 == json.loads(path.read_text())["version"]
