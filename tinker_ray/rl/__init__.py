"""Reinforcement learning: the pool of rollout workers, the loop, and what a run leaves behind.

What a researcher calls. Nothing here is imported by the clients; ``RolloutPool`` works without the
loop.
"""

from tinker_ray.rl.config import RunConfig, load
from tinker_ray.rl.outcome import DroppedGroup, FinishedGroup
from tinker_ray.rl.policy import LivePolicy
from tinker_ray.rl.pool import RolloutPool
from tinker_ray.rl.worker import LocalWorker

__all__ = [
    "DroppedGroup",
    "FinishedGroup",
    "LivePolicy",
    "LocalWorker",
    "RolloutPool",
    "RunConfig",
    "load",
]
