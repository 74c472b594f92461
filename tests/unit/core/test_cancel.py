from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import pytest

from tests.fakes.clock import settle
from tinker_ray import errors
from tinker_ray.core.cancel import CancelQueue
from tinker_ray.core.flags import DynamicFlags, ServerFlags
from tinker_ray.core.link import Link
from tinker_ray.core.sdk_method import sdk_method
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import answer


class Service:
    """Takes cancellations, when the test lets it."""

    def __init__(self, *, enabled: bool = True, batch: int = 2) -> None:
        flags = ServerFlags(dynamic=DynamicFlags(300, enabled, batch))
        self.link = Link(self, VirtualClock(), flags)
        self.queue = CancelQueue(self.link)
        self.cancelled: list[str] = []
        self.methods: set[str | None] = set()
        self.gate = asyncio.Event()
        self.outcomes: dict[str, Response | Exception] = {}

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        request_id = json.loads(request.content)["request_id"]
        self.cancelled.append(request_id)
        self.methods.add(request.headers.get("x-sdk-method"))
        await self.gate.wait()
        outcome = self.outcomes.get(request_id, answer())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None: ...


async def test_cancellations_go_out_in_batches_and_for_no_public_method() -> None:
    service = Service()
    with sdk_method("SamplingClient.sample"):
        for name in "abcde":
            service.queue.add(name)
    await settle()
    assert ["a", "b"] == service.cancelled
    service.gate.set()
    await settle()
    assert ["a", "b", "c", "d", "e"] == service.cancelled
    assert {None} == service.methods
    service.queue.add("f")
    await settle()
    assert "f" == service.cancelled[-1]
    assert "CancelQueue(0)" == repr(service.queue)


async def test_a_service_that_does_not_want_to_be_told_is_not() -> None:
    service = Service(enabled=False)
    service.queue.add("a")
    await settle()
    assert [] == service.cancelled


@pytest.mark.parametrize(
    "failure", [answer(status=404), answer(status=500), errors.ConfigurationError("no key")]
)
async def test_what_cannot_be_told_is_dropped_and_the_rest_goes_on(
    failure: Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(batch=1)
    service.gate.set()
    service.outcomes["a"] = failure
    service.queue.add("a")
    service.queue.add("b")
    for _ in range(20):
        await settle()
    assert "b" == service.cancelled[-1]
    assert "sample a could not be cancelled" in caplog.text


async def test_closing_drops_what_is_left() -> None:
    service = Service(batch=1)
    service.queue.add("a")
    service.queue.add("b")
    await settle()
    await service.queue.aclose()
    await service.queue.aclose()
    service.queue.add("c")
    await settle()
    assert ["a"] == service.cancelled
