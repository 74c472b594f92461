from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from tests.fakes.environment import CountingGroup
from tinker_ray.environments.cookbook import CookbookDataset, dataset_of
from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import EnvGroupBuilder


@dataclass
class Batches:
    """A dataset as the cookbook has them: batch ``i`` holds two groups, ``[i, 0]`` first."""

    count: int
    first: int = 0

    def get_batch(self, index: int) -> list[EnvGroupBuilder]:
        assert index < self.count
        return [CountingGroup([self.first + index, place]) for place in range(2)]

    def __len__(self) -> int:
        return self.count


@dataclass
class Builder:
    """A builder of datasets, called as a coroutine."""

    with_test: bool = True

    async def __call__(self) -> tuple[Batches, Batches | None]:
        return Batches(2), Batches(2, first=10) if self.with_test else None


def prompts(groups: list[EnvGroupBuilder]) -> list[list[int]]:
    return [group.prompt for group in groups if isinstance(group, CountingGroup)]


def test_batches_are_taken_in_turn_and_all_test_batches_are_held_out() -> None:
    dataset = dataset_of(Builder())
    assert [[[0, 0], [0, 1]], [[1, 0], [1, 1]], [[0, 0], [0, 1]]] == [
        prompts(dataset.batch(step)) for step in range(3)
    ]
    assert [[10, 0], [10, 1], [11, 0], [11, 1]] == prompts(dataset.held_out())


def test_without_a_test_dataset_the_first_batch_is_evaluated_on() -> None:
    assert [[0, 0], [0, 1]] == prompts(dataset_of(Builder(with_test=False)).held_out())


def test_a_dataset_is_built_where_a_loop_runs_too() -> None:
    async def inside() -> CookbookDataset:
        return dataset_of(Builder())

    assert [[1, 0], [1, 1]] == prompts(asyncio.run(inside()).batch(1))


def test_a_dataset_without_a_batch_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Batches has no batch"):
        CookbookDataset(Batches(0))
