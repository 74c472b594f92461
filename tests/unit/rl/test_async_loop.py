from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

import pytest
from rich.console import Console

from tests.fakes.environment import CountingGroup
from tests.fakes.trainee import FakeTraining, ImprovingSampler
from tinker_ray.clients.training import TrainingClient
from tinker_ray.errors import BadRequestError, ConfigurationError, NotFoundError, TinkerError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rollouts import EnvGroupBuilder, RolloutFailedError, RolloutsHaltedError
from tinker_ray.rollouts.dispatcher import GONE_IN_A_ROW
from tinker_ray.types import ModelInput, SampleResponse, SamplingParams

pytestmark = pytest.mark.usefixtures("without_matplotlib")

CONFIG = RunConfig(steps=6, eval_every=2, checkpoint_every=2, seed=5)
TIMES = {
    *("tokens_per_s", "rollout_s", "train_s", "step_s", "elapsed_s", "eval_s", "eval_elapsed_s"),
    *("selection", "peak_in_flight"),
}
SIZE = 6


@dataclass
class Numbers:
    """Groups whose prompt is the step and the number of the group; some can be made to fail."""

    broken: frozenset[tuple[int, int]] = frozenset()
    sizes: dict[int, int] = field(default_factory=dict)

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        return [
            CountingGroup(
                [step, group],
                size=8,
                error=KeyError("no such sum") if (step, group) in self.broken else None,
            )
            for group in range(self.sizes.get(step, SIZE))
        ]

    def held_out(self) -> list[EnvGroupBuilder]:
        return [CountingGroup([99, group], size=8) for group in range(10)]


async def run(
    root: Path,
    training: FakeTraining,
    dataset: Numbers | None = None,
    reopened: FakeTraining | None = None,
    **settings: object,
) -> tuple[Summary, RunDirectory]:
    config = CONFIG.model_copy(update=settings)
    directory = open_run(config, root=root)

    def decode(tokens: Sequence[int]) -> str:
        return " ".join(map(str, tokens))

    async def reopen(lost: TrainingClient, error: TinkerError) -> TrainingClient | None:
        assert lost is cast("TrainingClient", training)
        assert error is training.error or getattr(error, "kind", "") == "gone"
        directory.forget_after(directory.manifest.steps_done)
        return cast("TrainingClient", reopened)

    try:
        async with RolloutPool(2, groups_per_worker=2) as pool:
            loop = Loop(
                config,
                dataset=dataset or Numbers(),
                training=cast("TrainingClient", training),
                pool=pool,
                directory=directory,
                progress=Progress(Console(file=io.StringIO())),
                decode=decode,
                mode="local",
                reopen=None if reopened is None else reopen,
            )
            return await loop.run(), directory
    finally:
        directory.close()


def numbers_of_steps(directory: RunDirectory) -> list[dict[str, object]]:
    return [record.model_dump(exclude=TIMES) for record in directory.steps()]


def trained(directory: RunDirectory) -> list[int]:
    return [group.index for group in directory.groups() if group.dropped is None]


def dropped(directory: RunDirectory) -> list[int]:
    return [group.index for group in directory.groups() if group.dropped is not None]


async def test_without_staleness_the_asynchronous_loop_is_the_synchronous_one(
    tmp_path: Path,
) -> None:
    synchronous, asynchronous = FakeTraining(), FakeTraining()
    expected, first = await run(tmp_path / "a", synchronous)
    actual, second = await run(tmp_path / "b", asynchronous, max_staleness=0)
    assert synchronous.batches == asynchronous.batches
    assert first.groups() == second.groups()
    assert numbers_of_steps(first) == numbers_of_steps(second)
    assert (expected.accuracy_after, expected.accuracy_before) == (
        actual.accuracy_after,
        actual.accuracy_before,
    )


@pytest.mark.parametrize("max_staleness", [1, 3])
async def test_rollouts_run_ahead_of_training_but_never_too_far(
    tmp_path: Path, max_staleness: int
) -> None:
    _, directory = await run(tmp_path, FakeTraining(), max_staleness=max_staleness, steps=12)
    ages = directory.staleness()
    assert 0 < max(ages) <= max_staleness
    assert 12 * SIZE == sum(ages.values())
    assert max(ages) == max(record.staleness_max for record in directory.steps())
    assert (directory.path / "staleness.json").exists()


async def test_each_group_is_trained_on_once_or_dropped_with_a_reason(tmp_path: Path) -> None:
    dataset = Numbers(broken=frozenset({(0, 1), (2, 3)}))
    _, directory = await run(tmp_path, FakeTraining(), dataset, max_staleness=1)
    assert {1, 15} <= set(dropped(directory))
    ended = sorted([*trained(directory), *dropped(directory)])
    assert list(range(len(ended))) == ended
    assert CONFIG.steps * SIZE == len(trained(directory))


@pytest.mark.parametrize("max_staleness", [None, 0, 2])
async def test_a_run_that_was_cut_off_neither_repeats_nor_skips_a_group(
    tmp_path: Path, max_staleness: int | None
) -> None:
    dataset = Numbers(broken=frozenset({(0, 1)}))
    with pytest.raises(ConnectionError):
        await run(tmp_path, FakeTraining(fail_at=3), dataset, max_staleness=max_staleness)
    resumed = FakeTraining(version=2)  # the checkpoint after step 2
    _, directory = await run(tmp_path, resumed, dataset, max_staleness=max_staleness)
    ended = sorted([*trained(directory), *dropped(directory)])
    assert list(range(len(ended))) == ended
    assert [1, 2, 3, 4, 5, 6] == [record.step for record in directory.steps()]
    assert 1 in dropped(directory)


async def test_a_model_that_is_gone_is_opened_again_from_the_last_checkpoint(
    tmp_path: Path,
) -> None:
    gone = NotFoundError("there is no model")
    training = FakeTraining(fail_at=3, error=gone)
    reopened = FakeTraining(version=2)
    summary, directory = await run(tmp_path, training, reopened=reopened, max_staleness=1)
    assert [1, 2, 3, 4, 5, 6] == [record.step for record in directory.steps()]
    assert (6, 6) == (summary.steps, reopened.version)
    assert len(set(trained(directory))) == len(trained(directory)) == 6 * SIZE


@dataclass(frozen=True)
class GoneSampler(ImprovingSampler):
    """The sampler of weights that the service does not have any more."""

    error: ClassVar[Exception] = NotFoundError("the weights of this sampling session were deleted")

    def with_label(self, label: str, weight: float) -> GoneSampler:
        del label, weight
        return self

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        del prompt, num_samples, sampling_params
        raise self.error


class GoneAfter(FakeTraining):
    """Its samplers are gone as soon as they are there, from one version on."""

    async def save_weights_and_get_sampling_client_async(self) -> ImprovingSampler:
        return (GoneSampler if self.version >= 3 else ImprovingSampler)(self.version)


@pytest.mark.parametrize("max_staleness", [None, 1])
async def test_a_run_whose_sampler_is_gone_goes_on_from_the_last_checkpoint(
    tmp_path: Path, max_staleness: int | None
) -> None:
    reopened = FakeTraining(version=2)
    summary, directory = await run(
        tmp_path, GoneAfter(), reopened=reopened, eval_every=0, max_staleness=max_staleness
    )
    assert (6, True) == (summary.steps, reopened.version > 2)
    assert 6 * SIZE == len(set(trained(directory))) == len(trained(directory))
    assert {group.dropped for group in directory.groups()} <= {None, "stale"}


async def test_a_run_whose_sampler_is_gone_ends_if_there_is_nothing_to_go_back_to(
    tmp_path: Path,
) -> None:
    with pytest.raises(RolloutsHaltedError, match="this sampling session were deleted") as caught:
        await run(tmp_path, GoneAfter(), eval_every=0, max_staleness=1)
    assert ("gone", GONE_IN_A_ROW) == (caught.value.kind, caught.value.failures)


class RefusedAfter(FakeTraining):
    """From one version on, the service refuses every sample."""

    async def save_weights_and_get_sampling_client_async(self) -> ImprovingSampler:
        return (RefusedSampler if self.version >= 2 else ImprovingSampler)(self.version)


class RefusedSampler(GoneSampler):
    """Of a service that refuses what is asked of it."""

    error: ClassVar[Exception] = BadRequestError("the prompt is too long")


async def test_a_stream_in_which_every_group_fails_ends_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(RolloutFailedError, match="the prompt is too long") as caught:
        await run(tmp_path, RefusedAfter(), eval_every=0, max_staleness=1)
    assert ("request", "every rollout") == (caught.value.kind, caught.value.stage)


async def test_minibatches_are_trained_as_they_come_and_add_up_to_the_same_step(
    tmp_path: Path,
) -> None:
    whole, parts = FakeTraining(), FakeTraining()
    _, first = await run(tmp_path / "a", whole)
    _, second = await run(tmp_path / "b", parts, minibatches=3)
    assert whole.version == parts.version == CONFIG.steps
    assert len(parts.batches) > len(whole.batches)
    per_step = zip(whole.steps(), parts.steps(), strict=True)
    assert all(sorted(one) == sorted(other) for one, other in per_step)
    assert [r.loss for r in first.steps()] == [r.loss for r in second.steps()]
    assert first.groups() == second.groups()


async def test_substeps_divide_a_batch_among_optimizer_steps(tmp_path: Path) -> None:
    training = FakeTraining()
    _, directory = await run(tmp_path, training, substeps=2, steps=2)
    assert (4, 4) == (training.version, len(training.batches))
    assert [0, 0] == [record.staleness_max for record in directory.steps()]


async def test_batches_of_different_sizes_cannot_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="3 groups for step 2, but 6 for the first"):
        await run(tmp_path, FakeTraining(), Numbers(sizes={1: 3}), max_staleness=1)


def test_oversampling_needs_a_bound_on_staleness() -> None:
    with pytest.raises(ValueError, match="oversample=2 needs max_staleness"):
        RunConfig(oversample=2)
