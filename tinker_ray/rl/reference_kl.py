"""A pull towards the base model: each token pays for what it is likelier now than it was before.

Knows a sampling client of the base model, nothing of rewards. Invariant: a datum's penalty depends
on that datum alone, so that it does not matter in which minibatch it is trained on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinker_ray.rollouts import Advantages, TrajectoryGroup
from tinker_ray.rollouts.datum import from_trajectory
from tinker_ray.types import Datum, ModelInput, TensorData


class Scorer(Protocol):
    """What is asked of a sampling client of the reference."""

    async def compute_logprobs_async(self, prompt: ModelInput, /) -> list[float | None]:
        """Return one logprob per token given those before it, None for the first."""
        ...


@dataclass(frozen=True, slots=True)
class Penalized:
    """Data whose advantages hold the penalty.

    Attributes:
        data: To train on.
        log_ratio: Of policy to reference, added up over the sampled tokens.
        num_tokens: How many those are.
    """

    data: list[Datum]
    log_ratio: float
    num_tokens: int


class ReferencePenalty:
    """Takes ``coefficient * (logprob - reference logprob)`` off the advantage of sampled tokens.

    Its expected gradient is that of the KL divergence per token from the reference, at the weights
    that drew the tokens.

    Args:
        reference: Samples from the reference.
        coefficient: Above 0.
    """

    def __init__(self, reference: Scorer, coefficient: float) -> None:
        self._reference = reference
        self._coefficient = coefficient

    async def data(self, groups: Sequence[TrajectoryGroup], advantages: Advantages) -> Penalized:
        """Turn groups into data; those without advantages count as well."""
        datums, weights = list[Datum](), list[float]()
        for group, advantages_G in zip(groups, advantages.advantages_P_G, strict=True):
            for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True):
                made = from_trajectory(trajectory, 1.0)  # so that advantages mark sampled tokens
                datums += made
                weights += [advantage] * len(made)
        references = await asyncio.gather(*(self._logprobs(datum) for datum in datums))
        penalized, log_ratio, num_tokens = list[Datum](), 0.0, 0
        for datum, advantage, reference_T in zip(datums, weights, references, strict=True):
            is_action_T = datum.loss_fn_inputs["advantages"].to_numpy()
            ratio_T = (datum.loss_fn_inputs["logprobs"].to_numpy() - reference_T) * is_action_T
            penalty_T = np.float32(self._coefficient) * ratio_T
            penalized.append(_with(datum, is_action_T * np.float32(advantage) - penalty_T))
            log_ratio += float(ratio_T.sum())
            num_tokens += int(is_action_T.sum())
        return Penalized(penalized, log_ratio, num_tokens)

    async def _logprobs(self, datum: Datum) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        last = int(datum.loss_fn_inputs["target_tokens"].to_numpy()[-1])
        tokens = ModelInput.from_ints([*datum.model_input.to_ints(), last])
        logprobs = await self._reference.compute_logprobs_async(tokens)
        return np.asarray(logprobs[1:], dtype=np.float32)


def _with(datum: Datum, advantages_T: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Datum:
    inputs = {**datum.loss_fn_inputs, "advantages": TensorData.from_numpy(advantages_T)}
    return Datum(model_input=datum.model_input, loss_fn_inputs=inputs)
