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
from tinker_ray.engine.training.row_loss import RowSums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.engine.training.datum_check import TrainingRow


@dataclass(frozen=True, eq=False)
class LossResult:
    """What a pass over all rows gives.

    Attributes:
        logprobs: Per row the logprobs of its targets, float32, of the targets' shape.
        loss_sum: The sum of all losses.
        metrics: What a custom loss says of itself.
    """

    logprobs: list[npt.NDArray[np.float32]]
    loss_sum: float
    metrics: Mapping[str, float]


def run_batch(
    base: BaseModel, adapter: Adapter, batch: TrainingBatch, *, batch_tokens: int
) -> LossResult:
    """Compute the loss of a batch, at most ``batch_tokens`` padded tokens at a time.

    Raises:
        EngineError: The loss of a row is not finite, or a custom loss cannot be computed.
    """
    logprobs: list[npt.NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(batch.rows)
    total = RowSums()
    for indices in pack([row.length for row in batch.rows], batch_tokens):
        rows = [batch.rows[index] for index in indices]
        with torch.set_grad_enabled(batch.backward):
            flat = target_logprobs(base, adapter, rows)
        gradient = total.add(batch, flat.detach(), indices)
        if gradient is not None:
            flat.backward(gradient)  # type: ignore[no-untyped-call]
        bounds = np.cumsum([row.targets.size for row in rows])[:-1]
        parts = np.split(flat.detach().cpu().numpy(), bounds)
        for index, row, part in zip(indices, rows, parts, strict=True):
            logprobs[index] = part.reshape(row.targets.shape)
    return LossResult(logprobs, total.loss, total.metrics(len(batch.rows)))


def target_logprobs(base: BaseModel, adapter: Adapter, rows: Sequence[TrainingRow]) -> torch.Tensor:
    """Return the logprobs of all targets of ``rows``, one row after the other, flat."""
    tokens = np.zeros((len(rows), max(row.length for row in rows)), np.int64)
    for index, row in enumerate(rows):
        tokens[index, : row.length] = row.tokens
    lengths = torch.tensor([row.length for row in rows])
    is_token = torch.arange(tokens.shape[1]) < lengths[:, None]
    with assigned(whole_batch(adapter, len(rows))):
        # Padding comes after the tokens, where causal attention does not look.
        hidden = base.run(torch.from_numpy(tokens).to(base.device))
    flat = hidden[is_token.to(base.device)]  # (N, hidden)
    with assigned(whole_batch(adapter, flat.shape[0])):
        scores = torch.log_softmax(base.unembed(flat), dim=-1)  # (N, vocab)
    targets, is_cell = _padded_targets(rows)
    gathered = scores.gather(-1, targets.to(base.device))  # (N, K)
    return gathered.reshape(-1) if is_cell is None else gathered[is_cell.to(base.device)]


def _padded_targets(rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Join the targets of all rows as ``(N, K)``, and say which cells are no padding, if some."""
    width = max(row.width for row in rows)
    if all(row.width == width for row in rows):
        joined = np.concatenate([row.targets.reshape(row.length, width) for row in rows])
        return torch.from_numpy(joined), None
    targets = np.zeros((sum(row.length for row in rows), width), np.int64)
    is_cell = np.zeros(targets.shape, np.bool_)
    start = 0
    for row in rows:
        place = np.s_[start : start + row.length, : row.width]
        targets[place] = row.targets.reshape(row.length, row.width)
        is_cell[place] = True
        start += row.length
    return torch.from_numpy(targets), torch.from_numpy(is_cell)
