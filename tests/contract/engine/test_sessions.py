"""Sessions of clients."""

from __future__ import annotations

from tests.fakes.engine import EngineClient


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
