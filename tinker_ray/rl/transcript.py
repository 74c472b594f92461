"""Readable transcripts of episodes: what was asked, what was answered, what it earned.

Knows nothing of tokenizers but how to decode. Invariants: text only; token ids are shown where
nothing can be decoded. Of groups that are elsewhere few are fetched, and none by writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tinker_ray.rollouts import RolloutFailedError, Trajectory, TrajectoryGroup
from tinker_ray.rollouts.summary import EpisodeSummary

MAX_FETCHED = 2
"""Groups of a transcript that are fetched for it; of others it has the numbers."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One turn in words."""

    prompt: str
    answer: str
    reward: float

    def __str__(self) -> str:
        """Show the turn on one line."""
        return f"{self.reward:5.2f}  {self.prompt!r} -> {self.answer!r}"


def excerpt(trajectory: Trajectory, reward: float, decode: Decode) -> Excerpt:
    """Show the last turn of an episode and the return of the whole."""
    last = trajectory.transitions[-1]
    return Excerpt(decode(last.ob.to_ints()), decode(last.ac.tokens), reward)


def first_of_each(groups: Iterable[TrajectoryGroup], decode: Decode, count: int) -> list[Excerpt]:
    """Show the first episode of each of the first groups; fetches nothing."""
    near = (group for group in groups if not group.is_far)
    return [
        excerpt(group.trajectories_G[0], group.get_total_rewards()[0], decode)
        for group, _ in zip(near, range(count), strict=False)
        if group.trajectories_G
    ]


async def fetch_shown(groups: Iterable[TrajectoryGroup]) -> None:
    """Fetch those of a batch that are to be shown in full, as far as they are not lost."""
    far = [group for group in groups if group.is_far]
    for group in far[:MAX_FETCHED]:
        with suppress(RolloutFailedError):
            await group.fetch()


def render(title: str, groups: Iterable[TrajectoryGroup], decode: Decode) -> str:
    """Write a batch, group by group and turn by turn; far groups in numbers."""
    lines = [f"# {title}"]
    for number, group in enumerate(groups):
        rewards = group.get_total_rewards()
        mean = sum(rewards) / max(1, len(rewards))
        lines += ["", f"## group {number}: {len(rewards)} episodes, mean reward {mean:.2f}"]
        if group.is_far:
            lines += [_line(*pair) for pair in zip(group.episodes(), rewards, strict=True)]
            continue
        for trajectory, reward in zip(group.trajectories_G, rewards, strict=True):
            lines += _turns(trajectory, reward, decode)
    return "\n".join(lines) + "\n"


def _line(episode: EpisodeSummary, reward: float) -> str:
    return f"{reward:5.2f}  in {episode.turns} turns, {episode.tokens} tokens"


def _turns(trajectory: Trajectory, reward: float, decode: Decode) -> list[str]:
    if len(trajectory.transitions) == 1:
        return [str(excerpt(trajectory, reward, decode))]
    lines = [f"{reward:5.2f}  in {len(trajectory.transitions)} turns"]
    for turn in trajectory.transitions:
        shown = Excerpt(decode(turn.ob.to_ints()), decode(turn.ac.tokens), turn.reward)
        lines.append(f"       {shown}")
    return lines
