"""Prompts one after the other without padding, and the way to and from padded batches.

Layers that look at one token at a time run over the packed rows; attention wants a batch of equal
lengths. Knows nothing of layers.

Invariant: what pads a prompt is its own last token, so that numbers that are not finite stay in
their prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from tinker_ray.engine.model.lora import MINIMUM_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

LENGTH_STEP = 16
"""Padded lengths are multiples of this many tokens."""


def padded_length(num_tokens: int) -> int:
    """Round a prompt's length up to what attention runs over."""
    return -(-num_tokens // LENGTH_STEP) * LENGTH_STEP


class PackedPrompts:
    """The index arithmetic of a batch of prompts.

    Attributes:
        lengths: Tokens of each prompt.
        width: Padded length of all of them.
        num_rows: Packed rows: the tokens of all, at least :data:`MINIMUM_ROWS`.
        tokens: ``(num_rows,)``.
        positions: ``(num_rows,)``.
        last_rows: The row of each prompt's last token, repeated up to :data:`MINIMUM_ROWS`.
    """

    def __init__(self, prompts: Sequence[npt.NDArray[np.int64]], device: torch.device) -> None:
        """Pack prompts, none of them empty."""
        lengths = np.array([len(prompt) for prompt in prompts])
        stops = lengths.cumsum()
        starts = stops - lengths
        num_tokens, count = int(stops[-1]), len(prompts)
        self.lengths = lengths.tolist()
        self.width = padded_length(int(lengths.max()))
        self.num_rows = max(num_tokens, MINIMUM_ROWS)
        tokens = np.zeros(self.num_rows, np.int64)
        positions = np.zeros(self.num_rows, np.int64)
        tokens[:num_tokens] = np.concatenate(prompts)
        positions[:num_tokens] = np.arange(num_tokens) - np.repeat(starts, lengths)
        columns = np.minimum(np.arange(self.width), lengths[:, None] - 1)
        cells = np.zeros(self.num_rows, np.int64)
        cells[:num_tokens] = np.repeat(np.arange(count) * self.width, lengths)
        cells += positions
        last_rows = np.resize(stops - 1, max(count, MINIMUM_ROWS))
        self._is_full = num_tokens == count * self.width
        self._rows_of_cells = torch.from_numpy((starts[:, None] + columns).ravel()).to(device)
        self._cells_of_rows = torch.from_numpy(cells).to(device)
        self.tokens = torch.from_numpy(tokens).to(device)
        self.positions = torch.from_numpy(positions).to(device)
        self.last_rows = torch.from_numpy(last_rows).to(device)

    def pad(self, rows: torch.Tensor) -> torch.Tensor:
        """Lay packed rows ``(num_rows, ...)`` out as ``(prompts, width, ...)``."""
        if not self._is_full:
            rows = rows.index_select(0, self._rows_of_cells)
        return rows.view(len(self.lengths), self.width, *rows.shape[1:])

    def unpad(self, cells: torch.Tensor) -> torch.Tensor:
        """Pack ``(prompts, width, ...)`` into ``(num_rows, ...)``."""
        rows = cells.flatten(0, 1)
        return rows if self._is_full else rows.index_select(0, self._cells_of_rows)

    def split(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the rows of each prompt."""
        return torch.split(rows[: sum(self.lengths)], self.lengths)
