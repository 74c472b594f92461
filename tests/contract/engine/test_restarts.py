"""What is left after an engine was stopped and started again."""

from __future__ import annotations

from tests.fakes.engine import sample_body
from tests.fakes.running_engine import Running, ephemeral, prompt_logprobs, save, step, train
from tinker_ray.engine.settings import HostSettings


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
