from __future__ import annotations

import pytest
from pydantic import BaseModel

from tinker_ray import errors
from tinker_ray.core.link import Link, json_body
from tinker_ray.transport.clock import VirtualClock
from tinker_ray.transport.message import Response
from tinker_ray.transport.scripted import ScriptedTransport, answer
from tinker_ray.wire import codec, endpoint

V1 = "/api/v1/"


class Value(BaseModel):
    value: int


def link_over(path: str, outcome: Response) -> tuple[Link, ScriptedTransport]:
    transport = ScriptedTransport({V1 + path: [outcome]})
    return Link(transport, VirtualClock()), transport


async def test_a_call_sends_its_discriminator_and_leaves_out_what_is_none() -> None:
    link, transport = link_over("get_info", answer({"value": 1}))
    assert Value(value=1) == await link.call(endpoint.GET_INFO, Value, {"model_id": "m", "x": None})
    assert {"model_id": "m", "type": "get_info"} == transport.sent[0].json()


async def test_a_get_has_a_query_and_no_content() -> None:
    link, transport = link_over("sessions", answer({"value": 1}))
    await link.call(endpoint.LIST_SESSIONS, Value, query={"limit": 5})
    request = transport.sent[0].request
    assert (b"", {"limit": 5}) == (request.content, request.query)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"value":"x"}', b'{"value":NaN}', b"\xff"])
async def test_an_answer_that_does_not_fit_is_an_error_with_an_excerpt(content: bytes) -> None:
    link, _ = link_over("get_info", Response(201, {}, content))
    with pytest.raises(errors.APIResponseValidationError, match="not a Value") as caught:
        await link.call(endpoint.GET_INFO, Value)
    assert (201, content.decode(errors="replace")) == (caught.value.status_code, caught.value.body)


async def test_a_promise_remembers_how_long_it_took() -> None:
    link, _ = link_over("optim_step", answer({"request_id": "r", "model_id": "m"}))
    transport = ScriptedTransport(
        {V1 + "optim_step": [answer(status=429, retry_after="3"), answer({"request_id": "r"})]}
    )
    link.transport = transport
    promise = await link.submit(endpoint.OPTIM_STEP, codec.Body(b"{}", codec.JSON))
    assert ("r", 3.0) == (promise.request_id, promise.roundtrip_s)


async def test_an_answer_that_is_no_promise_is_an_error() -> None:
    link, _ = link_over("optim_step", answer({"id": "r"}))
    with pytest.raises(errors.APIResponseValidationError, match="request_id"):
        await link.submit(endpoint.OPTIM_STEP, codec.Body(b"{}", codec.JSON))


def test_a_body_with_nan_is_refused_by_its_endpoint() -> None:
    with pytest.raises(errors.WireFormatError, match="get_info"):
        json_body(endpoint.GET_INFO, {"x": float("nan")})


async def test_closing_a_link_closes_its_transport() -> None:
    link, transport = link_over("x", answer())
    await link.aclose()
    assert transport.closed
