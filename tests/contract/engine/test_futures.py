"""One poll for a whole sampling session, large results by their size first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.engine import sample_body
from tests.fakes.running_engine import train
from tinker_ray.engine.client_flags import ClientFlags
from tinker_ray.engine.settings import HostSettings
from tinker_ray.wire import codec

if TYPE_CHECKING:
    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running

CLONE = 1_000_000_000


async def poll(
    client: EngineClient,
    sampler_id: str,
    cursor: int = 0,
    clone: int = 0,
    **more: Any,  # noqa: ANN401
) -> dict[str, Any]:
    target = {
        "type": "sampling_session",
        "sampling_session_id": sampler_id,
        "cloned_sampler_id": clone,
    }
    return await client.post("retrieve_futures", {"target": target, "prev_cursor": cursor, **more})


async def sample(client: EngineClient, sampler_id: str, seq_id: int, **more: Any) -> str:  # noqa: ANN401
    promise = await client.post("asample", sample_body(sampler_id, seq_id, **more))
    request_id: str = promise["request_id"]
    return request_id


def ids(told: dict[str, Any]) -> list[str]:
    return [item["request_id"] for item in told["completions"]]


async def test_a_poll_tells_what_ended_until_it_is_confirmed(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    first = await sample(client, sampler_id, 0)
    told = await poll(client, sampler_id)
    assert ids(told) == [first]
    (item,) = told["completions"]
    payload = await client.http.post(
        "/api/v1/retrieve_future",
        json={"request_id": first},
        headers={"Accept": codec.PROTOBUF},
    )
    assert (item["state"], item["response_payload_uncompressed_size"]) == (
        "finished",
        len(payload.content),
    )
    again = await poll(client, sampler_id)
    assert again == told
    second = await sample(client, sampler_id, 1)
    later = await poll(client, sampler_id, told["cursor"])
    assert ids(later) == [second]
    assert later["cursor"] > told["cursor"]
    nothing = await poll(client, sampler_id, later["cursor"], timeout=0)
    assert nothing == {"completions": [], "cursor": later["cursor"]}


async def test_what_ended_before_the_first_poll_is_told(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    request_ids = [await sample(client, sampler_id, number) for number in range(3)]
    for request_id in request_ids:
        await client.result({"request_id": request_id})
    assert sorted(ids(await poll(client, sampler_id, timeout=0))) == sorted(request_ids)


async def test_a_poll_waits_for_news_of_its_own_clone(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    start = await poll(client, sampler_id, timeout=0)
    waiting = asyncio.create_task(poll(client, sampler_id, start["cursor"]))
    other = await sample(client, sampler_id, 3 * CLONE)
    assert ids(await poll(client, sampler_id, clone=3)) == [other]
    assert not waiting.done()
    own = await sample(client, sampler_id, 1)
    assert ids(await waiting) == [own]


async def test_a_poll_without_news_ends_with_its_time(running: Running) -> None:
    running.settings = HostSettings(long_poll_s=0.05)
    client = await running.start()
    sampler_id = await client.sampler()
    for timeout in (None, 0.01, 1000.0):
        assert (await poll(client, sampler_id, timeout=timeout))["completions"] == []


async def test_results_that_were_fetched_are_dropped(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    first, second = [await sample(client, sampler_id, number) for number in range(2)]
    for request_id in (first, second):
        await client.result({"request_id": request_id})
    other = await client.sampler()
    await poll(client, other, timeout=0, retrieved_request_ids=[first])
    await client.result({"request_id": first})
    await poll(client, sampler_id, timeout=0, retrieved_request_ids=[first, "sample-unknown"])
    await client.post("retrieve_future", {"request_id": first}, status=410)
    await client.result({"request_id": second})


async def test_a_failed_sample_is_told_as_failed(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    long = {"num_samples": 64, "sampling_params": {"max_tokens": 100, "stop": []}}
    request_id = await sample(client, sampler_id, 0, **long)
    await client.post("cancel_future", {"request_id": request_id})
    told = await poll(client, sampler_id)
    assert told["completions"] == [{"state": "failed", "request_id": request_id}]


async def test_samples_that_died_with_the_engine_are_told_as_failed(running: Running) -> None:
    flags = ClientFlags(sample_use_retrieve_futures=True)
    running.settings = HostSettings(flags=flags)
    client = await running.start()
    sampler_id = await client.sampler()
    known = await sample(client, sampler_id, 0)
    before = await poll(client, sampler_id)
    await poll(client, sampler_id, before["cursor"], timeout=0)
    long = {"num_samples": 64, "sampling_params": {"max_tokens": 100, "stop": []}}
    lost = await sample(client, sampler_id, 1, **long)
    client = await running.restart()
    told = await poll(client, sampler_id, before["cursor"])
    assert told["completions"] == [{"state": "failed", "request_id": lost}]
    assert told["cursor"] > before["cursor"]
    await client.post("retrieve_future", {"request_id": lost}, status=410)
    assert known not in ids(told)
    await poll(client, sampler_id, told["cursor"], timeout=0)
    client = await running.restart()
    assert (await poll(client, sampler_id, timeout=0))["completions"] == []


async def test_a_cursor_from_the_future_is_taken_over(client: EngineClient) -> None:
    sampler_id = await client.sampler()
    ahead = 2**61
    assert (await poll(client, sampler_id, ahead, timeout=0))["cursor"] == ahead
    request_id = await sample(client, sampler_id, 0)
    told = await poll(client, sampler_id, ahead)
    assert (ids(told), told["cursor"]) == ([request_id], ahead + 1)


@pytest.mark.parametrize(
    "wrong,field",
    [
        ({"target": {"sampling_session_id": "x"}}, "target.sampling_session_id"),
        ({"target": {}}, "target.sampling_session_id"),
        ({"target": {"type": "other", "sampling_session_id": "x"}}, "target.type"),
        ({"prev_cursor": -1}, "prev_cursor"),
        ({"prev_cursor": 2**63}, "prev_cursor"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "soon"}, "timeout"),
        ({"retrieved_request_ids": "x"}, "retrieved_request_ids"),
    ],
)
async def test_a_wrong_poll_is_refused(
    client: EngineClient, wrong: dict[str, Any], field: str
) -> None:
    target = {"type": "sampling_session", "sampling_session_id": await client.sampler()}
    body = {"target": target, "timeout": 0, **wrong}
    response = await client.http.post("/api/v1/retrieve_futures", json=body)
    assert response.status_code in {404, 422}
    assert response.json()["field"] == field


async def test_of_a_large_result_a_client_may_ask_the_size_first(running: Running) -> None:
    running.settings = HostSettings(large_result_bytes=100)
    client = await running.start()
    promise = await train(client, await client.create_model(), 1)
    ask = {"request_id": promise["request_id"], "allow_metadata_only": True}
    accept = {"Accept": codec.PROTOBUF}
    told = await client.http.post("/api/v1/retrieve_future", json=ask, headers=accept)
    assert told.json()["status"] == "complete_metadata"
    ask["allow_metadata_only"] = False
    whole = await client.http.post("/api/v1/retrieve_future", json=ask, headers=accept)
    assert len(whole.content) == told.json()["response_payload_size"]
