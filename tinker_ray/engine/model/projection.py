"""Linear layers that read the same input, run as one matrix product.

The weights of the layers are moved into one tensor, of which the layers keep views: nothing is held
twice, and the layers themselves go on as before. The low-rank deltas of adapters are fused in the
same way: one product with all A matrices, then one with each B, added in place.

Invariant: the numbers of a row do not depend on its batch mates, as in :mod:`.lora`; a short span
goes through the same products as a long one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from tinker_ray.engine.model.lora import MINIMUM_ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.lora import AdapterSpan, LoraLinear


@dataclass(frozen=True, eq=False)
class Projection:
    """Layers with one input, their outputs side by side.

    Attributes:
        weight: ``(out, in)``, the weights of the layers below each other.
        bias: ``(out,)``, if the layers have biases.
        paths: Where the layers stand in their model, for the adapters.
        columns: First and past-the-last column of each layer's output.
    """

    weight: torch.Tensor = field(repr=False)
    bias: torch.Tensor | None = field(repr=False)
    paths: tuple[str, ...]
    columns: tuple[tuple[int, int], ...]

    @classmethod
    def fuse(cls, *layers: LoraLinear) -> Projection:
        """Move the weights of ``layers`` together; the layers keep views of them."""
        stops = accumulate((layer.out_features for layer in layers), initial=0)
        columns = tuple(pairwise(stops))
        weight: torch.Tensor = layers[0].weight
        bias: torch.Tensor | None = layers[0].bias
        if len(layers) > 1:
            weight = torch.cat([layer.weight.detach() for layer in layers])
            for layer, (start, stop) in zip(layers, columns, strict=True):
                layer.weight = nn.Parameter(weight[start:stop], requires_grad=False)
            if bias is not None:
                bias = torch.cat([layer.bias.detach() for layer in layers])
        paths = tuple(layer.path for layer in layers)
        return cls(weight.detach(), None if bias is None else bias.detach(), paths, columns)

    def apply(self, inputs: torch.Tensor, spans: Sequence[AdapterSpan]) -> torch.Tensor:
        """Map ``(rows, in)`` to ``(rows, out)``."""
        output = nn.functional.linear(inputs, self.weight, self.bias)
        self._add_deltas(output, inputs, spans)
        return output

    def accumulate(
        self, output: torch.Tensor, inputs: torch.Tensor, spans: Sequence[AdapterSpan]
    ) -> None:
        """Add the map of ``inputs`` to ``output`` in place."""
        output.addmm_(inputs, self.weight.t())
        if self.bias is not None:
            output.add_(self.bias)
        self._add_deltas(output, inputs, spans)

    def _add_deltas(
        self, output: torch.Tensor, inputs: torch.Tensor, spans: Sequence[AdapterSpan]
    ) -> None:
        for adapter, start, stop, window_start, window_stop in spans:
            if stop - start >= MINIMUM_ROWS:
                self._add_delta(output[start:stop], inputs[start:stop], adapter)
            else:
                window = output[window_start:window_stop].clone()
                self._add_delta(window, inputs[window_start:window_stop], adapter)
                output[start:stop] = window[start - window_start : stop - window_start]

    def _add_delta(self, output: torch.Tensor, inputs: torch.Tensor, adapter: Adapter) -> None:
        """Add an adapter's delta to all rows of ``output``."""
        stack = adapter.stack(self.paths)
        if stack is None:
            return
        reduced = torch.mm(inputs, stack.lora_a.t())
        rank = adapter.config.rank
        for index, (part, lora_b) in enumerate(stack.parts):
            first, last = self.columns[part]
            inner = reduced[:, index * rank : (index + 1) * rank]
            output[:, first:last].addmm_(inner, lora_b.t(), alpha=adapter.scale)
