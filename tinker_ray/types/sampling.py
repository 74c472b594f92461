"""What to sample: a prompt, how to draw from it, and what to report besides.

Knows nothing of the wire. Counts and positions are in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from tinker_ray.types.prompt import ModelInput
from tinker_ray.types.tensor import TensorData

StopReason: TypeAlias = Literal["length", "stop"]
SamplingClientKind: TypeAlias = Literal["snapshot", "inflight"]
"""Whether a sampler keeps the weights of its save, or follows the model's newest ones."""


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

    def __str__(self) -> str:
        return repr(self)


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A prompt and how to continue it, addressed to a sampling session or directly to weights.

    Attributes:
        prompt: What to continue, P tokens.
        sampling_params: How to draw.
        num_samples: How many sequences to draw.
        sampling_session_id: The session, whose weights and order count.
        seq_id: The request's number in the session.
        base_model: Without a session: the base model.
        model_path: Without a session: a ``tinker://`` path of weights.
        prompt_logprobs: Report the logprob of each prompt token.
        topk_prompt_logprobs: Report as many likeliest tokens at each prompt position.
        topk_sample_logprobs: Report as many likeliest tokens at each drawn position.
        target_prompt_logprobs: int64 ``(P - 1, K)`` token ids, dense or CSR, whose logprobs to
            report: row ``i`` at prompt position ``i + 1``; -1 asks for nothing.
        prompt_alt_tokens_k: Draw as many alternatives at each prompt position but the first.
        prompt_logprobs_last_n: Score only the last so many prompt tokens.
        record_stability_info: Have the service keep what ``stable_reinforce`` needs.
    """

    prompt: ModelInput
    sampling_params: SamplingParams = field(default_factory=SamplingParams)
    num_samples: int = 1
    sampling_session_id: str | None = None
    seq_id: int | None = None
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool = False
    topk_prompt_logprobs: int = 0
    topk_sample_logprobs: int = 0
    target_prompt_logprobs: TensorData | None = None
    prompt_alt_tokens_k: int = 0
    prompt_logprobs_last_n: int | None = None
    record_stability_info: bool = False
    type: Literal["sample"] = "sample"
