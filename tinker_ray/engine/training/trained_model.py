"""An adapter under training: its matrices, their summed gradients, and its optimizer.

Knows nothing of threads, losses or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tinker_ray.engine.model.adapter import Adapter
from tinker_ray.engine.training.adamw import AdamW


@dataclass
class TrainedModel:
    """An adapter under training.

    Attributes:
        adapter: Its matrices are leaves whose gradients are views of ``gradient``.
        gradient: The sum of the gradients since the last step, laid out as ``adapter.flat``.
        optimizer: Its AdamW state.
    """

    adapter: Adapter
    gradient: torch.Tensor
    optimizer: AdamW

    @classmethod
    def start(cls, adapter: Adapter, optimizer: AdamW | None = None) -> TrainedModel:
        """Attach gradients to an adapter that nobody else holds."""
        gradient = torch.zeros_like(adapter.flat)
        slots = Adapter.over(gradient, adapter.targets, adapter.config).pairs
        for path, pair in adapter.pairs.items():
            for weight, slot in zip(pair, slots[path], strict=True):
                weight.requires_grad_()
                weight.grad = slot
        return cls(adapter, gradient, optimizer or AdamW.fresh(adapter.flat))
