"""Rollouts that go on while training does: groups are at most so many versions of the weights old.

Each episode waits for 0.1 s, as for a tool elsewhere. With MAX_STALENESS 0 training and rollouts
take turns; with 1 the groups of the next step are drawn while this one is trained.
Run: python examples/11_async_rl.py [STEPS] [MAX_STALENESS]
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tinker_ray as tinker
from tinker_ray.rl.adder import AdderDataset, AdderEnv, AdderGroup
from tinker_ray.rollouts import Action, Env, RolloutParams, StepResult, center
from tinker_ray.rollouts.datum import from_groups

STEPS, MAX_STALENESS = [*map(int, sys.argv[1:]), *(12, 1)[len(sys.argv) - 1 :]]
GROUPS_PER_STEP = 16


class SlowEnv(AdderEnv):
    """A sum whose answer takes a while to be graded."""

    async def step(self, action: Action) -> StepResult:
        """Wait, then compare."""
        await asyncio.sleep(0.1)
        return await super().step(action)


@dataclass(frozen=True)
class SlowGroup(AdderGroup):
    """The same sum for several episodes."""

    async def make_envs(self) -> Sequence[Env]:
        """Make an environment for each episode."""
        return [SlowEnv(self.prompt, self.answer) for _ in range(self.size)]


def problems(dataset: AdderDataset) -> Iterator[SlowGroup]:
    """Yield groups without end; the pool takes one when there is room for it."""
    for step in itertools.count():
        for one in dataset.batch(step):
            if isinstance(one, AdderGroup):
                yield SlowGroup(one.prompt, one.answer, one.size)


async def main() -> None:
    """Train the adder."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=2, groups_per_worker=8) as pool,
    ):
        training = await service.create_lora_training_client_async("tinker-ray/tiny-adder", seed=0)
        dataset = AdderDataset(training.get_tokenizer(), prompts_per_step=GROUPS_PER_STEP)
        policy = tinker.LivePolicy(await training.save_weights_and_get_sampling_client_async())
        pacing = tinker.Pacing(GROUPS_PER_STEP, MAX_STALENESS)
        started, batch = time.monotonic(), []
        async for group in pool.run(problems(dataset), policy, RolloutParams(8), pacing=pacing):
            batch.append(group)
            if len(batch) < GROUPS_PER_STEP:
                continue
            trained = training.forward_backward(from_groups(batch, center(batch)), "cispo")
            applied = training.optim_step(tinker.AdamParams(learning_rate=2e-3))
            await asyncio.gather(trained, applied)
            policy.publish(await training.save_weights_and_get_sampling_client_async())
            rewards = [reward for one in batch for reward in one.get_total_rewards()]
            print(f"step {policy.version:3d}  reward {sum(rewards) / len(rewards):.3f}", flush=True)
            batch.clear()
            if policy.version == STEPS:
                break
        ages = dict(sorted(pool.account.staleness.items()))
        print(f"{time.monotonic() - started:.1f} s, groups by age {ages}")


asyncio.run(main())
