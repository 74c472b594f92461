"""The training losses, as sums over target cells.

A cell is one target: one per position, or K per position where targets are ``(T, K)``. Works on
flat tensors of all cells of a batch; knows nothing of models, datums or batching. With l the
logprob of a target under the trained model, q its ``logprobs`` input, A its ``advantages``, w its
``weights``, r = exp(l - q) and sg = stop-gradient, the loss of a cell is

- ``cross_entropy``: -w l
- ``importance_sampling``: -r A
- ``ppo``: -min(r A, clip(r, low, high) A)
- ``cispo``: -sg(clip(r, low, high)) l A
- ``dro``: -(l A - beta/2 (l - q)^2)
- ``gspo``: as ``ppo``, with s = exp(mean of sg(l - q) over ``sequence_ratio_mask`` + l - sg(l)) in
  the place of r: every token has the ratio of its sequence and the gradient of its own logprob
- ``stable_reinforce``: -sg(min(r, 2)) l A + kl_coeff/2 (l - q)^2 on sampled tokens, 0 on others,
  with the q that the engine recorded. A surrogate of our own: upstream's formula is not public.

Sources: https://tinker-docs.thinkingmachines.ai/tinker/losses; for the surrogate, truncation as in
https://fengyao.notion.site/off-policy-rl, and k2 of http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import torch

from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOW = "clip_low_threshold"
HIGH = "clip_high_threshold"
RATIO_MASK = "sequence_ratio_mask"
SAMPLED = "sampled"
"""An input of ``stable_reinforce`` that the engine makes: 1 where the target was sampled."""
RATIO_LIMIT = 2.0
"""Where ``stable_reinforce`` truncates importance ratios."""
CUSTOM = "custom"


@dataclass(frozen=True, eq=False)
class Cells:
    """All target cells of a batch, one row after the other.

    Attributes:
        logprobs: Under the trained model, ``(C,)``.
        inputs: What the loss reads, each ``(C,)``.
        rows: The row of each cell, int64 ``(C,)``.
        num_rows: How many rows there are.
    """

    logprobs: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    rows: torch.Tensor
    num_rows: int

    @property
    def log_ratios(self) -> torch.Tensor:
        """How much likelier each target has become, ``(C,)``."""
        return self.logprobs - self.inputs["logprobs"]


Config: TypeAlias = "Mapping[str, float]"
Formula: TypeAlias = Callable[[Cells, Config], torch.Tensor]


@dataclass(frozen=True)
class LossSpec:
    """What a loss reads and computes.

    Attributes:
        formula: Gives the loss of every cell, ``(C,)``.
        inputs: Required float inputs, one number per cell.
        config: Configuration keys and their defaults; clip thresholds may instead be given per
            cell, as inputs of the same names.
        is_flat: Whether targets have to be ``(T,)``.
        is_recorded: Whether it reads what was recorded when its targets were sampled.
        is_surrogate: Whether the formula is ours, because upstream's is not public.
    """

    formula: Formula
    inputs: tuple[str, ...]
    config: Mapping[str, float]
    is_flat: bool = False
    is_recorded: bool = False
    is_surrogate: bool = False

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        """Float inputs that may be given per cell."""
        return tuple(key for key in self.config if key in {LOW, HIGH})


def _cross_entropy(cells: Cells, _: Config) -> torch.Tensor:
    return -cells.inputs["weights"] * cells.logprobs


def _importance_sampling(cells: Cells, _: Config) -> torch.Tensor:
    return -cells.log_ratios.exp() * cells.inputs["advantages"]


def _ppo(cells: Cells, config: Config) -> torch.Tensor:
    return _clipped(cells.log_ratios.exp(), cells, config)


def _cispo(cells: Cells, config: Config) -> torch.Tensor:
    ratio = _clip(cells.log_ratios.exp(), cells, config).detach()
    return -ratio * cells.logprobs * cells.inputs["advantages"]


def _dro(cells: Cells, config: Config) -> torch.Tensor:
    penalty = 0.5 * config["beta"] * cells.log_ratios.square()
    return -(cells.logprobs * cells.inputs["advantages"] - penalty)


def _gspo(cells: Cells, config: Config) -> torch.Tensor:
    held = cells.logprobs.detach()
    sequence = sequence_log_ratios(held, cells)[cells.rows]
    return _clipped((sequence + cells.logprobs - held).exp(), cells, config)


def _stable_reinforce(cells: Cells, config: Config) -> torch.Tensor:
    log_ratios = cells.log_ratios
    ratio = log_ratios.detach().clamp(max=math.log(RATIO_LIMIT)).exp()
    reinforced = -ratio * cells.logprobs * cells.inputs["advantages"]
    penalty = 0.5 * config["kl_coeff"] * log_ratios.square()
    return cells.inputs[SAMPLED] * (reinforced + penalty)


def sequence_log_ratios(logprobs: torch.Tensor, cells: Cells) -> torch.Tensor:
    """Return each row's mean log-ratio over its ``sequence_ratio_mask``, ``(num_rows,)``."""
    counted = cells.inputs[RATIO_MASK] != 0
    log_ratios = torch.where(counted, logprobs - cells.inputs["logprobs"], 0.0)
    sums = log_ratios.new_zeros(cells.num_rows).index_add(0, cells.rows, log_ratios)
    counts = log_ratios.new_zeros(cells.num_rows).index_add(
        0, cells.rows, counted.to(log_ratios.dtype)
    )
    return sums / counts


def _clipped(ratio: torch.Tensor, cells: Cells, config: Config) -> torch.Tensor:
    advantages = cells.inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clip(ratio, cells, config) * advantages)


def _clip(ratio: torch.Tensor, cells: Cells, config: Config) -> torch.Tensor:
    low = cells.inputs.get(LOW, ratio.new_tensor(config[LOW]))
    high = cells.inputs.get(HIGH, ratio.new_tensor(config[HIGH]))
    return torch.clamp(ratio, low, high)


_POLICY = ("logprobs", "advantages")
_PPO_CLIP = MappingProxyType({LOW: 0.8, HIGH: 1.2})

LOSSES: Mapping[str, LossSpec] = MappingProxyType(
    {
        "cross_entropy": LossSpec(_cross_entropy, ("weights",), MappingProxyType({})),
        "importance_sampling": LossSpec(_importance_sampling, _POLICY, MappingProxyType({})),
        "ppo": LossSpec(_ppo, _POLICY, _PPO_CLIP),
        "cispo": LossSpec(_cispo, _POLICY, MappingProxyType({LOW: 0.0, HIGH: 4.0})),
        "dro": LossSpec(_dro, _POLICY, MappingProxyType({"beta": 0.05})),
        "gspo": LossSpec(_gspo, (*_POLICY, RATIO_MASK), _PPO_CLIP, is_flat=True),
        "stable_reinforce": LossSpec(
            _stable_reinforce,
            ("advantages",),
            MappingProxyType({"kl_coeff": 0.0}),
            is_flat=True,
            is_recorded=True,
            is_surrogate=True,
        ),
    }
)


def find_loss(loss_fn: str) -> LossSpec:
    """Return the specification of a loss.

    Raises:
        EngineError: There is none of this name.
    """
    if loss_fn not in LOSSES:
        names = ", ".join((*LOSSES, CUSTOM))
        message = f"loss_fn {loss_fn!r} is not supported: use one of {names}"
        raise EngineError(message, category="user")
    return LOSSES[loss_fn]


def refuse_surrogate(loss_fn: str) -> None:
    """Refuse a loss whose formula is ours.

    Raises:
        EngineError: It is one.
    """
    if loss_fn in LOSSES and LOSSES[loss_fn].is_surrogate:
        message = (
            f"loss_fn {loss_fn!r} is refused by --strict-losses: its formula is not public, and "
            "this engine has a surrogate of its own (see docs/losses.md)"
        )
        raise EngineError(message, category="user")


def complete_config(loss_fn: str, config: Mapping[str, float | str] | None) -> dict[str, float]:
    """Fill in the defaults of a loss.

    Raises:
        EngineError: A key is unknown to the loss, or a value is not a number that it can use.
    """
    spec = find_loss(loss_fn)
    complete = dict(spec.config)
    for key, value in (config or {}).items():
        path = f"loss_fn_config[{key!r}]"
        if key not in spec.config:
            known = ", ".join(spec.config) or "none"
            message = f"{path} is unknown to {loss_fn!r} (known: {known})"
            raise EngineError(message, category="user")
        if isinstance(value, bool | str) or not math.isfinite(value):
            message = f"{path} must be a finite number, got {value!r}"
            raise EngineError(message, category="user")
        if key == "kl_coeff" and value < 0:
            raise EngineError(f"{path} must not be negative, got {value}", category="user")
        complete[key] = float(value)
    if LOW in complete and complete[LOW] > complete[HIGH]:
        message = f"loss_fn_config[{LOW!r}] is {complete[LOW]}, above {HIGH} {complete[HIGH]}"
        raise EngineError(message, category="user")
    return complete


def cell_losses(loss_fn: str, cells: Cells, config: Config) -> torch.Tensor:
    """Return the loss of every cell, ``(C,)``.

    Args:
        loss_fn: A key of :data:`LOSSES`.
        cells: Logprobs and what the loss reads.
        config: All configuration keys of the loss.
    """
    return LOSSES[loss_fn].formula(cells, config)
