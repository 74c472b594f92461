"""Linear layers to which each thread attaches its own adapters, row by row.

The base weights are shared and frozen. A thread says which adapter each contiguous group of batch
rows takes (:func:`assigned`) and then runs the model; another thread running the same model at the
same time has an assignment of its own. Rows without an adapter get the base model.

Invariant: the numbers of a row do not depend on its batch mates, as long as every matrix product
has at least :data:`MINIMUM_ROWS` rows: MKL takes other kernels, with other rounding, for fewer.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import groupby, repeat
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from tinker_ray.engine.model.adapter import LoraTarget, TargetKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tinker_ray.engine.model.adapter import Adapter

MINIMUM_ROWS = 4

_KINDS: dict[str, TargetKind] = {
    "q_proj": "attn",
    "k_proj": "attn",
    "v_proj": "attn",
    "o_proj": "attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
    "lm_head": "unembed",
}


class AdapterSpan(NamedTuple):
    """Rows ``start:stop`` take ``adapter``; the window around them is what is computed."""

    adapter: Adapter
    start: int
    stop: int
    window_start: int
    window_stop: int


class _Assignment(threading.local):
    spans: Sequence[AdapterSpan] = ()


_ASSIGNMENT = _Assignment()


class LoraLinear(nn.Linear):
    """A frozen linear layer that adds the deltas of the adapters assigned by the calling thread."""

    def __init__(self, linear: nn.Linear, path: str) -> None:
        """Take over the weights of ``linear``, which stands at ``path`` in its model."""
        super().__init__(
            linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
        )
        self.weight = linear.weight
        self.bias = linear.bias
        self.path = path

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        """Map ``(rows, ..., in_features)`` to ``(rows, ..., out_features)``."""
        output = functional.linear(input, self.weight, self.bias)
        num_rows = input.shape[0]
        for adapter, start, stop, window_start, window_stop in _ASSIGNMENT.spans:
            pair = adapter.pairs.get(self.path)
            if pair is None:
                continue
            if stop - start == num_rows:
                delta = functional.linear(functional.linear(input, pair[0]), pair[1])
                output = output.add_(delta, alpha=adapter.scale)
            else:
                window = input[window_start:window_stop]
                delta = functional.linear(functional.linear(window, pair[0]), pair[1])
                rows = delta[start - window_start : stop - window_start]
                output[start:stop].add_(rows, alpha=adapter.scale)
        return output


@contextmanager
def assigned(spans: Sequence[AdapterSpan]) -> Iterator[None]:
    """Let this thread's runs of the model take the adapters of ``spans``."""
    before = _ASSIGNMENT.spans
    _ASSIGNMENT.spans = spans
    try:
        yield
    finally:
        _ASSIGNMENT.spans = before


def whole_batch(adapter: Adapter | None, num_rows: int) -> tuple[AdapterSpan, ...]:
    """Assign one adapter to all rows."""
    return () if adapter is None else (AdapterSpan(adapter, 0, num_rows, 0, num_rows),)


def spans_of(
    adapters: Sequence[Adapter | None], num_rows: int, lengths: Sequence[int] | None = None
) -> tuple[AdapterSpan, ...]:
    """Assign ``adapters[i]`` to row ``i`` of a batch, or to the next ``lengths[i]`` rows.

    Neighbouring rows of the same adapter become one span; spans of fewer than :data:`MINIMUM_ROWS`
    rows are computed in a window of that many, if the batch of ``num_rows`` has them.
    """
    spans: list[AdapterSpan] = []
    stop = 0
    rows = zip(adapters, lengths or repeat(1, len(adapters)), strict=True)
    for _, group in groupby(rows, key=lambda pair: id(pair[0])):
        members = list(group)
        start, stop = stop, stop + sum(length for _, length in members)
        adapter = members[0][0]
        if adapter is not None:
            window_start = max(0, min(start, num_rows - MINIMUM_ROWS))
            window_stop = min(num_rows, max(stop, window_start + MINIMUM_ROWS))
            spans.append(AdapterSpan(adapter, start, stop, window_start, window_stop))
    return tuple(spans)


def install(model: nn.Module) -> tuple[LoraTarget, ...]:
    """Replace the attention, MLP and unembedding layers of ``model`` and freeze all its weights.

    A tied unembedding keeps sharing its weight with the embedding; an adapter on it changes only
    the output.
    """
    model.requires_grad_(requires_grad=False)
    targets: list[LoraTarget] = []
    for path, module in list(model.named_modules()):
        parent_path, _, name = path.rpartition(".")
        if name not in _KINDS or not isinstance(module, nn.Linear):
            continue
        setattr(model.get_submodule(parent_path), name, LoraLinear(module, path))
        targets.append(LoraTarget(path, _KINDS[name], module.in_features, module.out_features))
    return tuple(targets)
