from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tests.fakes.environment import CountingGroup
from tests.fakes.trainee import FakeTraining
from tinker_ray.clients.training import TrainingClient
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rollouts import EnvGroupBuilder, RolloutFailedError

pytestmark = pytest.mark.usefixtures("without_matplotlib")

CONFIG = RunConfig(steps=6, eval_every=2, checkpoint_every=2, seed=5)


@dataclass
class Numbers:
    """Groups whose prompt is the step and the number of the group."""

    error: Exception | None = None

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        return [CountingGroup([step, group], size=8, error=self.error) for group in range(6)]

    def held_out(self) -> list[EnvGroupBuilder]:
        return [CountingGroup([99, group], size=8) for group in range(10)]


async def run(
    root: Path,
    training: FakeTraining,
    config: RunConfig = CONFIG,
    dataset: Numbers | None = None,
    out: io.StringIO | None = None,
) -> tuple[Summary, RunDirectory]:
    directory = open_run(config, root=root)

    def decode(tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))

    try:
        async with RolloutPool(2, groups_per_worker=2) as pool:
            loop = Loop(
                config,
                dataset=dataset or Numbers(),
                training=cast("TrainingClient", training),
                pool=pool,
                directory=directory,
                progress=Progress(Console(file=out or io.StringIO())),
                decode=decode,
                mode="local",
            )
            return await loop.run(), directory
    finally:
        directory.close()


async def test_a_run_learns_and_leaves_everything_behind(tmp_path: Path) -> None:
    out = io.StringIO()
    summary, directory = await run(tmp_path, FakeTraining(), out=out)
    assert summary.accuracy_before < 0.5
    assert summary.accuracy_after > 0.8
    assert (summary.steps, summary.eval_episodes, summary.resumes) == (6, 80, 0)
    assert summary.checkpoint == "tinker://fake/weights/step-0006"
    records = directory.steps()
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.eval_accuracy is None for record in records] == [True, False] * 3
    assert all(record.entropy == pytest.approx(0.5) for record in records)
    assert {path.name for path in (directory.path / "rollouts").iterdir()} >= {
        "before.txt",
        "after.txt",
        "step-0001.txt",
        "eval-0006.txt",
    }
    assert directory.manifest.finished
    assert "held-out problems, after training:" in out.getvalue()


async def test_a_run_that_was_cut_off_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    whole = FakeTraining()
    uninterrupted, _ = await run(tmp_path / "a", whole)

    cut = FakeTraining(fail_at=3)
    with pytest.raises(ConnectionError):
        await run(tmp_path / "b", cut)
    resumed = FakeTraining(version=2)  # the checkpoint after step 2
    summary, directory = await run(tmp_path / "b", resumed)

    assert [*cut.batches[:2], *resumed.batches] == whole.batches
    assert [record.step for record in directory.steps()] == [1, 2, 3, 4, 5, 6]
    assert (summary.accuracy_before, summary.accuracy_after) == (
        uninterrupted.accuracy_before,
        uninterrupted.accuracy_after,
    )


async def test_the_same_settings_give_the_same_run(tmp_path: Path) -> None:
    first, second = FakeTraining(), FakeTraining()
    await run(tmp_path / "a", first)
    await run(tmp_path / "b", second)
    assert first.batches == second.batches


async def test_an_evaluation_that_reaches_the_target_ends_the_run(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"target_accuracy": 0.55, "steps": 50})
    training = FakeTraining()
    summary, _ = await run(tmp_path, training, config)
    assert summary.steps < 50
    assert summary.accuracy_after >= 0.55
    assert training.saved[-1] == f"step-{summary.steps:04d}"


async def test_a_batch_without_a_lesson_trains_nothing(tmp_path: Path) -> None:
    training = FakeTraining(version=7)  # always right
    summary, directory = await run(tmp_path, training)
    assert (training.version, training.batches) == (7, [])
    assert summary.accuracy_after == 1.0
    assert [record.num_constant_groups for record in directory.steps()] == [6] * 6


async def test_a_run_in_which_no_group_comes_back_says_why(tmp_path: Path) -> None:
    dataset = Numbers(error=KeyError("no such sum"))
    with pytest.raises(RolloutFailedError, match="no such sum"):
        await run(tmp_path, FakeTraining(), dataset=dataset)
