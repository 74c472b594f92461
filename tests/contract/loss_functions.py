"""Losses of one datum, traced by upstream (``record_losses.py``) and by us.

Imports nothing but torch and the standard library. What is in ``REFUSED`` cannot be traced or may
not be.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody uses

if TYPE_CHECKING:
    from collections.abc import Callable

Loss: TypeAlias = tuple[torch.Tensor, dict[str, torch.Tensor]]
Tensor: TypeAlias = torch.Tensor


def cross_entropy(logprobs: Tensor, weights: Tensor) -> Loss:
    """Weighted log-likelihood."""
    loss = -(logprobs * weights).sum()
    return loss, {"custom/neg_ll:sum": loss}


def importance_sampling(logprobs: Tensor, advantages: Tensor, old_logprobs: Tensor) -> Loss:
    """Policy gradient with an importance ratio."""
    ratio = torch.exp(logprobs - old_logprobs)
    loss = -(ratio * advantages).sum()
    return loss, {"custom/ratio:mean": ratio.mean()}


def clipped_policy(logprobs: Tensor, advantages: Tensor, old_logprobs: Tensor) -> Loss:
    """PPO's clipped objective."""
    ratio = (logprobs - old_logprobs).exp()
    clipped = torch.clamp(ratio, min=0.8, max=1.2)
    loss = -torch.minimum(ratio * advantages, clipped * advantages).sum()
    clip_fraction = (ratio != clipped).float().mean()
    return loss, {"custom/clip_fraction:mean": clip_fraction, "custom/ppo.loss:sum": loss}


def preference(logprobs: Tensor, mask: Tensor, reference: Tensor, sign: Tensor) -> Loss:
    """A term of a preference loss, with a rank-0 input."""
    margin = ((logprobs - reference) * mask).sum()
    loss = -F.logsigmoid(0.1 * sign * margin)
    return loss, {"custom/margin:mean": margin}


def distillation(logprobs: Tensor, teacher: Tensor) -> Loss:
    """Cross entropy with a distribution over K targets per position."""
    per_position = -(teacher * logprobs).sum(dim=-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return per_position.sum(), {"custom/entropy:mean": entropy.mean(dim=0, keepdim=False)}


def indexed(logprobs: Tensor, weights: Tensor) -> Loss:
    """Slices, an ellipsis, and attributes that are read."""
    head = logprobs[..., :-1] * weights[1:]
    loss = head.sum() / logprobs.shape[0] + logprobs[0]
    return loss, {}


def masked(logprobs: Tensor, mask: Tensor) -> Loss:
    """Numbers that JSON lacks, dtypes and devices."""
    kept = torch.where(mask > 0, logprobs, float("-inf"))
    filled = kept.masked_fill(mask <= 0, 0.0)
    zeros = torch.zeros_like(filled, dtype=torch.float32, device=torch.device("cpu"))
    capped = torch.nan_to_num(filled + zeros, nan=0.0, posinf=float("inf"))
    return -capped.sum(), {"custom/kept:sum": (mask > 0).to(torch.float32).sum()}


def python_numbers(logprobs: Tensor, weights: Tensor) -> Loss:
    """Python's arithmetic, comparisons and the math module's constants."""
    scaled = 2 * logprobs**2 - logprobs / math.pi
    loss = operator.neg(abs(scaled) * weights).sum() + (weights // 1).sum() % 3
    return loss, {"custom/large:sum": (scaled >= 1).sum()}


def stacked(logprobs: Tensor, weights: Tensor) -> Loss:
    """Lists and tuples of tensors, and what returns several."""
    pair = torch.stack([logprobs, weights], dim=0)
    largest, _ = torch.max(pair, dim=0)
    joined = torch.cat((largest, logprobs), -1)
    return -torch.logsumexp(joined, dim=(0,)), {"custom/max:sum": largest.max()}


def methods(logprobs: Tensor, weights: Tensor) -> Loss:
    """Methods with keyword arguments, and a layout."""
    rows = logprobs.reshape(-1, 1).contiguous(memory_format=torch.contiguous_format)
    mean = rows.mean(dim=[0, 1], keepdim=True).squeeze()
    ones = torch.ones_like(weights, layout=torch.strided)
    return (mean * ones.detach()).sum().clamp(max=10), {}


def functional(logprobs: Tensor, target: Tensor) -> Loss:
    """Functions of torch.nn.functional and torch.special."""
    loss = F.smooth_l1_loss(logprobs, target, reduction="sum", beta=0.5)
    return loss + torch.special.expm1(logprobs).sum(), {
        "custom/a/b.c-d:mean": F.relu(target).mean()
    }


def without_inputs(logprobs: Tensor) -> Loss:
    """Nothing but the logprobs."""
    return -logprobs.sum(), {}


def _branches(logprobs: Tensor) -> Loss:
    return (logprobs.sum(), {}) if logprobs.sum() > 0 else (-logprobs.sum(), {})


_CONSTANT = torch.ones(3)


def _captures(logprobs: Tensor) -> Loss:
    return (logprobs * _CONSTANT).sum(), {}


def _leaves_torch(logprobs: Tensor) -> object:
    return logprobs.sum(), {"custom/a:sum": logprobs.sum().item()}


def _differentiates(logprobs: Tensor) -> Loss:
    logprobs.sum().backward()  # type: ignore[no-untyped-call]  # torch's, not ours
    return logprobs.sum(), {}


def _unknown_method(logprobs: Tensor) -> object:
    return logprobs.total(), {}  # type: ignore[attr-defined]  # the point


def _bare_loss(logprobs: Tensor) -> object:
    return logprobs.sum()


def _loss_is_a_number(logprobs: Tensor) -> object:
    return 1.0, {}


def _metrics_are_a_list(logprobs: Tensor) -> object:
    return logprobs.sum(), [logprobs.sum()]


def _metric_without_reduction(logprobs: Tensor) -> Loss:
    return logprobs.sum(), {"custom/a": logprobs.sum()}


def _metric_of_the_trainer(logprobs: Tensor) -> Loss:
    return logprobs.sum(), {"loss:sum": logprobs.sum()}


def _metric_is_a_number(logprobs: Tensor) -> object:
    return logprobs.sum(), {"custom/a:sum": 1.0}


def _other_first(weights: Tensor, logprobs: Tensor) -> Loss:
    return (weights * logprobs).sum(), {}


def _default(logprobs: Tensor, weights: float = 1.0) -> Loss:
    return (weights * logprobs).sum(), {}


def _keyword_only(logprobs: Tensor, *, weights: Tensor) -> Loss:
    return (weights * logprobs).sum(), {}


def _upper_case(logprobs: Tensor, Weights: Tensor) -> Loss:
    return (Weights * logprobs).sum(), {}


TRACED: dict[str, tuple[Callable[..., Loss], dict[str, Any]]] = {
    fn.__name__: (fn, ranks)
    for fn, ranks in (
        (cross_entropy, {"logprobs": 1, "weights": 1}),
        (importance_sampling, {"logprobs": 1, "advantages": 1, "old_logprobs": 1}),
        (clipped_policy, {"logprobs": 1, "advantages": 1, "old_logprobs": 1}),
        (preference, {"logprobs": 1, "mask": 1, "reference": 1, "sign": 0}),
        (distillation, {"logprobs": 2, "teacher": 2}),
        (indexed, {"logprobs": 1, "weights": 1}),
        (masked, {"logprobs": 1, "mask": 1}),
        (python_numbers, {"logprobs": 1, "weights": 1}),
        (stacked, {"logprobs": 1, "weights": 1}),
        (methods, {"logprobs": 1, "weights": 1}),
        (functional, {"logprobs": 1, "target": 1}),
        (without_inputs, {"logprobs": 1}),
    )
}
"""By name: the loss and the ranks of its inputs."""

REFUSED: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "branches": (_branches, {"logprobs": 1}),
    "captures": (_captures, {"logprobs": 1}),
    "leaves torch": (_leaves_torch, {"logprobs": 1}),
    "differentiates": (_differentiates, {"logprobs": 1}),
    "unknown method": (_unknown_method, {"logprobs": 1}),
    "bare loss": (_bare_loss, {"logprobs": 1}),
    "loss is a number": (_loss_is_a_number, {"logprobs": 1}),
    "metrics are a list": (_metrics_are_a_list, {"logprobs": 1}),
    "metric without reduction": (_metric_without_reduction, {"logprobs": 1}),
    "metric of the trainer": (_metric_of_the_trainer, {"logprobs": 1}),
    "metric is a number": (_metric_is_a_number, {"logprobs": 1}),
    "other first": (_other_first, {"logprobs": 1, "weights": 1}),
    "default": (_default, {"logprobs": 1, "weights": 1}),
    "keyword only": (_keyword_only, {"logprobs": 1, "weights": 1}),
    "upper case": (_upper_case, {"logprobs": 1, "Weights": 1}),
    "rank missing": (cross_entropy, {"logprobs": 1}),
    "rank too many": (without_inputs, {"logprobs": 1, "weights": 1}),
    "scalar logprobs": (without_inputs, {"logprobs": 0}),
}
"""By what is wrong with them."""
