"""What users implement: environments and builders of groups of environments.

Structurally the protocols of the Tinker cookbook: subclass them or only have the same methods.
Where the protocols say ``async def``, a plain ``def`` will do as well: it may block, because it
runs in a thread of the worker. Knows nothing of workers or samplers. Invariant: an environment
lives for one episode; a retry builds new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.rollouts.trajectory import Action, Logs, Metrics, Observation, Trajectory
    from tinker_ray.types import StopReason

StopCondition: TypeAlias = list[str] | list[int] | None
"""Stop strings or stop tokens of the next action; None leaves only the model's end of sequence."""


class ActionExtra(TypedDict, total=False):
    """What an environment may be told of an action beside its tokens.

    Attributes:
        stop_reason: ``length`` if the action was cut off by its limit.
    """

    stop_reason: StopReason


@dataclass
class StepResult:
    """What an environment answers to an action.

    Attributes:
        reward: The reward of this step.
        episode_done: Whether the episode ends here; then the next observation only describes the
            end.
        next_observation: The prompt of the next action.
        next_stop_condition: Where the next action stops.
        metrics: Numbers to average over the run.
        logs: Words for people, kept with the transcript.
    """

    reward: float
    episode_done: bool
    next_observation: Observation
    next_stop_condition: StopCondition
    metrics: Metrics = field(default_factory=dict)
    logs: Logs = field(default_factory=dict)


class Overflow(Protocol):
    """What an environment begins with whose prompt is too long: the episode ends unacted.

    Attributes:
        reward: What it earns.
        metrics: As those of a step.
        logs: As those of a step.
    """

    reward: float
    metrics: Metrics
    logs: Logs


Start: TypeAlias = "tuple[Observation, StopCondition] | Overflow"
"""The first prompt and where its answer stops; or no prompt, and the end of the episode."""


@runtime_checkable
class Env(Protocol):
    """A stateful environment for one agent and one episode.

    A ``step`` that has a parameter ``extra`` is told more of the action (:class:`ActionExtra`); an
    ``initial_observation`` may return an :class:`Overflow`. If there is a method ``cleanup`` or
    else ``close``, it is called when the group has been graded, or has failed.
    """

    async def initial_observation(self) -> tuple[Observation, StopCondition]:
        """Return the first prompt and where its answer stops."""
        ...

    async def step(self, action: Action) -> StepResult:
        """Take the sampled tokens and answer with a reward and the next prompt."""
        ...


@runtime_checkable
class EnvGroupBuilder(Protocol):
    """Makes the environments of one group, whose returns are compared with one another.

    A builder travels to the worker that runs the group: it holds plain values and pickles. If it
    has a method ``cleanup``, that is called after the group, whatever became of it.
    """

    async def make_envs(self) -> Sequence[Env]:
        """Return fresh environments, one per trajectory."""
        ...

    async def compute_group_rewards(
        self,
        trajectory_group: list[Trajectory],
        env_group: Sequence[Env],  # noqa: ARG002 - part of the protocol
    ) -> list[tuple[float, Metrics]]:
        """Return a final reward and metrics per trajectory; by default nothing is added."""
        return [(0.0, {}) for _ in trajectory_group]

    def logging_tags(self) -> list[str]:
        """Return names under which the metrics of such groups are gathered."""
        return []


class Dataset(Protocol):
    """The problems of a run, a pure function of the step: the step number is its whole cursor."""

    def batch(self, step: int) -> Sequence[EnvGroupBuilder]:
        """Return the groups to train on at a step."""
        ...

    def held_out(self) -> Sequence[EnvGroupBuilder]:
        """Return the groups to evaluate on; the same ones at each call."""
        ...
