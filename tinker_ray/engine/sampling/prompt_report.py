"""What a request asks to be told of its prompt: logprobs, likeliest tokens, alternatives.

Row ``i`` of the scores is what the model says after prompt token ``i``, that is of token ``i + 1``;
of the first token nothing is said. Only rows that are asked for are computed, some at a time.
Knows nothing of how prompts are run.

Invariant: alternatives are functions of the scores and of the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import torch

from tinker_ray.engine.sampling.draw import draw_several
from tinker_ray.errors import EngineError
from tinker_ray.types import PromptAltTokens, TensorData, TopkLogprobs
from tinker_ray.types.sampled import EMPTY_TOPK_LOGPROB

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from tinker_ray.engine.sampling.sequence import SampleJob

MAX_CELLS = 1 << 24
"""Most numbers of one kind that are told."""
_SKIPPED = -1


@dataclass(frozen=True, eq=False)
class PromptReport:
    """What is told of a prompt of P tokens; None is what was not asked for.

    Attributes:
        logprobs: ``(P,)``, NaN where there is none.
        topk: P rows, empty where there is none.
        targets: Of the shape and layout of the ids that were asked for.
        alternatives: ``(P - 1, k)``.
    """

    logprobs: npt.NDArray[np.float32] | None = None
    topk: TopkLogprobs | None = None
    targets: TensorData | None = None
    alternatives: PromptAltTokens | None = None


def reports(request: SampleJob) -> bool:
    """Say whether a request asks for any of it."""
    return bool(
        request.prompt_logprobs
        or request.topk_prompt_logprobs
        or request.target_prompt_logprobs is not None
        or request.prompt_alt_tokens_k
    )


def report_prompt(
    request: SampleJob,
    score: Callable[[int, int], torch.Tensor],
    uniforms: npt.NDArray[np.float64] | None,
    *,
    rows_at_once: int,
) -> PromptReport:
    """Compute what a request asks to be told of its prompt.

    Args:
        request: The request.
        score: Gives the logits of rows ``start:stop``, ``(rows, vocab)``.
        uniforms: Numbers in [0, 1) that decide the alternatives, ``(P - 1, k)``; None if there are
            to be none.
        rows_at_once: How many rows to score at a time.
    """
    writer = _Writer(request, uniforms)
    start, num_rows = writer.first_row, len(request.prompt) - 1
    while start < num_rows:
        stop = min(start + rows_at_once, num_rows)
        writer.take(start, stop, score(start, stop))
        start = stop
    return writer.report()


def target_rows(targets: TensorData) -> npt.NDArray[np.int64]:
    """Return the row of each stored id of a dense or sparse tensor."""
    if targets.sparse_crow_indices is not None:
        counts = np.diff(targets.sparse_crow_indices)
        return np.repeat(np.arange(len(counts)), counts)
    num_rows, width = targets.values.shape
    return np.repeat(np.arange(num_rows), width)


def check_report(request: SampleJob, vocab_size: int) -> None:
    """Check what a request asks to be told of its prompt.

    Raises:
        EngineError: It cannot be told; the message names the field.
    """
    num_rows = len(request.prompt) - 1
    if not 0 <= request.topk_prompt_logprobs <= vocab_size:
        _refuse("topk_prompt_logprobs", f"must be from 0 to {vocab_size}")
    check_cells("topk_prompt_logprobs", (num_rows + 1) * request.topk_prompt_logprobs)
    if request.prompt_alt_tokens_k < 0:
        _refuse("prompt_alt_tokens_k", "must be 0 or more")
    check_cells("prompt_alt_tokens_k", num_rows * request.prompt_alt_tokens_k)
    last_n = request.prompt_logprobs_last_n
    if last_n is not None and not request.prompt_logprobs:
        _refuse("prompt_logprobs_last_n", "needs prompt_logprobs")
    if last_n is not None and not 1 <= last_n <= num_rows:
        _refuse("prompt_logprobs_last_n", f"must be from 1 to {num_rows}, one less than the prompt")
    if request.target_prompt_logprobs is not None:
        _check_targets(request.target_prompt_logprobs, num_rows, vocab_size)


def _check_targets(targets: TensorData, num_rows: int, vocab_size: int) -> None:
    field, shape = "target_prompt_logprobs", tuple(targets.shape or targets.values.shape)
    if targets.dtype != "int64":
        _refuse(field, f"is {targets.dtype}, expected int64")
    if len(shape) != 2 or shape[0] != num_rows:  # noqa: PLR2004 - a matrix
        _refuse(
            field, f"has shape {shape}, expected ({num_rows}, K): a row per token but the first"
        )
    check_cells(field, targets.values.size)
    ids = targets.values
    if not (ids != _SKIPPED).any():
        _refuse(field, "names no token")
    if ids.min() < _SKIPPED or ids.max() >= vocab_size:
        wrong = ids[(ids < _SKIPPED) | (ids >= vocab_size)].flat[0]
        _refuse(field, f"has token {wrong}: use -1, or ids from 0 to {vocab_size - 1}")


def check_cells(field: str, num_cells: int) -> None:
    """Check that what a field asks for is not too much to tell.

    Raises:
        EngineError: It is.
    """
    if num_cells > MAX_CELLS:
        _refuse(field, f"asks for {num_cells} numbers, at most {MAX_CELLS} are told")


def _refuse(field: str, problem: str) -> NoReturn:
    message = f"{field}: {problem}"
    raise EngineError(message, category="user")


class _Writer:
    """Arrays that are filled chunk by chunk.

    Attributes:
        first_row: The first row of scores that is needed.
    """

    def __init__(self, request: SampleJob, uniforms: npt.NDArray[np.float64] | None) -> None:
        length = len(request.prompt)
        num_rows, k = length - 1, request.topk_prompt_logprobs
        self._request = request
        self._uniforms = uniforms
        last_n = request.prompt_logprobs_last_n
        self._first_logprob = 0 if last_n is None else num_rows - last_n
        self._logprobs = np.full(length, np.nan, np.float32)
        self._topk_ids = np.zeros((length, k), np.int32)
        self._topk_values = np.full((length, k), EMPTY_TOPK_LOGPROB, np.float32)
        targets = request.target_prompt_logprobs
        ids = np.zeros(0, np.int64) if targets is None else targets.values.reshape(-1)
        rows = np.zeros(0, np.int64) if targets is None else target_rows(targets)
        self._cells = np.flatnonzero(ids != _SKIPPED)
        self._rows, self._ids = rows[self._cells], ids[self._cells]
        self._targets = np.zeros(len(ids), np.float32)
        shape = (num_rows, request.prompt_alt_tokens_k)
        self._alt_ids = np.zeros(shape, np.int64)
        self._alt_logprobs = np.zeros(shape, np.float32)
        self.first_row = self._first_needed(num_rows)

    def _first_needed(self, num_rows: int) -> int:
        request, first = self._request, num_rows
        if request.prompt_logprobs or request.topk_prompt_logprobs:
            first = self._first_logprob
        if len(self._rows):
            first = min(first, int(self._rows[0]))
        return 0 if request.prompt_alt_tokens_k else first

    def take(self, start: int, stop: int, logits: torch.Tensor) -> None:
        """Take the logits of rows ``start:stop``, ``(stop - start, vocab)``."""
        scores = torch.log_softmax(logits, dim=-1)
        begin = max(start, self._first_logprob)
        if begin < stop:
            self._take_logprobs(begin, stop, scores[begin - start :])
        low, high = np.searchsorted(self._rows, (start, stop))
        if low < high:
            rows = torch.from_numpy(self._rows[low:high] - start).to(scores.device)
            ids = torch.from_numpy(self._ids[low:high]).to(scores.device)
            self._targets[self._cells[low:high]] = scores[rows, ids].cpu().numpy()
        if self._uniforms is not None:
            temperature = self._request.params.temperature
            drawn = draw_several(logits, temperature, self._uniforms[start:stop])
            self._alt_ids[start:stop] = drawn.cpu().numpy()
            self._alt_logprobs[start:stop] = scores.gather(-1, drawn).cpu().numpy()

    def _take_logprobs(self, start: int, stop: int, scores: torch.Tensor) -> None:
        positions = slice(start + 1, stop + 1)
        if self._request.prompt_logprobs:
            targets = torch.from_numpy(self._request.prompt[positions]).to(scores.device)
            self._logprobs[positions] = scores.gather(-1, targets[:, None])[:, 0].cpu().numpy()
        if k := self._topk_ids.shape[1]:
            best = scores.topk(k, dim=-1)
            self._topk_ids[positions] = best.indices.cpu().numpy()
            self._topk_values[positions] = best.values.cpu().numpy()

    def report(self) -> PromptReport:
        """Return what was asked for."""
        request, asked = self._request, self._request.target_prompt_logprobs
        targets = None
        if asked is not None:
            targets = TensorData(
                self._targets,
                "float32",
                asked.shape or asked.values.shape,
                asked.sparse_crow_indices,
                asked.sparse_col_indices,
            )
        alternatives = PromptAltTokens(
            TensorData.from_numpy(self._alt_ids), TensorData.from_numpy(self._alt_logprobs)
        )
        has_topk = request.topk_prompt_logprobs > 0
        return PromptReport(
            logprobs=self._logprobs if request.prompt_logprobs else None,
            topk=TopkLogprobs(self._topk_ids, self._topk_values) if has_topk else None,
            targets=targets,
            alternatives=alternatives if request.prompt_alt_tokens_k else None,
        )
