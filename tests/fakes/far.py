"""Far groups in this process: a store that counts, and can lose things."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.rollouts import (
    RolloutFailedError,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
)
from tinker_ray.rollouts.far import FarTrajectories, divided
from tinker_ray.rollouts.packing import PackedGroup
from tinker_ray.rollouts.summary import GroupSummary
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class FakeStore:
    """Keeps packed groups by number.

    Attributes:
        kept: The groups; what is missing is lost.
        fetched: The numbers that were asked for.
        losing: The first two tokens of groups that cannot be fetched.
        handed_out: References, as long as somebody has them.
    """

    kept: dict[int, PackedGroup] = field(default_factory=dict)
    fetched: list[int] = field(default_factory=list)
    losing: tuple[int, ...] = ()
    handed_out: list[weakref.ref[FakeReference]] = field(default_factory=list)
    _num_kept: int = 0

    @property
    def num_held(self) -> int:
        """How many references somebody has."""
        return sum(reference() is not None for reference in self.handed_out)

    def far(self, group: TrajectoryGroup) -> TrajectoryGroup:
        """Keep a group's trajectories here, however few they are."""
        summary, packed = divided(group, far_bytes=1)
        assert isinstance(summary, GroupSummary), "such a group cannot be far"
        assert packed is not None
        number, self._num_kept = self._num_kept, self._num_kept + 1
        self.kept[number] = packed
        reference = FakeReference(self, number)
        self.handed_out.append(weakref.ref(reference))
        return FarTrajectories(summary, reference).group()


@dataclass(frozen=True)
class FakeReference:
    """A place in a fake store."""

    store: FakeStore
    number: int

    def fetch(self) -> PackedGroup:
        self.store.fetched.append(self.number)
        packed = self.store.kept.get(self.number)
        if packed is None or tuple(packed.tokens[:2]) == self.store.losing:
            raise RolloutFailedError(kind="infrastructure", stage="fetch", detail="it is lost")
        return packed

    async def fetch_async(self) -> PackedGroup:
        return self.fetch()


def episode(*rewards: float, prompt: Sequence[int] = (1, 2), num_tokens: int = 3) -> Trajectory:
    """An episode of as many turns as there are rewards, each of which extends the one before."""
    history, turns = list(prompt), []
    for number, reward in enumerate(rewards):
        action = [10 * number + token for token in range(num_tokens)]
        logprobs = [-0.25 * (token + 1) for token in range(num_tokens)]
        observation = ModelInput.from_ints(list(history))
        drawn = TokensWithLogprobs(action, logprobs)
        done = number + 1 == len(rewards)
        turns.append(Transition(observation, drawn, reward, done, {"correct": reward > 0}))
        history += [*action, 100 + number]
    return Trajectory(turns, ModelInput.from_ints(history))


def group_of(*trajectories: Trajectory, bonus: float = 0.0) -> TrajectoryGroup:
    """A group that earned nothing but what its steps earned, and a bonus."""
    count = len(trajectories)
    return TrajectoryGroup(list(trajectories), [bonus] * count, [{"members": count}] * count)
