"""Datasets of the Tinker cookbook for runs of ours.

Its environments and builders need no adapter; its datasets count batches, where ours count steps.
Knows nothing else of the cookbook. Invariant: a step's batch depends on the step alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import EnvGroupBuilder


class BatchedDataset(Protocol):
    """What is needed of an ``RLDataset``."""

    def get_batch(self, index: int, /) -> Sequence[EnvGroupBuilder]:
        """Return the groups of a batch."""
        ...

    def __len__(self) -> int:
        """Return how many batches there are."""
        ...


@dataclass(frozen=True)
class CookbookDataset:
    """A dataset to train on and, maybe, one to evaluate on.

    Attributes:
        train: Its batches are taken in turn, from the first again after the last.
        test: All of its batches are evaluated on; None evaluates on the first batch of ``train``.
    """

    train: BatchedDataset
    test: BatchedDataset | None = None

    def __post_init__(self) -> None:
        """Refuse a dataset without batches.

        Raises:
            ConfigurationError: There is nothing to train on.
        """
        if len(self.train) == 0:
            raise ConfigurationError(
                f"{type(self.train).__name__} has no batch: is its batch size above its problems?"
            )

    def batch(self, step: int) -> list[EnvGroupBuilder]:
        """Return the groups to train on at a step."""
        return list(self.train.get_batch(step % len(self.train)))

    def held_out(self) -> list[EnvGroupBuilder]:
        """Return the groups to evaluate on."""
        if self.test is None:
            return self.batch(0)
        return [
            builder for index in range(len(self.test)) for builder in self.test.get_batch(index)
        ]


def dataset_of(
    build: Callable[[], Awaitable[tuple[BatchedDataset, BatchedDataset | None]]],
) -> CookbookDataset:
    """Build what an ``RLDatasetBuilder`` builds.

    For the function that the setting ``environment`` of a run names::

        def dataset(config, tokenizer):
            return dataset_of(ArithmeticDatasetBuilder(batch_size=config.prompts_per_step, …))

    Raises:
        ConfigurationError: There is nothing to train on.
    """

    async def built() -> tuple[BatchedDataset, BatchedDataset | None]:
        return await build()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return CookbookDataset(*asyncio.run(built()))
    with ThreadPoolExecutor(1) as thread:  # this thread's loop runs, and waits
        return CookbookDataset(*thread.submit(asyncio.run, built()).result())
