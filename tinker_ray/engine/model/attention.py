"""The attention that base models run: causal over whole sequences, masked over cached ones.

Registered with transformers under a name for which it builds no masks of its own: no mask means
causal, a 4-D mask is taken as it is. Knows nothing of where keys and values come from.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ATTENTION = "tinker_ray"
BLOCK_TOKENS = 32
"""Cached keys are attended to in blocks of this many."""


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
    contiguous, L a multiple of :data:`BLOCK_TOKENS`. See :func:`attend_cached`.
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
    a CPU that takes half of the time of the flash kernel. They go block by block, so that their
    shapes, and with them the rounding of a row, do not depend on L, which follows the longest
    batch mate.
    """
    batch, heads, _, dim = query.shape
    key_heads, length = key.shape[1:3]
    group, num_blocks = heads // key_heads, length // BLOCK_TOKENS
    blocks = (batch, key_heads, num_blocks, BLOCK_TOKENS, dim)
    grouped = query.reshape(batch, key_heads, 1, group, dim)
    scores = torch.matmul(grouped, key.view(blocks).transpose(-1, -2))
    scores = scores.transpose(2, 3).reshape(batch, key_heads, group, length).add_(mask)
    weights = torch.softmax(scores, dim=-1)
    weights = weights.view(batch, key_heads, group, num_blocks, BLOCK_TOKENS).transpose(2, 3)
    parts = torch.matmul(weights, value.view(blocks))
    # One after the other: ``sum`` would group them by their number.
    attended = functools.reduce(torch.add, parts.unbind(2))
    return attended.reshape(batch, 1, heads, dim)


def register() -> None:
    """Make the attention known to transformers under :data:`ATTENTION`."""
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend)
