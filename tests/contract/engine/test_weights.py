"""Saving and loading weights, and what is told of them."""

from __future__ import annotations

import pytest

from tests.fakes.engine import MODEL, EngineClient
from tests.fakes.running_engine import ephemeral, prompt_logprobs, save, step, train


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


async def test_a_model_of_old_clients_becomes_one_of_the_layers_that_it_loads(
    client: EngineClient,
) -> None:
    model_id = await client.create_model(train_mlp=False)
    await train(client, model_id, 1)
    await step(client, model_id, 2)
    path = await save(client, model_id, 3, "a")
    restored = await client.create_model()
    body = {"path": path, "optimizer": True, "model_id": restored, "seq_id": 1}
    await client.result(await client.post("load_weights", body))
    for model, seq_id in ((model_id, 4), (restored, 2)):
        await train(client, model, seq_id)
        await step(client, model, seq_id + 1)
    assert await client.result(await train(client, restored, 4)) == (
        await client.result(await train(client, model_id, 6))
    )
    again = await save(client, restored, 5, "b")
    info = await client.post("weights_info", {"tinker_path": again})
    flags = ("train_attn", "train_mlp", "train_unembed")
    assert [info[flag] for flag in flags] == [True, False, True]
    used = await client.create_model()
    await save(client, used, 1, "all")
    body = {"path": path, "optimizer": True, "model_id": used, "seq_id": 2}
    assert (await client.post("load_weights", body, status=400))["field"] == "path"


async def test_layers_that_a_model_lacks_are_not_loaded(client: EngineClient) -> None:
    path = await save(client, await client.create_model(), 1, "a")
    other = await client.create_model(train_attn=False)
    body = {"path": path, "optimizer": False, "model_id": other, "seq_id": 1}
    assert (await client.post("load_weights", body, status=400))["field"] == "path"


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


async def test_what_a_run_trains_is_told_and_kept(client: EngineClient) -> None:
    model_id = await client.create_model(train_mlp=False, train_unembed=False)
    path = await save(client, model_id, 1, "a")
    info = await client.post("weights_info", {"tinker_path": path})
    trained = [info["train_attn"], info["train_mlp"], info["train_unembed"]]
    assert (trained, info["optimizer_config"]) == ([True, False, False], {"type": "adamw"})
    body = {
        "path": path,
        "optimizer": False,
        "session_id": client.session_id,
        "model_seq_id": client.count("model"),
        "optimizer_config": {"type": "adamw"},
    }
    restored = (await client.result(await client.post("load_weights", body)))["model_id"]
    again = await client.post("weights_info", {"tinker_path": await save(client, restored, 1, "b")})
    assert again == info
