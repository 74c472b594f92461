"""From the logprobs of rows to their losses, and back to the gradient of those logprobs.

Knows nothing of models: what lies before the logprobs is for others to differentiate. So a custom
loss keeps what it computed for one row only until it has the gradient of that row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tinker_ray.engine.training.batch import NamedLoss
from tinker_ray.engine.training.datum_check import refuse
from tinker_ray.engine.training.loss import Cells, cell_losses
from tinker_ray.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.engine.training.custom_loss import CustomLoss
    from tinker_ray.engine.training.datum_check import TrainingRow


class RowSums:
    """The losses of rows, summed.

    Attributes:
        loss: The sum so far.
    """

    def __init__(self) -> None:
        self.loss = 0.0
        self._metrics: dict[str, float] = {}

    def add(
        self, batch: TrainingBatch, logprobs: torch.Tensor, indices: Sequence[int]
    ) -> torch.Tensor | None:
        """Add the losses of some rows.

        Args:
            batch: What they belong to.
            logprobs: Of all their targets, one row after the other, ``(C,)``.
            indices: Which rows of the batch they are.

        Returns:
            The gradient of the sum by ``logprobs``, if the batch goes backward.

        Raises:
            EngineError: A loss or its gradient is not finite, or a custom loss cannot be computed.
        """
        rows = [batch.rows[index] for index in indices]
        leaf = logprobs.requires_grad_(batch.backward)
        with torch.set_grad_enabled(batch.backward):
            if isinstance(batch.loss, NamedLoss):
                values, gradient = _named_losses(batch.loss, leaf, rows)
            else:
                values, gradient = self._custom_losses(batch.loss, leaf, rows, indices)
        for index, value in zip(indices, values, strict=True):
            if not math.isfinite(value):
                refuse(f"data[{index}]", f"has a loss of {value}: see its inputs, or the weights")
        if gradient is not None:
            _check_gradient(gradient, rows, indices)
        self.loss += sum(values)
        return gradient

    def metrics(self, num_rows: int) -> dict[str, float]:
        """Return what a custom loss says of itself: sums, and means over ``num_rows`` rows."""
        return {
            name: value / num_rows if name.endswith(":mean") else value
            for name, value in self._metrics.items()
        }

    def _custom_losses(
        self,
        loss: CustomLoss,
        logprobs: torch.Tensor,
        rows: Sequence[TrainingRow],
        indices: Sequence[int],
    ) -> tuple[list[float], torch.Tensor | None]:
        values: list[float] = []
        gradients: list[torch.Tensor] = []
        parts = _split(logprobs.detach(), rows)
        for index, row, part in zip(indices, rows, parts, strict=True):
            leaf = part.reshape(row.targets.shape).requires_grad_(logprobs.requires_grad)
            try:
                result = loss.run(leaf, _tensors(row, leaf.device))
            except EngineError as error:
                raise EngineError(f"data[{index}]: {error.message}", category="user") from error
            values.append(float(result.loss.detach()))
            for name, value in result.metrics.items():
                self._metrics[name] = self._metrics.get(name, 0.0) + value
            if leaf.requires_grad:
                gradients.append(_gradient(result.loss, leaf, index))
        return values, torch.cat(gradients) if gradients else None


def _named_losses(
    loss: NamedLoss, logprobs: torch.Tensor, rows: Sequence[TrainingRow]
) -> tuple[list[float], torch.Tensor | None]:
    sizes = torch.tensor([row.targets.size for row in rows])
    owners = torch.repeat_interleave(torch.arange(len(rows)), sizes).to(logprobs.device)
    inputs = _join_inputs(rows, loss.config, logprobs.device)
    losses = cell_losses(loss.name, Cells(logprobs, inputs, owners, len(rows)), loss.config)
    if logprobs.requires_grad:
        losses.sum().backward()  # type: ignore[no-untyped-call]
    sums = torch.zeros(len(rows), dtype=torch.float64, device=losses.device)
    return sums.index_add(0, owners, losses.detach().double()).tolist(), logprobs.grad


def _join_inputs(
    rows: Sequence[TrainingRow], config: Mapping[str, float], device: torch.device
) -> dict[str, torch.Tensor]:
    """Join the inputs of all rows; ``config`` stands in for an optional one that a row lacks."""
    joined: dict[str, torch.Tensor] = {}
    for key in dict.fromkeys(key for row in rows for key in row.inputs):
        parts: list[npt.NDArray[Any]] = [
            row.inputs[key].reshape(-1)
            if key in row.inputs
            else np.full(row.targets.size, config[key], np.float32)
            for row in rows
        ]
        joined[key] = torch.from_numpy(np.concatenate(parts)).to(device)
    return joined


def _tensors(row: TrainingRow, device: torch.device) -> dict[str, torch.Tensor]:
    # Copies: what came over the wire is read-only, and torch warns of sharing that.
    return {key: torch.tensor(values, device=device) for key, values in row.inputs.items()}


def _gradient(loss: torch.Tensor, leaf: torch.Tensor, index: int) -> torch.Tensor:
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    if leaf.grad is None:
        refuse(f"data[{index}]", "has a loss that does not depend on logprobs")
    return leaf.grad.reshape(-1)


def _check_gradient(
    gradient: torch.Tensor, rows: Sequence[TrainingRow], indices: Sequence[int]
) -> None:
    if bool(gradient.isfinite().all()):
        return
    for index, part in zip(indices, _split(gradient, rows), strict=True):
        if not bool(part.isfinite().all()):
            refuse(f"data[{index}]", "has a gradient that is not finite: see its inputs")


def _split(cells: torch.Tensor, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
    """Return the cells of each row."""
    parts: tuple[torch.Tensor, ...] = torch.split(cells, [row.targets.size for row in rows])
    return parts
