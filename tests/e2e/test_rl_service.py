"""What the loops rely on of a service: gradients add up, and a model that is gone can be told."""

from __future__ import annotations

import asyncio
import io
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console

from tests.fakes.served import Served
from tinker_ray import ServiceClient
from tinker_ray.config import EMBEDDED_API_KEY, Settings
from tinker_ray.errors import ModelLostError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import StepRecord
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rl.train import train
from tinker_ray.types import AdamParams, Datum, ModelInput, TensorData

SMALL = RunConfig(
    steps=6,
    prompts_per_step=8,
    samples_per_prompt=4,
    eval_every=0,
    eval_problems=4,
    checkpoint_every=2,
    rank=4,
)


def datum(*tokens: int, advantage: float) -> Datum:
    targets = np.asarray([*tokens[1:], 9], dtype=np.int64)
    return Datum(
        model_input=ModelInput.from_ints(list(tokens)),
        loss_fn_inputs={
            "target_tokens": TensorData.from_numpy(targets),
            "logprobs": TensorData.from_numpy(np.full(len(tokens), -1.0, dtype=np.float32)),
            "advantages": TensorData.from_numpy(np.full(len(tokens), advantage, dtype=np.float32)),
        },
    )


async def logprobs_after(service: ServiceClient, batches: list[list[Datum]]) -> Any:  # noqa: ANN401
    training = await service.create_lora_training_client_async(SMALL.base_model, rank=4, seed=1)
    sent = [training.forward_backward(batch, "importance_sampling") for batch in batches]
    step = training.optim_step(AdamParams(learning_rate=1e-2))
    await asyncio.gather(*sent)
    await step
    output = await training.forward([batches[0][0]], "importance_sampling")
    return output.loss_fn_outputs[0]["logprobs"].to_numpy()


async def test_minibatches_give_the_gradient_of_the_whole_batch(embedded_engine: str) -> None:
    data = [datum(5, 6, 7, advantage=1.0), datum(8, 5, advantage=-0.5), datum(7, 9, advantage=2.0)]
    async with ServiceClient(base_url="embedded") as service:
        whole = await logprobs_after(service, [data])
        parts = await logprobs_after(service, [data[:1], data[1:]])
        one = await logprobs_after(service, [data[:1]])
    assert np.allclose(whole, parts, atol=1e-4)
    assert not np.allclose(whole, one, atol=1e-4)


class Saboteur(Progress):
    """Takes something from the service behind the loop's back when a step is written down, once.

    Args:
        directory: Of the run.
        takes: What to do, by the step, with the model that the last checkpoint is of.
    """

    def __init__(self, directory: RunDirectory, takes: dict[int, Callable[[str], None]]) -> None:
        self.out = io.StringIO()
        super().__init__(Console(file=self.out, soft_wrap=True))
        self._directory = directory
        self._takes = takes

    def step(self, record: StepRecord, steps: int) -> None:
        super().step(record, steps)
        take = self._takes.pop(record.step, None)
        if take is not None:
            checkpoint = self._directory.manifest.checkpoint
            assert checkpoint is not None
            take(checkpoint.removeprefix("tinker://").partition("/")[0])


def unload(url: str, model_id: str) -> None:
    httpx.post(
        f"{url}/api/v1/unload_model",
        json={"model_id": model_id},
        headers={"x-api-key": EMBEDDED_API_KEY},
    ).raise_for_status()


def delete_snapshots(url: str, model_id: str) -> None:
    del url
    [folder] = Settings.from_env().home.rglob(f"{model_id.replace(':', '-')}/ephemeral")
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "take,max_staleness,said",
    [
        (unload, 1, "the model is lost"),
        (delete_snapshots, None, "the sampler of the newest weights is gone"),
    ],
)
def test_what_the_service_lost_is_restored_from_the_last_checkpoint(
    tmp_path: Path,
    embedded_engine: str,
    take: Callable[[str, str], None],
    max_staleness: int | None,
    said: str,
) -> None:
    config = SMALL.model_copy(update={"max_staleness": max_staleness})
    with closing(open_run(config, root=tmp_path)) as directory:
        progress = Saboteur(directory, {3: partial(take, embedded_engine)})
        summary = asyncio.run(train(config, directory, progress=progress, mode="local"))
    groups = sorted(group.index for group in directory.groups())
    assert list(range(config.steps * config.prompts_per_step)) == groups
    assert [1, 2, 3, 4, 5, 6] == [record.step for record in directory.steps()]
    assert (6, 1) == (summary.steps, summary.resumes)
    out = progress.out.getvalue()
    assert re.search(rf"{said} .*: back to the last checkpoint", out), out
    assert "going on after step 2 from tinker://" in out


def test_a_run_survives_an_engine_that_is_started_again_if_its_checkpoints_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", EMBEDDED_API_KEY)
    with ExitStack() as stack:
        served = stack.enter_context(Served("--data", str(tmp_path / "data")))
        port = served.url.rpartition(":")[2]
        engines = [served]

        def start_again(data: str, _: str) -> None:
            engines[-1].kill()  # its live weights die with it: the model is corrupted
            options = ("--data", str(tmp_path / data), "--port", port)
            engines.append(stack.enter_context(Served(*options)))

        config = SMALL.model_copy(
            update={"base_url": served.url, "checkpoint_every": 1, "max_staleness": 1}
        )
        directory = stack.enter_context(closing(open_run(config, root=tmp_path / "runs")))
        progress = Saboteur(
            directory, {2: partial(start_again, "data"), 3: partial(start_again, "other")}
        )
        with pytest.raises(ModelLostError, match="is lost, and it cannot be restored: "):
            asyncio.run(train(config, directory, progress=progress, mode="local"))
        assert (3, 1) == (len(engines), directory.manifest.resumes)
        assert directory.manifest.steps_done >= 2
    assert "back to the last checkpoint" in progress.out.getvalue()
