"""Losses, target logprobs and gradients of checked rows, micro-batch by micro-batch.

Knows nothing of threads or optimizers: it adds gradients to those of the adapter's matrices.

Invariant: losses are sums, so how rows are split into micro-batches changes results only by
rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tinker_ray.engine.model.lora import assigned, whole_batch
from tinker_ray.engine.training.batch import pack
from tinker_ray.engine.training.loss import token_losses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.training.batch import TrainingRow


@dataclass(frozen=True)
class LossCall:
    """Which loss to compute, with its complete configuration, and whether to go backward."""

    loss_fn: str
    config: Mapping[str, float]
    backward: bool


@dataclass(frozen=True, eq=False)
class LossResult:
    """What a pass over all rows gives.

    Attributes:
        logprobs: Per row the logprobs of its targets, float32 ``(T,)``.
        loss_sum: The sum of all token losses.
    """

    logprobs: list[npt.NDArray[np.float32]]
    loss_sum: float


def target_logprobs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return ``log_softmax(logits)`` ``(N, vocab)`` at ``targets`` ``(N,)``."""
    return torch.log_softmax(logits, dim=-1).gather(-1, targets[:, None])[:, 0]


def run_losses(
    base: BaseModel,
    adapter: Adapter,
    rows: Sequence[TrainingRow],
    call: LossCall,
    *,
    batch_tokens: int,
) -> LossResult:
    """Compute the loss of ``rows``, at most ``batch_tokens`` padded tokens at a time."""
    logprobs: list[npt.NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(rows)
    loss_sum = 0.0
    for indices in pack([row.length for row in rows], batch_tokens):
        batch = [rows[index] for index in indices]
        flat, losses = _run_batch(base, adapter, batch, call)
        loss_sum += float(losses.sum(dtype=torch.float64))
        bounds = np.cumsum([row.length for row in batch])[:-1]
        for index, part in zip(indices, np.split(flat.cpu().numpy(), bounds), strict=True):
            logprobs[index] = part
    return LossResult(logprobs, loss_sum)


def _run_batch(
    base: BaseModel, adapter: Adapter, rows: Sequence[TrainingRow], call: LossCall
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logprobs and losses of all targets of ``rows``, one row after the other."""
    tokens = np.zeros((len(rows), max(row.length for row in rows)), np.int64)
    for index, row in enumerate(rows):
        tokens[index, : row.length] = row.tokens
    lengths = torch.tensor([row.length for row in rows])
    is_token = torch.arange(tokens.shape[1]) < lengths[:, None]
    targets = torch.from_numpy(np.concatenate([row.targets for row in rows])).to(base.device)
    inputs = _join_inputs(rows, call.config, base.device)
    with torch.set_grad_enabled(call.backward):
        with assigned(whole_batch(adapter, len(rows))):
            # Padding comes after the tokens, where causal attention does not look.
            hidden = base.run(torch.from_numpy(tokens).to(base.device))
        flat = hidden[is_token.to(base.device)]  # (N, hidden)
        with assigned(whole_batch(adapter, flat.shape[0])):
            logprobs = target_logprobs(base.unembed(flat), targets)
        losses = token_losses(call.loss_fn, logprobs, inputs, call.config)
    if call.backward:
        losses.sum().backward()  # type: ignore[no-untyped-call]
    return logprobs.detach(), losses.detach()


def _join_inputs(
    rows: Sequence[TrainingRow], config: Mapping[str, float], device: torch.device
) -> dict[str, torch.Tensor]:
    """Join the inputs of all rows; ``config`` stands in for an optional one that a row lacks."""
    joined: dict[str, torch.Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row.inputs):
        parts = [
            row.inputs[key] if key in row.inputs else np.full(row.length, config[key], np.float32)
            for row in rows
        ]
        joined[key] = torch.from_numpy(np.concatenate(parts)).to(device)
    return joined
