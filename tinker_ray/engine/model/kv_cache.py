"""Keys and values of the sequences under way: one row a sequence, slot ``p`` for position ``p``.

The tensors of a layer are ``(rows, heads, length, head_dim)``, rows are compact and lengths cut
close, so that a step works on a contiguous prefix without copying. Knows nothing of sequences
beyond their rows and lengths.

Invariant: slots that no sequence has written hold finite numbers, so that masking them is enough.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from transformers import Cache

from tinker_ray.engine.model.attention import SLOT_STEP, fewest_slots
from tinker_ray.engine.model.lora import MINIMUM_ROWS

_SPARE_SHARE = 8


def round_up(length: int, step: int) -> int:
    """Round a length up to a multiple of ``step``."""
    return -(-length // step) * step


class KeyValueShape(NamedTuple):
    """How many keys of which width each token has in how many layers."""

    num_layers: int
    num_heads: int
    head_dim: int


class KeyValueSink(Protocol):
    """What a transformers model needs of a cache."""

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: object,
        **kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values ``(B, heads, T, head_dim)``; return those to attend to."""
        ...


class PromptCache(Cache):  # type: ignore[misc]
    """Keeps the keys and values of a batch of prompts as the model made them.

    Attributes:
        pairs: Per layer keys and values, ``(B, heads, T, head_dim)``.
    """

    def __init__(self) -> None:
        """Start empty."""
        super().__init__(layers=[])
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,  # noqa: ARG002 - layers come in order
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep both and attend to nothing else."""
        self.pairs.append((key_states, value_states))
        return key_states, value_states


class RowCache(Cache):  # type: ignore[misc]
    """The keys and values of all rows under way.

    Attributes:
        num_rows: Rows that there is memory for.
        length: Slots of every row; attention goes over all of them.
    """

    def __init__(
        self, shape: KeyValueShape, *, dtype: torch.dtype, device: torch.device, max_slots: int
    ) -> None:
        """Start without any capacity; ``max_slots`` bounds rows times length where it can."""
        super().__init__(layers=[])
        self.num_rows = 0
        self.length = 0
        self._max_slots = max_slots
        self._fewest_slots = fewest_slots(shape.head_dim)
        self._heads = torch.arange(shape.num_heads, device=device)
        empty = torch.zeros(0, shape.num_heads, 0, shape.head_dim, dtype=dtype, device=device)
        self._keys = [empty] * shape.num_layers
        self._values = [empty] * shape.num_layers
        self._slots = torch.zeros(0, dtype=torch.int64, device=device)

    def fit(self, num_rows: int, length: int) -> None:
        """Make room for ``num_rows`` rows of ``length`` slots, keeping what they hold.

        Rows double while there is memory. Lengths grow by an eighth at a time, and shrink when
        half of them is not needed: attention reads every slot, and reads contiguous memory fastest.
        """
        num_rows = max(num_rows, MINIMUM_ROWS)
        length = round_up(max(length, self._fewest_slots), SLOT_STEP)
        if num_rows <= self.num_rows and length <= self.length <= 2 * length:
            return
        rows = self.num_rows if num_rows <= self.num_rows else max(num_rows, 2 * self.num_rows)
        slots = self.length if self.length // 2 <= length <= self.length else length
        if length > self.length > 0:
            slots = max(length, round_up(self.length + self.length // _SPARE_SHARE, SLOT_STEP))
        if rows * slots > self._max_slots:
            rows, slots = num_rows, length
        self._keys = [_regrown(keys, rows, slots) for keys in self._keys]
        self._values = [_regrown(values, rows, slots) for values in self._values]
        self.num_rows, self.length = rows, slots

    def clear(self, row: int) -> None:
        """Zero a row whose numbers are not finite."""
        for tensor in (*self._keys, *self._values):
            tensor[row].zero_()

    def move(self, sources: list[int], destinations: list[int]) -> None:
        """Copy rows onto others at once; a source may be the destination of another."""
        source = torch.tensor(sources, device=self._slots.device)
        destination = torch.tensor(destinations, device=self._slots.device)
        for tensor in (*self._keys, *self._values):
            tensor[destination] = tensor[source]

    def insert(self, rows: list[int], prompts: PromptCache, sources: list[int]) -> None:
        """Copy prompt ``sources[i]`` into row ``rows[i]``."""
        row, source = self._selection(rows), self._selection(sources)
        for layer, (keys, values) in enumerate(prompts.pairs):
            length = min(keys.shape[2], self.length)
            self._keys[layer][row, :, :length] = keys[source, :, :length]
            self._values[layer][row, :, :length] = values[source, :, :length]

    def mask(self, positions: torch.Tensor) -> torch.Tensor:
        """Return what to add to scores, ``(rows, 1, 1, length)``: nothing up to the position."""
        dtype = self._keys[0].dtype
        slots = torch.arange(self.length, device=positions.device)
        mask = torch.zeros(positions.shape[0], self.length, dtype=dtype, device=positions.device)
        return mask.masked_fill_(slots > positions[:, None], float("-inf"))[:, None, None]

    def begin_step(self, positions: torch.Tensor) -> None:
        """Let the next run write row ``i`` at ``positions[i]``."""
        rows = torch.arange(positions.shape[0], device=positions.device)
        heads = rows[:, None] * self._heads.shape[0] + self._heads
        self._slots = (heads * self.length + positions[:, None]).view(-1)

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one new token a row, ``(B, heads, 1, head_dim)``; return the rows."""
        num_rows, _, _, head_dim = key_states.shape
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        keys.view(-1, head_dim).index_copy_(0, self._slots, key_states.reshape(-1, head_dim))
        values.view(-1, head_dim).index_copy_(0, self._slots, value_states.reshape(-1, head_dim))
        return keys[:num_rows], values[:num_rows]

    def _selection(self, rows: list[int]) -> slice | torch.Tensor:
        """Select rows; neighbours in order need no index."""
        if rows == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0], rows[0] + len(rows))
        return torch.tensor(rows, device=self._slots.device)


def _regrown(tensor: torch.Tensor, num_rows: int, length: int) -> torch.Tensor:
    """Copy ``(rows, heads, length, head_dim)`` into zeros of another capacity."""
    grown = tensor.new_zeros(num_rows, tensor.shape[1], length, tensor.shape[3])
    rows, slots = min(num_rows, tensor.shape[0]), min(length, tensor.shape[2])
    grown[:rows, :, :slots] = tensor[:rows, :, :slots]
    return grown
