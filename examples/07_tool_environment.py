"""A tool and several turns: the model learns when to use a calculator, and when to answer.

A list of four numbers is to be added. An empty answer lets the calculator add the first two of
them; a number is the answer. `tinker_ray.environments.sums` is the same with a dataset, so that

    tinker-ray train examples/sums.toml

trains it to the end. Run: python examples/07_tool_environment.py [STEPS]
"""

import asyncio
import functools
import random
import sys

import tinker_ray as tinker
from tinker_ray.environments import Dialogue, TextGroup, Turn
from tinker_ray.environments.calculator import calculate
from tinker_ray.rollouts import RolloutParams, center
from tinker_ray.rollouts.datum import from_groups

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 30
PARAMS = RolloutParams(max_tokens=8)


class Sum:
    """Reads and writes words; tokens are the business of ``TextGroup``."""

    def __init__(self, numbers: list[int]) -> None:
        self.left, self.total = list(numbers), sum(numbers)

    async def begin(self) -> str:
        """Show what is to be added; two numbers are a question that the model knows."""
        if len(self.left) == 2:  # noqa: PLR2004
            return f"What is {self.left[0]}+{self.left[1]}?"
        return ",".join(map(str, self.left))

    async def respond(self, answer: str) -> Turn:
        """Use the tool, or judge the answer."""
        if answer == "" and len(self.left) > 1:
            first, second, *rest = self.left
            self.left = [int(calculate(f"{first}+{second}")), *rest]
            return Turn(await self.begin())
        return Turn("", reward=float(answer == str(self.total)), done=True)


async def main() -> None:
    """Train, and show how reward and turns change."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=2) as pool,
    ):
        training = await service.create_lora_training_client_async("tinker-ray/tiny-adder", rank=16)
        dialogue, rng = Dialogue(training.get_tokenizer()), random.Random(0)  # noqa: S311
        for step in range(STEPS):
            lists = [[rng.randint(1, 33) for _ in range(4)] for _ in range(32)]
            tasks = [functools.partial(Sum, numbers) for numbers in lists]
            builders = [TextGroup(task, 8, dialogue, memory=False) for task in tasks]
            sampler = await training.save_weights_and_get_sampling_client_async()
            groups = [group async for group in pool.run(builders, sampler, PARAMS)]
            data = from_groups(groups, center(groups))
            await asyncio.gather(
                training.forward_backward(data, "importance_sampling"),
                training.optim_step(tinker.AdamParams(learning_rate=3e-3)),
            )
            turns = [len(t.transitions) for group in groups for t in group.trajectories_G]
            rewards = [reward for group in groups for reward in group.get_total_rewards()]
            print(f"step {step + 1:3d}  reward {sum(rewards) / len(rewards):.3f}  ", end="")
            print(f"turns {sum(turns) / len(turns):.2f}", flush=True)


asyncio.run(main())
