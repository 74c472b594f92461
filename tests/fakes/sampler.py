"""Samplers that need no model: scripted answers, and answers that depend on the seed alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.types import ModelInput, SampledSequence, SampleResponse, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def sequence(tokens: Sequence[int], logprob: float = -0.5) -> SampledSequence:
    """Make a sampled sequence whose tokens all have the same logprob."""
    return SampledSequence(
        stop_reason="stop",
        tokens_np=np.asarray(tokens, dtype=np.int32),
        logprobs_np=np.full(len(tokens), logprob, dtype=np.float32),
    )


@dataclass
class SampleCall:
    """One recorded request."""

    prompt: list[int]
    num_samples: int
    params: SamplingParams


@dataclass
class ScriptedSampler:
    """Answers each prompt by a function of (prompt tokens, row number); records the calls."""

    answer: Callable[[list[int], int], Sequence[int]]
    calls: list[SampleCall] = field(default_factory=list)

    async def sample_async(
        self, prompt: ModelInput, num_samples: int, sampling_params: SamplingParams
    ) -> SampleResponse:
        """Answer at once."""
        tokens = prompt.to_ints()
        self.calls.append(SampleCall(tokens, num_samples, sampling_params))
        return SampleResponse([sequence(self.answer(tokens, row)) for row in range(num_samples)])


@dataclass
class SeededSampler:
    """Draws tokens from the seed of the request, as a real sampler does."""

    num_tokens: int = 3

    async def sample_async(
        self,
        prompt: ModelInput,  # noqa: ARG002 - part of the protocol
        num_samples: int,
        sampling_params: SamplingParams,
    ) -> SampleResponse:
        """Answer at once."""
        rng = Random(sampling_params.seed)
        return SampleResponse(
            [
                sequence([rng.randrange(10) for _ in range(self.num_tokens)])
                for _ in range(num_samples)
            ]
        )
