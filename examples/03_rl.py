"""Reinforcement learning, written out: rollouts, advantages, an optimizer step, new weights.

The same script runs in this process, on Ray on this machine, and as a job on a cluster:

    python examples/03_rl.py [STEPS]
    TINKER_RAY_MODE=cluster python examples/03_rl.py [STEPS]
    ray job submit --working-dir . -- python examples/03_rl.py [STEPS]
"""

import asyncio
import sys

import tinker_ray as tinker
from tinker_ray.rl.adder import AdderDataset
from tinker_ray.rollouts import RolloutParams, center, derive_seed
from tinker_ray.rollouts.datum import from_groups

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 25


async def main() -> None:
    """Train the adder."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=2) as pool,
    ):
        training = await service.create_lora_training_client_async(
            "tinker-ray/tiny-adder", rank=16, seed=0
        )
        dataset = AdderDataset(training.get_tokenizer(), prompts_per_step=64, samples_per_prompt=8)
        for step in range(STEPS):
            sampler = await training.save_weights_and_get_sampling_client_async()
            params = RolloutParams(max_tokens=8, seed=derive_seed("example", step))
            groups = [group async for group in pool.run(dataset.batch(step), sampler, params)]

            advantages = center(groups)
            data = from_groups(groups, advantages)
            trained = training.forward_backward(data, "importance_sampling")
            applied = training.optim_step(tinker.AdamParams(learning_rate=2e-3))
            await asyncio.gather(trained, applied)

            rewards = [reward for group in groups for reward in group.get_total_rewards()]
            print(
                f"step {step + 1:3d}  reward {sum(rewards) / len(rewards):.3f}  "
                f"groups without a lesson {advantages.num_constant_groups}/{len(groups)}",
                flush=True,
            )


asyncio.run(main())
