"""Checkpoints after they were saved: how long they live, where copies go, what is logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.engine import MODEL, sample_body
from tests.fakes.running_engine import ephemeral, prompt_logprobs, save, step, train

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.engine import EngineClient
    from tests.fakes.running_engine import Running

HOUR_S = 3600


def url_of(path: str) -> str:
    run, _, checkpoint = path.removeprefix("tinker://").partition("/")
    return f"/api/v1/training_runs/{run}/checkpoints/{checkpoint}"


async def set_ttl(client: EngineClient, path: str, ttl_s: int | None) -> int:
    response = await client.http.put(f"{url_of(path)}/ttl", json={"ttl_seconds": ttl_s})
    return response.status_code


def folders(running: Running) -> list[Path]:
    return sorted((running.data / "checkpoints").glob("*/*/*"))


async def settled(running: Running) -> None:
    """Wait for folders that are being removed."""
    import asyncio

    while running.host.checkpoints._removals:
        await asyncio.gather(*running.host.checkpoints._removals)


# ------------------------------------------------------------------------------------ time to live


async def test_an_expired_checkpoint_is_not_there_and_its_files_are_swept(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a", ttl_seconds=HOUR_S)
    weights = await save(client, model_id, 2, "w", "save_weights_for_sampler", ttl_seconds=HOUR_S)
    sampler_id = await client.sampler(model_path=weights)
    assert await prompt_logprobs(client, sampler_id)
    (listed,) = (await client.get("checkpoints?limit=1&offset=1"))["checkpoints"]
    assert (listed["tinker_path"], listed["expires_at"] is None) == (path, False)
    running.skew_s = HOUR_S + 1
    assert (await client.get("checkpoints"))["checkpoints"] == []
    assert (await client.get("checkpoints"))["cursor"]["total_count"] == 0
    run = await client.get(f"training_runs/{model_id}")
    assert (run["last_checkpoint"], run["last_sampler_checkpoint"]) == (None, None)
    await client.post("weights_info", {"tinker_path": path}, status=404)
    load = {"model_id": model_id, "path": path, "optimizer": True, "seq_id": 3}
    await client.post("load_weights", load, status=404)
    await client.post("asample", sample_body(sampler_id, 9), status=404)
    opened = {
        "session_id": client.session_id,
        "sampling_session_seq_id": 7,
        "model_path": weights,
    }
    await client.post("create_sampling_session", opened, status=404)
    assert len(folders(running)) == 2
    running.host.sweep()
    await settled(running)
    assert folders(running) == []


async def test_samplers_of_a_deleted_checkpoint_say_so(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "w", "save_weights_for_sampler")
    sampler_id = await client.sampler(model_path=path)
    assert await prompt_logprobs(client, sampler_id)
    assert (await client.http.delete(url_of(path))).status_code == 200
    await settled(running)
    answer = await client.post("asample", sample_body(sampler_id, 9), status=404)
    assert "deleted" in answer["detail"]


async def test_a_load_that_waited_until_its_checkpoint_expired_fails(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a", ttl_seconds=HOUR_S)
    held = await client.post(
        "load_weights", {"model_id": model_id, "path": path, "optimizer": True, "seq_id": 3}
    )
    running.skew_s = HOUR_S + 1
    await step(client, model_id, 2)
    assert "there is no checkpoint" in (await client.result(held))["error"]


async def test_a_time_to_live_is_set_anew_or_taken_away(
    running: Running, client: EngineClient
) -> None:
    path = await save(client, await client.create_model(), 1, "a", ttl_seconds=HOUR_S)
    assert await set_ttl(client, path, None) == 200
    running.skew_s = 2 * HOUR_S
    assert await client.post("weights_info", {"tinker_path": path})
    assert await set_ttl(client, path, HOUR_S) == 200
    running.skew_s = 4 * HOUR_S
    await client.post("weights_info", {"tinker_path": path}, status=404)
    assert await set_ttl(client, path, None) == 404


@pytest.mark.parametrize("ttl_s,status", [(3599, 400), (315360001, 400), (0, 400), (-1, 422)])
async def test_a_time_to_live_is_from_an_hour_to_ten_years(
    client: EngineClient, ttl_s: int, status: int
) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    assert await set_ttl(client, path, ttl_s) == status
    for seq_id, kind in enumerate(
        ("save_weights", "save_weights_for_sampler", "save_weights_external"), start=2
    ):
        body = {"model_id": model_id, "path": "b", "seq_id": seq_id, "ttl_seconds": ttl_s}
        assert (await client.post(kind, body, status=status))["field"] == "ttl_seconds"


async def test_a_name_is_free_again_when_its_checkpoint_expired(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a", ttl_seconds=HOUR_S)
    running.skew_s = HOUR_S + 1
    assert await save(client, model_id, 2, "a") == path


# ------------------------------------------------------------------------------------ copies


async def test_a_copy_shares_its_bytes_and_outlives_its_source(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    path = await save(client, model_id, 3, "a", user_metadata={"k": "v"})
    body = {"source_path": path, "destination_project_id": "archive", "ttl_seconds": HOUR_S}
    copied = (await client.post("copy_weights", body))["tinker_path"]
    assert copied.endswith("/weights/a")
    assert len(folders(running)) == 1
    assert (await client.http.delete(url_of(path))).status_code == 200
    await settled(running)
    assert len(folders(running)) == 1
    load = {
        "path": copied,
        "optimizer": True,
        "session_id": client.session_id,
        "model_seq_id": client.count("model"),
    }
    restored = (await client.result(await client.post("load_weights", load)))["model_id"]
    assert await client.result(await train(client, restored, 1)) == (
        await client.result(await train(client, model_id, 4))
    )
    assert (await client.http.delete(url_of(copied))).status_code == 200
    await settled(running)
    assert folders(running) == []


async def test_the_run_of_a_copy_cannot_be_trained(client: EngineClient) -> None:
    path = await save(client, await client.create_model(), 1, "a")
    body = {"source_path": path, "destination_project_id": "archive"}
    copied = (await client.post("copy_weights", body))["tinker_path"]
    run = copied.removeprefix("tinker://").partition("/")[0]
    listed = await client.get("training_runs?project_id=archive")
    assert [item["training_run_id"] for item in listed["training_runs"]] == [run]
    assert listed["cursor"]["total_count"] == 1
    answer = await client.post("optim_step", {"model_id": run, "seq_id": 1}, status=400)
    assert "copy" in answer["detail"]


async def test_a_copy_may_take_a_place_in_a_session(client: EngineClient) -> None:
    path = await save(client, await client.create_model(), 1, "a")
    body = {"source_path": path, "session_id": client.session_id, "model_seq_id": 5}
    copied = await client.post("copy_weights", body)
    assert copied == {"tinker_path": f"tinker://{client.session_id}:train:5/weights/a"}
    assert (await client.post("copy_weights", body, status=400))["field"] == "model_seq_id"
    model = {
        "session_id": client.session_id,
        "model_seq_id": 5,
        "base_model": MODEL,
        "lora_config": {"rank": 4},
    }
    assert (await client.post("create_model", model, status=400))["field"] == "model_seq_id"


async def test_a_repeated_copy_is_made_once(client: EngineClient) -> None:
    path = await save(client, await client.create_model(), 1, "a")
    body = {"source_path": path, "destination_project_id": "archive"}
    client.http.headers["X-Idempotency-Key"] = "the-same"
    first, second = [await client.post("copy_weights", body) for _ in range(2)]
    client.http.headers["X-Idempotency-Key"] = "another"
    third = await client.post("copy_weights", body)
    assert first == second != third


@pytest.mark.parametrize(
    "destination,field",
    [
        ({}, "destination_project_id"),
        ({"destination_project_id": "p", "session_id": "s"}, "destination_project_id"),
        ({"session_id": "s"}, "model_seq_id"),
    ],
)
async def test_a_copy_goes_to_one_place(
    client: EngineClient, destination: dict[str, str], field: str
) -> None:
    path = await save(client, await client.create_model(), 1, "a")
    response = await client.http.post(
        "/api/v1/copy_weights", json={"source_path": path, **destination}
    )
    assert response.status_code in {400, 422}
    assert response.json()["field"] == field


# ------------------------------------------------------------------------------------ inflight


async def test_inflight_samplers_follow_the_newest_weights(
    running: Running, client: EngineClient
) -> None:
    model_id = await client.create_model()
    first = await ephemeral(client, model_id, 1, kind="inflight")
    fixed = await ephemeral(client, model_id, 2)
    before = await prompt_logprobs(client, first)
    assert await prompt_logprobs(client, fixed) == before
    await train(client, model_id, 3)
    await step(client, model_id, 4)
    second = await ephemeral(client, model_id, 5, kind="inflight")
    assert first != second
    after = await prompt_logprobs(client, second)
    assert await prompt_logprobs(client, first) == after != before
    assert await prompt_logprobs(client, fixed) == before
    await settled(running)
    assert len(folders(running)) == 2
    client_again = await running.restart()
    client_again.session_id = client.session_id
    assert await prompt_logprobs(client_again, first) == after


async def test_inflight_weights_have_no_name(client: EngineClient) -> None:
    model_id = await client.create_model()
    body = {"model_id": model_id, "path": "a", "seq_id": 1, "kind": "inflight"}
    assert (await client.post("save_weights_for_sampler", body, status=400))["field"] == "kind"


# ------------------------------------------------------------------------------------ the log


async def test_what_was_done_to_checkpoints_is_logged(client: EngineClient) -> None:
    model_id = await client.create_model()
    path = await save(client, model_id, 1, "a")
    await client.post(f"{url_of(path).removeprefix('/api/v1/')}/publish", {})
    await set_ttl(client, path, HOUR_S)
    await client.http.get(f"{url_of(path)}/archive")
    await client.http.delete(f"{url_of(path)}/publish")
    await client.http.delete(url_of(path))
    await client.http.put(f"/api/v1/sessions/{client.session_id}/project", json={"project_id": "p"})
    entries = (await client.get("audit?event_type=checkpoints"))["entries"]
    assert [entry["event"] for entry in entries] == [
        "checkpoint_created",
        "checkpoint_published",
        "checkpoint_ttl_set",
        "checkpoint_read",
        "checkpoint_unpublished",
        "checkpoint_deleted",
    ]
    assert {entry["tinker_path"] for entry in entries} == {path}
    read: dict[str, Any] = entries[3]
    assert (read["purpose"], read["event_details"]["actor"]) == ("archive", "local")
    (moved,) = (await client.get("audit?event_type=projects"))["entries"]
    assert moved["event_details"]["project_id"] == "p"
    assert len((await client.get("audit"))["entries"]) == 7
    assert (await client.get("audit?day=2020-01-01"))["entries"] == []
    for wrong in ("audit?day=today", "audit?event_type=none"):
        assert (await client.get(wrong, status=422))["field"] in {"day", "event_type"}
