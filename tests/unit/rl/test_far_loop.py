"""The loop over groups that are elsewhere: the same training, and few of them fetched."""

from __future__ import annotations

import asyncio
import gc
import io
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from tests.fakes.environment import CountingGroup
from tests.fakes.far import FakeReference, FakeStore
from tests.fakes.trainee import FakeTraining
from tests.unit.rl.test_async_loop import Numbers
from tinker_ray.clients.training import TrainingClient
from tinker_ray.core.far_operation import FarOutput
from tinker_ray.errors import TinkerError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.loop import Loop
from tinker_ray.rl.placement import PoolWorker
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.progress import Progress
from tinker_ray.rl.record import Summary
from tinker_ray.rl.reference_kl import ReferencePenalty, Scorer
from tinker_ray.rl.run_directory import RunDirectory, open_run
from tinker_ray.rl.transcript import MAX_FETCHED
from tinker_ray.rl.worker import LocalWorker
from tinker_ray.rollouts import Advantages, Attempt, EnvGroupBuilder, Sampler, TrajectoryGroup
from tinker_ray.rollouts.datum import from_groups
from tinker_ray.rollouts.far_datum import Agreement, AnyDatum, FarDatum, assembled
from tinker_ray.types import ModelInput

pytestmark = pytest.mark.usefixtures("without_matplotlib")

STEPS = 4
CONFIG = RunConfig(steps=STEPS, eval_every=0, checkpoint_every=2, seed=5)
SIZE = 6


class FarWorker(LocalWorker):
    """Leaves the trajectories of its groups in a store."""

    def __init__(self, store: FakeStore) -> None:
        super().__init__()
        self._store = store

    async def run_group(
        self, builder: EnvGroupBuilder, sampler: Sampler, attempt: Attempt
    ) -> TrajectoryGroup:
        return self._store.far(await super().run_group(builder, sampler, attempt))


@dataclass
class FarTraining(FakeTraining):
    """Makes data of what is in a store; the groups of some prompts get lost on their way."""

    takes_far_data = True

    store: FakeStore = field(default_factory=FakeStore)
    losing: tuple[int, ...] = ()
    sizes: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def forward_backward_far(
        self, data: Sequence[AnyDatum], loss_fn: str, settings: Mapping[str, float] | None = None
    ) -> Awaitable[FarOutput]:
        self.held.append(self.store.num_held)
        items = [item for item in data if isinstance(item, FarDatum)]
        assert len(items) == len(data)
        references = {item.group: cast("FakeReference", item.reference) for item in items}
        kept = {group: self.store.kept[ref.number] for group, ref in references.items()}
        lost = {
            group for group, packed in kept.items() if list(packed.tokens[:2]) == [*self.losing]
        }
        made = assembled(items, {group: kept[group] for group in kept if group not in lost})
        self.sizes.append(len(made))
        output = self.forward_backward(made, loss_fn, settings)
        return self._far_output(output, frozenset(lost), len(made))

    async def _far_output(
        self, output: Awaitable[object], lost: frozenset[int], count: int
    ) -> FarOutput:
        await output
        return FarOutput({"loss:sum": float(count)}, Agreement(0.0, count), lost, count)


async def run(
    root: Path,
    training: FakeTraining,
    store: FakeStore | None = None,
    penalty: ReferencePenalty | None = None,
    reopened: FakeTraining | None = None,
    **settings: object,
) -> tuple[Summary, RunDirectory]:
    async def open_worker(_: Sampler, number: int) -> PoolWorker:
        del number
        return LocalWorker() if store is None else FarWorker(store)

    async def reopen(lost: TrainingClient, error: TinkerError) -> TrainingClient | None:
        assert lost is cast("TrainingClient", training)
        assert ("gone", "fetch") == (getattr(error, "kind", ""), getattr(error, "stage", ""))
        directory.forget_after(directory.manifest.steps_done)
        return cast("TrainingClient", reopened)

    config = CONFIG.model_copy(update=settings)
    directory = open_run(config, root=root)
    try:
        async with RolloutPool(2, groups_per_worker=2, open_worker=open_worker) as pool:
            loop = Loop(
                config,
                dataset=Numbers(),
                training=cast("TrainingClient", training),
                pool=pool,
                directory=directory,
                progress=Progress(Console(file=io.StringIO())),
                decode=lambda tokens: " ".join(map(str, tokens)),
                mode="local",
                penalty=penalty,
                reopen=reopen,
            )
            return await loop.run(), directory
    finally:
        directory.close()


def records(directory: RunDirectory) -> list[dict[str, object]]:
    names = {"reward", "accuracy", "entropy", "loss", "num_tokens", "num_constant_groups"}
    return [record.model_dump(include=names) for record in directory.steps()]


@pytest.mark.parametrize("settings", [{}, {"max_staleness": 0, "minibatches": 2}, {"substeps": 2}])
async def test_training_by_reference_is_training_by_value(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    near, far = FakeTraining(), FarTraining()
    expected, first = await run(tmp_path / "near", near, **settings)
    actual, second = await run(tmp_path / "far", far, far.store, **settings)
    assert [sorted(step) for step in near.steps()] == [sorted(step) for step in far.steps()]
    assert records(first) == records(second)
    assert (expected.accuracy_before, expected.accuracy_after) == (
        actual.accuracy_before,
        actual.accuracy_after,
    )


async def test_of_far_groups_only_those_that_are_shown_are_fetched(tmp_path: Path) -> None:
    training = FarTraining()
    _, directory = await run(tmp_path, training, training.store)
    assert len(training.store.kept) > STEPS * SIZE
    text = (directory.path / "rollouts" / "step-0001.txt").read_text()
    lines = text.splitlines()
    assert 8 * MAX_FETCHED == sum("->" in line for line in lines)
    assert 8 * (SIZE - MAX_FETCHED) == sum("in 1 turns, 1 tokens" in line for line in lines)
    num_shown = MAX_FETCHED * (STEPS + 2)  # with the evaluations before and after
    assert num_shown == len(training.store.fetched) == len(set(training.store.fetched))


@pytest.mark.parametrize("max_staleness", [None, 0])
async def test_a_group_is_kept_until_its_step_is_trained(
    tmp_path: Path, max_staleness: int | None
) -> None:
    training = FarTraining()
    await run(tmp_path, training, training.store, max_staleness=max_staleness)
    assert [SIZE] * STEPS == training.held
    assert len(training.store.handed_out) > STEPS * SIZE
    gc.collect()  # the pool is gone, which had the last evaluation
    assert 0 == training.store.num_held


async def test_a_client_that_takes_no_references_trains_by_value(tmp_path: Path) -> None:
    near, far, store = FakeTraining(), FakeTraining(), FakeStore()
    await run(tmp_path / "near", near)
    await run(tmp_path / "far", far, store)
    assert near.batches == far.batches


@pytest.mark.parametrize("max_staleness", [None, 1])
async def test_a_group_that_is_lost_on_its_way_is_dropped_with_a_reason(
    tmp_path: Path, max_staleness: int | None
) -> None:
    training = FarTraining(losing=(1, 4))  # the fifth group of the second step
    _, directory = await run(tmp_path, training, training.store, max_staleness=max_staleness)
    ended = directory.groups()
    dropped = {group.index: group.dropped for group in ended if group.dropped is not None}
    assert "infrastructure" == dropped[10]
    trained = [group.index for group in ended if group.dropped is None]
    assert STEPS * SIZE - 1 == len(trained) == len(set(trained) - set(dropped))
    assert all([1, 4] != tokens[:2] for batch in training.batches for tokens in batch)


class Losing(FarTraining):
    """Everything gets lost on its way from one version on."""

    def forward_backward_far(
        self, data: Sequence[AnyDatum], loss_fn: str, settings: Mapping[str, float] | None = None
    ) -> Awaitable[FarOutput]:
        if self.version < 2:
            return super().forward_backward_far(data, loss_fn, settings)
        lost = frozenset(item.group for item in data if isinstance(item, FarDatum))
        assert SIZE == len(lost)
        return self._far_output(asyncio.sleep(0), lost, 0)


@pytest.mark.parametrize("max_staleness", [None, 0])
async def test_a_step_that_lost_all_its_groups_is_taken_back(
    tmp_path: Path, max_staleness: int | None
) -> None:
    training = Losing()
    reopened = FarTraining(version=2, store=training.store)
    _, directory = await run(
        tmp_path, training, training.store, reopened=reopened, max_staleness=max_staleness
    )
    assert (3, 4) == (training.version, reopened.version)
    assert [1, 2, 3, 4] == [record.step for record in directory.steps()]
    trained = [group.index for group in directory.groups() if group.dropped is None]
    assert STEPS * SIZE == len(set(trained)) == len(trained)


async def test_a_group_that_is_lost_before_it_could_be_fetched_is_dropped_as_well(
    tmp_path: Path,
) -> None:
    store = FakeStore(losing=(0, 3))
    _, directory = await run(tmp_path, FakeTraining(), store, steps=1)
    [dropped] = [group for group in directory.groups() if group.dropped is not None]
    assert (3, "infrastructure") == (dropped.index, dropped.dropped)
    assert SIZE == len(directory.groups())


async def test_a_transcript_does_without_what_is_lost(tmp_path: Path) -> None:
    training = FarTraining()
    training.store.losing = (0, 1)
    _, directory = await run(tmp_path, training, training.store, steps=1)
    text = (directory.path / "rollouts" / "step-0001.txt").read_text()
    assert 8 * (MAX_FETCHED - 1) == sum("->" in line for line in text.splitlines())


class Even(Scorer):
    """Finds every token as likely as any other."""

    async def compute_logprobs_async(self, prompt: ModelInput, /) -> list[float | None]:
        return [None, *[-0.5] * (prompt.length - 1)]


async def test_a_penalty_is_computed_on_what_is_fetched(tmp_path: Path) -> None:
    near, far = FakeTraining(), FarTraining()
    penalty = ReferencePenalty(Even(), 0.1)
    await run(tmp_path / "near", near, penalty=penalty, steps=1)
    await run(tmp_path / "far", far, far.store, penalty=penalty, steps=1)
    assert near.batches == far.batches
    assert [] == far.sizes


async def test_users_loops_that_ask_for_trajectories_get_them() -> None:
    store = FakeStore()

    async def open_worker(_: Sampler, number: int) -> PoolWorker:
        del number
        return FarWorker(store)

    sampler = await FakeTraining().save_weights_and_get_sampling_client_async()
    builders = [CountingGroup([1, number], num_turns=2) for number in range(3)]
    async with RolloutPool(1, open_worker=open_worker) as pool:
        groups = [group async for group in pool.run(builders, sampler)]
    assert [True] * 3 == [group.is_far for group in groups]
    assert [2, 2] == [len(episode.transitions) for episode in groups[0].trajectories_G]
    assert [False, True, True] == [group.is_far for group in groups]
    advantages = [[1.0, -1.0]] * 3
    assert 6 == len(from_groups(groups, Advantages(advantages, 0)))
