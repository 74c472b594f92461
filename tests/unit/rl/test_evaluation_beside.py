"""Evaluations that run while training goes on, held back until training has gone on."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tests.fakes.environment import CountingGroup
from tests.fakes.gate import Gate
from tests.fakes.trainee import FakeTraining, ImprovingSampler
from tinker_ray.clients.sampling import SamplingClient
from tinker_ray.clients.service import ServiceClient
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.restore import ModelStore
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rollouts import Env, EnvGroupBuilder, RolloutFailedError
from tinker_ray.types import AdamParams, OptimStepResponse

CONFIG = RunConfig(steps=6, eval_every=2, checkpoint_every=6, seed=5)


@dataclass
class Training(FakeTraining):
    """Opens the gate of evaluations when so many optimizer steps are done."""

    opens_at: int = 0
    gate: Gate = field(default_factory=Gate)

    async def _step(self) -> OptimStepResponse:
        response = await super().optim_step(AdamParams())
        if self.version >= self.opens_at:
            self.gate.open()
        return response

    def optim_step(self, adam_params: AdamParams) -> asyncio.Future[OptimStepResponse]:
        del adam_params
        return asyncio.ensure_future(self._step())


@dataclass
class GatedGroup(CountingGroup):
    """Waits at the gate; knows how many evaluations are inside."""

    world: World | None = None
    evaluation: int = 0

    async def make_envs(self) -> Sequence[Env]:
        assert self.world is not None
        self.world.inside.add(self.evaluation)
        self.world.most_inside = max(self.world.most_inside, len(self.world.inside))
        await self.world.training.gate.wait()
        return await super().make_envs()

    async def cleanup(self) -> None:
        assert self.world is not None
        self.world.inside.discard(self.evaluation)
        await super().cleanup()


@dataclass
class World:
    """A dataset whose evaluations, but the first, wait at the gate; some can be made to fail."""

    training: Training
    failing: frozenset[int] = frozenset()
    num_evaluations: int = 0
    inside: set[int] = field(default_factory=set)
    most_inside: int = 0
    opened: list[str] = field(default_factory=list)
    out: io.StringIO = field(default_factory=io.StringIO)

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        return [CountingGroup([step, group], size=4) for group in range(4)]

    def held_out(self) -> list[EnvGroupBuilder]:
        number, self.num_evaluations = self.num_evaluations, self.num_evaluations + 1
        error = KeyError("no judge") if number in self.failing else None
        prompts = [[99, group] for group in range(4)]
        if number == 0:
            return [CountingGroup(prompt, size=6, error=error) for prompt in prompts]
        return [
            GatedGroup(prompt, size=6, error=error, world=self, evaluation=number)
            for prompt in prompts
        ]

    async def sample_from(self, checkpoint: str) -> SamplingClient | None:
        self.opened.append(checkpoint)
        steps = int(checkpoint.rsplit("-", 1)[1])
        return cast("SamplingClient", ImprovingSampler(steps))


async def run(root: Path, world: World, **settings: object) -> tuple[Summary, RunDirectory]:
    config = CONFIG.model_copy(update=settings)
    directory = open_run(config, root=root)
    try:
        async with RolloutPool(2, groups_per_worker=2) as pool:
            loop = Loop(
                config,
                dataset=world,
                training=cast("TrainingClient", world.training),
                pool=pool,
                directory=directory,
                progress=Progress(Console(file=world.out, soft_wrap=True)),
                decode=str,
                mode="local",
                sample_from=world.sample_from,
            )
            return await loop.run(), directory
    finally:
        directory.close()


def judged(directory: RunDirectory) -> dict[int, float | None]:
    return {record.step: record.eval_accuracy for record in directory.steps()}


async def without_waiting(root: Path) -> dict[int, float | None]:
    """Return what evaluations say for which training waits."""
    training = Training()
    training.gate.open()
    _, directory = await run(root, World(training), eval_beside=False)
    return judged(directory)


@pytest.mark.parametrize("max_staleness", [None, 1])
async def test_training_goes_on_while_a_snapshot_is_evaluated(
    tmp_path: Path, max_staleness: int | None
) -> None:
    world = World(Training(opens_at=4))  # nothing comes of it if step 2's evaluation is waited for
    _, directory = await run(tmp_path / "a", world, max_staleness=max_staleness)
    assert [True, False] * 3 == [value is None for value in judged(directory).values()]
    assert 1 == world.most_inside
    second, third = directory.steps()[1:3]
    assert (second.eval_elapsed_s or 0) > third.elapsed_s
    if max_staleness is None:
        assert await without_waiting(tmp_path / "b") == judged(directory)


async def test_every_evaluated_step_is_a_checkpoint(tmp_path: Path) -> None:
    training = Training(opens_at=4)
    await run(tmp_path, World(training))
    assert ["step-0002", "step-0004", "step-0006"] == training.saved


async def test_a_run_ends_with_the_weights_that_reached_the_target(tmp_path: Path) -> None:
    accuracy = (await without_waiting(tmp_path / "a"))[2]
    assert accuracy is not None
    world = World(Training(opens_at=4))
    summary, directory = await run(tmp_path / "b", world, target_accuracy=accuracy)
    assert 4 == world.training.version
    assert (2, "tinker://fake/weights/step-0002") == (summary.steps, summary.checkpoint)
    assert (2, True) == (directory.manifest.steps_done, directory.manifest.finished)
    assert {1: None, 2: accuracy} == judged(directory)
    assert {1, 2} == {group.step for group in directory.groups()}
    assert "step 2 reached the target: 2 later steps are taken back" in world.out.getvalue()


async def test_an_evaluation_that_fails_ends_the_run_and_is_made_up_for_when_it_goes_on(
    tmp_path: Path,
) -> None:
    world = World(Training(opens_at=3), failing=frozenset({1}))
    with pytest.raises(RolloutFailedError, match="no judge"):
        await run(tmp_path, world)
    assert "the evaluation of step 2 failed" in world.out.getvalue()
    assert 3 <= world.training.version < 6
    again = World(Training(version=2), num_evaluations=1)
    again.training.gate.open()
    summary, directory = await run(tmp_path, again)
    assert (6, [True, False] * 3) == (
        summary.steps,
        [v is None for v in judged(directory).values()],
    )


async def test_a_run_goes_on_without_an_evaluation_that_failed_if_that_is_wanted(
    tmp_path: Path,
) -> None:
    world = World(Training(), failing=frozenset({1}))
    world.training.gate.open()
    summary, directory = await run(tmp_path, world, eval_failure="report")
    assert 6 == summary.steps
    assert [1, 2, 3, 5] == [step for step, value in judged(directory).items() if value is None]
    assert "the evaluation of step 2 failed" in world.out.getvalue()


@pytest.mark.parametrize("checkpoint_every,opened", [(6, 0), (1, 1)])
async def test_an_evaluation_that_was_cut_off_is_run_again_on_the_same_weights(
    tmp_path: Path, checkpoint_every: int, opened: int
) -> None:
    expected = await without_waiting(tmp_path / "a")
    cut = World(Training(fail_at=3, opens_at=9))
    with pytest.raises(ConnectionError):
        await run(tmp_path / "b", cut, checkpoint_every=checkpoint_every)
    steps_done = 2 + opened  # with a checkpoint after step 3, step 2 is opened by itself
    again = World(Training(version=steps_done), num_evaluations=1)
    again.training.gate.open()
    _, directory = await run(tmp_path / "b", again, checkpoint_every=checkpoint_every)
    assert expected == judged(directory)
    assert ["tinker://fake/weights/step-0002"] * opened == again.opened


class Service:
    """Opens any checkpoint."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def create_training_client_from_state_with_optimizer_async(self, path: str) -> None:
        self.opened.append(path)


async def test_a_run_that_was_killed_at_its_target_goes_on_from_there(tmp_path: Path) -> None:
    training = Training()
    training.gate.open()
    _, directory = await run(tmp_path, World(training), steps=4)
    config = CONFIG.model_copy(update={"target_accuracy": judged(directory)[2]})
    service = Service()
    progress = Progress(Console(file=io.StringIO()))
    await ModelStore(cast("ServiceClient", service), config, directory, progress).open()
    assert ["tinker://fake/weights/step-0002"] == service.opened
    assert [1, 2] == list(judged(directory))
