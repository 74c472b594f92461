"""What to sample and what was sampled, as arrays with lazy list views.

Knows nothing of the wire; missing logprobs are NaN in arrays and None in lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy.typing as npt

StopReason: TypeAlias = Literal["length", "stop"]
EMPTY_TOPK_LOGPROB = -99999.0
"""The logprob of an empty cell of :class:`TopkLogprobs`; its token id is 0."""


class SamplingParams(BaseModel):
    """How to draw tokens.

    ``stop`` is a string, strings or token ids; None keeps the model's end-of-sequence token as the
    only stop, ``[]`` disables every stop. ``top_k`` -1 means off. ``max_tokens`` None leaves it to
    the service.
    """

    model_config = ConfigDict(frozen=True)

    max_tokens: int | None = Field(default=None, ge=0)
    seed: int | None = None
    stop: str | Sequence[str] | Sequence[int] | None = None
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    top_k: int = -1
    top_p: float = Field(default=1.0, ge=0, le=1)


@dataclass(frozen=True)
class TopkLogprobs:
    """The k likeliest tokens at each of n positions, likeliest first.

    Attributes:
        token_ids: int32 ``(n, k)``; 0 in empty cells.
        logprobs: float32 ``(n, k)``; -99999.0 in empty cells.
    """

    token_ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]

    def to_lists(self) -> list[list[tuple[int, float]] | None]:
        """Give ``(token_id, logprob)`` pairs per position, None where there are none."""
        rows: list[list[tuple[int, float]] | None] = []
        for ids, logprobs in zip(self.token_ids.tolist(), self.logprobs.tolist(), strict=True):
            pairs = [
                (token, logprob)
                for token, logprob in zip(ids, logprobs, strict=True)
                if logprob != EMPTY_TOPK_LOGPROB
            ]
            rows.append(pairs or None)
        return rows


@dataclass(frozen=True, eq=False)
class SampledSequence:
    """One drawn sequence.

    Attributes:
        stop_reason: ``stop`` at a stop token or string (which is part of the tokens), else
            ``length``.
        tokens_np: int32 ``(n,)``.
        logprobs_np: float32 ``(n,)``, under the model itself, before temperature and truncation.
        sequence_id: The service's name for this draw; empty where the service gives none.
    """

    stop_reason: StopReason
    tokens_np: npt.NDArray[np.int32]
    logprobs_np: npt.NDArray[np.float32] | None = None
    sequence_id: str = ""

    @cached_property
    def tokens(self) -> list[int]:
        """Token ids as a list."""
        return [int(token) for token in self.tokens_np]

    @cached_property
    def logprobs(self) -> list[float] | None:
        """Logprobs as a list."""
        return None if self.logprobs_np is None else [float(value) for value in self.logprobs_np]


@dataclass(frozen=True, eq=False)
class SampleResponse:
    """The answer to one sampling request.

    Attributes:
        sequences: ``num_samples`` draws.
        prompt_logprobs_np: float32 ``(P,)``, NaN at the first token; None if not asked for.
        topk_prompt_logprobs_np: One row per prompt token, the first empty; None if not asked for.
        prompt_cache_hit_tokens: Prompt tokens that the service did not compute anew.
    """

    sequences: Sequence[SampledSequence]
    prompt_logprobs_np: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    topk_prompt_logprobs_np: TopkLogprobs | None = field(default=None, repr=False)
    prompt_cache_hit_tokens: int = 0

    @cached_property
    def prompt_logprobs(self) -> list[float | None] | None:
        """Prompt logprobs as a list with None where there is none."""
        if self.prompt_logprobs_np is None:
            return None
        return [None if np.isnan(value) else float(value) for value in self.prompt_logprobs_np]

    @cached_property
    def topk_prompt_logprobs(self) -> list[list[tuple[int, float]] | None] | None:
        """Top-k prompt logprobs as lists of pairs."""
        if self.topk_prompt_logprobs_np is None:
            return None
        return self.topk_prompt_logprobs_np.to_lists()
