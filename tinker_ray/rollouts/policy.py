"""How actions are drawn: a policy over anything that samples, with seeds derived from places.

Knows nothing of clients beyond one awaited method. Invariant: the seed of a draw depends on where
it happens (run, group, turn, episode) and never on when, so that a run can be repeated.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tinker_ray.rollouts.trajectory import Observation, TokensWithLogprobs
from tinker_ray.types import SampledSequence, SampleResponse, SamplingParams

if TYPE_CHECKING:
    from tinker_ray.rollouts.env import StopCondition

SEED_BITS = 31


def derive_seed(*place: int | str) -> int:
    """Return a seed in [0, 2**31) that belongs to a place, such as ``(run, step, group)``."""
    digest = hashlib.blake2b("/".join(map(str, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


class Sampler(Protocol):
    """What a policy needs of a sampling client."""

    async def sample_async(
        self, prompt: Observation, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        """Draw ``num_samples`` sequences after a prompt."""
        ...


class Policy(Protocol):
    """Draws actions."""

    async def act(  # noqa: PLR0913 - all of one draw
        self,
        observation: Observation,
        stop: StopCondition,
        *,
        num_samples: int,
        turn: int,
        lane: int,
        max_tokens: int | None = None,
    ) -> list[TokensWithLogprobs]:
        """Draw ``num_samples`` actions for one observation.

        Args:
            observation: The prompt.
            stop: Where the actions stop.
            num_samples: How many episodes share the observation.
            turn: Number of the turn, from 0.
            lane: Number of the first of these episodes in its group.
            max_tokens: Longest action, if that is less than the policy's own limit.
        """
        ...


@dataclass(frozen=True, slots=True)
class RolloutParams:
    """How the actions of a rollout are drawn.

    Attributes:
        max_tokens: Longest action.
        temperature: 1 draws from the model itself, which is what the losses assume.
        top_p: Nucleus; 1 is off.
        seed: Makes every draw repeatable; None leaves the draws to chance.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class SamplerPolicy:
    """The policy behind a sampler, with the seed of one group."""

    sampler: Sampler
    params: RolloutParams

    async def act(  # noqa: PLR0913 - all of one draw
        self,
        observation: Observation,
        stop: StopCondition,
        *,
        num_samples: int,
        turn: int,
        lane: int,
        max_tokens: int | None = None,
    ) -> list[TokensWithLogprobs]:
        """Draw actions with one sampling call."""
        seed, longest = self.params.seed, self.params.max_tokens
        params = SamplingParams(
            max_tokens=longest if max_tokens is None else min(longest, max_tokens),
            temperature=self.params.temperature,
            top_p=self.params.top_p,
            stop=stop,
            seed=None if seed is None else derive_seed(seed, turn, lane),
        )
        response = await self.sampler.sample_async(observation, num_samples, params)
        return [_action(sequence) for sequence in response.sequences]


def _action(sequence: SampledSequence) -> TokensWithLogprobs:
    return TokensWithLogprobs(
        tokens=list(sequence.tokens),
        maybe_logprobs=None if sequence.logprobs is None else list(sequence.logprobs),
        stop_reason=sequence.stop_reason,
        sequence_id=sequence.sequence_id or None,
    )
