"""Sampling requests and their sequences while they are under way.

Holds numbers and rules only; knows nothing of tensors, rows or threads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.errors import EngineError
from tinker_ray.types import SampledSequence

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy.typing as npt
    from transformers import PreTrainedTokenizerBase

    from tinker_ray.engine.model.adapter import Adapter
    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.types import SampleResponse, SamplingParams, StopReason, TopkLogprobs

_TAIL_TOKENS = 4


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
    """

    prompt: npt.NDArray[np.int64]
    adapter: Adapter | None
    params: SamplingParams
    num_samples: int = 1
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0


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
    """

    job: Job
    uniforms: npt.NDArray[np.float64]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: StopReason | None = None

    def append(self, token: int, logprob: float, *, is_stop: bool) -> None:
        """Add a token and decide whether it is the last one."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if is_stop or self.job.stop.ends_in_text(self.tokens):
            self.stop_reason = "stop"
        elif len(self.tokens) >= self.job.limit_tokens:
            self.stop_reason = "length"

    def result(self) -> SampledSequence:
        """Return the finished sequence."""
        return SampledSequence(
            stop_reason=self.stop_reason or "length",
            tokens_np=np.asarray(self.tokens, np.int32),
            logprobs_np=np.asarray(self.logprobs, np.float32),
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
        prompt_logprobs_P: Set by the prompt's run, if asked for.
        topk_prompt_logprobs: Set by the prompt's run, if asked for.
    """

    request: SampleJob
    future: Future[SampleResponse]
    stop: StopRule
    limit_tokens: int
    sequences: list[Sequence] = field(default_factory=list)
    num_unfinished: int = 0
    prompt_logprobs_P: npt.NDArray[np.float32] | None = None  # noqa: N815 - shape suffix
    topk_prompt_logprobs: TopkLogprobs | None = None

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.request.prompt)

    @property
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
        _check(request, base)
        room = base.context_length - len(request.prompt)
        wanted = request.params.max_tokens
        job = cls(
            request=request,
            future=future,
            stop=StopRule.of(request.params, base),
            limit_tokens=room if wanted is None else min(wanted, room),
        )
        seed = request.params.seed
        key = int.from_bytes(os.urandom(8)) if seed is None else seed % 2**64
        for index in range(request.num_samples):
            bits = np.random.Philox(key=np.array([key, index], np.uint64))
            uniforms = np.random.Generator(bits).random(job.limit_tokens)
            job.sequences.append(Sequence(job, uniforms))
        job.num_unfinished = request.num_samples
        return job


def _check(request: SampleJob, base: BaseModel) -> None:
    prompt, params = request.prompt, request.params
    problem = None
    if prompt.ndim != 1 or len(prompt) == 0:
        problem = "prompt has no tokens"
    elif len(prompt) > base.context_length:
        problem = f"prompt has {len(prompt)} tokens, the context is {base.context_length}"
    elif prompt.min() < 0 or prompt.max() >= base.vocab_size:
        problem = f"prompt has a token outside of 0 to {base.vocab_size - 1}"
    elif request.num_samples < 1:
        problem = "num_samples must be at least 1"
    elif request.topk_prompt_logprobs < 0:
        problem = "topk_prompt_logprobs must not be negative"
    elif params.top_k != -1 and params.top_k < 1:
        problem = "sampling_params.top_k must be -1 or at least 1"
    if problem is not None:
        raise EngineError(problem, category="user")
