"""What an environment allows its episode: turns, tokens, seconds.

Environments of the Tinker cookbook may carry an attribute ``rollout_limits``; who runs the episode
keeps to it. Knows nothing of clocks. Invariant: an episode that reaches a limit ends, with the
turns that it has and a reason; only a draw that takes too long is a failure.

Source: tinker_cookbook/rl/rollout_runner.py of the wheel tinker-cookbook 0.6.1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_TURNS = "max_turns"
MAX_TOKENS = "max_tokens"
MAX_SAMPLED_TOKENS = "max_sampled_tokens"
ROLLOUT_TIMEOUT = "rollout_timeout"

LEAST_TOKENS = 2
"""An action of one token is none: with less room than this, an episode ends before it draws."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of an episode; None is no limit.

    Attributes:
        turns: Actions at most.
        turn_tokens: Tokens of an action, at most.
        trajectory_tokens: Of an observation, with the action that follows.
        sampled_tokens: Of all actions together.
        episode_s: Seconds until the episode ends with the turns that it has.
        draw_s: Seconds that a draw may take.
    """

    turns: int | None = None
    turn_tokens: int | None = None
    trajectory_tokens: int | None = None
    sampled_tokens: int | None = None
    episode_s: float | None = None
    draw_s: float | None = None

    def exhausted(self, *, turns: int, observed: int, sampled: int) -> str | None:
        """Say why an episode ends before its next action, if it does.

        Args:
            turns: Actions so far.
            observed: Tokens of the observation.
            sampled: Tokens of all actions so far.
        """
        if self.turns is not None and turns >= self.turns:
            return MAX_TURNS
        if _room(self.trajectory_tokens, observed, LEAST_TOKENS) < LEAST_TOKENS:
            return MAX_TOKENS
        if _room(self.sampled_tokens, sampled, LEAST_TOKENS) < LEAST_TOKENS:
            return MAX_SAMPLED_TOKENS
        return None

    def action_tokens(self, *, observed: int, sampled: int) -> int | None:
        """Return how long the next action may be; None is as long as the rollout allows."""
        rooms = [
            limit - used
            for limit, used in (
                (self.turn_tokens, 0),
                (self.trajectory_tokens, observed),
                (self.sampled_tokens, sampled),
            )
            if limit is not None
        ]
        return min(rooms, default=None)


UNBOUNDED = Allowance()


def _room(limit: int | None, used: int, otherwise: int) -> int:
    return otherwise if limit is None else limit - used


def allowance_of(env: object) -> Allowance:
    """Read what an environment allows; without ``rollout_limits``, everything."""
    limits: Any = getattr(env, "rollout_limits", None)
    if limits is None:
        return UNBOUNDED
    return Allowance(
        turns=getattr(limits, "max_turns", None),
        turn_tokens=getattr(limits, "max_turn_tokens", None),
        trajectory_tokens=getattr(limits, "max_trajectory_tokens", None),
        sampled_tokens=getattr(limits, "max_sampled_tokens", None),
        episode_s=getattr(limits, "rollout_timeout_seconds", None),
        draw_s=getattr(limits, "sampling_turn_timeout_seconds", None),
    )


def tell_tool_calls(env: object) -> None:
    """Tell an environment its own limit of tool calls, which only it can keep to."""
    limit = getattr(getattr(env, "rollout_limits", None), "max_tool_calls", None)
    tell = getattr(env, "set_max_tool_calls", None)
    if limit is not None and callable(tell):
        tell(limit)
