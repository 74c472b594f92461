"""The course of an episode: the turns so far, what is observed now, and how it ends.

Knows nothing of who draws or answers. Invariant: a course that has ended has a last turn that says
so, even if no turn was taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinker_ray.rollouts.allowance import UNBOUNDED, Allowance
from tinker_ray.rollouts.trajectory import (
    Metrics,
    Observation,
    TokensWithLogprobs,
    Trajectory,
    Transition,
)
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from tinker_ray.rollouts.env import Overflow, StepResult, StopCondition

STOP_METRIC = "stop/"
"""Begins the metric by which an environment says why an episode ended: ``stop/max_turns``."""
CUT_METRIC = "num_truncations_max_turn_tokens"
"""Counts the actions that were cut off without an end of the episode; the cookbook's name."""


@dataclass(slots=True)
class Course:
    """An episode that is under way.

    Attributes:
        observation: What is observed now.
        stop: Where the next action stops.
        allowance: The environment's own limits.
        transitions: The turns so far.
    """

    observation: Observation
    stop: StopCondition
    allowance: Allowance = UNBOUNDED
    transitions: list[Transition] = field(default_factory=list)
    _sampled: int = 0
    _num_cut: int = 0

    @property
    def limit_reached(self) -> str | None:
        """Why the episode ends before its next action; None if it does not."""
        if self.allowance is UNBOUNDED:
            return None
        return self.allowance.exhausted(
            turns=len(self.transitions), observed=self.observation.length, sampled=self._sampled
        )

    @property
    def action_tokens(self) -> int | None:
        """How long the next action may be; None is as long as the rollout allows."""
        if self.allowance is UNBOUNDED:
            return None
        return self.allowance.action_tokens(observed=self.observation.length, sampled=self._sampled)

    def take(self, action: TokensWithLogprobs, result: StepResult) -> None:
        """Add a turn."""
        self.transitions.append(
            Transition(
                ob=self.observation,
                ac=action,
                reward=result.reward,
                episode_done=result.episode_done,
                metrics=result.metrics,
                logs=result.logs,
            )
        )
        self.observation, self.stop = result.next_observation, result.next_stop_condition
        self._sampled += len(action.tokens)
        self._num_cut += action.stop_reason == "length" and not result.episode_done

    def ended(self) -> Trajectory:
        """End where the environment ended it."""
        metrics = self.transitions[-1].metrics
        return self._trajectory(stop_reason(metrics))

    def cut_short(self, reason: str) -> Trajectory:
        """End at a limit, with the turns that there are."""
        if not self.transitions:
            self.transitions.append(_nothing(0.0, {}))
        last = self.transitions[-1]
        kept = {
            name: value for name, value in last.metrics.items() if not name.startswith(STOP_METRIC)
        }
        metrics = {**kept, f"{STOP_METRIC}{reason}": 1.0}
        self.transitions[-1] = replace(last, episode_done=True, metrics=metrics)
        return self._trajectory(reason)

    def _trajectory(self, reason: str | None) -> Trajectory:
        if self._num_cut:
            self.transitions[-1].metrics[CUT_METRIC] = float(self._num_cut)
        return Trajectory(self.transitions, self.observation, reason)


def stop_reason(metrics: Metrics) -> str | None:
    """Read from a turn's metrics why the episode ended."""
    found = (name.removeprefix(STOP_METRIC) for name in metrics if name.startswith(STOP_METRIC))
    return next(found, None)


def without_a_turn(overflow: Overflow) -> Trajectory:
    """Make the trajectory of an episode whose first prompt would have been too long."""
    end = replace(_nothing(overflow.reward, overflow.metrics), logs=overflow.logs)
    return Trajectory([end], ModelInput.empty(), stop_reason(overflow.metrics))


def _nothing(reward: float, metrics: Metrics) -> Transition:
    """Make a turn without tokens: it earns, but nothing is learnt from it."""
    return Transition(
        ob=ModelInput.empty(),
        ac=TokensWithLogprobs([], []),
        reward=reward,
        episode_done=True,
        metrics=metrics,
    )
