"""Runs rollouts against a service with one contender and says how fast: a process of its own.

    PYTHON -m tests.bench.rollout_load BASE_URL --contender NAME [--rollouts N] [--cpu-ms MS]

``upstream`` is a plain asyncio loop over ``import tinker``: each rollout a task of one loop.
``pool`` is this package's RolloutPool on a cluster, ``local`` the same in one process. What came
before (imports, opening, a first pass of one turn) does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.bench.rollout_env import AsyncEnv, PlainEnv, Work
from tests.bench.sample_load import BASE_MODEL, actor_pids, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_TOKENS = 32


@dataclass(frozen=True)
class Group:
    """A builder of one group, as users write them.

    Attributes:
        first: The number of its first environment.
        size: How many.
        work: Of each step.
    """

    first: int
    size: int
    work: Work

    async def make_envs(self) -> Sequence[Any]:
        """Make the environments; those that block have plain methods."""
        make = importlib.import_module("tinker_ray").ModelInput.from_ints
        kind = PlainEnv if self.work.blocked_s else AsyncEnv
        return [kind(self.first + number, self.work, make) for number in range(self.size)]

    async def compute_group_rewards(self, trajectories: Any, _: Any) -> Any:  # noqa: ANN401
        """Add nothing."""
        return [(0.0, {}) for _ in trajectories]

    def logging_tags(self) -> list[str]:
        """Name no tags."""
        return []


class PlainLoop:
    """The loop that everybody writes first."""

    def __init__(self, base_url: str) -> None:
        self._tinker = importlib.import_module("tinker")
        service = self._tinker.ServiceClient(base_url=base_url)
        self._sampler = service.create_sampling_client(base_model=BASE_MODEL)
        self._params = self._tinker.SamplingParams(max_tokens=MAX_TOKENS)

    async def run(self, rollouts: int, work: Work) -> list[float]:
        """Run all rollouts at once; return the latency of each turn in seconds."""
        make = self._tinker.ModelInput.from_ints
        episodes = (self._episode(AsyncEnv(number, work, make)) for number in range(rollouts))
        return [latency for found in await asyncio.gather(*episodes) for latency in found]

    async def _episode(self, env: AsyncEnv) -> list[float]:
        prompt, _ = await env.initial_observation()
        latencies = []
        while True:
            response = await self._sampler.sample_async(prompt, 1, self._params)
            step = await env.step(response.sequences[0].tokens)
            latencies.append(step.metrics["turn_s"])
            if step.episode_done:
                return latencies
            prompt = step.next_observation

    async def close(self) -> None:
        """Leave everything to the end of the process."""


class Pool:
    """This package's pool, with what it does by default unless told otherwise."""

    def __init__(self, base_url: str, mode: str, group_size: int, options: dict[str, Any]) -> None:
        os.environ["TINKER_RAY_MODE"] = mode
        tinker = importlib.import_module("tinker_ray")
        if mode == "cluster":
            tinker.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        self._service = tinker.ServiceClient(base_url=base_url)
        self._sampler = self._service.create_sampling_client(base_model=BASE_MODEL)
        self._params = importlib.import_module("tinker_ray.rollouts").RolloutParams(MAX_TOKENS)
        self._pool = tinker.RolloutPool(**options)
        self._group_size = group_size
        self._is_open = False

    async def run(self, rollouts: int, work: Work) -> list[float]:
        """Run all rollouts in groups; return the latency of each turn in seconds."""
        if not self._is_open:
            await self._pool.__aenter__()
            self._is_open = True
        size = self._group_size
        builders = [Group(first, size, work) for first in range(0, rollouts, size)]
        latencies = []
        async for group in self._pool.run(builders, self._sampler, self._params):
            for trajectory in group.trajectories_G:
                latencies += [turn.metrics["turn_s"] for turn in trajectory.transitions]
        return latencies

    async def close(self) -> None:
        """Close the workers."""
        await self._pool.close()
        self._service.close()


async def measure(contender: Any, rollouts: int, work: Work) -> dict[str, float]:  # noqa: ANN401
    """Run one turn of each rollout, which brings everything up, then all of them."""
    await contender.run(rollouts, replace(work, turns=1))
    pids = actor_pids()
    cpu, start = cpu_seconds(pids), time.perf_counter()
    latencies = await contender.run(rollouts, work)
    seconds, used = time.perf_counter() - start, cpu_seconds(pids) - cpu
    await contender.close()
    assert len(latencies) == rollouts * work.turns
    own_s = used - len(latencies) * work.cpu_s
    return {
        "turns_per_s": len(latencies) / seconds,
        "p50_s": statistics.median(latencies),
        "p99_s": sorted(latencies)[int(len(latencies) * 0.99)],
        "own_cpu_ms_per_turn": 1e3 * own_s / len(latencies),
        "num_processes": 1 + len(pids),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base_url")
    parser.add_argument("--contender", choices=("upstream", "pool", "local"), required=True)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--cpu-ms", type=float, default=0.0)
    parser.add_argument("--blocked-ms", type=float, default=0.0)
    parser.add_argument("--pool", type=json.loads, default={}, help="arguments of RolloutPool")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ["TINKER_API_KEY"] = "tml-bench"
    os.environ.setdefault("TINKER_TELEMETRY", "0")
    work = Work(options.turns, options.cpu_ms / 1e3, options.blocked_ms / 1e3)
    contender: PlainLoop | Pool
    if options.contender == "upstream":
        contender = PlainLoop(options.base_url)
    else:
        mode = "cluster" if options.contender == "pool" else "local"
        contender = Pool(options.base_url, mode, options.group_size, options.pool)
    report = asyncio.run(measure(contender, options.rollouts, work))
    print(json.dumps(report), flush=True)  # noqa: T201
    if options.contender == "pool":
        importlib.import_module("tinker_ray").shutdown()
    sys.stdout.flush()
    os._exit(0)  # upstream's threads keep the process alive


if __name__ == "__main__":
    main()
