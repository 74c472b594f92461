"""Sessions of clients: opened, finished, searched, traced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.running_engine import ephemeral, prompt_logprobs, step, train

if TYPE_CHECKING:
    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running


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


async def test_the_first_reason_of_a_finished_session_stays(client: EngineClient) -> None:
    await client.open_session()
    url = f"sessions/{client.session_id}/finish"
    await client.post(url, {"reason": {"type": "errored"}, "detail": "out of luck"})
    await client.post(url, {"reason": {"type": "success"}, "detail": None})
    (found,) = (await client.post("sessions/search", {}))["sessions"]
    assert found["status"] == {
        "type": "client_finished",
        "reason": {"type": "errored"},
        "detail": "out of luck",
    }
    assert (await client.post(url, {"reason": {"type": "bored"}}, status=422))["field"]


async def test_a_repeated_opening_finds_the_same_session(client: EngineClient) -> None:
    client.http.headers["X-Idempotency-Key"] = "the-same"
    assert await client.open_session() == await client.open_session()
    client.http.headers["X-Idempotency-Key"] = "another"
    assert await client.open_session() not in (await client.get("sessions"))["sessions"][1:]
    assert len((await client.get("sessions"))["sessions"]) == 2


async def test_a_session_moves_into_a_project_with_its_runs(client: EngineClient) -> None:
    model_id = await client.create_model()
    url = f"/api/v1/sessions/{client.session_id}/project"
    assert (await client.http.put(url, json={"project_id": "p"})).status_code == 200
    for project, runs in (("p", [model_id]), ("q", [])):
        listed = await client.get(f"training_runs?project_id={project}")
        assert [run["training_run_id"] for run in listed["training_runs"]] == runs
    for wrong in ({}, {"project_id": ""}, {"project_id": None}, {"project_id": 3}):
        assert (await client.http.put(url, json=wrong)).status_code == 422


# ------------------------------------------------------------------------------------ the search


async def named(client: EngineClient, name: str | None, **more: Any) -> str:  # noqa: ANN401
    body = {"tags": [], "user_metadata": {}, "sdk_version": "0", "display_name": name, **more}
    session_id: str = (await client.post("create_session", body))["session_id"]
    return session_id


async def found(client: EngineClient, **query: Any) -> list[str]:  # noqa: ANN401
    answer = await client.post("sessions/search", query)
    return [session["session_id"] for session in answer["sessions"]]


async def test_sessions_are_searched_by_what_they_are(client: EngineClient) -> None:
    nightly = await named(client, "Nightly Run 7", user_metadata={"team": "rl", "n": "1"})
    daily = await named(client, "daily run", user_metadata={"team": "rl"}, project_id="p")
    plain = await named(client, None)
    assert await found(client) == [plain, daily, nightly]
    assert await found(client, display_name="RUN") == [daily, nightly]
    assert await found(client, display_name="run nightly") == [nightly]
    assert await found(client, display_name="7", session_id=plain) == [plain, nightly]
    assert await found(client, session_id="x") == []
    assert await found(client, user_metadata={"team": "rl"}) == [daily, nightly]
    assert await found(client, user_metadata={"team": "rl", "n": "1"}) == [nightly]
    assert await found(client, project_ids=["p", "q"]) == [daily]
    assert await found(client, project_ids=["default"]) == [plain, nightly]
    assert await found(client, owner={"type": "user", "owner_urns": ["local"]}, limit=1) == [plain]


async def test_sessions_are_searched_by_how_they_stand(
    running: Running, client: EngineClient
) -> None:
    done, failed = await named(client, None), await named(client, None)
    for session, reason in ((done, "success"), (failed, "errored")):
        await client.post(f"sessions/{session}/finish", {"reason": {"type": reason}})
    model_id = await client.create_model()
    lost = client.session_id
    finished = {"type": "client_finished"}
    assert await found(client, statuses=[{"type": "active"}]) == [lost]
    assert await found(client, statuses=[finished]) == [failed, done]
    assert await found(client, statuses=[{**finished, "reasons": ["success"]}]) == [done]
    assert await found(client, statuses=[{"type": "cancelled"}]) == []
    client = await running.restart()
    running.skew_s = 3600
    (summary,) = (await client.post("sessions/search", {"statuses": [{"type": "failed"}]}))[
        "sessions"
    ]
    assert summary["status"]["reason"] == {"type": "training_run", "training_run_id": model_id}
    assert await found(client, statuses=[{"type": "active"}]) == []
    silent = await named(client, None)
    running.skew_s += 3600
    summaries = (await client.post("sessions/search", {"limit": 1}))["sessions"]
    assert [(item["session_id"], item["status"]) for item in summaries] == [(silent, None)]


async def test_pages_of_a_search_are_the_whole_list_once(
    running: Running, client: EngineClient
) -> None:
    expected = []
    for number in range(7):
        running.skew_s = number // 3 * 0.25  # several at one moment
        expected.append(await named(client, str(number)))
    pages, query = [], {"limit": 3}
    while True:
        answer = await client.post("sessions/search", query)
        pages.append([session["session_id"] for session in answer["sessions"]])
        if "next_cursor" not in answer:
            break
        query = {"limit": 3, "cursor": answer["next_cursor"]}
    assert [len(page) for page in pages] == [3, 3, 1]
    assert {session for page in pages for session in page} == set(expected)


@pytest.mark.parametrize(
    "query,field",
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"display_name": ""}, "display_name"),
        ({"statuses": []}, "statuses"),
        ({"statuses": [{"type": "tired"}]}, "statuses"),
        ({"owner": {"type": "user", "owner_urns": []}}, "owner"),
        ({"owner": {"type": "all"}}, "owner"),
        ({"cursor": {"last_created_at": "2026-01-01T00:00:00", "last_session_id": "x"}}, "cursor"),
        ({"cursor": {"last_session_id": "x"}}, "cursor"),
    ],
)
async def test_a_wrong_search_is_refused(
    client: EngineClient, query: dict[str, Any], field: str
) -> None:
    answer = await client.post("sessions/search", query, status=422)
    assert answer["field"].startswith(field)


# ------------------------------------------------------------------------------------ traces


async def test_a_trace_shows_what_a_session_did(running: Running, client: EngineClient) -> None:
    model_id = await client.create_model()
    await client.result(await train(client, model_id, 1))
    await client.result(await step(client, model_id, 2))
    await prompt_logprobs(client, await ephemeral(client, model_id, 3))
    told = await client.get(f"sessions/{client.session_id}/trace_export")
    assert told["status"] == "ready"
    response = await client.http.get(told["url"], headers={"X-API-Key": ""})
    events = response.json()["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert [bar["name"] for bar in bars] == [
        "create_model",
        "forward_backward",
        "optim_step",
        "save_weights_for_sampler",
    ]
    ends = [bar["ts"] + bar["dur"] for bar in bars]
    assert all(end <= bar["ts"] for end, bar in zip(ends, bars[1:], strict=False))
    assert bars[1]["args"]["tokens"] == 8
    assert {event["ph"] for event in events if event["name"] == "sample"} == {"b", "e"}
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert tracks == {model_id, f"{client.session_id}:sample:0"}
    again = await client.get(f"sessions/{client.session_id}/trace_export")
    assert again["url"].split(".")[0] == told["url"].split(".")[0]
    assert len(list((running.data / "exports").iterdir())) == 1
    running.skew_s = 2 * 3600
    running.host.sweep()
    assert list((running.data / "exports").iterdir()) == []
    assert (await client.http.get(told["url"])).status_code == 403


async def test_a_session_that_did_nothing_has_a_trace_too(client: EngineClient) -> None:
    await client.open_session()
    told = await client.get(f"sessions/{client.session_id}/trace_export")
    events = (await client.http.get(told["url"])).json()["traceEvents"]
    assert [event["name"] for event in events] == ["process_name"]
