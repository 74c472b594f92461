"""The engine's answers, over its ASGI app, to requests as clients of both generations send them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import zstandard
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import engine as fakes
from tests.fakes.engine import CONTEXT_LENGTH, MODEL, VOCAB_SIZE, EngineClient, batch, sample_body
from tinker_ray.config import Secret
from tinker_ray.engine.host import Host, HostSettings
from tinker_ray.engine.model.base_model import BaseModel
from tinker_ray.engine.sampling.sampler import Sampler
from tinker_ray.engine.served_model import ServedModel
from tinker_ray.engine.serving.app import create_app
from tinker_ray.engine.training.trainer import Trainer
from tinker_ray.telemetry import export, names
from tinker_ray.types import Datum, ModelInput, TensorData
from tinker_ray.wire import codec
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROTO = {"Content-Type": codec.PROTOBUF}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.load(MODEL, fakes.write_model(tmp_path_factory.mktemp("model")))


@dataclass
class Running:
    """An engine on a data folder, which can be stopped and started again."""

    base: BaseModel
    data: Path
    settings: HostSettings
    host: Host | None = None
    client: EngineClient | None = None

    async def start(self, api_key: str | None = None) -> EngineClient:
        served = ServedModel(self.base, "/no/tokenizer", Trainer(self.base), Sampler(self.base))
        self.host = Host([served], self.data, self.settings)
        app = create_app(self.host, api_key=Secret(api_key) if api_key else None)
        transport = httpx.ASGITransport(app)
        http = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=30)
        self.client = EngineClient(http)
        return self.client

    async def stop(self) -> None:
        if self.client is not None:
            await self.client.http.aclose()
        if self.host is not None:
            await self.host.close()
        self.client = self.host = None

    async def restart(self) -> EngineClient:
        """Start anew on the same data: nothing that was live is left."""
        await self.stop()
        return await self.start()


@pytest.fixture
async def running(base: BaseModel, tmp_path: Path) -> AsyncIterator[Running]:
    engine = Running(base, tmp_path / "data", HostSettings(gap_timeout_s=0.3))
    yield engine
    await engine.stop()
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture
async def client(running: Running) -> EngineClient:
    return await running.start()


async def train(client: EngineClient, model_id: str, seq_id: int, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    body = {"forward_backward_input": batch(**changes), "model_id": model_id, "seq_id": seq_id}
    return await client.post("forward_backward", body)


async def step(client: EngineClient, model_id: str, seq_id: int) -> dict[str, Any]:
    body = {"adam_params": {"learning_rate": 0.01}, "model_id": model_id, "seq_id": seq_id}
    return await client.post("optim_step", body)


async def prompt_logprobs(client: EngineClient, sampler_id: str) -> list[float]:
    body = sample_body(sampler_id, client.count("sample"), prompt_logprobs=True)
    result = await client.result(await client.post("asample", body))
    logprobs: list[float] = result["prompt_logprobs"][1:]
    return logprobs


async def ephemeral(client: EngineClient, model_id: str, seq_id: int) -> str:
    body = {
        "model_id": model_id,
        "seq_id": seq_id,
        "sampling_session_seq_id": client.count("sampler"),
    }
    saved = await client.result(await client.post("save_weights_for_sampler", body))
    assert saved.get("path") is None
    sampler_id: str = saved["sampling_session_id"]
    return sampler_id


# ------------------------------------------------------------------------------------- the service


async def test_everything_is_served_under_any_prefix(client: EngineClient) -> None:
    response = await client.http.get("/services/tinker/api/v1/healthz")
    assert response.json() == {"status": "ok"}


async def test_capabilities_list_the_base_models(client: EngineClient) -> None:
    assert await client.get("get_server_capabilities") == {
        "supported_models": [
            {
                "model_name": MODEL,
                "max_context_length": CONTEXT_LENGTH,
                "trainable": True,
                "sampleable": True,
            }
        ]
    }


async def test_client_flags_ask_for_requests_in_order(client: EngineClient) -> None:
    config = await client.post("client/config", {"sdk_version": "0.38.0"})
    assert config["parallel_fwdbwd_chunks"] is False
    assert config["proto_compress_fwdbwd"] is False
    assert await client.post("client/dynamic_config", {"sdk_version": "0.38.0"})


async def test_telemetry_is_accepted(client: EngineClient) -> None:
    body = {"events": [{"event": "SESSION_START"}], "platform": "Linux", "session_id": "s"}
    assert await client.post("telemetry", body) == {"status": "accepted"}


@pytest.mark.parametrize("key,status_code", [("right", 200), ("wrong", 401), (None, 401)])
async def test_a_key_is_asked_for_when_the_engine_has_one(
    running: Running, key: str | None, status_code: int
) -> None:
    client = await running.start(api_key="right")
    headers = {} if key is None else {"X-API-Key": key}
    response = await client.http.get("/api/v1/sessions", headers=headers)
    assert response.status_code == status_code
    assert int(response.headers["content-length"]) > 0


async def test_unknown_paths_are_told_in_json(client: EngineClient) -> None:
    assert "detail" in await client.get("no_such_thing", status=404)


async def test_an_unexpected_error_is_a_500_with_an_id(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    client = await running.start()
    assert running.host is not None
    running.host.ledger.close()
    answer = await client.get("sessions", status=500)
    assert answer["error_id"] in caplog.text
    assert len(caplog.records) == 1


async def test_a_trace_goes_on_through_queue_and_execution(client: EngineClient) -> None:
    model_id, sampler_id = await client.create_model(), await client.sampler()
    exporter = InMemorySpanExporter()
    export.install("engine", SimpleSpanProcessor(exporter))
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    client.http.headers["traceparent"] = f"00-{trace_id}-{span_id}-01"
    await client.result(await train(client, model_id, 1))
    await client.result(await client.post("asample", sample_body(sampler_id)))
    export.stop()
    spans = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    assert {span["context"]["trace_id"] for span in spans} == {f"0x{trace_id}"}
    requests = [span for span in spans if span["name"] == names.ENGINE_REQUEST]
    assert {span["parent_id"] for span in requests} == {f"0x{span_id}"}
    ids = {span["attributes"][names.HTTP_ROUTE]: span["context"]["span_id"] for span in requests}
    parents = {span["name"]: span["parent_id"] for span in spans}
    assert parents[names.ENGINE_QUEUE] == ids["/api/v1/forward_backward"]
    assert parents[names.ENGINE_TRAIN] == ids["/api/v1/forward_backward"]
    assert parents[names.ENGINE_SAMPLE] == ids["/api/v1/asample"]


# ------------------------------------------------------------------------------------- sessions


async def test_a_session_tells_what_it_made(client: EngineClient) -> None:
    model_id = await client.create_model()
    sampler_id = await client.sampler()
    told = await client.get(f"sessions/{client.session_id}")
    assert told["training_run_ids"] == [model_id]
    assert told["sampler_ids"] == [sampler_id]
    assert await client.get("sessions") == {"sessions": [client.session_id]}


async def test_a_finished_session_is_gone_for_its_heartbeat_and_its_models(
    client: EngineClient,
) -> None:
    model_id = await client.create_model()
    beat = {"session_id": client.session_id, "type": "session_heartbeat"}
    assert await client.post("session_heartbeat", beat) == {"type": "session_heartbeat"}
    finish = {"reason": {"type": "success"}, "detail": None}
    await client.post(f"sessions/{client.session_id}/finish", finish)
    await client.post(f"sessions/{client.session_id}/finish", finish)
    await client.post("session_heartbeat", beat, status=410)
    body = {"model_id": model_id, "path": "a", "seq_id": None}
    late = await client.http.post("/api/v1/save_weights", json=body)
    assert late.status_code == 410 or "error" in await client.result(late.json())


async def test_an_unknown_session_is_not_found(client: EngineClient) -> None:
    answer = await client.post("session_heartbeat", {"session_id": "x"}, status=404)
    assert answer["field"] == "session_id"


# ------------------------------------------------------------------------------------- training


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
    client: EngineClient,
) -> None:
    model_id = await client.create_model()
    held = await step(client, model_id, 2)
    response = await client.http.post(
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


async def test_a_gap_fails_what_waits_and_the_model_goes_on(client: EngineClient) -> None:
    model_id = await client.create_model()
    failed = await client.result(await step(client, model_id, 2))
    assert failed["category"] == "user"
    assert "seq_id 1 did not arrive within 0.3 s" in failed["error"]
    assert "metrics" in await client.result(await step(client, model_id, 3))
    late = await client.post(
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


# ------------------------------------------------------------------------------------- sampling


async def test_a_sample_has_an_id_for_every_sequence(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    ids: list[str] = []
    for seq_id in range(2):
        body = sample_body(sampler_id, seq_id, num_samples=3)
        promise = await client.post("asample", body)
        ids += promise["sample_sequence_ids"]
        result = await client.result(promise)
        assert len(result["sequences"]) == 3
        assert all(len(sequence["tokens"]) == 4 for sequence in result["sequences"])
    assert len(set(ids)) == 6


async def test_a_seeded_sample_is_the_same_again(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    promises = [await client.post("asample", sample_body(sampler_id, n)) for n in range(2)]
    first, second = [await client.result(promise) for promise in promises]
    assert promises[0]["request_id"] != promises[1]["request_id"]
    assert first["sequences"] == second["sequences"]


async def test_a_repeated_sample_is_drawn_once(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    body = sample_body(sampler_id, 10**18, sampling_params={"max_tokens": 8})
    first, second = [await client.post("asample", body) for _ in range(2)]
    assert first == second


async def test_samples_come_in_protobuf_where_it_is_accepted(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    body = sample_body(sampler_id, prompt_logprobs=True, topk_prompt_logprobs=2)
    promise = await client.post("asample", body)
    as_json = await client.result(promise)
    response = await client.http.post(
        "/api/v1/retrieve_future",
        json={"request_id": promise["request_id"]},
        headers={"Accept": codec.PROTOBUF},
    )
    decoded = codec.decode_sample_response(
        response.content, response.headers["content-type"], promise["sample_sequence_ids"]
    )
    assert decoded.prompt_logprobs == as_json["prompt_logprobs"]
    assert decoded.sequences[0].tokens == as_json["sequences"][0]["tokens"]
    assert as_json["topk_prompt_logprobs"][0] is None
    assert len(as_json["topk_prompt_logprobs"][1]) == 2


async def test_a_full_queue_is_a_429_before_anything_is_kept(running: Running) -> None:
    running.settings = HostSettings(max_queued_sequences=8)
    client = await running.start()
    sampler_id = await client.sampler()
    statuses = []
    for seq_id in range(80):
        body = sample_body(
            sampler_id, seq_id, num_samples=8, sampling_params={"max_tokens": 100, "stop": []}
        )
        statuses.append((await client.http.post("/api/v1/asample", json=body)).status_code)
    assert set(statuses) == {200, 429}


async def test_a_cancelled_sample_says_so(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    body = sample_body(sampler_id, num_samples=64, sampling_params={"max_tokens": 120, "stop": []})
    promise = await client.post("asample", body)
    await client.post("cancel_future", {"request_id": promise["request_id"]})
    assert "cancelled" in (await client.result(promise))["error"]


async def test_cancelling_what_is_unknown_changes_nothing(client: EngineClient) -> None:
    assert await client.post("cancel_future", {"request_id": "x"}) == {}


async def test_a_pending_promise_is_a_408_after_the_long_poll(running: Running) -> None:
    running.settings = HostSettings(long_poll_s=0.05, gap_timeout_s=60)
    client = await running.start()
    held = await step(client, await client.create_model(), 2)
    body = {"request_id": held["request_id"]}
    assert await client.post("retrieve_future", body, status=408) == {
        "type": "try_again",
        "request_id": held["request_id"],
        "queue_state": "active",
    }


async def test_more_clients_of_a_sampling_session_get_numbers(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    body = {"sampling_session_id": sampler_id}
    counters = [(await client.post("join_sampling_session", body))["client_counter"] for _ in "ab"]
    assert counters == [1, 2]


async def test_a_sampler_tells_what_it_samples_from(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    told = await client.get(f"samplers/{sampler_id}")
    assert (told["sampler_id"], told["base_model"], told["model_path"]) == (
        sampler_id,
        MODEL,
        None,
    )


# ------------------------------------------------------------------------------------- weights


async def save(client: EngineClient, model_id: str, seq_id: int, name: str) -> str:
    body = {"model_id": model_id, "path": name, "seq_id": seq_id}
    path: str = (await client.result(await client.post("save_weights", body)))["path"]
    return path


async def test_a_sampling_session_keeps_its_version_of_the_weights(client: EngineClient) -> None:
    model_id = await client.create_model()
    old = await ephemeral(client, model_id, 1)
    before = await prompt_logprobs(client, old)
    await train(client, model_id, 2)
    await client.result(await step(client, model_id, 3))
    new = await ephemeral(client, model_id, 4)
    assert await prompt_logprobs(client, old) == before
    assert await prompt_logprobs(client, new) != before


async def test_a_repeated_ephemeral_save_may_bring_another_session_number(
    client: EngineClient,
) -> None:
    model_id = await client.create_model()
    body = {"model_id": model_id, "seq_id": 1, "sampling_session_seq_id": 0}
    first = await client.post("save_weights_for_sampler", body)
    second = await client.post("save_weights_for_sampler", {**body, "sampling_session_seq_id": 1})
    assert first["request_id"] == second["request_id"]


async def test_named_sampler_weights_are_sampled_by_their_path(client: EngineClient) -> None:
    model_id = await client.create_model()
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    body = {"model_id": model_id, "path": "v1", "seq_id": 3, "kind": "snapshot"}
    path = (await client.result(await client.post("save_weights_for_sampler", body)))["path"]
    assert path == f"tinker://{model_id}/sampler_weights/v1"
    by_path = await client.sampler(model_path=path)
    by_session = await ephemeral(client, model_id, 4)
    told = await client.get(f"samplers/{by_path}")
    assert (told["base_model"], told["model_path"]) == (MODEL, path)
    assert await prompt_logprobs(client, by_path) == await prompt_logprobs(client, by_session)


@pytest.mark.parametrize("kind", ["save_weights", "save_weights_for_sampler"])
async def test_a_name_is_saved_once(client: EngineClient, kind: str) -> None:
    model_id = await client.create_model()
    await client.post(kind, {"model_id": model_id, "path": "a", "seq_id": 1})
    body = {"model_id": model_id, "path": "a", "seq_id": 2}
    answer = await client.post(kind, body, status=400)
    assert answer["field"] == "path"
    assert "exists" in answer["detail"]


async def test_overwriting_replaces_a_checkpoint_and_its_metadata(client: EngineClient) -> None:
    model_id = await client.create_model()
    body = {"model_id": model_id, "path": "a", "seq_id": 1, "user_metadata": {"k": "v"}}
    await client.result(await client.post("save_weights", body))
    body = {"model_id": model_id, "path": "a", "seq_id": 2, "overwrite": True}
    await client.result(await client.post("save_weights", body))
    listed = (await client.get(f"training_runs/{model_id}/checkpoints"))["checkpoints"]
    assert [(item["checkpoint_id"], item["user_metadata"]) for item in listed] == [
        ("weights/a", None)
    ]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "x" * 200, "a b", "ä"])
async def test_names_stay_in_the_data_folder(client: EngineClient, name: str) -> None:
    model_id = await client.create_model()
    body = {"model_id": model_id, "path": name, "seq_id": 1}
    assert (await client.post("save_weights_for_sampler", body, status=400))["field"] == "path"


async def test_old_clients_restore_by_creating_and_loading(client: EngineClient) -> None:
    model_id = await client.create_model()
    for seq_id in (1, 3):
        await train(client, model_id, seq_id)
        await step(client, model_id, seq_id + 1)
    path = await save(client, model_id, 5, "a")
    info = await client.post("weights_info", {"tinker_path": path})
    assert (info["base_model"], info["is_lora"], info["lora_rank"]) == (MODEL, True, 4)
    restored = await client.create_model(rank=info["lora_rank"])
    body = {"path": path, "optimizer": True, "model_id": restored, "seq_id": 1}
    assert (await client.result(await client.post("load_weights", body)))["path"] == path
    assert await client.result(await train(client, restored, 2)) == (
        await client.result(await train(client, model_id, 6))
    )


async def test_new_clients_restore_in_one_request(client: EngineClient) -> None:
    model_id = await client.create_model()
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    path = await save(client, model_id, 3, "a")
    body = {
        "path": path,
        "optimizer": True,
        "session_id": client.session_id,
        "model_seq_id": client.count("model"),
        "type": "load_weights",
    }
    first, second = [await client.post("load_weights", body) for _ in range(2)]
    assert first == second
    restored = (await client.result(first))["model_id"]
    assert restored == f"{client.session_id}:train:1"
    results = []
    for model, seq_id in ((model_id, 4), (restored, 1)):
        await train(client, model, seq_id)
        await step(client, model, seq_id + 1)
        results.append(await client.result(await train(client, model, seq_id + 2)))
    assert results[0] == results[1]


async def test_a_checkpoint_of_another_rank_is_refused(client: EngineClient) -> None:
    path = await save(client, await client.create_model(rank=4), 1, "a")
    other = await client.create_model(rank=8)
    body = {"path": path, "optimizer": False, "model_id": other, "seq_id": 1}
    assert (await client.post("load_weights", body, status=400))["field"] == "path"


async def test_runs_and_checkpoints_are_listed_newest_first(client: EngineClient) -> None:
    older, newer = await client.create_model(), await client.create_model()
    await save(client, older, 1, "a")
    await save(client, older, 2, "b")
    runs = await client.get("training_runs?limit=1&access_scope=owned")
    assert [run["training_run_id"] for run in runs["training_runs"]] == [newer]
    assert runs["cursor"] == {"offset": 0, "limit": 1, "total_count": 2}
    run = await client.get(f"training_runs/{older}")
    assert (run["is_lora"], run["corrupted"], run["lora_rank"]) == (True, False, 4)
    assert run["last_checkpoint"]["checkpoint_id"] == "weights/b"
    checkpoints = await client.get("checkpoints")
    assert [item["checkpoint_id"] for item in checkpoints["checkpoints"]] == [
        "weights/b",
        "weights/a",
    ]
    assert all(item["size_bytes"] > 0 for item in checkpoints["checkpoints"])


async def test_a_deleted_checkpoint_is_gone(client: EngineClient) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    url = f"/api/v1/training_runs/{model_id}/checkpoints/weights/a"
    headers = {"Content-Type": "application/json"}
    response = await client.http.request("DELETE", url, headers=headers)
    assert response.status_code == 200
    assert (await client.http.request("DELETE", url, headers=headers)).status_code == 404
    await client.post("weights_info", {"tinker_path": path}, status=404)
    assert (await client.get("checkpoints"))["checkpoints"] == []


# ------------------------------------------------------------------------------------- restarts


async def test_after_a_restart_a_live_model_is_corrupted_and_says_what_to_do(
    running: Running,
) -> None:
    client = await running.start()
    model_id = await client.create_model()
    done = await train(client, model_id, 1)
    before = await client.result(done)
    path = await save(client, model_id, 2, "a")
    client = await running.restart()
    assert (await client.get(f"training_runs/{model_id}"))["corrupted"] is True
    assert await client.result(done) == before
    assert (await train(client, model_id, 1))["request_id"] == done["request_id"]
    body = {"adam_params": {}, "model_id": model_id, "seq_id": 3}
    told = (await client.post("optim_step", body, status=410))["detail"]
    assert "create_training_client_from_state_with_optimizer" in told
    await client.open_session()
    body = {
        "path": path,
        "optimizer": True,
        "session_id": client.session_id,
        "model_seq_id": 0,
    }
    restored = (await client.result(await client.post("load_weights", body)))["model_id"]
    assert (await client.result(await train(client, restored, 1)))["metrics"] == before["metrics"]


async def test_after_a_restart_old_samplers_answer_as_before(running: Running) -> None:
    client = await running.start()
    model_id = await client.create_model()
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    body = {"model_id": model_id, "path": "v1", "seq_id": 3}
    path = (await client.result(await client.post("save_weights_for_sampler", body)))["path"]
    samplers = [
        await ephemeral(client, model_id, 4),
        await client.sampler(model_path=path),
        await client.sampler(),
    ]
    before = [await prompt_logprobs(client, sampler_id) for sampler_id in samplers]
    client = await running.restart()
    after = [await prompt_logprobs(client, sampler_id) for sampler_id in samplers]
    assert after == before
    assert before[0] == before[1] != before[2]


async def test_after_a_restart_pending_operations_have_failed(running: Running) -> None:
    running.settings = HostSettings(gap_timeout_s=60)
    client = await running.start()
    held = await step(client, await client.create_model(), 2)
    sample = await client.post("asample", sample_body(await client.sampler()))
    client = await running.restart()
    told = await client.result(held)
    assert told["category"] == "server"
    assert "create_training_client_from_state_with_optimizer" in told["error"]
    await client.post("retrieve_future", {"request_id": sample["request_id"]}, status=410)


# ------------------------------------------------------------------------------------- wrong input


def with_input(**inputs: object) -> dict[str, Any]:
    made = batch(4)
    for key, value in inputs.items():
        if value is None:
            del made["data"][0]["loss_fn_inputs"][key]
        else:
            made["data"][0]["loss_fn_inputs"][key] = value
    return made


def floats(data: list[float], shape: list[int] | None = None) -> dict[str, Any]:
    return {"data": data, "dtype": "float32", "shape": shape or [len(data)]}


def ints(data: list[int]) -> dict[str, Any]:
    return {"data": data, "dtype": "int64", "shape": [len(data)]}


def with_chunks(*chunks: dict[str, Any]) -> dict[str, Any]:
    made = batch(4)
    made["data"][0]["model_input"] = {"chunks": list(chunks)}
    return made


IMAGE = {"data": "iVBORw==", "format": "png", "expected_tokens": 4}

WRONG_BATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "token out of range": (with_chunks({"tokens": [1, 2, 3, VOCAB_SIZE]}), "model_input"),
    "negative token": (with_chunks({"tokens": [1, 2, 3, -1]}), "model_input"),
    "target out of range": (with_input(target_tokens=ints([1, 2, 3, 5000])), "target_tokens"),
    "too long": (batch(CONTEXT_LENGTH + 1), "model_input"),
    "image": (with_chunks(IMAGE), "chunks[0]"),
    "no tokens": (with_chunks(), "model_input"),
    "no data": (batch(data=[]), "data"),
    "missing input": (with_input(weights=None), "weights"),
    "short input": (with_input(weights=floats([1.0, 1.0])), "weights"),
    "wrong shape": (with_input(weights=floats([1.0] * 4, [2, 2])), "weights"),
    "shape does not hold the values": (with_input(weights=floats([1.0], [4])), "weights"),
    "integer weights": (with_input(weights=ints([1, 1, 1, 1])), "weights"),
    "float targets": (with_input(target_tokens=floats([1.0] * 4)), "target_tokens"),
    "unknown dtype": (with_input(weights={"data": [1.0], "dtype": "f16"}), "dtype"),
    "unknown loss": (batch(4, loss_fn="mse"), "loss_fn"),
    "unknown config key": (batch(4, loss_fn_config={"beta": 1.0}), "beta"),
    "config that is no number": (batch(4, loss_fn_config={"beta": "x"}), "beta"),
    "no inputs at all": (batch(data=[{"model_input": {"chunks": [{"tokens": [1]}]}}]), "inputs"),
    "loss missing": (batch(loss_fn=None), "loss_fn"),
}


@pytest.mark.parametrize("name", WRONG_BATCHES)
async def test_a_wrong_batch_is_refused_at_once_and_named(client: EngineClient, name: str) -> None:
    wrong, field = WRONG_BATCHES[name]
    model_id = await client.create_model()
    body = {"forward_backward_input": wrong, "model_id": model_id, "seq_id": 1}
    response = await client.http.post("/api/v1/forward_backward", json=body)
    assert 400 <= response.status_code < 500, response.text
    assert field in response.json()["detail"]
    assert int(response.headers["content-length"]) > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
async def test_numbers_that_are_not_finite_are_refused(client: EngineClient, value: float) -> None:
    model_id = await client.create_model()
    inputs = {
        "target_tokens": TensorData([1, 2], "int64", [2]),
        "weights": TensorData([1.0, value], "float32", [2]),
    }
    request = ForwardBackwardRequest(
        model_id, [Datum(ModelInput.from_ints([1, 2]), inputs)], "cross_entropy", seq_id=1
    )
    content = codec.encode_forward_backward(request, proto=True).content
    response = await client.http.post("/api/v1/forward_backward", content=content, headers=PROTO)
    assert response.status_code == 400
    assert "weights" in response.json()["detail"]


WRONG_SAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "token out of range": ({"prompt": {"chunks": [{"tokens": [VOCAB_SIZE]}]}}, "prompt"),
    "too long": ({"prompt": {"chunks": [{"tokens": [1] * (CONTEXT_LENGTH + 1)}]}}, "prompt"),
    "empty": ({"prompt": {"chunks": []}}, "prompt"),
    "missing prompt": ({"prompt": None}, "prompt"),
    "image": ({"prompt": {"chunks": [IMAGE]}}, "prompt.chunks[0]"),
    "no samples": ({"num_samples": 0}, "num_samples"),
    "too many samples": ({"num_samples": 10**6}, "num_samples"),
    "negative temperature": ({"sampling_params": {"temperature": -1}}, "temperature"),
    "top_p above 1": ({"sampling_params": {"top_p": 1.5}}, "top_p"),
    "top_p 0": ({"sampling_params": {"top_p": 0}}, "top_p"),
    "top_k 0": ({"sampling_params": {"top_k": 0}}, "top_k"),
    "negative max_tokens": ({"sampling_params": {"max_tokens": -1}}, "max_tokens"),
    "max_tokens no number": ({"sampling_params": {"max_tokens": "many"}}, "max_tokens"),
    "unknown stop token": ({"sampling_params": {"stop": [VOCAB_SIZE]}}, "stop[0]"),
    "stop without tokenizer": ({"sampling_params": {"stop": "x"}}, "stop"),
    "empty stop string": ({"sampling_params": {"stop": [""]}}, "stop[0]"),
    "huge seed": ({"sampling_params": {"seed": 2**70}}, "seed"),
    "too many top-k": ({"topk_prompt_logprobs": VOCAB_SIZE + 1}, "topk_prompt_logprobs"),
    "unsupported feature": ({"prompt_alt_tokens_k": 3}, "prompt_alt_tokens_k"),
    "nothing to sample from": ({"sampling_session_id": None}, "base_model"),
}


@pytest.mark.parametrize("name", WRONG_SAMPLES)
async def test_a_wrong_sample_is_refused_at_once_and_named(client: EngineClient, name: str) -> None:
    changes, field = WRONG_SAMPLES[name]
    body = sample_body(await client.sampler(), **changes)
    response = await client.http.post("/api/v1/asample", json=body)
    assert 400 <= response.status_code < 500, response.text
    assert field in response.json()["detail"]


WRONG_REQUESTS: list[tuple[str, dict[str, Any], int, str]] = [
    ("create_model", {"base_model": "no/such"}, 400, "base_model"),
    ("create_model", {"lora_config": {"rank": 0}}, 422, "rank"),
    ("create_model", {"lora_config": {"rank": 10**6}}, 422, "rank"),
    ("create_model", {"lora_config": None}, 422, "lora_config"),
    ("create_model", {"session_id": "x"}, 404, "session_id"),
    ("create_model", {"optimizer_config": {"type": "dimuon"}}, 422, "optimizer_config"),
    (
        "create_model",
        {
            "lora_config": {
                "rank": 4,
                "train_attn": False,
                "train_mlp": False,
                "train_unembed": False,
            }
        },
        400,
        "lora_config",
    ),
    ("create_sampling_session", {"base_model": "no/such"}, 400, "base_model"),
    ("create_sampling_session", {"model_path": "tinker://x/weights/y"}, 404, "model_path"),
    ("create_sampling_session", {"base_model": None}, 400, "base_model"),
    (
        "asample",
        {"sampling_session_id": "x", "prompt": {"chunks": [{"tokens": [1]}]}},
        404,
        "sampling_session_id",
    ),
    ("get_info", {"model_id": "x"}, 404, "model_id"),
    ("optim_step", {"model_id": "x", "adam_params": {}, "seq_id": 1}, 404, "model_id"),
    ("optim_step", {"adam_params": {}}, 422, "model_id"),
    ("save_weights", {"model_id": "x", "path": "a", "seq_id": 1}, 404, "model_id"),
    (
        "load_weights",
        {"path": "tinker://x/weights/y", "optimizer": True, "model_seq_id": 0},
        404,
        "path",
    ),
    ("weights_info", {"tinker_path": "tinker://x/weights/y"}, 404, "tinker_path"),
    ("retrieve_future", {"request_id": "x"}, 404, "request_id"),
    ("retrieve_future", {}, 422, "request_id"),
]


@pytest.mark.parametrize("path,changes,status_code,field", WRONG_REQUESTS)
async def test_a_wrong_request_is_refused_at_once_and_named(
    client: EngineClient, path: str, changes: dict[str, Any], status_code: int, field: str
) -> None:
    defaults: dict[str, dict[str, Any]] = {
        "create_model": {
            "session_id": await client.open_session(),
            "model_seq_id": 0,
            "base_model": MODEL,
            "lora_config": {"rank": 4},
        },
        "create_sampling_session": {
            "session_id": client.session_id,
            "sampling_session_seq_id": 0,
            "base_model": None if "model_path" in changes else MODEL,
        },
        "load_weights": {"session_id": client.session_id},
    }
    answer = await client.post(path, {**defaults.get(path, {}), **changes}, status=status_code)
    assert field in answer["field"]
    assert field in answer["detail"]


@pytest.mark.parametrize(
    "content,content_type",
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"\xff\xff", "application/json"),
        (b"\xff\xff", codec.PROTOBUF),
        (b"", "application/json"),
    ],
)
@pytest.mark.parametrize("path", ["forward_backward", "asample", "optim_step"])
async def test_bytes_that_are_no_request_are_refused(
    client: EngineClient, path: str, content: bytes, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    response = await client.http.post(f"/api/v1/{path}", content=content, headers=headers)
    assert response.status_code in {400, 422}, response.text
    assert json.loads(response.content)["detail"]
