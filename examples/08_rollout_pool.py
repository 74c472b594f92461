"""The rollout pool by itself: groups of a game, as they finish, and what became of all of them.

One environment in ten is broken on purpose: its groups are dropped, and accounted for. Needs no
training, and a sampler is all that it wants of a service.

Run: python examples/08_rollout_pool.py [GROUPS]
"""

import asyncio
import functools
import itertools
import sys
from collections.abc import Iterator

import tinker_ray as tinker
from tinker_ray.environments import Dialogue, TextGroup, Turn
from tinker_ray.environments.guessing import GuessEnv
from tinker_ray.rollouts import RolloutParams

GROUPS = int(sys.argv[1]) if len(sys.argv) > 1 else 40
PARAMS = RolloutParams(max_tokens=4, seed=0)


class BrokenGame(GuessEnv):
    """Fails in the middle of an episode."""

    async def respond(self, answer: str) -> Turn:
        """Fail."""
        raise RuntimeError(f"cannot read {answer!r}")


def games(dialogue: Dialogue) -> Iterator[TextGroup]:
    """Make groups without end; the pool takes them as it has room."""
    for number in itertools.count(1):
        game = BrokenGame if number % 10 == 0 else GuessEnv
        play = functools.partial(game, number % 100 + 1, guesses=4)
        yield TextGroup(play, 4, dialogue, tags=("guessing",))


async def main() -> None:
    """Play."""
    async with (
        tinker.ServiceClient(base_url="embedded") as service,
        tinker.RolloutPool(workers=2, groups_per_worker=8) as pool,
    ):
        sampler = await service.create_sampling_client_async(base_model="tinker-ray/tiny-adder")
        tokenizer = await asyncio.to_thread(sampler.get_tokenizer)
        builders = itertools.islice(games(Dialogue(tokenizer)), GROUPS)
        async for group in pool.run(builders, sampler, PARAMS):
            guesses = [
                tokenizer.decode(turn.ac.tokens) for turn in group.trajectories_G[0].transitions
            ]
            found = sum(reward > 0 for reward in group.get_total_rewards())
            print(f"group {group.index:3d}  found by {found}/4  first episode: {guesses}")
    account = pool.account
    print(f"dispatched {account.dispatched} = delivered {account.delivered}", end="")
    print(f" + dropped {dict(account.dropped)}")
    for reason, words in account.details.items():
        print(f"first {reason}: {words}")


asyncio.run(main())
