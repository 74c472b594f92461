"""An environment of one's own, with two turns: a wrong answer may be corrected for half the reward.

Run: python examples/04_custom_environment.py [STEPS]
"""

import asyncio
import random
import sys
from dataclasses import dataclass

import tinker_ray as tinker
from tinker_ray import rollouts
from tinker_ray.rollouts.datum import from_groups

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
CHANCES = 2
PARAMS = rollouts.RolloutParams(max_tokens=8)


class SecondChance(rollouts.Env):
    """Asks for a sum until it is right, at most twice."""

    def __init__(self, question: list[int], answer: list[int]) -> None:
        self.question, self.answer, self.turn = question, answer, 0

    async def initial_observation(self) -> tuple[rollouts.Observation, rollouts.StopCondition]:
        """Ask; None leaves the model's end of sequence as the only stop."""
        return tinker.ModelInput.from_ints(self.question), None

    async def step(self, action: list[int]) -> rollouts.StepResult:
        """Reward a right answer, less the later it comes."""
        self.turn += 1
        is_right = action == self.answer
        return rollouts.StepResult(
            reward=1.0 / self.turn if is_right else 0.0,
            episode_done=is_right or self.turn == CHANCES,
            next_observation=tinker.ModelInput.from_ints(self.question),
            next_stop_condition=None,
            metrics={"correct": float(is_right), "turns": self.turn},
        )


@dataclass
class SecondChances(rollouts.EnvGroupBuilder):
    """The same sum for eight episodes."""

    question: list[int]
    answer: list[int]

    async def make_envs(self) -> list[rollouts.Env]:
        """Make fresh environments; a retry of the group calls this again."""
        return [SecondChance(self.question, self.answer) for _ in range(8)]


async def main() -> None:
    """Train on random sums."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=2) as pool,
    ):
        training = await service.create_lora_training_client_async("tinker-ray/tiny-adder", rank=16)
        encode, rng = training.get_tokenizer().encode, random.Random(0)  # noqa: S311
        for step in range(STEPS):
            sums = [(rng.randrange(100), rng.randrange(100)) for _ in range(16)]
            texts = [(f"{a}+{b}=", f"{a + b}<|eos|>") for a, b in sums]
            builders = [SecondChances(encode(asks), encode(answers)) for asks, answers in texts]
            sampler = await training.save_weights_and_get_sampling_client_async()
            groups = [group async for group in pool.run(builders, sampler, PARAMS)]
            await asyncio.gather(
                training.forward_backward(from_groups(groups, rollouts.center(groups)), "ppo"),
                training.optim_step(tinker.AdamParams(learning_rate=2e-3)),
            )
            turns = [len(t.transitions) for group in groups for t in group.trajectories_G]
            rewards = [reward for group in groups for reward in group.get_total_rewards()]
            reward, turn = sum(rewards) / len(rewards), sum(turns) / len(turns)
            print(f"step {step + 1:3d}  reward {reward:.3f}  turns {turn:.2f}", flush=True)


asyncio.run(main())
