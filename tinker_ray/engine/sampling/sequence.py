"""Sampling requests and their sequences while they are under way.

Holds numbers and rules only; knows nothing of tensors, rows or threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.engine.sampling.prompt_report import PromptReport, check_cells, check_report
from tinker_ray.errors import EngineError
from tinker_ray.types import SampledSequence, TopkLogprobs

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt
    from transformers import PreTrainedTokenizerBase

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.types import SampleResponse, SamplingParams, StopReason, TensorData

_TAIL_TOKENS = 4
_ALTERNATIVES = 2**64 - 1
"""Stands where the number of a sample does in the key of random numbers."""


@dataclass(frozen=True, eq=False)
class SampleJob:
    """One sampling request.

    Attributes:
        prompt: Token ids, int64 ``(P,)``.
        adapter: What changes the base model; None samples the base model itself.
        params: How to draw.
        num_samples: How many sequences to draw from the prompt.
        prompt_logprobs: Whether to report the logprob of every prompt token.
        topk_prompt_logprobs: How many of the likeliest tokens to report at every prompt position.
        topk_sample_logprobs: How many of the likeliest tokens to report at every drawn position.
        target_prompt_logprobs: Ids to score, ``(P - 1, K)``, dense or sparse, -1 for none.
        prompt_alt_tokens_k: How many alternatives to draw at every prompt position but the first.
        prompt_logprobs_last_n: Report ``prompt_logprobs`` and ``topk_prompt_logprobs`` of so many
            tokens at the prompt's end; None for all.
    """

    prompt: npt.NDArray[np.int64]
    adapter: Adapter | None
    params: SamplingParams
    num_samples: int = 1
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    target_prompt_logprobs: TensorData | None = None
    prompt_alt_tokens_k: int = 0
    prompt_logprobs_last_n: int | None = None


@dataclass(frozen=True)
class StopRule:
    """When a sequence ends before its limit.

    Attributes:
        token_ids: Tokens that end it.
        strings: Texts that end it.
        tail_tokens: How many of the newest tokens a text that has just ended can span.
        tokenizer: Turns tokens into text; needed for strings.
    """

    token_ids: tuple[int, ...]
    strings: tuple[str, ...] = ()
    tail_tokens: int = 0
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)

    @classmethod
    def of(cls, params: SamplingParams, base: BaseModel) -> StopRule:
        """Read ``params.stop``: None and non-empty stops keep end-of-sequence tokens, [] has none.

        Raises:
            EngineError: The stop is neither strings nor token ids, or there is no tokenizer.
        """
        stop = params.stop
        if stop is None:
            return cls(base.eos_token_ids)
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not stops:
            return cls(())
        strings = tuple(item for item in stops if isinstance(item, str))
        if not strings:
            token_ids = [item for item in stops if isinstance(item, int)]
            return cls((*base.eos_token_ids, *token_ids))
        if len(strings) != len(stops) or not all(strings):
            message = "sampling_params.stop must be non-empty strings, or token ids"
            raise EngineError(message, category="user")
        if base.tokenizer is None:
            message = f"sampling_params.stop: base model {base.name!r} has no tokenizer for strings"
            raise EngineError(message, category="user")
        longest_bytes = max(len(text.encode()) for text in strings)
        tail_tokens = longest_bytes + _TAIL_TOKENS
        return cls(base.eos_token_ids, strings, tail_tokens, base.tokenizer)

    def ends_in_text(self, tokens: list[int]) -> bool:
        """Say whether the newest token has completed one of the strings."""
        if self.tokenizer is None:
            return False
        text = self.tokenizer.decode(
            tokens[-self.tail_tokens :],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        return any(stop in text for stop in self.strings)


@dataclass(eq=False)
class Sequence:
    """One sequence being drawn.

    Attributes:
        job: What it belongs to.
        uniforms: The numbers in [0, 1) that decide its tokens, drawn ahead, one per token.
        tokens: The tokens so far.
        logprobs: Their logprobs under the model, before temperature and truncation.
        stop_reason: None while it goes on.
        best: The likeliest tokens and their logprobs at each position, if asked for.
    """

    job: Job
    uniforms: npt.NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None
    best: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = field(default_factory=list)

    def settle(self) -> None:
        """Decide whether the newest token is the last one."""
        stop = self.job.stop
        if self.tokens[-1] in stop.token_ids or stop.ends_in_text(self.tokens):
            self.stop_reason = "stop"
        elif len(self.tokens) >= self.job.limit_tokens:
            self.stop_reason = "length"

    def result(self) -> SampledSequence:
        """Return the finished sequence."""
        return SampledSequence(
            stop_reason=self.stop_reason or "length",
            tokens_np=np.asarray(self.tokens, np.int32),
            logprobs_np=np.asarray(self.logprobs, np.float32),
            topk_logprobs_np=self._topk(),
        )

    def _topk(self) -> TopkLogprobs | None:
        k = self.job.request.topk_sample_logprobs
        if k == 0:
            return None
        ids = [ids for ids, _ in self.best]
        logprobs = [logprobs for _, logprobs in self.best]
        return TopkLogprobs(
            np.concatenate([np.zeros(0, np.int32), *ids]).reshape(-1, k),
            np.concatenate([np.zeros(0, np.float32), *logprobs]).reshape(-1, k),
        )


@dataclass(eq=False)
class Job:
    """A request under way.

    Attributes:
        request: What was asked for.
        future: Where the answer goes; cancelling it ends the job.
        stop: When its sequences end.
        limit_tokens: Most tokens to draw, 0 if the prompt fills the context.
        sequences: One per sample.
        num_unfinished: Sequences still to be drawn.
        key: What its random numbers are keyed by: its seed, or a number drawn at random.
        report: What is told of the prompt; set by the prompt's run.
    """

    request: SampleJob
    future: Future[SampleResponse]
    stop: StopRule
    limit_tokens: int
    sequences: list[Sequence] = field(default_factory=list)
    num_unfinished: int = 0
    key: int = 0
    report: PromptReport = field(default_factory=PromptReport)

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.request.prompt)

    @cached_property
    def longest_tokens(self) -> int:
        """Most tokens that one of its sequences can come to, prompt included."""
        return self.prompt_tokens + self.limit_tokens

    @property
    def num_rows(self) -> int:
        """Rows that it can come to occupy: none if the prompt's run gives all that is asked for."""
        return self.request.num_samples if self.limit_tokens > 1 else 0

    @classmethod
    def start(cls, request: SampleJob, future: Future[SampleResponse], base: BaseModel) -> Job:
        """Check a request and draw its random numbers.

        Sample ``j`` of a seeded request draws from Philox keyed by ``(seed, j)``, so that its
        tokens depend on nothing else.

        Raises:
            EngineError: The request cannot be answered; the message names what is wrong with it.
        """
        limit_tokens = check_request(request, base)
        job = cls(request, future, StopRule.of(request.params, base), limit_tokens)
        seed = request.params.seed
        job.key = int.from_bytes(os.urandom(8)) if seed is None else seed % 2**64
        for index in range(request.num_samples):
            uniforms = _generator(job.key, index).random(job.limit_tokens)
            job.sequences.append(Sequence(job, uniforms))
        job.num_unfinished = request.num_samples
        return job

    def alternative_uniforms(self) -> npt.NDArray[np.float64] | None:
        """Draw the numbers that decide alternatives to the prompt, if there are to be some.

        They are keyed beyond all samples, so that neither changes with the other.
        """
        if k := self.request.prompt_alt_tokens_k:
            return _generator(self.key, _ALTERNATIVES).random((self.prompt_tokens - 1, k))
        return None


def _generator(key: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([key, index], np.uint64)))


def check_request(request: SampleJob, base: BaseModel) -> int:
    """Check a request; return how many tokens it can draw.

    Raises:
        EngineError: The request cannot be answered; the message names what is wrong with it.
    """
    prompt, params, num_best = request.prompt, request.params, request.topk_sample_logprobs
    problem = None
    if prompt.ndim != 1 or len(prompt) == 0:
        problem = "prompt has no tokens"
    elif len(prompt) > base.context_length:
        problem = f"prompt has {len(prompt)} tokens, the context is {base.context_length}"
    elif prompt.min() < 0 or prompt.max() >= base.vocab_size:
        problem = f"prompt has a token outside of 0 to {base.vocab_size - 1}"
    elif request.num_samples < 1:
        problem = "num_samples must be at least 1"
    elif not 0 <= num_best <= base.vocab_size:
        problem = f"topk_sample_logprobs: must be from 0 to {base.vocab_size}"
    elif params.top_k != -1 and params.top_k < 1:
        problem = "sampling_params.top_k must be -1 or at least 1"
    if problem is not None:
        raise EngineError(problem, category="user")
    check_report(request, base.vocab_size)
    room = base.context_length - len(prompt)
    limit_tokens = room if params.max_tokens is None else min(params.max_tokens, room)
    check_cells("topk_sample_logprobs", request.num_samples * limit_tokens * num_best)
    return limit_tokens
