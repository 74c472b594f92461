from __future__ import annotations

import pytest

from tests.fakes.credentials import jwt_of
from tinker_ray import errors
from tinker_ray.transport.auth import CredentialUnavailableError
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.exchange import exchanged
from tinker_ray.transport.message import Response
from tinker_ray.transport.scripted import Answer, ScriptedTransport, answer
from tinker_ray.wire.endpoint import AUTH_TOKEN

TOKEN = jwt_of(iat=0, exp=4e9)


async def test_a_credential_is_exchanged_over_its_own_transport_which_is_closed_with_it() -> None:
    transport = ScriptedTransport({AUTH_TOKEN.path: [answer({"jwt": TOKEN.reveal()})]})
    token = exchanged(transport, VirtualClock())
    assert TOKEN == await token.current()
    assert [{}] == [sent.json() for sent in transport.sent]
    await token.aclose()
    assert transport.closed


@pytest.mark.parametrize(
    "script,error",
    [
        ([answer(status=401)], errors.AuthenticationError),
        ([answer(status=503)], errors.InternalServerError),
        ([errors.APITimeoutError()], CredentialUnavailableError),
    ],
)
async def test_an_exchange_that_fails_says_how(
    script: list[Answer], error: type[errors.TinkerError]
) -> None:
    token = exchanged(ScriptedTransport({AUTH_TOKEN.path: script}), VirtualClock())
    with pytest.raises(error):
        await token.current()
    await token.aclose()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"jwt": 3}', b'{"jwt": "very secret\\n"}', b"very secret"]
)
async def test_an_answer_without_a_token_is_refused_and_not_shown(content: bytes) -> None:
    transport = ScriptedTransport({AUTH_TOKEN.path: [Response(200, {}, content)]})
    token = exchanged(transport, VirtualClock())
    with pytest.raises(errors.APIResponseValidationError) as caught:
        await token.current()
    assert "very secret" not in f"{caught.value}{vars(caught.value)}{caught.value.__cause__}"
    await token.aclose()
