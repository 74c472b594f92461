from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.fakes.clock import SteppedClock, settle
from tinker_ray import errors
from tinker_ray.core.flags import ServerFlags
from tinker_ray.core.futures_poller import FuturesPoller
from tinker_ray.core.link import Link
from tinker_ray.core.sdk_method import sdk_method
from tinker_ray.transport.message import Request, Response
from tinker_ray.transport.scripted import answer


def finished(request_id: str, size: int | None = None) -> dict[str, Any]:
    return {
        "state": "finished",
        "request_id": request_id,
        "response_payload_uncompressed_size": size,
    }


def failed(request_id: str) -> dict[str, Any]:
    return {"state": "failed", "request_id": request_id}


class Service:
    """Holds each poll until the test answers it; polls that only report are answered at once."""

    def __init__(self, flags: ServerFlags | None = None) -> None:
        self.clock = SteppedClock()
        self.polls: list[dict[str, Any]] = []
        self.timeouts: list[float | None] = []
        self.methods: list[str | None] = []
        self.cursor = 0
        self._answers: asyncio.Queue[Response | Exception] = asyncio.Queue()
        self.poller = FuturesPoller(
            Link(self, self.clock, flags or ServerFlags()), "S1:sample:0", 3
        )
        self.waits: dict[str, asyncio.Task[int]] = {}

    async def attempt(self, request: Request, headers: Mapping[str, str]) -> Response:  # noqa: ARG002
        body = json.loads(request.content)
        self.polls.append(body)
        self.timeouts.append(request.timeout_s)
        self.methods.append(request.headers.get("x-sdk-method"))
        if body.get("timeout") == 0:
            return answer({"completions": [], "cursor": self.cursor})
        outcome = await self._answers.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def aclose(self) -> None: ...

    async def wait(self, *request_ids: str) -> None:
        for request_id in request_ids:
            self.waits[request_id] = asyncio.create_task(self.poller.wait_for(request_id))
        await settle()

    async def complete(self, *completions: dict[str, Any]) -> None:
        self.cursor += len(completions)
        await self.reply(answer({"completions": list(completions), "cursor": self.cursor}))

    async def reply(self, outcome: Response | Exception) -> None:
        self._answers.put_nowait(outcome)
        await settle()


@pytest.fixture
async def service() -> Service:
    return Service()


async def test_one_poll_asks_for_all_samples_of_a_client(service: Service) -> None:
    with sdk_method("SamplingClient.sample"):
        await service.wait("a", "b")
    assert [
        {
            "target": {
                "type": "sampling_session",
                "sampling_session_id": "S1:sample:0",
                "cloned_sampler_id": 3,
            },
            "prev_cursor": 0,
            "retrieved_request_ids": [],
        }
    ] == service.polls
    assert ([None], [None]) == (service.timeouts, service.methods)
    await service.complete(finished("b", 70), failed("a"))
    assert {"a": 0, "b": 70} == {name: await task for name, task in service.waits.items()}


async def test_nobody_is_woken_before_their_promise_is_kept(service: Service) -> None:
    await service.wait("a", "b")
    await service.complete(finished("a"))
    assert (True, False) == (service.waits["a"].done(), service.waits["b"].done())
    assert [0, 1] == [poll["prev_cursor"] for poll in service.polls]
    await service.complete(finished("b"))
    assert 0 == await service.waits["b"]


async def test_a_completion_may_come_before_anybody_waits_for_it(service: Service) -> None:
    await service.wait("a")
    await service.complete(finished("b", 5), finished("a"))
    assert 5 == await service.poller.wait_for("b")


async def test_what_was_fetched_and_seen_is_reported_once_by_a_poll_that_waits_for_nothing(
    service: Service,
) -> None:
    await service.wait("a")
    await service.complete(finished("a", 9))
    service.poller.mark_retrieved("a")
    await settle()
    report = service.polls[-1]
    assert (0.0, 1) == (report["timeout"], report["prev_cursor"])
    assert ["a"] in [poll["retrieved_request_ids"] for poll in service.polls]
    assert 5.0 == service.timeouts[-1]
    assert service.poller.is_idle
    before = len(service.polls)
    await service.clock.advance(3600)
    assert before == len(service.polls)


async def test_reports_travel_with_the_next_poll_and_again_if_that_fails(service: Service) -> None:
    await service.wait("a", "b")
    await service.complete(finished("a"))
    service.poller.mark_retrieved("a")
    await service.reply(errors.APIConnectionError())
    await service.clock.advance(1.0)
    assert [[], [], ["a"]] == [poll["retrieved_request_ids"] for poll in service.polls]
    await service.reply(errors.APIConnectionError())
    await service.clock.advance(1.0)
    assert ["a"] == service.polls[-1]["retrieved_request_ids"]
    await service.complete(finished("b"))
    assert service.poller.is_idle


@pytest.mark.parametrize(
    "trouble",
    [
        errors.APIConnectionError(),
        errors.APITimeoutError(),
        answer(status=408),
        answer(status=409),
        answer(status=429),
        answer(status=503),
    ],
)
async def test_trouble_that_may_pass_is_waited_out_for_ever(
    service: Service, trouble: Response | Exception
) -> None:
    await service.wait("a")
    for _ in range(50):
        await service.reply(trouble)
        await service.clock.advance(1.0)
    assert 51 == len(service.polls)
    await service.complete(finished("a"))
    assert 0 == await service.waits["a"]


async def test_a_bad_request_is_believed_the_fourth_time_in_a_row(service: Service) -> None:
    bad = answer(status=400)
    await service.wait("a")
    for _ in range(3):
        await service.reply(bad)
        await service.clock.advance(1.0)
    await service.complete(finished("x"))  # an answer: the count begins anew
    for _ in range(3):
        await service.reply(bad)
        await service.clock.advance(1.0)
    assert not service.waits["a"].done()
    await service.reply(bad)
    with pytest.raises(errors.TinkerError, match="refuses to be polled"):
        await service.waits["a"]


async def test_a_402_is_waited_out_for_as_long_as_the_service_allows() -> None:
    service = Service(ServerFlags(billing_pause_s=12))
    await service.wait("a")
    for _ in range(3):
        await service.reply(answer(status=402))
        await service.clock.advance(5.0)
    assert not service.waits["a"].done()
    await service.reply(answer(status=402))
    with pytest.raises(errors.TinkerError) as caught:
        await service.waits["a"]
    assert isinstance(caught.value.__cause__, errors.BillingError)


async def test_a_refusal_ends_all_waiting_now_and_later_but_not_what_was_told_before(
    service: Service,
) -> None:
    await service.wait("a", "b")
    await service.complete(finished("c", 4))
    await service.reply(answer(status=403))
    for name in ("a", "b"):
        with pytest.raises(errors.TinkerError) as caught:
            await service.waits[name]
        assert isinstance(caught.value.__cause__, errors.PermissionDeniedError)
        assert not isinstance(caught.value, errors.APIError)
    assert 4 == await service.poller.wait_for("c")
    with pytest.raises(errors.TinkerError, match="S1:sample:0"):
        await service.poller.wait_for("d")
    service.poller.mark_retrieved("c")
    await settle()
    assert 2 == len(service.polls)


@pytest.mark.parametrize("content", [b"{}", b"<html>", b'{"completions": [{"state": "x"}]}'])
async def test_an_answer_that_does_not_fit_ends_all_waiting(
    service: Service, content: bytes
) -> None:
    await service.wait("a")
    await service.reply(Response(200, {}, content))
    with pytest.raises(errors.TinkerError):
        await service.waits["a"]


async def test_what_nobody_waits_for_any_more_is_forgotten(service: Service) -> None:
    await service.wait("a", "b")
    service.waits["a"].cancel()
    await service.complete(finished("a"))
    await service.complete(finished("b"))
    assert service.poller.is_idle


async def test_closing_wakes_who_waits_and_twice_is_fine(service: Service) -> None:
    await service.wait("a")
    await service.poller.aclose()
    await service.poller.aclose()
    with pytest.raises(errors.StaleHandleError, match="sampling was closed"):
        await service.waits["a"]
    assert "waiting=0" in repr(service.poller)
