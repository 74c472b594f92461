"""Account of selection: what training gets to see of the rollouts, and what was cut away.

A cut is never neutral: a time limit favours short answers, early stop the quick groups. So lengths
and rewards of what was cut are kept beside those of what was kept. Knows nothing of why groups are
cut. Invariant: each group is counted once, kept or under one reason, and the memory it takes does
not grow with the number of groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tinker_ray.rollouts.trajectory import TrajectoryGroup

CONSTANT: Final = "constant"
"""Delivered groups whose rewards are all the same: they have no advantage and teach nothing."""


@dataclass(slots=True)
class Tally:
    """Sums over groups.

    Groups that were cancelled or failed have left no trajectories; they count in ``groups`` and
    ``seconds`` only, and the means are over the episodes that there are.

    Attributes:
        groups: How many.
        seconds: From their start to their end, added up.
        episodes: Whose trajectories are known.
        failed_episodes: Left out of groups that were delivered without them.
        turns: Of the episodes.
        tokens: Of their actions.
        reward: Of the episodes, added up.
    """

    groups: int = 0
    seconds: float = 0.0
    episodes: int = 0
    failed_episodes: int = 0
    turns: int = 0
    tokens: int = 0
    reward: float = 0.0

    @property
    def mean_reward(self) -> float | None:
        """Reward of an episode."""
        return self.reward / self.episodes if self.episodes else None

    @property
    def mean_tokens(self) -> float | None:
        """Tokens of an episode."""
        return self.tokens / self.episodes if self.episodes else None

    @property
    def mean_turns(self) -> float | None:
        """Turns of an episode."""
        return self.turns / self.episodes if self.episodes else None

    @property
    def mean_seconds(self) -> float | None:
        """Seconds of a group."""
        return self.seconds / self.groups if self.groups else None

    def add(self, group: TrajectoryGroup | None, seconds: float) -> None:
        """Count a group; None if nothing is left of it."""
        self.groups += 1
        self.seconds += seconds
        if group is None:
            return
        self.failed_episodes += group.num_failed
        rewards_G = group.get_total_rewards()
        self.episodes += len(rewards_G)
        self.reward += sum(rewards_G)
        for turns, tokens in group.sizes():
            self.turns += turns
            self.tokens += tokens


@dataclass(slots=True)
class SelectionAccount:
    """What was kept and what was cut in some span of a run, such as a step.

    Attributes:
        kept: Delivered groups whose rewards differ.
        cut: The others, by reason; those under ``constant`` were delivered as well.
    """

    kept: Tally = field(default_factory=Tally)
    cut: dict[str, Tally] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Write it as numbers for a log, such as ``cut/stale/groups``; unknown means are absent."""
        numbers: dict[str, float] = {}
        for name, tally in [("kept", self.kept), *((f"cut/{r}", t) for r, t in self.cut.items())]:
            numbers[f"{name}/groups"] = tally.groups
            for quantity in ("reward", "tokens", "turns", "seconds"):
                mean: float | None = getattr(tally, f"mean_{quantity}")
                if mean is not None:
                    numbers[f"{name}/{quantity}"] = mean
        return numbers


class Selection:
    """Counts the groups of a run."""

    def __init__(self) -> None:
        self._account = SelectionAccount()

    def __repr__(self) -> str:
        """Show the open account."""
        return f"Selection({self._account})"

    def deliver(self, group: TrajectoryGroup, seconds: float) -> None:
        """Count a group that the consumer gets."""
        if is_constant(group):
            self._cut(CONSTANT).add(group, seconds)
        else:
            self._account.kept.add(group, seconds)

    def cut(self, reason: str, group: TrajectoryGroup | None, seconds: float) -> None:
        """Count a group that the consumer does not get."""
        self._cut(reason).add(group, seconds)

    def take(self) -> SelectionAccount:
        """Close the account, and begin the next."""
        account, self._account = self._account, SelectionAccount()
        return account

    def _cut(self, reason: str) -> Tally:
        return self._account.cut.setdefault(reason, Tally())


def is_constant(group: TrajectoryGroup) -> bool:
    """Whether all episodes of a group have the same reward."""
    return len(set(group.get_total_rewards())) <= 1
