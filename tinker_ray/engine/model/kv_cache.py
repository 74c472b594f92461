"""Keys and values of the sequences under way: one row a sequence, slot ``p`` for position ``p``.

The tensors of a layer are ``(rows, heads, length, head_dim)``, rows are compact and lengths cut
close, so that a step works on a contiguous prefix without copying. Knows nothing of sequences
beyond their rows and lengths.

Invariant: slots that no sequence has written hold finite numbers, so that masking them is enough.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from transformers import Cache

from tinker_ray.engine.model.attention import SLOT_STEP, fewest_slots
from tinker_ray.engine.model.lora import MINIMUM_ROWS

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    _Records: TypeAlias = npt.NDArray[np.void]

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
        self._hidden, self._visible = torch.tensor([-math.inf, 0.0], dtype=dtype, device=device)
        empty = torch.zeros(0, shape.num_heads, 0, shape.head_dim, dtype=dtype, device=device)
        self._keys = [empty] * shape.num_layers
        self._values = [empty] * shape.num_layers
        self._records: list[tuple[_Records, _Records]] = []
        self._numbers = self._starts = self._slots = torch.zeros(0, dtype=torch.int64)

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
        self._number()

    def clear(self, row: int) -> None:
        """Zero a row whose numbers are not finite."""
        for tensor in (*self._keys, *self._values):
            tensor[row].zero_()

    def move(self, sources: list[int], destinations: list[int]) -> None:
        """Copy rows onto others at once; a source may be the destination of another."""
        source = torch.tensor(sources, device=self._keys[0].device)
        destination = torch.tensor(destinations, device=self._keys[0].device)
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
        beyond = self._numbers > positions[:, None]
        return torch.where(beyond, self._hidden, self._visible)[:, None, None]

    def begin_step(self, positions: torch.Tensor) -> None:
        """Let the next run write row ``i`` at ``positions[i]``."""
        self._slots = (self._starts[: positions.shape[0]] + positions[:, None]).view(-1)

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
        if self._records:
            slots = self._slots.numpy()
            key_records, value_records = self._records[layer_idx]
            key_records[slots] = _records(key_states)
            value_records[slots] = _records(value_states)
        else:
            keys.view(-1, head_dim).index_copy_(0, self._slots, key_states.reshape(-1, head_dim))
            flat = value_states.reshape(-1, head_dim)
            values.view(-1, head_dim).index_copy_(0, self._slots, flat)
        return keys[:num_rows], values[:num_rows]

    def _number(self) -> None:
        """Number the slots of a new capacity.

        On a CPU writing new keys waits for memory, and numpy, which copies records, has more writes
        under way than torch, which copies rows: it takes half of the time.
        """
        num_heads, device = self._keys[0].shape[1], self._keys[0].device
        self._numbers = torch.arange(self.length, device=device)
        starts = torch.arange(self.num_rows * num_heads, device=device) * self.length
        self._starts = starts.view(self.num_rows, num_heads)
        if device.type == "cpu":
            pairs = zip(self._keys, self._values, strict=True)
            self._records = [(_records(keys), _records(values)) for keys, values in pairs]

    def _selection(self, rows: list[int]) -> slice | torch.Tensor:
        """Select rows; neighbours in order need no index."""
        if rows == list(range(rows[0], rows[0] + len(rows))):
            return slice(rows[0], rows[0] + len(rows))
        return torch.tensor(rows, device=self._keys[0].device)


def _records(vectors: torch.Tensor) -> _Records:
    """Return the vectors of ``(..., dim)`` as records; contiguous ones share their memory."""
    data = np.ascontiguousarray(vectors.view(torch.uint8).numpy())
    return data.view(np.dtype((np.void, data.shape[-1]))).reshape(-1)


def _regrown(tensor: torch.Tensor, num_rows: int, length: int) -> torch.Tensor:
    """Copy ``(rows, heads, length, head_dim)`` into zeros of another capacity."""
    grown = tensor.new_zeros(num_rows, tensor.shape[1], length, tensor.shape[3])
    rows, slots = min(num_rows, tensor.shape[0]), min(length, tensor.shape[2])
    grown[:rows, :, :slots] = tensor[:rows, :, :slots]
    return grown
