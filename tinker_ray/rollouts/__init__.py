"""Rollouts: environments, episodes, groups, and the decisions about them; nothing here does I/O.

Knows nothing of Ray, HTTP or event loops. Invariant: every dispatched group ends exactly once.
"""

from tinker_ray.rollouts.account import Account
from tinker_ray.rollouts.advantage import Advantages, center
from tinker_ray.rollouts.dispatcher import Dispatcher
from tinker_ray.rollouts.env import (
    ActionExtra,
    Dataset,
    Env,
    EnvGroupBuilder,
    Overflow,
    StepResult,
    StopCondition,
)
from tinker_ray.rollouts.episode import run_episode
from tinker_ray.rollouts.failure import FailureKind, RolloutFailedError, RolloutsHaltedError
from tinker_ray.rollouts.group import run_group
from tinker_ray.rollouts.pacing import Pace, Pacing
from tinker_ray.rollouts.policy import (
    Policy,
    RolloutParams,
    Sampler,
    SamplerPolicy,
    derive_seed,
)
from tinker_ray.rollouts.quarantine import Quarantine
from tinker_ray.rollouts.retry import RetryBudget
from tinker_ray.rollouts.selection import Selection, SelectionAccount, Tally
from tinker_ray.rollouts.trajectory import (
    Action,
    Logs,
    Metrics,
    Observation,
    RolloutError,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
)
from tinker_ray.rollouts.worker import Attempt, AttemptId, RolloutWorker, Timeouts

__all__ = [
    "Account",
    "Action",
    "ActionExtra",
    "Advantages",
    "Attempt",
    "AttemptId",
    "Dataset",
    "Dispatcher",
    "Env",
    "EnvGroupBuilder",
    "FailureKind",
    "Logs",
    "Metrics",
    "Observation",
    "Overflow",
    "Pace",
    "Pacing",
    "Policy",
    "Quarantine",
    "RetryBudget",
    "RolloutError",
    "RolloutFailedError",
    "RolloutParams",
    "RolloutWorker",
    "RolloutsHaltedError",
    "Sampler",
    "SamplerPolicy",
    "Selection",
    "SelectionAccount",
    "StepResult",
    "StopCondition",
    "Tally",
    "Timeouts",
    "TokensWithLogprobs",
    "Trajectory",
    "TrajectoryGroup",
    "Transition",
    "center",
    "derive_seed",
    "run_episode",
    "run_group",
]
