"""AdamW over one flat tensor: bias correction, decoupled weight decay, clipping of the norm.

Knows nothing of adapters; the learning rate and all other numbers come with each step.

Source: https://arxiv.org/abs/1711.05101
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from tinker_ray.types import AdamParams


@dataclass
class AdamW:
    """The optimizer state of one adapter.

    Attributes:
        exp_avg: Running mean of the gradient, ``(N,)``.
        exp_avg_sq: Running mean of its square, ``(N,)``.
        num_steps: Steps taken so far.
    """

    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    num_steps: int = 0

    @classmethod
    def fresh(cls, weights: torch.Tensor) -> AdamW:
        """Start with empty averages for ``weights``."""
        weights = weights.detach()
        return cls(torch.zeros_like(weights), torch.zeros_like(weights))

    @torch.no_grad()
    def step(
        self, weights: torch.Tensor, gradient: torch.Tensor, params: AdamParams
    ) -> dict[str, float]:
        """Change ``weights`` ``(N,)`` in place; return the norm of ``gradient`` before clipping.

        Raises:
            EngineError: The gradient is not finite; nothing has changed.
        """
        norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
        if norm != norm or norm == float("inf"):  # noqa: PLR0124 - NaN
            message = "the accumulated gradient is not finite: weights and optimizer are unchanged"
            raise EngineError(message, category="user")
        if params.grad_clip_norm > 0 and norm > params.grad_clip_norm:
            gradient = gradient * (params.grad_clip_norm / norm)
        self.num_steps += 1
        self.exp_avg.lerp_(gradient, 1 - params.beta1)
        self.exp_avg_sq.mul_(params.beta2).addcmul_(gradient, gradient, value=1 - params.beta2)
        correction1 = 1 - params.beta1**self.num_steps
        correction2 = 1 - params.beta2**self.num_steps
        denominator = (self.exp_avg_sq / correction2).sqrt_().add_(params.eps)
        if params.weight_decay:
            weights.mul_(1 - params.learning_rate * params.weight_decay)
        weights.addcdiv_(self.exp_avg, denominator, value=-params.learning_rate / correction1)
        return {"grad_norm:mean": norm}
