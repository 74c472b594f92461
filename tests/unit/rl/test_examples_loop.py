from __future__ import annotations

import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.examples import Shuffled
from tinker_ray.rl.examples_loop import ExamplesLoop, ExamplesSummary
from tinker_ray.rl.logger import JsonlLogger
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.retention import KeepRule, Retention
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rl.supervised_config import SftConfig
from tinker_ray.types import (
    AdamParams,
    OptimStepResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
)

pytestmark = pytest.mark.usefixtures("without_matplotlib")

CONFIG = SftConfig(steps=6, batch_size=2, eval_every=2, checkpoint_every=2, seed=5)


@dataclass
class Service:
    """Takes operations in order; ``fails_at`` is the version at which training fails."""

    version: int = 0
    fails_at: int | None = None
    calls: list[str] = field(default_factory=list)
    trained: list[list[int]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    async def train(self, examples: Sequence[int]) -> APIFuture[dict[str, float]]:
        self.calls.append("train")
        if self.version == self.fails_at:
            return APIFuture.failed(ConnectionError("the driver is gone"))
        self.trained.append(list(examples))
        return APIFuture.of({"loss": 1.0 / (1 + self.version), "num_tokens": 10.0})

    async def evaluate(self, examples: Sequence[int]) -> APIFuture[dict[str, float]]:
        assert [100] == list(examples)
        self.calls.append("evaluate")
        return APIFuture.of({"loss": 2.0 / (1 + self.version), "num_tokens": 3.0})

    def optim_step(self, adam_params: AdamParams) -> APIFuture[OptimStepResponse]:
        assert 0 < adam_params.learning_rate <= CONFIG.learning_rate
        self.calls.append("step")
        self.version += 1
        return APIFuture.of(OptimStepResponse())

    def save_state(self, name: str) -> APIFuture[SaveWeightsResponse]:
        self.calls.append("save")
        return APIFuture.of(SaveWeightsResponse(path=f"tinker://fake/weights/{name}"))

    def save_weights_for_sampler(self, name: str) -> APIFuture[SaveWeightsForSamplerResponse]:
        path = f"tinker://fake/sampler_weights/{name}"
        return APIFuture.of(SaveWeightsForSamplerResponse(path=path))

    async def in_use(self) -> Collection[str]:
        return ()

    async def delete(self, path: str) -> None:
        self.deleted.append(path.rpartition("/")[2])


async def run(
    root: Path, service: Service, config: SftConfig = CONFIG
) -> tuple[ExamplesSummary, RunDirectory]:
    directory = open_run(config, root=root)
    try:
        loop = ExamplesLoop[int](
            config,
            kind="sft",
            dataset=Shuffled(range(7), [100], config.batch_size, config.seed),
            objective=service,
            training=cast("TrainingClient", service),
            directory=directory,
            logger=JsonlLogger(directory.path / "metrics.jsonl"),
            retention=Retention(KeepRule(config.keep_checkpoints), service),
            progress=Progress(Console(file=io.StringIO())),
            mode="local",
        )
        return await loop.run(), directory
    finally:
        directory.close()


def rows(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


async def test_a_run_writes_down_each_step_and_what_it_came_to(tmp_path: Path) -> None:
    summary, directory = await run(tmp_path, Service())
    written = rows(directory.path)
    assert [0, 1, 2, 3, 4, 5, 6] == [row["step"] for row in written]
    assert [0, 2, 4, 6] == [row["step"] for row in written if "eval_loss" in row]
    assert ({"eval_loss": 2.0}, {"eval_loss": 2 / 7}) == (summary.before, summary.after)
    assert "tinker://fake/weights/step-0006" == summary.checkpoint
    assert "tinker://fake/sampler_weights/final" == summary.sampler_weights
    assert directory.manifest.finished


@pytest.mark.parametrize("ahead", [1, 2, 4])
async def test_steps_are_sent_before_earlier_ones_are_answered_and_in_order(
    tmp_path: Path, ahead: int
) -> None:
    service = Service()
    config = CONFIG.model_copy(update={"steps_ahead": ahead, "eval_every": 0, "steps": 4})
    await run(tmp_path, service, config)
    assert [
        *("evaluate", "train", "step", "train", "step", "save"),
        *("train", "step", "train", "step", "evaluate", "save"),
    ] == service.calls


async def test_a_run_that_was_cut_off_goes_on_after_its_last_checkpoint(tmp_path: Path) -> None:
    whole, cut = Service(), Service(fails_at=3)
    await run(tmp_path / "whole", whole)
    with pytest.raises(ConnectionError):
        await run(tmp_path / "cut", cut)
    resumed = Service(version=2)
    summary, directory = await run(tmp_path / "cut", resumed)
    assert [0, 1, 2, 3, 4, 5, 6] == [row["step"] for row in rows(directory.path)]
    assert whole.trained == cut.trained[:2] + resumed.trained
    assert ({"eval_loss": 2.0}, {"eval_loss": 2 / 7}) == (summary.before, summary.after)


async def test_a_run_keeps_as_many_checkpoints_as_it_should(tmp_path: Path) -> None:
    service = Service()
    await run(tmp_path, service, CONFIG.model_copy(update={"keep_checkpoints": 1}))
    assert ["step-0002", "step-0004"] == service.deleted
