"""Training, as clients of both generations ask for it."""

from __future__ import annotations

import asyncio
from typing import Any

import zstandard

from tests.fakes.engine import MODEL, EngineClient, batch
from tests.fakes.running_engine import step, train
from tinker_ray.types import Datum, ModelInput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

PROTO = {"Content-Type": codec.PROTOBUF}


async def test_a_model_is_created_once_per_place_in_its_session(client: EngineClient) -> None:
    await client.open_session()
    body = {
        "session_id": client.session_id,
        "model_seq_id": 0,
        "base_model": MODEL,
        "lora_config": {"rank": 4},
    }
    first, second = [await client.post("create_model", body) for _ in range(2)]
    assert first == second
    result = await client.result(first)
    assert result["model_id"] == f"{client.session_id}:train:0"
    info = await client.post("get_info", {"model_id": result["model_id"], "type": "get_info"})
    assert info["model_data"]["model_name"] == MODEL
    assert (info["is_lora"], info["lora_rank"]) == (True, 4)


async def test_training_lowers_the_loss(client: EngineClient) -> None:
    model_id = await client.create_model()
    losses = []
    for number in range(3):
        promise = await train(client, model_id, 2 * number + 1)
        losses.append((await client.result(promise))["metrics"]["loss:sum"])
        await client.result(await step(client, model_id, 2 * number + 2))
    assert losses[0] > losses[1] > losses[2]


async def test_old_clients_get_the_keys_that_they_allow(client: EngineClient) -> None:
    model_id = await client.create_model()
    output = await client.result(await train(client, model_id, 1))
    (logprobs,) = [item["logprobs"] for item in output["loss_fn_outputs"]]
    assert set(logprobs) == {"data", "dtype", "shape"}
    assert logprobs["shape"] == [8]


async def test_forward_leaves_no_gradient(client: EngineClient) -> None:
    model_id = await client.create_model()
    body = {"forward_input": batch(), "model_id": model_id, "seq_id": 1}
    first = await client.result(await client.post("forward", body))
    await client.result(await step(client, model_id, 2))
    body["seq_id"] = 3
    second = await client.result(await client.post("forward", body))
    assert first["metrics"] == second["metrics"]


def proto_request(model_id: str, seq_id: int, *, forward_only: bool = False) -> bytes:
    inputs = {
        "target_tokens": TensorData(list(range(4, 12)), "int64", [8]),
        "weights": TensorData([1.0] * 8, "float32", [8]),
    }
    datum = Datum(ModelInput.from_ints(list(range(3, 11))), inputs)
    request = ForwardBackwardRequest(
        model_id, [datum], "cross_entropy", seq_id=seq_id, forward_only=forward_only
    )
    return codec.encode_forward_backward(request, proto=True).content


async def test_both_encodings_give_the_same_result(client: EngineClient) -> None:
    model_id = await client.create_model()
    as_json = await client.result(await train(client, model_id, 1))
    response = await client.http.post(
        "/api/v1/forward_backward", content=proto_request(model_id, 2), headers=PROTO
    )
    answer = await client.http.post(
        "/api/v1/retrieve_future",
        json={"request_id": response.json()["request_id"], "allow_metadata_only": True},
        headers={"Accept": codec.PROTOBUF},
    )
    assert answer.headers["content-type"] == codec.PROTOBUF
    output = codec.decode_forward_backward_output(answer.content, codec.PROTOBUF)
    assert output.metrics == as_json["metrics"]
    assert (
        output.loss_fn_outputs[0]["logprobs"].data
        == (as_json["loss_fn_outputs"][0]["logprobs"]["data"])
    )


async def test_compressed_batches_are_read(client: EngineClient) -> None:
    model_id = await client.create_model()
    response = await client.http.post(
        "/api/v1/forward_backward",
        content=zstandard.compress(proto_request(model_id, 1, forward_only=True)),
        headers={**PROTO, "Content-Encoding": "zstd"},
    )
    assert "loss:sum" in (await client.result(response.json()))["metrics"]


async def test_a_failure_is_told_as_json_even_where_protobuf_is_accepted(
    hasty: EngineClient,
) -> None:
    model_id = await hasty.create_model()
    held = await step(hasty, model_id, 2)
    response = await hasty.http.post(
        "/api/v1/retrieve_future",
        json={"request_id": held["request_id"]},
        headers={"Accept": codec.PROTOBUF},
    )
    assert response.headers["content-type"] == codec.JSON
    assert set(response.json()) == {"error", "category"}


async def test_operations_wait_for_those_before_them(client: EngineClient) -> None:
    model_id = await client.create_model()
    later = [await train(client, model_id, seq_id) for seq_id in (3, 2)]
    pending = asyncio.gather(*(client.result(promise) for promise in later))
    await asyncio.sleep(0)
    assert not pending.done()
    await train(client, model_id, 1)
    assert all("metrics" in result for result in await pending)


async def test_a_repeated_operation_is_done_once(client: EngineClient) -> None:
    model_id = await client.create_model()
    first, second = await train(client, model_id, 1), await train(client, model_id, 1)
    assert first["request_id"] == second["request_id"]
    assert await client.result(first) == await client.result(second)


async def test_operations_without_a_place_run_as_they_arrive(client: EngineClient) -> None:
    model_id = await client.create_model()
    body = {"adam_params": None, "model_id": model_id, "seq_id": None}
    promises = [await client.post("optim_step", body) for _ in range(3)]
    assert len({promise["request_id"] for promise in promises}) == 3
    for promise in promises:
        assert "metrics" in await client.result(promise)


async def test_a_gap_fails_what_waits_and_the_model_goes_on(hasty: EngineClient) -> None:
    model_id = await hasty.create_model()
    failed = await hasty.result(await step(hasty, model_id, 2))
    assert failed["category"] == "user"
    assert "seq_id 1 did not arrive within 0.2 s" in failed["error"]
    assert "metrics" in await hasty.result(await step(hasty, model_id, 3))
    late = await hasty.post(
        "optim_step", {"adam_params": {}, "model_id": model_id, "seq_id": 1}, status=400
    )
    assert late["field"] == "seq_id"


async def test_a_refused_operation_holds_nobody_up(client: EngineClient) -> None:
    model_id = await client.create_model()
    second = await step(client, model_id, 4)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("optim_step", {"adam_params": {"learning_rate": "x"}}),
        ("forward_backward", {"forward_backward_input": batch(loss_fn="no_such_loss")}),
        ("save_weights", {"path": "../escape"}),
    ]
    for seq_id, (path, body) in enumerate(wrong, start=1):
        response = await client.http.post(
            f"/api/v1/{path}", json={**body, "model_id": model_id, "seq_id": seq_id}
        )
        assert 400 <= response.status_code < 500
    assert "metrics" in await client.result(second)


async def test_a_refused_protobuf_batch_holds_nobody_up(client: EngineClient) -> None:
    model_id = await client.create_model()
    second = await step(client, model_id, 2)
    inputs = {"weights": TensorData([1.0], "float32", [1])}
    request = ForwardBackwardRequest(
        model_id, [Datum(ModelInput.from_ints([1]), inputs)], "cross_entropy", seq_id=1
    )
    content = codec.encode_forward_backward(request, proto=True).content
    response = await client.http.post("/api/v1/forward_backward", content=content, headers=PROTO)
    assert response.status_code == 400
    assert "target_tokens" in response.json()["detail"]
    assert "metrics" in await client.result(second)


async def test_an_unloaded_model_is_gone(client: EngineClient) -> None:
    model_id = await client.create_model()
    unloaded = await client.result(await client.post("unload_model", {"model_id": model_id}))
    assert unloaded["model_id"] == model_id
    body = {"adam_params": {}, "model_id": model_id, "seq_id": 1}
    assert "unloaded" in (await client.post("optim_step", body, status=410))["detail"]
