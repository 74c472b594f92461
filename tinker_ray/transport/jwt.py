"""Short-lived tokens: reading their claims, and exchanging a credential for one in time.

A token is renewed in the background halfway through its life, and on demand if that has failed. A
token that the service rejects is exchanged once, however many requests were rejected with it.
Signatures are not checked: a token comes from the service, or goes to it to be judged there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Any

from tinker_ray.config import Secret
from tinker_ray.errors import AuthenticationError, ConfigurationError, TinkerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tinker_ray.transport.clock import Clock

logger = logging.getLogger(__name__)

JWT_PREFIX = "eyJ"
REFRESH_BEFORE_S = 60.0
"""A token with less time to live is exchanged before it is used."""
RETRY_S = 60.0
"""After a background renewal has failed."""
_EARLIEST, _LATEST = 0.45, 0.55


def is_jwt(credential: Secret) -> bool:
    """Tell whether a credential is a JWT rather than a key."""
    return credential.reveal().startswith(JWT_PREFIX)


def claims(token: Secret) -> dict[str, Any]:
    """Read what a JWT says.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        payload = token.reveal().split(".")[1]
        parsed = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        raise ConfigurationError("a credential that begins like a JWT is none") from None
    if not isinstance(parsed, dict):
        raise ConfigurationError("a JWT has no claims")
    return parsed


def expiry(token: Secret) -> float:
    """Read the Unix time at which a JWT ends.

    Raises:
        ConfigurationError: It does not say.
    """
    return _time(token, "exp")


def _time(token: Secret, claim: str) -> float:
    try:
        return float(claims(token)[claim])
    except (KeyError, TypeError, ValueError):
        message = f"a JWT has no usable claim {claim!r}"
        raise ConfigurationError(message) from None


def renewal_delay_s(token: Secret, chance: float) -> float:
    """Tell how long after its arrival a JWT is to be renewed: 45 to 55 % of its life.

    Both ends come from the service, so that a wrong clock here changes nothing.
    """
    with contextlib.suppress(ConfigurationError):
        life_s = expiry(token) - _time(token, "iat")
        if life_s > 0:
            return life_s * (_EARLIEST + (_LATEST - _EARLIEST) * chance)
    return RETRY_S


class ExchangedToken:
    """A token that is kept fresh.

    Args:
        exchange: Gives a new token, with repetitions of its own.
        clock: For the background.
        wall: Unix time in seconds.
        chance: Gives numbers in [0, 1).
        on_close: Closes what ``exchange`` uses.
    """

    def __init__(
        self,
        exchange: Callable[[], Awaitable[Secret]],
        clock: Clock,
        *,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._on_close = on_close
        self._token: Secret | None = None
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show nothing of the token."""
        return f"ExchangedToken({'held' if self._token else 'none yet'})"

    async def current(self) -> Secret:
        """Return the token, exchanged anew if it ends within a minute.

        Raises:
            AuthenticationError: The service rejects the credential.
            TinkerError: No token can be had, and there is none that still lives.
        """
        if (token := self._fresh()) is not None:
            return token
        async with self._lock:
            if (token := self._fresh()) is not None:
                return token
            try:
                token = await self._renew()
            except AuthenticationError:
                raise
            except TinkerError as error:
                if self._token is None or self._left_s() <= 0:
                    raise
                logger.warning("the token could not be renewed: %s", error)
                return self._token
            if self._renewing is None and not self._closed:
                # Not in the context of the request that happened to be first.
                self._renewing = asyncio.create_task(
                    self._keep_fresh(token), name="token", context=contextvars.Context()
                )
            return token

    async def replacement(self, rejected: Secret) -> Secret | None:
        """Return another token than one that the service rejected.

        Raises:
            TinkerError: None can be had.
        """
        async with self._lock:
            if self._token is not None and self._token != rejected:
                return self._token
            return await self._renew()

    async def identity(self) -> Secret | None:
        """Return the token: its claims say who this is."""
        return await self.current()

    async def aclose(self) -> None:
        """End the renewals; idempotent. The token may still be asked for."""
        self._closed = True
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            await on_close()

    def _left_s(self) -> float:
        if self._token is None:
            return 0.0
        with contextlib.suppress(ConfigurationError):
            return expiry(self._token) - self._wall()
        return 0.0

    def _fresh(self) -> Secret | None:
        return self._token if self._left_s() > REFRESH_BEFORE_S else None

    async def _renew(self) -> Secret:
        self._token = await self._exchange()
        return self._token

    async def _keep_fresh(self, token: Secret) -> None:
        delay_s = renewal_delay_s(token, self._chance())
        failing = False
        while True:
            await self._clock.sleep(delay_s)
            try:
                async with self._lock:
                    token = await self._renew()
            except TinkerError as error:
                rejected = isinstance(error, AuthenticationError)
                if rejected and self._left_s() - RETRY_S <= REFRESH_BEFORE_S:
                    # The next request exchanges on demand and reports why; success starts anew.
                    logger.warning("the credential was rejected, its token ends: %s", error)
                    self._renewing = None
                    return
                log = logger.debug if failing else logger.warning
                log("the token could not be renewed, again in %g s: %s", RETRY_S, error)
                delay_s, failing = RETRY_S, True
            else:
                delay_s, failing = renewal_delay_s(token, self._chance()), False
