"""Engines that are told to be like a service of one generation, and what clients are told to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.engine import MODEL, EngineClient, batch, sample_body
from tests.fakes.running_engine import Running, save, train
from tinker_ray.engine.client_flags import ClientFlags
from tinker_ray.engine.settings import HostSettings
from tinker_ray.types import Datum, ModelInput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from tinker_ray.engine.settings import Wire

PROTO = {"Content-Type": codec.PROTOBUF}
ACCEPT = {"Accept": codec.PROTOBUF}


def proto_batch(model_id: str, seq_id: int) -> bytes:
    inputs = {
        "target_tokens": TensorData([1, 2], "int64", [2]),
        "weights": TensorData([1.0, 1.0], "float32", [2]),
    }
    request = ForwardBackwardRequest(
        model_id, [Datum(ModelInput.from_ints([1, 2]), inputs)], "cross_entropy", seq_id=seq_id
    )
    return codec.encode_forward_backward(request, proto=True).content


async def start(running: Running, wire: Wire) -> EngineClient:
    running.settings = HostSettings(wire=wire)
    return await running.start()


async def test_an_old_service_knows_nothing_of_what_came_later(running: Running) -> None:
    client = await start(running, "json")
    await client.open_session()
    absent = [
        ("POST", "client/config"),
        ("POST", "client/dynamic_config"),
        ("POST", "auth/token"),
        ("POST", "join_sampling_session"),
        ("POST", "retrieve_futures"),
        ("POST", "cancel_future"),
        ("POST", "copy_weights"),
        ("POST", "create_custom_loss"),
        ("POST", "save_weights_external"),
        ("POST", "sessions/search"),
        ("POST", f"sessions/{client.session_id}/finish"),
        ("GET", f"sessions/{client.session_id}/trace_export"),
        ("GET", "audit"),
        ("GET", "billing/usage/events"),
    ]
    for method, path in absent:
        response = await client.http.request(method, f"/api/v1/{path}", json={})
        assert response.status_code in {404, 405}, path


async def test_an_old_service_answers_in_its_shapes(running: Running) -> None:
    client = await start(running, "json")
    assert await client.get("get_server_capabilities") == {
        "supported_models": [{"model_name": MODEL}]
    }
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    promise = await client.post("asample", sample_body(await client.sampler()))
    assert set(promise) == {"request_id"}
    info = await client.post("weights_info", {"tinker_path": path})
    assert set(info) == {"base_model", "is_lora", "lora_rank"}
    (listed,) = (await client.get("checkpoints"))["checkpoints"]
    assert "expires_at" not in listed
    body = {"path": path, "optimizer": True, "session_id": client.session_id, "model_seq_id": 7}
    assert (await client.post("load_weights", body, status=404))["field"] == "model_id"
    response = await client.http.post("/api/v1/retrieve_future", json=promise, headers=ACCEPT)
    assert response.headers["content-type"] == codec.JSON
    refused = await client.http.post(
        "/api/v1/forward_backward", content=proto_batch(model_id, 2), headers=PROTO
    )
    assert (415, "Content-Type") == (refused.status_code, refused.json()["field"])
    assert "metrics" in await client.result(await train(client, model_id, 3))


async def test_a_new_service_reads_batches_and_sends_results_as_protobuf(running: Running) -> None:
    client = await start(running, "protobuf")
    model_id = await client.create_model()
    body = {"forward_backward_input": batch(), "model_id": model_id, "seq_id": 1}
    refused = await client.post("forward_backward", body, status=415)
    assert refused["field"] == "Content-Type"
    for path in ("forward", "unload_model"):
        await client.post(path, body, status=404)
    response = await client.http.post(
        "/api/v1/forward_backward", content=proto_batch(model_id, 2), headers=PROTO
    )
    promise = response.json()
    assert (await client.post("retrieve_future", promise, status=406))["field"] == "Accept"
    told = await client.http.post("/api/v1/retrieve_future", json=promise, headers=ACCEPT)
    assert told.headers["content-type"] == codec.PROTOBUF
    assert "path" in await client.result(
        await client.post("save_weights", {"model_id": model_id, "path": "a", "seq_id": 3})
    )


@pytest.mark.parametrize(
    "version,types",
    [("0.6.3", ["training"]), ("0.26.9", ["training"]), ("0.38.0", ["external", "training"])],
)
async def test_clients_that_know_no_exports_are_not_told_of_them(
    client: EngineClient, version: str, types: list[str]
) -> None:
    model_id = await client.create_model()
    await save(client, model_id, 1, "a")
    await save(client, model_id, 2, "b", "save_weights_external")
    client.http.headers["X-Stainless-Package-Version"] = version
    for path in ("checkpoints", f"training_runs/{model_id}/checkpoints"):
        listed = (await client.get(path))["checkpoints"]
        assert [item["checkpoint_type"] for item in listed] == types


async def test_clients_are_told_the_flags(running: Running) -> None:
    running.settings = HostSettings(
        flags=ClientFlags.parse(["pjwt_auth_enabled=true", "refresh_interval_sec=11"])
    )
    client = await running.start()
    config = await client.post("client/config", {"sdk_version": "0.38.0"})
    dynamic = await client.post("client/dynamic_config", {"sdk_version": "0.38.0"})
    assert config["pjwt_auth_enabled"] is True
    assert config["parallel_fwdbwd_chunks"] is False
    assert dynamic == {
        "refresh_interval_sec": 11,
        "sample_cancel_enabled": True,
        "sample_cancel_max_batch_size": 64,
    }
    assert not set(config) & set(dynamic)
