"""Rollouts into a training batch on a cluster, and what each group costs: a process of its own.

    python -m tests.bench.far_load BASE_URL [--tokens N] [--far-bytes N] [--groups N]

Groups of 8 episodes of one turn are run, trained on in batches of 8 groups, and let go. Half of an
episode's tokens are its prompt. ``--far-bytes -1`` sends everything by value. What came before
(imports, opening, a first batch) does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tinker_ray
from tests.bench.sample_load import BASE_MODEL, actor_pids, cpu_seconds
from tinker_ray.rl.config import RunConfig
from tinker_ray.rl.update import Updater
from tinker_ray.rollouts import RolloutParams, StepResult
from tinker_ray.types import ModelInput

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tinker_ray.clients.sampling import SamplingClient
    from tinker_ray.clients.training import TrainingClient
    from tinker_ray.rl.outcome import FinishedGroup

EPISODES = 8
BATCH = 8


class OneTurn:
    """Shows a long prompt and takes one answer."""

    def __init__(self, prompt: list[int]) -> None:
        self._prompt = prompt

    async def initial_observation(self) -> Any:  # noqa: ANN401
        """Show the prompt."""
        return ModelInput.from_ints(self._prompt), None

    async def step(self, action: list[int]) -> StepResult:
        """End the episode."""
        del action
        return StepResult(0.0, True, ModelInput.empty(), None)  # noqa: FBT003


@dataclass(frozen=True)
class Group:
    """Builds a group of episodes that earn different rewards."""

    number: int
    num_tokens: int

    async def make_envs(self) -> Sequence[Any]:
        """Make the environments."""
        prompt = list(range(self.number, self.number + self.num_tokens // 2))
        return [OneTurn(prompt) for _ in range(EPISODES)]

    async def compute_group_rewards(self, trajectories: Any, _: Any) -> Any:  # noqa: ANN401
        """Reward by place."""
        return [(float(place), {}) for place, _ in enumerate(trajectories)]

    def logging_tags(self) -> list[str]:
        """Name no tags."""
        return []

    async def cleanup(self) -> None:
        """Leave nothing behind."""


async def run(
    training: TrainingClient,
    sampler: SamplingClient,
    far_bytes: int | None,
    num_tokens: int,
    groups: int,
) -> dict[str, float]:
    """Run and train on groups, the first batch to warm up."""
    updater = Updater(RunConfig(prompts_per_step=BATCH), training)
    params = RolloutParams(max_tokens=num_tokens - num_tokens // 2)
    builders = [Group(number, num_tokens) for number in range(BATCH + groups)]
    own_s = all_s = began_s = 0.0
    pids: set[int] = set()
    async with tinker_ray.RolloutPool(2, groups_per_worker=4, far_bytes=far_bytes) as pool:
        stream = pool.run(builders, sampler, params)
        for step in range(len(builders) // BATCH):
            if step == 1:
                pids = actor_pids()
                own_s, all_s = time.process_time(), cpu_seconds(pids)
                began_s = time.perf_counter()
            update = await updater.train(step, _next(stream, BATCH), BATCH)
            assert len(update.groups) == BATCH
            del update
        own_s, all_s = time.process_time() - own_s, cpu_seconds(pids) - all_s
        seconds = time.perf_counter() - began_s
        await stream.aclose()
    return {
        "driver_cpu_ms": 1e3 * own_s / groups,
        "all_cpu_ms": 1e3 * all_s / groups,
        "seconds_per_group": seconds / groups,
    }


async def _next(stream: Any, count: int) -> AsyncIterator[FinishedGroup]:  # noqa: ANN401
    for _ in range(count):
        yield await anext(stream)


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--far-bytes", type=int, default=-1)
    parser.add_argument("--groups", type=int, default=48)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ |= {"TINKER_API_KEY": "tml-bench", "TINKER_TELEMETRY": "0"}
    tinker_ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    with tinker_ray.ServiceClient(base_url=options.base_url) as service:
        training = service.create_lora_training_client(BASE_MODEL)
        sampler = service.create_sampling_client(base_model=BASE_MODEL)
        far_bytes = None if options.far_bytes < 0 else options.far_bytes
        report = asyncio.run(run(training, sampler, far_bytes, options.tokens, options.groups))
    tinker_ray.shutdown()
    print(json.dumps(report), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
