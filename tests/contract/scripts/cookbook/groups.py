"""Groups of the Tinker cookbook's own environments, run by its loop, here, in a pool, on Ray.

Nothing of the cookbook is changed. Prints the trajectories, by who ran them.
"""

import asyncio
import json
import sys
from dataclasses import dataclass

import tinker
from tinker_cookbook import renderers
from tinker_cookbook.completers import TinkerTokenCompleter, TokenCompleter, TokensWithLogprobs
from tinker_cookbook.recipes.math_rl.arithmetic_env import ArithmeticDatasetBuilder
from tinker_cookbook.recipes.multiplayer_rl.guess_number.env import GuessNumberEnvGroupBuilder
from tinker_cookbook.rl.message_env import EnvFromMessageEnv, MessageEnv, MessageStepResult
from tinker_cookbook.rl.rollout_limits import RolloutLimits
from tinker_cookbook.rl.rollouts import (
    do_group_rollout,
    do_group_rollout_and_filter_constant_reward,
    set_rollout_executor,
)
from tinker_cookbook.rl.types import EnvGroupBuilder
from tinker_cookbook.tokenizer_utils import get_tokenizer

import tinker_ray
from tinker_ray.environments.cookbook import dataset_of
from tinker_ray.rollouts import RolloutParams, SamplerPolicy, derive_seed, run_group

TOKENIZER_FOLDER = sys.argv[-1]
SEED = 3
HOT = 2.0
"""So that the episodes of a group differ."""
MAX_TOKENS = 6


def plain(group):
    """Turn a group, theirs or ours, into JSON."""
    return {
        "rewards": group.get_total_rewards(),
        "metrics": group.metrics_G,
        "episodes": [
            {
                "stop_reason": trajectory.stop_reason,
                "final": list(trajectory.final_ob.to_ints()),
                "turns": [
                    [
                        list(turn.ob.to_ints()),
                        list(turn.ac.tokens),
                        [round(float(logprob), 4) for logprob in turn.ac.logprobs],
                        turn.ac.stop_reason,
                        turn.reward,
                        turn.metrics,
                        turn.logs,
                    ]
                    for turn in trajectory.transitions
                ],
            }
            for trajectory in group.trajectories_G
        ],
    }


class Quiz(MessageEnv):
    """Three questions on end, on the cookbook's own adapter from messages to tokens."""

    def __init__(self, numbers):
        self.numbers = numbers
        self.messages = []

    async def initial_observation(self):
        return self._ask()

    async def step(self, message):
        self.messages.append(message)
        asked = len(self.messages) // 2
        return MessageStepResult(
            reward=float(len(message["content"])),
            episode_done=asked == 3,
            next_messages=self._ask(),
            metrics={"stop/completed": 1.0} if asked == 3 else {},
            logs={"heard": message["content"]},
        )

    def _ask(self):
        a, b = self.numbers
        question = f"What is {a + len(self.messages)}+{b}?"
        self.messages.append({"role": "user", "content": question})
        return list(self.messages)


@dataclass(frozen=True)
class QuizGroupBuilder(EnvGroupBuilder):
    numbers: tuple[int, int]
    renderer: renderers.Renderer
    limits: RolloutLimits | None = None

    async def make_envs(self):
        quizzes = [Quiz(self.numbers) for _ in range(4)]
        return [
            EnvFromMessageEnv(self.renderer, quiz, rollout_limits=self.limits) for quiz in quizzes
        ]

    async def compute_group_rewards(self, trajectory_group, env_group):
        longest = max(len(trajectory.transitions) for trajectory in trajectory_group)
        return [(float(longest), {"envs": len(env_group)}) for _ in trajectory_group]

    def logging_tags(self):
        return ["quiz"]


class Player:
    """Guesses by halves; what it draws depends on the prompt alone."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    async def sample_async(self, prompt, num_samples, sampling_params):  # noqa: ARG002
        text = self.tokenizer.decode(prompt.to_ints())
        low, high = 0, 1024
        for turn in text.split("Player: Guess: ")[1:]:
            guess = int(turn.partition("\n")[0])
            low, high = (guess + 1, high) if "Too low" in turn else (low, guess - 1)
        answer = "no idea" if text.count("Player:") == 1 else f" Guess: {(low + high) // 2}"
        tokens = self.tokenizer.encode(f"{answer.strip()}\n\nUser:", add_special_tokens=False)
        sequence = tinker.SampledSequence(
            stop_reason="stop", tokens=tokens, logprobs=[-0.5] * len(tokens)
        )
        return tinker.SampleResponse(sequences=[sequence] * num_samples)


class PlayerCompleter(TokenCompleter):
    """The same player, as the cookbook's loop wants it."""

    def __init__(self, player):
        self.player = player

    async def __call__(self, model_input, stop, *, max_tokens=None):  # noqa: ARG002
        params = tinker.SamplingParams(max_tokens=MAX_TOKENS, stop=stop)
        response = await self.player.sample_async(model_input, 1, params)
        [drawn] = response.sequences
        return TokensWithLogprobs(list(drawn.tokens), list(drawn.logprobs), drawn.stop_reason)


async def in_pool(pool, builders, sampler, params):
    groups = [group async for group in pool.run(builders, sampler, params)]
    return [plain(group) for group in sorted(groups, key=lambda group: group.index)]


async def by_hand(builders, sampler, params):
    """Run groups here, with the seeds that a pool gives to them."""
    groups = []
    for index, builder in enumerate(builders):
        seed = None if params.seed is None else derive_seed(params.seed, index)
        policy = SamplerPolicy(
            sampler, RolloutParams(params.max_tokens, params.temperature, seed=seed)
        )
        groups.append(plain(await run_group(builder, policy)))
    return groups


async def guessing(renderer, tokenizer):
    player = Player(tokenizer)
    builders = [GuessNumberEnvGroupBuilder(answer, renderer, num_envs=2) for answer in (7, 900)]
    params = RolloutParams(max_tokens=MAX_TOKENS)
    theirs = [await do_group_rollout(each, PlayerCompleter(player)) for each in builders]
    async with tinker_ray.RolloutPool(workers=1) as pool:
        pooled = await in_pool(pool, builders, player, params)
    return {
        "cookbook": [plain(group) for group in theirs],
        "here": await by_hand(builders, player, params),
        "pool": pooled,
    }


async def by_executor(builders, sampler):
    """Let the cookbook's loop send its groups to the executor that it was given."""
    groups = await asyncio.gather(
        *(
            do_group_rollout_and_filter_constant_reward(
                sampler,
                builder,
                MAX_TOKENS,
                temperature=0.0,
                do_remove_constant_reward_groups=False,
            )
            for builder in builders
        )
    )
    return [plain(group) for group in groups]


async def on_the_engine(renderer, results):
    """Run groups on a service: by the cookbook and by hand here, by a pool on Ray."""
    arithmetic = ArithmeticDatasetBuilder(
        batch_size=2,
        model_name_for_tokenizer=TOKENIZER_FOLDER,
        renderer_name="role_colon",
        n_batches=3,
        group_size=4,
    )
    dataset = await asyncio.to_thread(dataset_of, arithmetic)
    builders = [
        *dataset.batch(3),
        QuizGroupBuilder((12, 30), renderer),
        QuizGroupBuilder((1, 30), renderer, RolloutLimits(max_trajectory_tokens=60)),
    ]
    greedy = RolloutParams(max_tokens=MAX_TOKENS, temperature=0.0)
    drawn = RolloutParams(max_tokens=MAX_TOKENS, temperature=HOT, seed=SEED)
    async with tinker.ServiceClient() as service:
        sampler = await service.create_sampling_client_async(base_model="tinker-ray/tiny-adder")
        completer = TinkerTokenCompleter(sampler, max_tokens=MAX_TOKENS, temperature=0.0)
        theirs = [plain(await do_group_rollout(each, completer)) for each in builders]
        results["greedy"] = {"cookbook": theirs}
        results["drawn"] = {"here": await by_hand(builders, sampler, drawn)}
    tinker_ray.init(num_cpus=2)
    try:
        async with tinker.ServiceClient() as service:
            sampler = await service.create_sampling_client_async(base_model="tinker-ray/tiny-adder")
            async with tinker_ray.RolloutPool(workers=1) as pool:
                results["greedy"]["pool"] = await in_pool(pool, builders, sampler, greedy)
                results["drawn"]["pool"] = await in_pool(pool, builders, sampler, drawn)
            with tinker_ray.RayExecutor(max_workers=1) as executor:
                set_rollout_executor(executor)
                results["greedy"]["executor"] = await by_executor(builders, sampler)
    finally:
        tinker_ray.shutdown()


async def main():
    tokenizer = get_tokenizer(TOKENIZER_FOLDER)
    renderer = renderers.get_renderer("role_colon", tokenizer)
    results = {"guessing": await guessing(renderer, tokenizer)}
    await on_the_engine(renderer, results)
    print(json.dumps(results))


asyncio.run(main())
