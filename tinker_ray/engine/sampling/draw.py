"""Drawing one token for every row of logits, each row by its own parameters.

Every row's draw is a function of its logits and its uniform number alone: the inverse of the
cumulative distribution, summed in float64. Knows nothing of sequences or of where the logits come
from.

Top-k comes first, top-p then keeps the likeliest tokens that together reach p of what is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from tinker_ray.types import SamplingParams

_CANDIDATES = 1024
"""Tokens to sort before sorting them all: top-p rarely needs more."""


class Best(NamedTuple):
    """The likeliest tokens of some rows, likeliest first.

    Attributes:
        ids: By row, int32 ``(k,)``.
        logprobs: By row, float32 ``(k,)``.
    """

    ids: dict[int, npt.NDArray[np.int32]]
    logprobs: dict[int, npt.NDArray[np.float32]]


class Drawn(NamedTuple):
    """A token for every row, its logprob, and the likeliest tokens of rows that ask for them.

    Attributes:
        tokens: int64 ``(N,)``.
        logprobs: float32 ``(N,)``.
        best: None if no row asks.
    """

    tokens: npt.NDArray[np.int64]
    logprobs: npt.NDArray[np.float32]
    best: Best | None = None


class DrawParams(NamedTuple):
    """How to draw for each row, ``(N,)`` each.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_k: 0 or less for none.
        top_p: 1 for none.
        num_best: How many of the likeliest tokens to report.
    """

    temperature: npt.NDArray[np.float64]
    top_k: npt.NDArray[np.int64]
    top_p: npt.NDArray[np.float64]
    num_best: npt.NDArray[np.int64]

    @classmethod
    def of(cls, params: Sequence[SamplingParams], num_best: Sequence[int] = ()) -> DrawParams:
        """Take the parameters of row ``i`` from ``params[i]``; without ``num_best`` report none."""
        return cls(
            np.array([item.temperature for item in params], np.float64),
            np.array([item.top_k for item in params], np.int64),
            np.array([item.top_p for item in params], np.float64),
            np.array(num_best or [0] * len(params), np.int64),
        )


class DrawPlan:
    """The parameters of a batch of rows, ready to be applied step after step."""

    def __init__(self, params: DrawParams, device: torch.device) -> None:
        """Prepare to draw from logits on ``device``."""
        is_greedy = params.temperature == 0
        is_truncated = ~is_greedy & ((params.top_k > 0) | (params.top_p < 1))
        best_rows = params.num_best.nonzero()[0]
        self._device = device
        self._num_best = dict(
            zip(best_rows.tolist(), params.num_best[best_rows].tolist(), strict=True)
        )
        self._temperature: torch.Tensor | None = None
        if not (is_greedy | (params.temperature == 1)).all():
            divisors = np.where(is_greedy, 1.0, params.temperature).astype(np.float32)
            self._temperature = torch.from_numpy(divisors).to(device)[:, None]
        self._greedy = self._rows(is_greedy)
        self._truncated = self._rows(is_truncated)
        self._top_k = torch.from_numpy(params.top_k[is_truncated]).to(device)
        self._top_p = torch.from_numpy(params.top_p[is_truncated]).to(device)

    def draw(
        self,
        logits_NV: torch.Tensor,
        uniforms: npt.NDArray[np.float64],
    ) -> Drawn:
        """Return a token and its logprob for each row of ``(N, vocab)`` logits.

        Logprobs are those of the logits as they are: no temperature, no truncation. A row of logits
        that are not finite gives a logprob that is not finite.
        """
        uniform = torch.from_numpy(uniforms).to(self._device)[:, None]
        logprobs = torch.log_softmax(logits_NV, dim=-1)
        if self._temperature is None:
            probabilities = logprobs.exp()
        else:
            probabilities = torch.softmax(logits_NV / self._temperature, dim=-1)
        tokens = _invert(probabilities, uniform)
        if self._truncated is not None:
            rows = self._truncated
            tokens[rows] = _draw_truncated(
                probabilities[rows], uniform[rows], self._top_k, self._top_p
            )
        if self._greedy is not None:
            tokens[self._greedy] = logits_NV[self._greedy].argmax(dim=-1, keepdim=True)
        chosen = logprobs.gather(-1, tokens)
        best = self._best(logprobs) if self._num_best else None
        return Drawn(tokens[:, 0].cpu().numpy(), chosen[:, 0].cpu().numpy(), best)

    def _rows(self, chosen: npt.NDArray[np.bool_]) -> torch.Tensor | None:
        """Return the rows that are chosen, None if there are none."""
        rows = chosen.nonzero()[0]
        return torch.from_numpy(rows).to(self._device) if len(rows) else None

    def _best(self, logprobs: torch.Tensor) -> Best:
        rows = list(self._num_best)
        largest = max(self._num_best.values())
        values, ids = logprobs[rows].topk(largest, dim=-1)
        all_ids, all_values = ids.int().cpu().numpy(), values.cpu().numpy()
        counts = [(i, row, self._num_best[row]) for i, row in enumerate(rows)]
        return Best(
            {row: all_ids[i, :number] for i, row, number in counts},
            {row: all_values[i, :number] for i, row, number in counts},
        )


def draw_several(
    logits_NV: torch.Tensor, temperature: float, uniforms: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Draw tokens with replacement from each row of logits, without truncation.

    Args:
        logits_NV: ``(N, vocab)``.
        temperature: 0 gives the likeliest token every time.
        uniforms: Numbers in [0, 1), ``(N, k)``, one for each draw.

    Returns:
        Token ids, int64 ``(N, k)``.
    """
    if temperature == 0:
        return logits_NV.argmax(dim=-1, keepdim=True).expand(-1, uniforms.shape[1])
    probabilities = torch.softmax(logits_NV / temperature, dim=-1)
    return _invert(probabilities, torch.from_numpy(uniforms).to(logits_NV.device))


def _invert(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Return each row's first index whose cumulative probability exceeds its uniform number."""
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return index.clamp_(max=probabilities.shape[-1] - 1)


def _draw_truncated(
    probabilities: torch.Tensor, uniform: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    num_candidates = min(_CANDIDATES, probabilities.shape[-1])
    kept, ids, enough = _truncate(probabilities, top_k, top_p, num_candidates)
    tokens = ids.gather(-1, _invert(kept, uniform))
    if not bool(enough.all()):
        rows = (~enough).nonzero()[:, 0]
        everything = probabilities.shape[-1]
        kept, ids, _ = _truncate(probabilities[rows], top_k[rows], top_p[rows], everything)
        tokens[rows] = ids.gather(-1, _invert(kept, uniform[rows]))
    return tokens


def _truncate(
    probabilities: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, num_candidates: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Zero what top-k and top-p exclude among the likeliest tokens.

    Returns:
        Probabilities ``(N, candidates)`` in falling order, their token ids, and for each row
        whether the candidates were enough.
    """
    values, ids = probabilities.topk(num_candidates, dim=-1)
    rank = torch.arange(num_candidates, device=values.device)
    has_k = (top_k > 0)[:, None]
    values = values.double().masked_fill(has_k & (rank >= top_k[:, None]), 0.0)
    total = torch.where(has_k, values.sum(-1, keepdim=True), probabilities.sum(-1, keepdim=True))
    before = values.cumsum(-1) - values
    has_p = (top_p < 1)[:, None]
    excluded = has_p & (before >= top_p[:, None] * total) & (rank > 0)
    is_all = num_candidates == probabilities.shape[-1]
    enough_k = has_k & (top_k[:, None] <= num_candidates)
    enough_p = has_p & ~has_k & excluded[:, -1:]
    return values.masked_fill(excluded, 0.0), ids, (enough_k | enough_p | is_all)[:, 0]
