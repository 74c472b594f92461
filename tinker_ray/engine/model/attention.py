"""The attention that base models run: causal over whole sequences, masked over cached ones.

Registered with transformers under a name for which it builds no masks of its own: no mask means
causal, a 4-D mask is taken as it is. Knows nothing of where keys and values come from.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "tinker_ray"
SLOT_STEP = 32
"""Cached keys are attended to in multiples of this many."""

_SUM_TOKENS = 128
_FEWEST_PRODUCTS = 400


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,  # noqa: ANN401 - what transformers passes to every attention
) -> tuple[torch.Tensor, None]:
    """Attend with queries ``(B, heads, T, dim)``; return ``(B, T, heads, dim)``.

    With a mask ``(B, 1, 1, L)``, which is added to the scores, T is 1 and keys and values are
    contiguous. See :func:`attend_cached`.
    """
    if attention_mask is None:
        output: torch.Tensor
        output, _ = sdpa_attention_forward(module, query, key, value, None, **kwargs)
        return output, None
    return attend_cached(query * kwargs["scaling"], key, value, attention_mask), None


def attend_cached(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Attend with one scaled query a row to keys ``(B, key_heads, L, dim)``.

    Batched products do it, with the query heads that share a key where positions usually stand; on
    a CPU that takes half of the time of the flash kernel. The rounding of a row must not depend on
    L, which follows the longest batch mate: sums over slots go part by part, because MKL splits
    long ones by their length, and L is at least :func:`fewest_slots`.
    """
    batch, heads, _, dim = query.shape
    key_heads, length = key.shape[1:3]
    pairs, group = batch * key_heads, heads // key_heads
    keys, values = key.view(pairs, length, dim), value.view(pairs, length, dim)
    scores = torch.bmm(query.reshape(pairs, group, dim), keys.transpose(1, 2))
    scores = scores.view(batch, key_heads, group, length).add_(mask)
    weights = torch.softmax(scores, dim=-1).view(pairs, group, length)
    attended = torch.bmm(weights[:, :, :_SUM_TOKENS], values[:, :_SUM_TOKENS])
    for start in range(_SUM_TOKENS, length, _SUM_TOKENS):
        part = slice(start, start + _SUM_TOKENS)
        attended += torch.bmm(weights[:, :, part], values[:, part])
    return attended.view(batch, 1, heads, dim)


def fewest_slots(dim: int) -> int:
    """Slots that attention needs: torch takes another kernel, with other rounding, below that."""
    return -(-_FEWEST_PRODUCTS // (dim * SLOT_STEP)) * SLOT_STEP


def register() -> None:
    """Make the attention known to transformers under :data:`ATTENTION`."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
