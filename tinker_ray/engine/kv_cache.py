"""Keys and values of the sequences under way: one row a sequence, slot ``p`` for position ``p``.

The tensors of a layer are ``(rows, heads, length, head_dim)``; capacity grows by doubling and rows
are kept compact, so that a step works on a prefix view without copying. Knows nothing of sequences
beyond their rows and lengths.

Invariant: slots that no sequence has written hold finite numbers, so that masking them is enough.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from transformers import Cache

from tinker_ray.engine.lora import MINIMUM_ROWS

LENGTH_STEP = 16
"""Attended lengths are multiples of this: shorter steps would change rounding with the batch."""


def round_up(length: int) -> int:
    """Round a length up to a multiple of :data:`LENGTH_STEP`."""
    return -(-length // LENGTH_STEP) * LENGTH_STEP


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

    def prompt(self, row: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return a copy of one prompt: per layer keys and values ``(heads, length, head_dim)``."""
        return [(k[row, :, :length].clone(), v[row, :, :length].clone()) for k, v in self.pairs]


class RowCache(Cache):  # type: ignore[misc]
    """The keys and values of all rows under way."""

    def __init__(
        self, shape: KeyValueShape, *, dtype: torch.dtype, device: torch.device, max_slots: int
    ) -> None:
        """Start without any capacity; ``max_slots`` bounds rows times length where it can."""
        super().__init__(layers=[])
        self._max_slots = max_slots
        self.num_rows = 0
        self.length = 0
        empty = torch.zeros(0, shape.num_heads, 0, shape.head_dim, dtype=dtype, device=device)
        self._keys = [empty] * shape.num_layers
        self._values = [empty] * shape.num_layers
        self._row_ids = torch.zeros(0, dtype=torch.int64)
        self._positions = self._row_ids
        self._step_length = 0

    def fit(self, num_rows: int, length: int) -> None:
        """Make room for ``num_rows`` rows of ``length`` slots, keeping what the rows hold.

        Capacity doubles while rows times length stay within ``max_slots``, else it is what is asked
        for.
        """
        num_rows = max(num_rows, MINIMUM_ROWS)
        if num_rows <= self.num_rows and length <= self.length:
            return
        rows = self.num_rows if num_rows <= self.num_rows else max(num_rows, 2 * self.num_rows)
        slots = self.length if length <= self.length else max(length, 2 * self.length)
        if rows * slots > self._max_slots:
            rows, slots = num_rows, length
        self._keys = [_regrown(keys, rows, slots) for keys in self._keys]
        self._values = [_regrown(values, rows, slots) for values in self._values]
        self.num_rows, self.length = rows, slots

    def clear(self, row: int) -> None:
        """Zero a row whose numbers are not finite."""
        for tensor in (*self._keys, *self._values):
            tensor[row].zero_()

    def move(self, sources: list[int], destinations: list[int], length: int) -> None:
        """Copy rows onto others at once; a source may be the destination of another."""
        source = torch.tensor(sources, device=self._keys[0].device)
        destination = torch.tensor(destinations, device=self._keys[0].device)
        for tensor in (*self._keys, *self._values):
            view = tensor[:, :, :length]
            view[destination] = view[source]

    def insert(self, rows: list[int], prompt: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Copy one prompt, ``(heads, length, head_dim)`` per layer, into each of ``rows``."""
        index = torch.tensor(rows, device=self._keys[0].device)
        for layer, (keys, values) in enumerate(prompt):
            length = keys.shape[1]
            self._keys[layer][:, :, :length][index] = keys
            self._values[layer][:, :, :length][index] = values

    def begin_step(self, positions: torch.Tensor, length: int) -> None:
        """Let the next run write row ``i`` at ``positions[i]`` and attend to ``length`` slots."""
        if self._row_ids.shape[0] != positions.shape[0]:
            self._row_ids = torch.arange(positions.shape[0], device=positions.device)
        self._positions = positions
        self._step_length = length

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: object,
        **_kwargs: object,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one new token a row, ``(B, heads, 1, head_dim)``; return views of the rows."""
        num_rows = key_states.shape[0]
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        keys[self._row_ids, :, self._positions] = key_states[:, :, 0]
        values[self._row_ids, :, self._positions] = value_states[:, :, 0]
        length = self._step_length
        return keys[:num_rows, :, :length], values[:num_rows, :, :length]


def _regrown(tensor: torch.Tensor, num_rows: int, length: int) -> torch.Tensor:
    """Copy ``(rows, heads, length, head_dim)`` into zeros of another capacity."""
    grown = tensor.new_zeros(num_rows, tensor.shape[1], length, tensor.shape[3])
    rows, slots = min(num_rows, tensor.shape[0]), min(length, tensor.shape[2])
    grown[:rows, :, :slots] = tensor[:rows, :, :slots]
    return grown
