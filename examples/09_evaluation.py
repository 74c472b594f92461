"""Evaluation beside training: kinds of samples have labels, and weights by which they share.

Rollouts for training and an evaluation sample at once; where permits are scarce, on a service with
limits, training gets three of four. The names are seen in `tinker-ray status`.

Run: python examples/09_evaluation.py [PROBLEMS]
"""

import asyncio
import sys

import tinker_ray as tinker
from tinker_ray.rl.adder import AdderDataset
from tinker_ray.rollouts import EnvGroupBuilder, RolloutParams

PROBLEMS = int(sys.argv[1]) if len(sys.argv) > 1 else 64


async def mean_reward(
    pool: tinker.RolloutPool,
    builders: list[EnvGroupBuilder],
    sampler: tinker.SamplingClient,
    temperature: float,
) -> float:
    """Play every group and return what its episodes earned."""
    params = RolloutParams(max_tokens=8, temperature=temperature, seed=1)
    groups = [group async for group in pool.run(builders, sampler, params)]
    rewards = [reward for group in groups for reward in group.get_total_rewards()]
    return sum(rewards) / len(rewards)


async def main() -> None:
    """Roll out and evaluate, side by side."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=1) as rollouts,
        tinker.RolloutPool(workers=1) as evaluation,
    ):
        sampler = await service.create_sampling_client_async(base_model="tinker-ray/tiny-adder")
        tokenizer = await asyncio.to_thread(sampler.get_tokenizer)
        dataset = AdderDataset(tokenizer, prompts_per_step=PROBLEMS, eval_problems=PROBLEMS)
        train, greedy, drawn = await asyncio.gather(
            mean_reward(rollouts, dataset.batch(0), sampler.with_label("train", 3.0), 1.0),
            mean_reward(evaluation, dataset.held_out(), sampler.with_label("eval", 1.0), 0.0),
            mean_reward(evaluation, dataset.held_out(), sampler.with_label("eval", 1.0), 1.0),
        )
    print(f"train, as drawn      reward {train:.3f}")
    print(f"held out, greedy     accuracy {greedy:.3f}")
    print(f"held out, as drawn   accuracy {drawn:.3f}")


asyncio.run(main())
