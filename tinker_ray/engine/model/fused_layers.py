"""The layers of Llama, Qwen2 and Qwen3, written as few large operations on flat rows.

Does what transformers' modules do in inference, on their weights, in half of the operations: one
product for queries, keys and values, one for gate and up, residuals added in place. Rows may be
tokens of anything, because attention is passed in. Knows nothing of caches or batches.

Invariant: agrees with the modules to the rounding of float32; the weights are shared with them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from tinker_ray.engine.model.lora import LoraLinear
from tinker_ray.engine.model.projection import Projection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn
    from transformers import PreTrainedModel

    from tinker_ray.engine.model.lora import AdapterSpan
    from tinker_ray.engine.model.rotary import Rotation

_MODEL_TYPES = frozenset({"llama", "qwen2", "qwen3"})
_ROTARY_TYPES = frozenset({"default", "linear", "llama3", "yarn"})


class LayerAttention(Protocol):
    """How the rows of a run attend to each other, or to what is cached."""

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Map queries, keys and values ``(rows, heads, dim)`` to ``(rows, heads * dim)``."""
        ...


class Norm:
    """Root mean square norm over the last dimension: ``x / sqrt(mean(x^2) + eps) * weight``.

    With the width folded into weight and epsilon that is ``x / hypot(|x|, sqrt(eps')) * weight'``.

    Source: https://arxiv.org/abs/1910.07467
    """

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        """Take the module's weight and epsilon."""
        width = weight.shape[-1]
        self._weight = weight.detach() * math.sqrt(width)
        self._floor = weight.new_tensor(math.sqrt(epsilon * width))

    def apply(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the normed rows."""
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        return torch.div(rows, torch.hypot(length, self._floor)).mul_(self._weight)


@dataclass(frozen=True, eq=False)
class FusedLayer:
    """One transformer layer; ``head_norm`` is for the queries and keys of models that norm them."""

    input_norm: Norm
    qkv: Projection
    head_norm: Norm | None
    output: Projection
    mlp_norm: Norm
    gate_up: Projection
    down: Projection


@dataclass(frozen=True, eq=False)
class FusedLayers:
    """A whole model on flat rows.

    Attributes:
        rotary: The model's own module for :class:`.RotaryTable`.
        embedding: ``(vocab, hidden)``.
        num_heads: Query heads.
        num_key_heads: Key and value heads.
        head_dim: Width of a head.
        scaling: Factor of the queries.
    """

    rotary: nn.Module = field(repr=False)
    embedding: torch.Tensor = field(repr=False)
    layers: tuple[FusedLayer, ...] = field(repr=False)
    final_norm: Norm = field(repr=False)
    unembedding: Projection = field(repr=False)
    num_heads: int
    num_key_heads: int
    head_dim: int
    scaling: float

    def run(
        self,
        tokens_N: torch.Tensor,
        rotation: Rotation,
        attention: LayerAttention,
        spans: Sequence[AdapterSpan],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all layers but what follows the last attention; see :meth:`finish`.

        Returns:
            The residual stream ``(N, hidden)`` and the last attention's output.
        """
        hidden = functional.embedding(tokens_N, self.embedding)
        attended = hidden
        for index, layer in enumerate(self.layers):
            if index:
                self._after_attention(self.layers[index - 1], hidden, attended, spans)
            qkv = layer.qkv.apply(layer.input_norm.apply(hidden), spans)
            attended = self._attend(index, layer, qkv, rotation, attention)
        return hidden, attended

    def finish(
        self, hidden: torch.Tensor, attended: torch.Tensor, spans: Sequence[AdapterSpan]
    ) -> torch.Tensor:
        """Return the normed last hidden states of the rows that matter; changes ``hidden``."""
        self._after_attention(self.layers[-1], hidden, attended, spans)
        return self.final_norm.apply(hidden)

    def unembed(self, hidden: torch.Tensor, spans: Sequence[AdapterSpan]) -> torch.Tensor:
        """Map hidden states ``(N, hidden)`` to logits ``(N, vocab)``."""
        return self.unembedding.apply(hidden, spans)

    def _attend(
        self,
        index: int,
        layer: FusedLayer,
        qkv: torch.Tensor,
        rotation: Rotation,
        attention: LayerAttention,
    ) -> torch.Tensor:
        heads = qkv.view(qkv.shape[0], -1, self.head_dim)
        num_turned = self.num_heads + self.num_key_heads
        turned = heads[:, :num_turned]
        if layer.head_norm is not None:
            turned = layer.head_norm.apply(turned)
        turned = rotation.turn(turned)
        query = turned[:, : self.num_heads].mul_(self.scaling)
        return attention(index, query, turned[:, self.num_heads :], heads[:, num_turned:])

    @staticmethod
    def _after_attention(
        layer: FusedLayer,
        hidden: torch.Tensor,
        attended: torch.Tensor,
        spans: Sequence[AdapterSpan],
    ) -> None:
        """Add the attention's output and the MLP to the residual stream."""
        layer.output.accumulate(hidden, attended, spans)
        gate_up = layer.gate_up.apply(layer.mlp_norm.apply(hidden), spans)
        gate, up = gate_up.chunk(2, dim=-1)
        layer.down.accumulate(hidden, functional.silu(gate).mul_(up), spans)


def fuse(model: PreTrainedModel) -> FusedLayers | None:
    """Lay out the weights of a model after :func:`.install`; None if its layout is not known.

    The modules keep views of the same weights.
    """
    config = model.config
    lm_head = getattr(model, "lm_head", None)
    if config.model_type not in _MODEL_TYPES or config.hidden_act != "silu":
        return None
    if model.dtype != torch.float32 or not isinstance(lm_head, LoraLinear):
        return None
    inner: Any = model.model  # torch types what a module holds as tensor or module
    attention = inner.layers[0].self_attn
    positions = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    width = inner.rotary_emb(lm_head.weight, position_ids=positions)[0].shape[-1]
    if inner.rotary_emb.rope_type not in _ROTARY_TYPES or width != attention.head_dim:
        return None
    return FusedLayers(
        rotary=inner.rotary_emb,
        embedding=inner.embed_tokens.weight.detach(),
        layers=tuple(_fuse_layer(layer, config.rms_norm_eps) for layer in inner.layers),
        final_norm=Norm(inner.norm.weight, config.rms_norm_eps),
        unembedding=Projection.fuse(lm_head),
        num_heads=config.num_attention_heads,
        num_key_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        scaling=attention.scaling,
    )


def _fuse_layer(layer: Any, epsilon: float) -> FusedLayer:  # noqa: ANN401 - a layer of any family
    attention, mlp = layer.self_attn, layer.mlp
    return FusedLayer(
        input_norm=Norm(layer.input_layernorm.weight, epsilon),
        qkv=Projection.fuse(attention.q_proj, attention.k_proj, attention.v_proj),
        head_norm=_head_norm(attention, epsilon),
        output=Projection.fuse(attention.o_proj),
        mlp_norm=Norm(layer.post_attention_layernorm.weight, epsilon),
        gate_up=Projection.fuse(mlp.gate_proj, mlp.up_proj),
        down=Projection.fuse(mlp.down_proj),
    )


def _head_norm(attention: Any, epsilon: float) -> Norm | None:  # noqa: ANN401 - of any family
    """Norm queries and keys at once, each head by the weight of its kind."""
    if not hasattr(attention, "q_norm"):
        return None
    num_heads = attention.q_proj.out_features // attention.head_dim
    num_key_heads = attention.k_proj.out_features // attention.head_dim
    weights = [
        attention.q_norm.weight.expand(num_heads, -1),
        attention.k_norm.weight.expand(num_key_heads, -1),
    ]
    return Norm(torch.cat(weights), epsilon)
