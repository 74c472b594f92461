"""Exchanging a credential for short-lived tokens, over a transport of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tinker_ray.config import Secret
from tinker_ray.errors import APIConnectionError, APIResponseValidationError, ConfigurationError
from tinker_ray.transport.auth import CredentialUnavailableError, check_header
from tinker_ray.transport.jwt import ExchangedToken
from tinker_ray.transport.message import Request
from tinker_ray.transport.retry import send
from tinker_ray.wire.endpoint import AUTH_TOKEN

if TYPE_CHECKING:
    from tinker_ray.transport.clock import Clock
    from tinker_ray.transport.message import Transport


def exchanged(transport: Transport, clock: Clock) -> ExchangedToken:
    """Have the credential of a transport exchanged for tokens; it is closed with them."""

    async def exchange() -> Secret:
        request = Request(AUTH_TOKEN, AUTH_TOKEN.url_path(), content=b"{}")
        try:
            response = await send(transport, request, clock)
        except APIConnectionError as error:
            raise CredentialUnavailableError(f"no token could be had: {error}") from error
        return _token(response.content)

    return ExchangedToken(exchange, clock, on_close=transport.aclose)


def _token(content: bytes) -> Secret:
    """Read the answer to an exchange, and show none of it if it is no such answer.

    Raises:
        APIResponseValidationError: It is none.
    """
    try:
        token = Secret(json.loads(content)["jwt"])
        check_header(token, "the token")
    except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError):
        raise APIResponseValidationError("the service answered with no token") from None
    return token
