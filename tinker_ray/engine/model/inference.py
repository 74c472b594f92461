"""What the sampler asks of a model: prompts, then one token for every row, again and again.

Two ways to answer: :class:`FusedInference` for the layouts that :mod:`.fused_layers` knows, and
:class:`ModuleInference`, which runs transformers' modules, for all others; it is the reference that
the first is tested against. An object belongs to one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from tinker_ray.engine.model.attention import attend_cached
from tinker_ray.engine.model.kv_cache import PromptCache
from tinker_ray.engine.model.lora import assigned, spans_of
from tinker_ray.engine.model.packed_prompts import PackedPrompts
from tinker_ray.engine.model.rotary import RotaryTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.model.fused_layers import FusedLayers
    from tinker_ray.engine.model.kv_cache import RowCache
    from tinker_ray.engine.model.lora import AdapterSpan


@dataclass(frozen=True, eq=False)
class PromptStates:
    """What running prompts gives.

    Attributes:
        last: Hidden state after the last token of each prompt, ``(prompts, hidden)``, repeated to
            at least :data:`.MINIMUM_ROWS` rows.
        every: Hidden states of each prompt, ``(P, hidden)``; empty unless asked for.
        cache: Keys and values of all prompts.
    """

    last: torch.Tensor
    every: tuple[torch.Tensor, ...]
    cache: PromptCache


class Inference(Protocol):
    """Runs prompts and rows."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        ...

    def run_prompts(
        self,
        prompts: Sequence[npt.NDArray[np.int64]],
        adapters: Sequence[Adapter | None],
        *,
        every: bool,
    ) -> PromptStates:
        """Run prompts of one padded length, each with its adapter."""
        ...

    def step(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        cache: RowCache,
        spans: Sequence[AdapterSpan],
    ) -> torch.Tensor:
        """Run one token a row, keep its keys and values, and return logits ``(N, vocab)``."""
        ...

    def unembed(self, hidden: torch.Tensor, spans: Sequence[AdapterSpan]) -> torch.Tensor:
        """Map hidden states ``(N, hidden)`` to float32 logits ``(N, vocab)``."""
        ...


def inference_of(base: BaseModel) -> Inference:
    """Choose the way to run a model."""
    return ModuleInference(base) if base.fused is None else FusedInference(base.fused)


class ModuleInference:
    """Runs transformers' modules."""

    def __init__(self, base: BaseModel) -> None:
        """Take the model."""
        self.vocab_size = base.vocab_size
        self._base = base

    def run_prompts(
        self,
        prompts: Sequence[npt.NDArray[np.int64]],
        adapters: Sequence[Adapter | None],
        *,
        every: bool,
    ) -> PromptStates:
        """Run prompts of one padded length, each with its adapter."""
        packed = PackedPrompts(prompts, self._base.device)
        cache = PromptCache()
        with assigned(spans_of(adapters, len(prompts))):
            hidden = self._base.run(packed.pad(packed.tokens), cache=cache)
        rows = packed.unpad(hidden)
        last = rows.index_select(0, packed.last_rows)
        return PromptStates(last, packed.split(rows) if every else (), cache)

    def step(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        cache: RowCache,
        spans: Sequence[AdapterSpan],
    ) -> torch.Tensor:
        """Run one token a row, keep its keys and values, and return logits ``(N, vocab)``."""
        cache.begin_step(positions_N)
        with assigned(spans):
            mask = cache.mask(positions_N)
            hidden = self._base.run(tokens_N[:, None], positions_N[:, None], cache=cache, mask=mask)
        return self.unembed(hidden[:, 0], spans)

    def unembed(self, hidden: torch.Tensor, spans: Sequence[AdapterSpan]) -> torch.Tensor:
        """Map hidden states ``(N, hidden)`` to float32 logits ``(N, vocab)``."""
        with assigned(spans):
            return self._base.unembed(hidden)


class FusedInference:
    """Runs fused layers on flat rows, in torch's inference mode, whose operations start sooner."""

    def __init__(self, layers: FusedLayers) -> None:
        """Take the layers."""
        self.vocab_size = layers.embedding.shape[0]
        self._layers = layers
        self._rotary = RotaryTable(layers.rotary, layers.embedding)

    @torch.inference_mode()
    def run_prompts(
        self,
        prompts: Sequence[npt.NDArray[np.int64]],
        adapters: Sequence[Adapter | None],
        *,
        every: bool,
    ) -> PromptStates:
        """Run prompts of one padded length; after the last attention only what is asked for."""
        layers = self._layers
        packed = PackedPrompts(prompts, layers.embedding.device)
        cache = PromptCache()
        is_grouped = layers.num_heads != layers.num_key_heads

        def attend(
            layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            query, key, value = (packed.pad(rows).transpose(1, 2) for rows in (query, key, value))
            cache.update(key, value, layer)
            attended = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=1.0, enable_gqa=is_grouped
            )
            return packed.unpad(attended.transpose(1, 2).flatten(2))

        rotation = self._rotary.at(packed.positions, packed.width)
        spans = spans_of(adapters, packed.num_rows, packed.lengths)
        hidden, attended = layers.run(packed.tokens, rotation, attend, spans)
        last_rows = packed.last_rows
        if every:
            rows = layers.finish(hidden, attended, spans)
            return PromptStates(rows[last_rows], packed.split(rows), cache)
        spans = spans_of(adapters, len(last_rows))
        last = layers.finish(hidden[last_rows], attended[last_rows], spans)
        return PromptStates(last, (), cache)

    @torch.inference_mode()
    def step(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        cache: RowCache,
        spans: Sequence[AdapterSpan],
    ) -> torch.Tensor:
        """Run one token a row, keep its keys and values, and return logits ``(N, vocab)``."""
        cache.begin_step(positions_N)
        mask = cache.mask(positions_N)
        num_rows = tokens_N.shape[0]

        def attend(
            layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            keys, values = cache.update(key[:, :, None], value[:, :, None], layer)
            return attend_cached(query[:, :, None], keys, values, mask).view(num_rows, -1)

        rotation = self._rotary.at(positions_N, cache.length)
        hidden, attended = self._layers.run(tokens_N, rotation, attend, spans)
        hidden = self._layers.finish(hidden, attended, spans)
        return self._layers.unembed(hidden, spans)

    @torch.inference_mode()
    def unembed(self, hidden: torch.Tensor, spans: Sequence[AdapterSpan]) -> torch.Tensor:
        """Map hidden states ``(N, hidden)`` to float32 logits ``(N, vocab)``."""
        return self._layers.unembed(hidden, spans)
