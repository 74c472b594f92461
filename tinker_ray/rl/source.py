"""Where the groups of each step come from: batch by batch, or as a stream that goes on meanwhile.

Knows the pool and the dataset, nothing of training. Invariants: a group's number decides its
problem and its seed, so that both sources, and a run that is gone on with, draw the same groups;
each number is trained on, or dropped, once.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

from tinker_ray.errors import ConfigurationError
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.outcome import DroppedGroup, FinishedGroup
from tinker_ray.rl.policy import LivePolicy
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.record import GroupRecord
from tinker_ray.rollouts import (
    Account,
    Dataset,
    EnvGroupBuilder,
    Pacing,
    RolloutFailedError,
    RolloutParams,
    Sampler,
    Selection,
    derive_seed,
)
from tinker_ray.rollouts.event import kind_of
from tinker_ray.rollouts.failure import LOST
from tinker_ray.rollouts.quarantine import key_of

MIN_DROPS: Final = 32
DROPS_PER_GROUP: Final = 4
"""Failed groups in a row, for each group of a step, that end a stream: what takes their place fails
as well."""


class GroupSource(Protocol):
    """Gives each step its groups."""

    @property
    def ledger(self) -> StepLedger:
        """What became of the groups of the step."""
        ...

    @property
    def groups_per_step(self) -> int:
        """Groups that a step asks for."""
        ...

    def groups(self, step: int) -> AsyncGenerator[FinishedGroup]:
        """Yield the groups of a step, counted from 0, in the order in which they are finished."""
        ...

    def publish(self, sampler: Sampler, version: int) -> None:
        """Draw groups that start from now on with new weights."""
        ...

    async def aclose(self) -> None:
        """Cancel what is under way; idempotent."""
        ...


@dataclass
class StepLedger:
    """Keeps account of the groups of one step after the other.

    Attributes:
        selection: What was kept and what was cut in the step.
        account: Of the run of the pool that the groups come from.
    """

    selection: Selection = field(default_factory=Selection)
    account: Account = field(default_factory=Account)
    _keys: dict[int, str | None] = field(default_factory=dict)
    _trained: list[FinishedGroup] = field(default_factory=list)
    _dropped: list[DroppedGroup] = field(default_factory=list)

    def offer(self, index: int, builder: EnvGroupBuilder) -> EnvGroupBuilder:
        """Note a group that is about to run: its builder may keep something of its run."""
        self._keys[index] = key_of(builder)
        return builder

    def deliver(self, group: FinishedGroup) -> FinishedGroup:
        """Note a group that is trained on."""
        self._trained.append(group)
        self.selection.deliver(group, group.seconds)
        return group

    def drop(self, group: DroppedGroup) -> None:
        """Note a group that will not come."""
        self._dropped.append(group)
        self.selection.cut(group.reason, None, group.seconds)

    def lose(self, group: FinishedGroup) -> None:
        """Note that a group that was delivered was not trained on after all."""
        self._trained = [trained for trained in self._trained if trained.index != group.index]
        attempts = group.attempt + 1
        self._dropped.append(
            DroppedGroup(group.index, "infrastructure", LOST, attempts, group.seconds)
        )

    def require_groups(self) -> None:
        """Refuse a step without groups.

        Raises:
            RolloutFailedError: None came; says why the first did not.
        """
        if not self._trained:
            self.fail()

    def fail(self) -> NoReturn:
        """End the run for want of groups.

        Raises:
            RolloutFailedError: None came; says why the first did not.
        """
        if not self._dropped:
            raise ConfigurationError("the dataset has no groups for this step")
        first = self._dropped[0]
        raise RolloutFailedError(
            kind=kind_of(first.reason), stage="every rollout", detail=first.detail
        )

    def close(self, step: int) -> list[GroupRecord]:
        """Write down how the groups of a step ended, and begin the next."""
        trained, self._trained = sorted(self._trained, key=lambda group: group.index), []
        dropped, self._dropped = self._dropped, []
        return [
            *(
                GroupRecord(
                    step=step + 1,
                    index=group.index,
                    key=self._keys.pop(group.index),
                    attempt=group.attempt,
                    version=group.version,
                )
                for group in trained
            ),
            *(
                GroupRecord(
                    step=step + 1,
                    index=group.index,
                    key=self._keys.pop(group.index),
                    attempt=group.attempts,
                    dropped=group.reason,
                )
                for group in dropped
            ),
        ]


class BatchSource:
    """The synchronous way: the groups of a step start when the step begins, with its weights."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, pool: RolloutPool, policy: LivePolicy
    ) -> None:
        self.ledger = StepLedger()
        self.groups_per_step = len(dataset.batch(0))
        self._dataset = dataset
        self._pool = pool
        self._policy = policy
        self._params = rollout_params(config)

    async def groups(self, step: int) -> AsyncGenerator[FinishedGroup]:
        """Run the groups of the step."""
        builders = self._dataset.batch(step)
        first = step * self.groups_per_step
        for number, builder in enumerate(builders):
            self.ledger.offer(first + number, builder)
        self.ledger.account = Account()
        async for group in self._pool.run(
            builders,
            self._policy,
            self._params,
            first_index=first,
            on_drop=self.ledger.drop,
            account=self.ledger.account,
        ):
            yield self.ledger.deliver(group)

    def publish(self, sampler: Sampler, version: int) -> None:
        """Draw the next step with new weights."""
        self._policy.publish(sampler, version)

    async def aclose(self) -> None:
        """Nothing is under way between steps."""


class StreamSource:
    """The asynchronous way: groups start as soon as they cannot become too stale any more.

    Args:
        config: The settings; ``max_staleness`` is not None.
        dataset: The problems; each step has the same number of them.
        pool: Where groups run.
        policy: The newest weights.
        ended: What became of groups before, in a run that is gone on with.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        pool: RolloutPool,
        policy: LivePolicy,
        ended: Sequence[GroupRecord] = (),
    ) -> None:
        self.ledger = StepLedger()
        self.groups_per_step = len(dataset.batch(0))
        self._dataset = dataset
        self._pool = pool
        self._policy = policy
        self._batch: tuple[int, Sequence[EnvGroupBuilder]] = (-1, ())
        self._drops_in_a_row = 0
        ended_before = {record.index for record in ended}
        dropped = sum(record.dropped is not None for record in ended)
        self._end = config.steps * self.groups_per_step + dropped
        self._stream = pool.run(
            self._builders(ended_before),
            policy,
            rollout_params(config),
            pacing=Pacing(self.groups_per_step, config.max_staleness or 0, config.oversample),
            indices=_without(ended_before),
            on_drop=self._drop,
            account=self.ledger.account,
        )

    async def groups(self, step: int) -> AsyncGenerator[FinishedGroup]:
        """Take the next groups of the stream; fewer only where it ends."""
        del step
        for _ in range(self.groups_per_step):
            group = await anext(self._stream, None)
            if group is None:
                return
            self._drops_in_a_row = 0
            yield self.ledger.deliver(group)

    def publish(self, sampler: Sampler, version: int) -> None:
        """Draw what starts from now on with new weights; more may start."""
        self._policy.publish(sampler, version)

    async def aclose(self) -> None:
        """Cancel what is under way."""
        await self._stream.aclose()

    def _builders(self, ended: Collection[int]) -> Iterator[EnvGroupBuilder]:
        for index in _without(ended):
            if index >= self._end:
                return
            if self._drops_in_a_row >= max(MIN_DROPS, DROPS_PER_GROUP * self.groups_per_step):
                self.ledger.fail()
            yield self.ledger.offer(index, self._builder(index))

    def _builder(self, index: int) -> EnvGroupBuilder:
        step, place = divmod(index, self.groups_per_step)
        if self._batch[0] != step:
            self._batch = (step, self._dataset.batch(step))
            if len(self._batch[1]) != self.groups_per_step:
                raise ConfigurationError(
                    f"the dataset has {len(self._batch[1])} groups for step {step + 1}, but "
                    f"{self.groups_per_step} for the first: with max_staleness all need as many"
                )
        return self._batch[1][place]

    def _drop(self, group: DroppedGroup) -> None:
        if group.reason == "halted":
            return  # it has not ended: whoever goes on with the run runs it again
        if group.reason not in {"cancelled", "drained"}:
            self._end += 1  # another one takes its place
            self._drops_in_a_row += group.reason not in {"stale", "oversampled"}
        self.ledger.drop(group)


def rollout_params(config: RunConfig) -> RolloutParams:
    """Say how training episodes are drawn."""
    return RolloutParams(
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        seed=derive_seed(config.seed, "rollout"),
    )


def _without(ended: Collection[int]) -> Iterator[int]:
    return (index for index in itertools.count() if index not in ended)
