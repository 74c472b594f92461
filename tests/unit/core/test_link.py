from __future__ import annotations

import pytest
from pydantic import BaseModel

from tinker_ray import errors
from tinker_ray.core.link import Link, json_body
from tinker_ray.core.registry import RegistryCore
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


# --- the registry ---------------------------------------------------------------------------------

CURSOR = {"offset": 0, "limit": 20, "total_count": 0}
RUN = {
    "training_run_id": "r",
    "base_model": "b",
    "model_owner": "o",
    "is_lora": True,
    "last_request_time": "2025-12-04T10:00:00Z",
}
PATH = "tinker://S1:train:0/weights/a"


@pytest.mark.parametrize(
    "name,arguments,method,path,query,body",
    [
        (
            "get_server_capabilities",
            {},
            "GET",
            "get_server_capabilities",
            {},
            {"supported_models": []},
        ),
        (
            "get_info",
            {"model_id": "m"},
            "POST",
            "get_info",
            {},
            {"model_id": "m", "model_data": {}},
        ),
        (
            "weights_info",
            {"tinker_path": PATH},
            "POST",
            "weights_info",
            {},
            {"base_model": "b", "is_lora": True},
        ),
        (
            "list_training_runs",
            {"limit": 5, "offset": 2},
            "GET",
            "training_runs",
            {"limit": 5, "offset": 2},
            {"training_runs": [], "cursor": CURSOR},
        ),
        ("get_training_run", {"run_id": "S1:train:0"}, "GET", "training_runs/S1:train:0", {}, RUN),
        (
            "list_checkpoints",
            {"run_id": "r"},
            "GET",
            "training_runs/r/checkpoints",
            {},
            {"checkpoints": []},
        ),
        (
            "list_user_checkpoints",
            {"limit": 5, "offset": 0},
            "GET",
            "checkpoints",
            {"limit": 5, "offset": 0},
            {"checkpoints": [], "cursor": CURSOR},
        ),
        (
            "delete_checkpoint",
            {"tinker_path": PATH},
            "DELETE",
            "training_runs/S1:train:0/checkpoints/weights/a",
            {},
            None,
        ),
        (
            "list_sessions",
            {"limit": 1, "offset": 0},
            "GET",
            "sessions",
            {"limit": 1, "offset": 0},
            {"sessions": []},
        ),
        (
            "get_session",
            {"session_id": "S1"},
            "GET",
            "sessions/S1",
            {},
            {"training_run_ids": [], "sampler_ids": []},
        ),
        (
            "get_sampler",
            {"sampler_id": "S1:sample:0"},
            "GET",
            "samplers/S1:sample:0",
            {},
            {"sampler_id": "s", "base_model": "b"},
        ),
    ],
)
async def test_a_registry_call_asks_what_the_contract_says(
    name: str,
    arguments: dict[str, object],
    method: str,
    path: str,
    query: dict[str, object],
    body: dict[str, object] | None,
) -> None:
    link, transport = link_over(path, Response(204) if body is None else answer(body))
    result = await RegistryCore(link).call(name, arguments)
    request = transport.sent[0].request
    assert (method, V1 + path, query) == (request.endpoint.method, request.path, request.query)
    assert (result is None) is (body is None)


async def test_deleting_needs_a_checkpoint_path() -> None:
    link, transport = link_over("x", answer())
    with pytest.raises(ValueError, match="invalid checkpoint path"):
        await RegistryCore(link).call("delete_checkpoint", {"tinker_path": "nonsense"})
    assert [] == transport.sent
