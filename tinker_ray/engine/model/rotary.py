"""Rotary position embedding by table: the cosines and sines of a model's own module, kept.

Holds for the kinds whose frequencies do not depend on the length of a sequence. Knows nothing of
layers.

Source: https://arxiv.org/abs/2104.09864
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import nn

_FIRST_LENGTH = 256


class Rotation(NamedTuple):
    """What turns the heads of each row, ``(rows, 1, head_dim)``.

    Attributes:
        cos: Factors of the heads as they are.
        sin: Factors of the heads with their halves exchanged, the sign of the first half included.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def turn(self, heads: torch.Tensor) -> torch.Tensor:
        """Return ``(rows, heads, head_dim)`` turned by the positions of the rows."""
        exchanged = torch.roll(heads, heads.shape[-1] // 2, dims=-1)
        return torch.mul(heads, self.cos).addcmul_(exchanged, self.sin)


class RotaryTable:
    """Rotations of all positions so far; belongs to one thread."""

    def __init__(self, module: nn.Module, like: torch.Tensor) -> None:
        """Take the model's rotary module, and a tensor of the dtype and device to compute in."""
        self._module = module
        self._like = like
        self._cos = self._sin = like.new_zeros(0, 0)

    def at(self, positions_N: torch.Tensor, longest: int) -> Rotation:
        """Return the rotations at positions, all below ``longest``."""
        if longest > self._cos.shape[0]:
            self._grow(max(_FIRST_LENGTH, 2 * self._cos.shape[0], longest))
        cos, sin = (table.index_select(0, positions_N) for table in (self._cos, self._sin))
        return Rotation(cos[:, None], sin[:, None])

    def _grow(self, length: int) -> None:
        positions = torch.arange(length, device=self._like.device)
        cos, sin = self._module(self._like, position_ids=positions[None])
        first_half = sin[0, :, : sin.shape[-1] // 2]
        self._cos, self._sin = cos[0], torch.cat((-first_half, first_half), dim=-1)
