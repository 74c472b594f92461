"""The engine itself: its health, what it offers, its keys, its errors, its traces."""

from __future__ import annotations

import json

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes.engine import CONTEXT_LENGTH, MODEL, EngineClient, sample_body
from tests.fakes.running_engine import Running, train
from tinker_ray.config import Secret
from tinker_ray.engine.access.api_key import ApiKey
from tinker_ray.telemetry import export, names


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
    running.keys = [ApiKey(Secret("right"))]
    client = await running.start()
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
