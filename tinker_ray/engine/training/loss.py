"""The training losses, as sums over target tokens.

Works on flat tensors of all target tokens of a batch; knows nothing of models, datums or batching.
With l the logprob of a target token under the trained model, q its ``logprobs`` input, A its
``advantages``, w its ``weights`` and r = exp(l - q), the loss of a token is

- ``cross_entropy``: -w l
- ``importance_sampling``: -r A
- ``ppo``: -min(r A, clip(r, low, high) A)
- ``cispo``: -stop_gradient(clip(r, low, high)) l A
- ``dro``: -(l A - beta/2 (l - q)^2)

Source: https://tinker-docs.thinkingmachines.ai/losses
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOW = "clip_low_threshold"
HIGH = "clip_high_threshold"


@dataclass(frozen=True)
class LossSpec:
    """What a loss reads.

    Attributes:
        inputs: Required float inputs, one number per target token.
        config: Configuration keys and their defaults; clip thresholds may instead be given per
        token,
            as inputs of the same names.
    """

    inputs: tuple[str, ...]
    config: Mapping[str, float]

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """Float inputs that may be given per token."""
        return tuple(key for key in self.config if key in {LOW, HIGH})


def _spec(inputs: tuple[str, ...], **config: float) -> LossSpec:
    return LossSpec(inputs, MappingProxyType(config))


_POLICY = ("logprobs", "advantages")

LOSSES: Mapping[str, LossSpec] = MappingProxyType(
    {
        "cross_entropy": _spec(("weights",)),
        "importance_sampling": _spec(_POLICY),
        "ppo": _spec(_POLICY, clip_low_threshold=0.8, clip_high_threshold=1.2),
        "cispo": _spec(_POLICY, clip_low_threshold=0.0, clip_high_threshold=4.0),
        "dro": _spec(_POLICY, beta=0.05),
    }
)


def find_loss(loss_fn: str) -> LossSpec:
    """Return the specification of a loss.

    Raises:
        EngineError: There is none of this name.
    """
    if loss_fn not in LOSSES:
        message = f"loss_fn {loss_fn!r} is not supported: use one of {', '.join(LOSSES)}"
        raise EngineError(message, category="user")
    return LOSSES[loss_fn]


def complete_config(loss_fn: str, config: Mapping[str, float] | None) -> dict[str, float]:
    """Fill in the defaults of a loss.

    Raises:
        EngineError: A key is unknown to the loss, or a value is not a number.
    """
    spec = find_loss(loss_fn)
    for key, value in (config or {}).items():
        if key not in spec.config:
            known = ", ".join(spec.config) or "none"
            message = f"loss_fn_config key {key!r} is unknown to {loss_fn!r} (known: {known})"
            raise EngineError(message, category="user")
        if isinstance(value, bool) or not isinstance(value, int | float):
            message = f"loss_fn_config[{key!r}] must be a number, got {value!r}"
            raise EngineError(message, category="user")
    return {**spec.config, **(config or {})}


def token_losses(
    loss_fn: str,
    logprobs: torch.Tensor,
    inputs: Mapping[str, torch.Tensor],
    config: Mapping[str, float],
) -> torch.Tensor:
    """Return the loss of every target token, ``(N,)``.

    Args:
        loss_fn: A key of :data:`LOSSES`.
        logprobs: Logprob of every target under the trained model, ``(N,)``.
        inputs: The loss's inputs, each ``(N,)``.
        config: All configuration keys of the loss.
    """
    if loss_fn == "cross_entropy":
        return -inputs["weights"] * logprobs
    advantages = inputs["advantages"]
    log_ratio = logprobs - inputs["logprobs"]
    if loss_fn == "dro":
        return -(logprobs * advantages - 0.5 * config["beta"] * log_ratio.square())
    ratio = log_ratio.exp()
    if loss_fn == "importance_sampling":
        return -ratio * advantages
    low = inputs.get(LOW, ratio.new_tensor(config[LOW]))
    high = inputs.get(HIGH, ratio.new_tensor(config[HIGH]))
    clipped = torch.clamp(ratio, low, high)
    if loss_fn == "ppo":
        return -torch.minimum(ratio * advantages, clipped * advantages)
    return -clipped.detach() * logprobs * advantages
