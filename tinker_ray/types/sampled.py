"""What was sampled, as arrays with lazy list views.

Knows nothing of the wire; missing logprobs are NaN in arrays and None in lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from tinker_ray.types.sampling import StopReason
from tinker_ray.types.tensor import TensorData
from tinker_ray.types.value import Value

if TYPE_CHECKING:
    import numpy.typing as npt

EMPTY_TOPK_LOGPROB = -99999.0
"""The logprob of an empty cell of :class:`TopkLogprobs`; its token id is 0."""
TopkRows: TypeAlias = list[list[tuple[int, float]] | None]


@dataclass(frozen=True, slots=True)
class TopkLogprobs:
    """The k likeliest tokens at each of n positions, likeliest first.

    Attributes:
        token_ids: int32 ``(n, k)``; 0 in empty cells.
        logprobs: float32 ``(n, k)``; -99999.0 in empty cells.
    """

    token_ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[tuple[int, float]] | None]) -> TopkLogprobs:
        """Take ``(token_id, logprob)`` pairs per position, None where there are none."""
        k = max((len(row) for row in rows if row), default=0)
        token_ids = np.zeros((len(rows), k), dtype=np.int32)
        logprobs = np.full((len(rows), k), EMPTY_TOPK_LOGPROB, dtype=np.float32)
        for index, row in enumerate(rows):
            if row:
                token_ids[index, : len(row)] = [token for token, _ in row]
                logprobs[index, : len(row)] = [logprob for _, logprob in row]
        return cls(token_ids, logprobs)

    def to_lists(self) -> TopkRows:
        """Give ``(token_id, logprob)`` pairs per position, None where there are none.

        Empty cells at the end of a position are left out. Without any cell there are no positions.
        """
        if not self.token_ids.size:
            return []
        empty = (self.token_ids == 0) & (self.logprobs == np.float32(EMPTY_TOPK_LOGPROB))
        # The number of cells up to the last one that is not empty.
        counts = np.where(empty.all(axis=1), 0, empty.shape[1] - empty[:, ::-1].argmin(axis=1))
        rows: TopkRows = []
        cells = zip(self.token_ids.tolist(), self.logprobs.tolist(), counts.tolist(), strict=True)
        for ids, logprobs, count in cells:
            pairs = list(zip(ids[:count], logprobs[:count], strict=True))
            rows.append(pairs or None)
        return rows


@dataclass(frozen=True)
class PromptAltTokens:
    """Alternatives to the prompt: draws at each of its P positions but the first.

    Attributes:
        tokens: int64 ``(P - 1, k)``; row ``i`` are alternatives to prompt token ``i + 1``.
        logprobs: float32 ``(P - 1, k)``, of these tokens at that position.
    """

    tokens: TensorData
    logprobs: TensorData


@dataclass(frozen=True, eq=False, init=False)
class SampledSequence(Value):
    """One drawn sequence of n tokens.

    Attributes:
        stop_reason: ``stop`` at a stop token or string (which is part of the tokens), else
            ``length``.
        sequence_id: The service's name for this draw; empty where the service gives none.
        tokens_np: int32 ``(n,)``.
        logprobs_np: float32 ``(n,)``, under the model itself, before temperature and truncation.
        topk_logprobs_np: One row per drawn token; None if not asked for.
    """

    stop_reason: StopReason
    sequence_id: str
    tokens_np: npt.NDArray[np.int32] = field(repr=False)
    logprobs_np: npt.NDArray[np.float32] | None = field(repr=False)
    topk_logprobs_np: TopkLogprobs | None = field(repr=False)

    def __init__(  # noqa: PLR0913 - arrays of the newer generation, lists of the older one
        self,
        stop_reason: StopReason,
        sequence_id: str = "",
        tokens_np: npt.NDArray[np.int32] | None = None,
        logprobs_np: npt.NDArray[np.float32] | None = None,
        topk_logprobs_np: TopkLogprobs | None = None,
        *,
        tokens: Sequence[int] | None = None,
        logprobs: Sequence[float] | None = None,
        topk_logprobs: Sequence[Sequence[tuple[int, float]] | None] | None = None,
    ) -> None:
        """Take arrays, or lists by the names of their views."""
        if tokens_np is None:
            tokens_np = np.asarray(() if tokens is None else tokens, dtype=np.int32)
        object.__setattr__(self, "stop_reason", stop_reason)
        object.__setattr__(self, "sequence_id", sequence_id)
        object.__setattr__(self, "tokens_np", tokens_np)
        object.__setattr__(self, "logprobs_np", _floats(logprobs_np, logprobs))
        object.__setattr__(self, "topk_logprobs_np", _topk(topk_logprobs_np, topk_logprobs))

    @cached_property
    def tokens(self) -> list[int]:
        """Token ids as a list."""
        listed: list[int] = self.tokens_np.tolist()
        return listed

    @cached_property
    def logprobs(self) -> list[float] | None:
        """Logprobs as a list."""
        return None if self.logprobs_np is None else self.logprobs_np.tolist()

    @cached_property
    def topk_logprobs(self) -> TopkRows | None:
        """The likeliest tokens at each drawn position, as lists of pairs."""
        return None if self.topk_logprobs_np is None else self.topk_logprobs_np.to_lists()

    def _dumped(self) -> dict[str, Any]:
        return {
            "stop_reason": self.stop_reason,
            "sequence_id": self.sequence_id,
            "tokens": self.tokens,
            "logprobs": self.logprobs,
            "topk_logprobs": self.topk_logprobs,
        }


@dataclass(frozen=True, eq=False, init=False)
class SampleResponse(Value):
    """The answer to one sampling request for a prompt of P tokens.

    Attributes:
        sequences: ``num_samples`` draws.
        prompt_logprobs_np: float32 ``(P,)``, NaN where there is none, as at the first token; None
            if not asked for.
        topk_prompt_logprobs_np: One row per prompt token, the first empty; None if not asked for.
        target_prompt_logprobs: float32, of the shape and layout of the ids that were asked for, 0.0
            where those were -1; None if not asked for.
        prompt_cache_hit_tokens: Prompt tokens that the service did not compute anew.
        prompt_alt_tokens: The alternatives that were asked for; None if they were not.
    """

    sequences: Sequence[SampledSequence]
    prompt_logprobs_np: npt.NDArray[np.float32] | None = field(repr=False)
    topk_prompt_logprobs_np: TopkLogprobs | None = field(repr=False)
    target_prompt_logprobs: TensorData | None
    prompt_cache_hit_tokens: int
    prompt_alt_tokens: PromptAltTokens | None
    type: ClassVar[str] = "sample"

    def __init__(  # noqa: PLR0913 - arrays of the newer generation, lists of the older one
        self,
        sequences: Sequence[SampledSequence],
        prompt_logprobs_np: npt.NDArray[np.float32] | None = None,
        topk_prompt_logprobs_np: TopkLogprobs | None = None,
        target_prompt_logprobs: TensorData | None = None,
        prompt_cache_hit_tokens: int = 0,
        prompt_alt_tokens: PromptAltTokens | None = None,
        *,
        prompt_logprobs: Sequence[float | None] | None = None,
        topk_prompt_logprobs: Sequence[Sequence[tuple[int, float]] | None] | None = None,
    ) -> None:
        """Take arrays, or lists by the names of their views."""
        scores = _floats(prompt_logprobs_np, prompt_logprobs)
        topk = _topk(topk_prompt_logprobs_np, topk_prompt_logprobs)
        object.__setattr__(self, "sequences", sequences)
        object.__setattr__(self, "prompt_logprobs_np", scores)
        object.__setattr__(self, "topk_prompt_logprobs_np", topk)
        object.__setattr__(self, "target_prompt_logprobs", target_prompt_logprobs)
        object.__setattr__(self, "prompt_cache_hit_tokens", prompt_cache_hit_tokens)
        object.__setattr__(self, "prompt_alt_tokens", prompt_alt_tokens)

    @cached_property
    def prompt_logprobs(self) -> list[float | None] | None:
        """Prompt logprobs as a list with None where there is none."""
        if self.prompt_logprobs_np is None:
            return None
        listed: list[float | None] = self.prompt_logprobs_np.tolist()
        for index in np.flatnonzero(np.isnan(self.prompt_logprobs_np)):
            listed[index] = None
        return listed

    @cached_property
    def topk_prompt_logprobs(self) -> TopkRows | None:
        """The likeliest tokens at each prompt position, as lists of pairs."""
        if self.topk_prompt_logprobs_np is None:
            return None
        return self.topk_prompt_logprobs_np.to_lists()

    @classmethod
    def _nested(cls, fields: dict[str, Any]) -> dict[str, Any]:
        nested = fields | {
            "sequences": [SampledSequence.model_validate(s) for s in fields.get("sequences", ())]
        }
        if (targets := fields.get("target_prompt_logprobs")) is not None:
            nested["target_prompt_logprobs"] = TensorData.model_validate(targets)
        if isinstance(alternatives := fields.get("prompt_alt_tokens"), Mapping):
            tensors = {key: TensorData.model_validate(t) for key, t in alternatives.items()}
            nested["prompt_alt_tokens"] = PromptAltTokens(**tensors)
        # The older generation's discriminator.
        nested.pop("type", None)
        return nested

    def _dumped(self) -> dict[str, Any]:
        return {
            "sequences": list(self.sequences),
            "prompt_logprobs": self.prompt_logprobs,
            "topk_prompt_logprobs": self.topk_prompt_logprobs,
            "target_prompt_logprobs": self.target_prompt_logprobs,
            "prompt_cache_hit_tokens": self.prompt_cache_hit_tokens,
            "prompt_alt_tokens": self.prompt_alt_tokens,
        }


def _floats(
    array: npt.NDArray[np.float32] | None, listed: Sequence[float | None] | None
) -> npt.NDArray[np.float32] | None:
    if array is not None or listed is None:
        return array
    # float32 turns None into NaN.
    return np.array(listed, dtype=np.float32)


def _topk(
    cells: TopkLogprobs | None, listed: Sequence[Sequence[tuple[int, float]] | None] | None
) -> TopkLogprobs | None:
    if cells is not None or listed is None:
        return cells
    return TopkLogprobs.from_lists(listed)
