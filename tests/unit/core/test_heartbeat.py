from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.heartbeat import Heartbeat
from tinker_ray.core.link import Link
from tinker_ray.core.sdk_method import sdk_method
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import answer


class Heart:
    """A session whose heartbeats are answered by ``outcome``."""

    def __init__(self) -> None:
        self.clock = SteppedClock()
        self.outcome: Response | Exception = answer({"type": "session_heartbeat"})
        self.times: list[float] = []
        self.method_headers: dict[str, str] = {}
        self.heartbeat = Heartbeat(Link(self, self.clock), "S1")

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        assert {"session_id": "S1", "type": "session_heartbeat"} == json.loads(request.content)
        self.times.append(self.clock.now())
        self.method_headers = {k: v for k, v in request.headers.items() if "sdk" in k}
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def aclose(self) -> None: ...


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_the_heart_beats_every_ten_seconds_after_the_first_ten() -> None:
    heart = Heart()
    await heart.clock.advance(35.0)
    assert [10.0, 20.0, 30.0] == heart.times
    await heart.heartbeat.stop()
    assert not heart.heartbeat.alive


@pytest.mark.parametrize(
    "failure",
    [
        answer(status=500),
        answer(status=404),
        answer(status=401),
        errors.APIConnectionError(),
        errors.APITimeoutError(),
        errors.ConfigurationError("the credential command prints nothing"),
        Response(200, {}, b"<html>"),
    ],
)
async def test_failed_beats_are_warned_of_at_each_beat_after_two_minutes(
    failure: Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heart = Heart()
    heart.outcome = failure
    await heart.clock.advance(120.0)
    assert [] == warnings(caplog)
    await heart.clock.advance(20.0)
    assert ["130 s", "140 s"] == [text.split("for ")[1][:5] for text in warnings(caplog)]
    assert 14 == len(heart.times)
    assert heart.heartbeat.alive
    await heart.heartbeat.stop()


async def test_a_success_ends_the_silence(caplog: pytest.LogCaptureFixture) -> None:
    heart = Heart()
    for _ in range(3):
        heart.outcome = errors.APIConnectionError()
        await heart.clock.advance(100.0)
        heart.outcome = answer({})
        await heart.clock.advance(10.0)
    assert [] == warnings(caplog)
    await heart.heartbeat.stop()


@pytest.mark.parametrize("end", [answer(status=410), errors.StaleHandleError("closed")])
async def test_the_heart_stops_when_the_session_or_the_link_is_over(
    end: Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    heart = Heart()
    heart.outcome = end
    await heart.clock.advance(500.0)
    assert [10.0] == heart.times
    assert not heart.heartbeat.alive
    assert [] == warnings(caplog)
    await heart.heartbeat.stop()


async def test_stopping_twice_is_fine() -> None:
    heart = Heart()
    await settle()
    await asyncio.gather(heart.heartbeat.stop(), heart.heartbeat.stop())
    assert [] == heart.times


async def test_the_heart_beats_for_no_public_method() -> None:
    with sdk_method("TrainingClient.optim_step"):
        heart = Heart()
    await heart.clock.advance(10.0)
    assert {} == heart.method_headers
    await heart.heartbeat.stop()
