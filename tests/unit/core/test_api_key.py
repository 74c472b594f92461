from __future__ import annotations

import asyncio

import pytest

from tinker_ray import errors
from tinker_ray.config import Secret, Settings
from tinker_ray.core.api_key import describe_api_key, revoke_api_key
from tinker_ray.transport.auth import Credentials
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer

PATH = "/api/v1/auth/apikey/me"
RECORD = {
    "key_id": 7,
    "name": "laptop",
    "note": "",
    "details": {"org_details": {"name": "Org"}, "user_details": {"email": "me@example.org"}},
}


class Opened:
    """Opens one scripted transport, and keeps the credential that it was opened with."""

    def __init__(self, *answers: Answer) -> None:
        self.transport = ScriptedTransport({PATH: list(answers)})

    def __call__(self, _settings: Settings, credentials: Credentials) -> ScriptedTransport:
        self.credentials = credentials
        return self.transport


def settings() -> Settings:
    # A command would be asked for another credential, were it asked.
    return Settings(api_key=Secret("plain"), credential_cmd=Secret("exit 1"))


async def test_a_key_is_described_by_itself() -> None:
    opened = Opened(answer(RECORD))
    record = await describe_api_key(settings(), transport=opened)
    assert (7, "laptop", "Org") == (record.key_id, record.name, record.details.org_details.name)
    assert Secret("plain") == await opened.credentials.current()
    assert opened.transport.closed


async def test_a_key_revokes_itself() -> None:
    opened = Opened(answer(status=204))
    await revoke_api_key(settings(), transport=opened)
    assert ["DELETE"] == [sent.request.endpoint.method for sent in opened.transport.sent]
    assert opened.transport.closed


async def test_an_unknown_key_is_refused_at_once() -> None:
    opened = Opened(answer({"detail": "unknown key"}, status=401))
    with pytest.raises(errors.AuthenticationError):
        await describe_api_key(settings(), transport=opened)
    assert (1, True) == (len(opened.transport.sent), opened.transport.closed)


def test_without_a_key_nothing_is_asked() -> None:
    opened = Opened()
    with pytest.raises(errors.ConfigurationError):
        asyncio.run(describe_api_key(Settings(), transport=opened))
    assert [] == opened.transport.sent
