"""Custom losses that clients upload: kept, once, for the runs of their session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.engine import batch
from tests.fakes.running_engine import train

if TYPE_CHECKING:
    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running


def node(op: str, name: str, target: str, *args: object) -> dict[str, Any]:
    return {"op": op, "name": name, "target": target, "args": list(args), "kwargs": {}}


NODES = [
    node("placeholder", "logprobs", "logprobs"),
    node("placeholder", "weights", "weights"),
    node("call_function", "mul", "operator.mul", {"ref": "logprobs"}, {"ref": "weights"}),
    node("call_method", "sum_1", "sum", {"ref": "mul"}),
    node("call_function", "neg", "operator.neg", {"ref": "sum_1"}),
    node("output", "output", "output", {"tuple": [{"ref": "neg"}, {"dict": {}}]}),
]
GRAPH = {"format": 1, "nodes": NODES}
INPUTS = [{"name": "logprobs", "rank": 1}, {"name": "weights", "rank": 1}]


async def upload(client: EngineClient, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    body = {
        "session_id": client.session_id,
        "custom_loss_seq_id": 0,
        "name": "mine",
        "inputs": INPUTS,
        "graph": GRAPH,
        "type": "create_custom_loss",
        **changes,
    }
    return await client.post("create_custom_loss", body)


async def custom(client: EngineClient, model_id: str, seq_id: int, loss_id: str) -> dict[str, Any]:
    config = {"loss_id": loss_id}
    promise = await train(client, model_id, seq_id, loss_fn="custom", loss_fn_config=config)
    return await client.result(promise)


async def test_an_uploaded_loss_trains_as_the_built_in_one(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    first, second = await upload(client), await upload(client)
    assert first == second
    told = await client.result(first)
    assert told == {"loss_id": f"{client.session_id}:loss:0", "type": "create_custom_loss"}
    mine = await custom(client, model_id, 1, told["loss_id"])
    built_in = await client.result(await train(client, model_id, 2))
    assert mine["metrics"]["loss:sum"] == pytest.approx(built_in["metrics"]["loss:sum"])
    running.host.losses._rebuilt.clear()
    assert await custom(client, model_id, 3, told["loss_id"]) == mine


async def test_a_loss_is_its_sessions(client: EngineClient) -> None:
    await client.open_session()
    loss_id = (await client.result(await upload(client)))["loss_id"]
    client.session_id = ""
    model_id = await client.create_model()
    for wrong in ({"loss_id": loss_id}, {"loss_id": "x"}, {}, {"loss_id": 3.0}):
        made = batch(loss_fn="custom", loss_fn_config=wrong)
        body = {"forward_backward_input": made, "model_id": model_id, "seq_id": None}
        response = await client.http.post("/api/v1/forward_backward", json=body)
        assert response.status_code in {400, 404}, response.text
        assert "loss_fn_config" in response.json()["detail"]


@pytest.mark.parametrize(
    "changes,status,field",
    [
        ({"session_id": "x"}, 404, "session_id"),
        ({"inputs": []}, 422, "inputs"),
        ({"inputs": [{"name": "logprobs", "rank": 3}]}, 422, "rank"),
        ({"inputs": [{"name": "weights", "rank": 1}]}, 400, "inputs"),
        ({"graph": {"format": 2, "nodes": []}}, 422, "graph"),
        ({"graph": {"nodes": NODES[:-1]}}, 400, "nodes"),
        (
            {
                "graph": {
                    "nodes": [
                        *NODES[:2],
                        node("call_function", "neg", "os.system", "true"),
                        NODES[-1],
                    ]
                }
            },
            400,
            "os.system",
        ),
        ({"graph": None}, 422, "graph"),
    ],
)
async def test_a_loss_that_is_not_allowed_is_refused(
    client: EngineClient, changes: dict[str, Any], status: int, field: str
) -> None:
    body = {
        "session_id": await client.open_session(),
        "custom_loss_seq_id": 0,
        "name": "mine",
        "inputs": INPUTS,
        "graph": GRAPH,
        **changes,
    }
    answer = await client.post("create_custom_loss", body, status=status)
    assert field in answer["detail"]
    assert "loss_id" in await client.result(await upload(client))
