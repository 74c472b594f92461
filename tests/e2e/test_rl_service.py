"""What the loops rely on of a service: gradients add up, and a model that is gone can be told."""

from __future__ import annotations

import asyncio
import io
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console

from tinker_ray import ServiceClient
from tinker_ray.config import EMBEDDED_API_KEY
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


class Unloader(Progress):
    """Unloads the model behind the loop's back when a step is written down, once."""

    def __init__(self, url: str, directory: RunDirectory, after: int) -> None:
        self.out = io.StringIO()
        super().__init__(Console(file=self.out, soft_wrap=True))
        self._url = url
        self._directory = directory
        self._after: int | None = after

    def step(self, record: StepRecord, steps: int) -> None:
        super().step(record, steps)
        checkpoint = self._directory.manifest.checkpoint
        if record.step == self._after and checkpoint is not None:
            self._after = None
            httpx.post(
                f"{self._url}/api/v1/unload_model",
                json={"model_id": checkpoint.removeprefix("tinker://").partition("/")[0]},
                headers={"x-api-key": EMBEDDED_API_KEY},
            ).raise_for_status()


@pytest.mark.parametrize("max_staleness", [None, 1])
def test_a_model_that_is_unloaded_is_restored_from_the_last_checkpoint(
    tmp_path: Path, embedded_engine: str, max_staleness: int | None
) -> None:
    config = SMALL.model_copy(update={"max_staleness": max_staleness})
    with closing(open_run(config, root=tmp_path)) as directory:
        progress = Unloader(embedded_engine, directory, after=3)
        summary = asyncio.run(train(config, directory, progress=progress, mode="local"))
    groups = sorted(group.index for group in directory.groups())
    assert list(range(config.steps * config.prompts_per_step)) == groups
    assert [1, 2, 3, 4, 5, 6] == [record.step for record in directory.steps()]
    assert (6, 1) == (summary.steps, summary.resumes)
    said = progress.out.getvalue()
    assert re.search(r"the model is lost .*: back to the last checkpoint", said), said
    assert "going on after step 2 from tinker://" in said
