from __future__ import annotations

import asyncio
import logging

import pytest

from tests.fakes.clock import SteppedClock, settle
from tests.fakes.credentials import jwt_of
from tinker_ray.config import Secret
from tinker_ray.errors import (
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
    InternalServerError,
    TinkerError,
)
from tinker_ray.transport.jwt import ExchangedToken, expiry, renewal_delay_s

LIFE_S = 1000.0


class Office:
    """Exchanges credentials for tokens of 1000 seconds; ``failures`` come first."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.num_exchanges = 0
        self.failures: list[TinkerError] = []
        self.held = asyncio.Event()
        self.held.set()
        self.closed = 0
        self.token = ExchangedToken(
            self.exchange,
            self.clock,
            wall=self.clock.now,
            chance=lambda: 0.5,
            on_close=self.close,
        )

    async def exchange(self) -> Secret:
        self.num_exchanges += 1
        await self.held.wait()
        if self.failures:
            raise self.failures.pop(0)
        now = self.clock.now()
        return jwt_of(iat=now, exp=now + LIFE_S, number=self.num_exchanges)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def office() -> Office:
    return Office()


async def test_one_token_serves_all_until_it_is_half_spent(office: Office) -> None:
    tokens = await asyncio.gather(*(office.token.current() for _ in range(10)))
    assert 1 == len({token.reveal() for token in tokens}) == office.num_exchanges
    await office.clock.advance(499)
    assert tokens[0] == await office.token.current()
    await office.clock.advance(2)
    assert tokens[0] != await office.token.current()
    assert 2 == office.num_exchanges
    await office.token.aclose()
    await office.token.aclose()
    assert 1 == office.closed


async def test_a_token_that_could_not_be_renewed_is_used_to_its_end(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    first = await office.token.current()
    office.failures = [APIConnectionError() for _ in range(20)]
    await office.clock.advance(945)  # tried in the background from 500 s on, once a minute
    assert 9 == office.num_exchanges
    assert 1 == len(caplog.records)
    assert first == await office.token.current()  # less than a minute left: tried on demand, too
    assert 10 == office.num_exchanges
    await office.clock.advance(55)
    with pytest.raises(APIConnectionError):
        await office.token.current()
    office.failures = []
    assert first != await office.token.current()
    await office.token.aclose()


async def test_a_rejected_credential_is_told_at_once_on_demand(office: Office) -> None:
    office.failures = [AuthenticationError("revoked")]
    with pytest.raises(AuthenticationError):
        await office.token.current()
    await office.token.aclose()


async def test_a_credential_that_is_rejected_in_the_background_is_tried_until_the_end_is_near(
    office: Office,
) -> None:
    await office.token.current()
    office.failures = [AuthenticationError("revoked") for _ in range(30)]
    await office.clock.advance(5000)
    # From 500 s on, once a minute; not when a request would exchange on demand anyway.
    assert 8 <= office.num_exchanges <= 9
    office.failures = []
    await office.token.current()
    before = office.num_exchanges
    await office.clock.advance(501)
    assert before + 1 == office.num_exchanges  # renewed in the background again
    await office.token.aclose()


async def test_a_token_that_the_service_rejects_is_exchanged_once_for_all(office: Office) -> None:
    rejected = await office.token.current()
    office.held.clear()
    replacing = [asyncio.create_task(office.token.replacement(rejected)) for _ in range(5)]
    await settle()
    office.held.set()
    others = {token.reveal() for token in await asyncio.gather(*replacing) if token is not None}
    assert 1 == len(others)
    assert 2 == office.num_exchanges
    assert await office.token.replacement(rejected) == await office.token.current()
    assert 2 == office.num_exchanges
    await office.token.aclose()


async def test_an_error_of_the_exchange_is_the_callers(office: Office) -> None:
    office.failures = [InternalServerError("down", status_code=503)]
    with pytest.raises(InternalServerError):
        await office.token.current()
    rejected = await office.token.current()
    office.failures = [InternalServerError("down", status_code=503)]
    with pytest.raises(InternalServerError):
        await office.token.replacement(rejected)
    await office.token.aclose()


async def test_the_token_says_who_this_is_and_is_not_shown(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        token = await office.token.identity()
    assert token is not None
    assert token.reveal() not in f"{office.token!r}{caplog.text}"
    await office.token.aclose()


async def test_a_closed_one_still_serves_and_renews_no_more(office: Office) -> None:
    await office.token.aclose()
    assert await office.token.current() is not None
    await office.clock.advance(10_000)
    assert 1 == office.num_exchanges


@pytest.mark.parametrize("chance,expected", [(0.0, 450.0), (0.5, 500.0), (1.0, 550.0)])
def test_a_token_is_renewed_about_halfway(chance: float, expected: float) -> None:
    token = jwt_of(iat=5000.0, exp=6000.0)
    assert pytest.approx(expected) == renewal_delay_s(token, chance)


@pytest.mark.parametrize(
    "token", [jwt_of(exp=5.0), jwt_of(iat=5.0, exp=5.0), jwt_of(iat="x", exp=9), Secret("eyJ")]
)
def test_a_token_of_unknown_life_is_renewed_in_a_minute(token: Secret) -> None:
    assert 60.0 == renewal_delay_s(token, 0.5)


async def test_a_token_without_an_end_is_exchanged_for_each_request() -> None:
    async def exchange() -> Secret:
        return jwt_of(sub="u")

    token = ExchangedToken(exchange, SteppedClock(), wall=lambda: 0.0)
    assert jwt_of(sub="u") == await token.current() == await token.current()
    await token.aclose()


def test_a_claim_that_is_missing_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'exp'"):
        expiry(jwt_of(sub="u"))
