"""Sampling, as clients of both generations ask for it."""

from __future__ import annotations

from tests.fakes.engine import MODEL, EngineClient, sample_body
from tests.fakes.running_engine import Running, save, step
from tinker_ray.engine.settings import HostSettings
from tinker_ray.wire import codec


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


async def test_a_sampling_session_is_opened_once_per_place_for_one_version_of_weights(
    client: EngineClient,
) -> None:
    await client.open_session()
    body = {
        "session_id": client.session_id,
        "sampling_session_seq_id": 0,
        "base_model": MODEL,
        "model_path": None,
    }
    first, second = [await client.post("create_sampling_session", body) for _ in range(2)]
    assert first == second
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "w", "save_weights_for_sampler")
    other = {**body, "model_path": path}
    answer = await client.post("create_sampling_session", other, status=400)
    assert answer["field"] == "sampling_session_seq_id"
    unnamed = {"model_id": model_id, "seq_id": 2, "sampling_session_seq_id": 0}
    answer = await client.post("save_weights_for_sampler", unnamed, status=400)
    assert answer["field"] == "sampling_session_seq_id"
