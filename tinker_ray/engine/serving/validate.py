"""Checks of bulk requests against the base model that would serve them, before they are accepted.

Pure: values in, the values that the engine computes with out. Every mistake is found here and named
by its path in the request.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.engine.sampling.sequence import SampleJob, check_request
from tinker_ray.engine.serving.rejection import RequestRejected, rejected
from tinker_ray.engine.store.encryption import read_recipients
from tinker_ray.engine.training.batch import prepare_batch, prepare_custom_batch
from tinker_ray.engine.training.datum_check import Limits
from tinker_ray.engine.training.loss import CUSTOM, refuse_surrogate
from tinker_ray.errors import EngineError
from tinker_ray.types import EncodedTextChunk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from tinker_ray.engine.model.base_model import BaseModel
    from tinker_ray.engine.store.encryption import Recipients
    from tinker_ray.engine.training.batch import TrainingBatch
    from tinker_ray.engine.training.custom_loss import CustomLoss
    from tinker_ray.engine.training.provenance import FindSample
    from tinker_ray.types import ModelInput, SamplingParams
    from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_LIMIT = 2**63
MIN_TTL_S = 3600
MAX_TTL_S = 10 * 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class LossSources:
    """What the losses of one session's requests refer to.

    Attributes:
        find_sample: Looks a recorded sample up by its ``sequence_id``.
        find_custom_loss: Looks a custom loss up by its ``loss_id``.
        strict: Whether to refuse losses whose formula is not the service's own.
    """

    find_sample: FindSample
    find_custom_loss: Callable[[str], CustomLoss]
    strict: bool = False


def training_batch(
    request: ForwardBackwardRequest, base: BaseModel, sources: LossSources
) -> TrainingBatch:
    """Check a batch and make it ready to be computed.

    Raises:
        RequestRejected: Something is missing, unknown, not finite, of a wrong shape or dtype, or
            out of range.
    """
    limits = Limits(base.vocab_size, base.context_length)
    backward = not request.forward_only
    try:
        if sources.strict:
            refuse_surrogate(request.loss_fn)
        if request.loss_fn == CUSTOM:
            loss = sources.find_custom_loss(_loss_id(request.loss_fn_config))
            return prepare_custom_batch(request.data, loss, limits, backward=backward)
        return prepare_batch(
            request.data,
            request.loss_fn,
            request.loss_fn_config,
            limits,
            backward=backward,
            find_sample=sources.find_sample,
        )
    except RequestRejected:
        raise
    except EngineError as error:
        raise rejected(error) from error


def _loss_id(config: Mapping[str, float | str]) -> str:
    loss_id = config.get("loss_id")
    if not isinstance(loss_id, str) or len(config) != 1:
        message = 'must be {"loss_id": …}, as create_custom_loss gave it'
        raise RequestRejected(message, field="loss_fn_config")
    return loss_id


def sample_job(request: SampleRequest, base: BaseModel, *, max_sequences: int) -> SampleJob:
    """Check a sampling request; return what there is to do, for the base model itself.

    Raises:
        RequestRejected: A token or parameter is out of range, or the prompt holds more than text.
    """
    prompt = _prompt(request.prompt, base)
    if not 1 <= request.num_samples <= max_sequences:
        message = f"must be from 1 to {max_sequences}, got {request.num_samples}"
        raise RequestRejected(message, field="num_samples")
    _sampling_params(request.sampling_params, base)
    if request.record_stability_info and request.sampling_session_id is None:
        message = "what is recorded belongs to a session: sample from a sampling session"
        raise RequestRejected(message, field="record_stability_info")
    job = SampleJob(
        prompt=prompt,
        adapter=None,
        params=request.sampling_params,
        num_samples=request.num_samples,
        prompt_logprobs=request.prompt_logprobs,
        topk_prompt_logprobs=request.topk_prompt_logprobs,
        topk_sample_logprobs=request.topk_sample_logprobs,
        target_prompt_logprobs=request.target_prompt_logprobs,
        prompt_alt_tokens_k=request.prompt_alt_tokens_k,
        prompt_logprobs_last_n=request.prompt_logprobs_last_n,
    )
    try:
        check_request(job, base)
    except EngineError as error:
        raise rejected(error) from error
    return job


def _prompt(prompt: ModelInput, base: BaseModel) -> npt.NDArray[np.int64]:
    parts = []
    for index, chunk in enumerate(prompt.chunks):
        if not isinstance(chunk, EncodedTextChunk):
            message = f"is {chunk.type}: {base.name} reads only text"
            raise RequestRejected(message, field=f"prompt.chunks[{index}]")
        parts.append(np.asarray(chunk.tokens, dtype=np.int64))
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    if tokens.size == 0:
        raise RequestRejected("has no tokens", field="prompt")
    if tokens.size > base.context_length:
        message = f"has {tokens.size} tokens, the context of {base.name} is {base.context_length}"
        raise RequestRejected(message, field="prompt")
    outside = np.flatnonzero((tokens < 0) | (tokens >= base.vocab_size))
    if outside.size:
        where = int(outside[0])
        message = f"has token {tokens[where]} at {where}, ids go from 0 to {base.vocab_size - 1}"
        raise RequestRejected(message, field="prompt")
    return tokens


def _sampling_params(params: SamplingParams, base: BaseModel) -> None:
    wrong = {
        "max_tokens": params.max_tokens is not None and not 0 <= params.max_tokens < _LIMIT,
        "temperature": not math.isfinite(params.temperature) or params.temperature < 0,
        "top_p": not 0 < params.top_p <= 1,
        "top_k": params.top_k != -1 and not 1 <= params.top_k < _LIMIT,
        "seed": params.seed is not None and not -(2**63) <= params.seed < 2**64,
    }
    for key, is_wrong in wrong.items():
        if is_wrong:
            message = f"is out of range: {getattr(params, key)}"
            raise RequestRejected(message, field=f"sampling_params.{key}")
    stops: list[str | int] = (
        [params.stop] if isinstance(params.stop, str) else list(params.stop or ())
    )
    for index, stop in enumerate(stops):
        known = bool(stop) if isinstance(stop, str) else 0 <= stop < base.vocab_size
        if not known:
            message = f"is not a text or a token id: {stop!r}"
            raise RequestRejected(message, field=f"sampling_params.stop[{index}]")
    if any(isinstance(stop, str) for stop in stops) and base.tokenizer is None:
        message = f"strings need a tokenizer, and {base.name} has none: use token ids"
        raise RequestRejected(message, field="sampling_params.stop")


def age_recipients(texts: Sequence[str]) -> Recipients:
    """Read the keys that an export is encrypted to.

    Raises:
        RequestRejected: One of them is no key.
    """
    try:
        return read_recipients(texts)
    except EngineError as error:
        raise RequestRejected(error.message, field="age_encryption_recipients") from error


def checkpoint_ttl(ttl_s: int | None) -> int | None:
    """Check for how long a checkpoint may live.

    Raises:
        RequestRejected: It is not from an hour to ten years.
    """
    if ttl_s is not None and not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
        message = f"must be from {MIN_TTL_S} (an hour) to {MAX_TTL_S} (ten years), got {ttl_s}"
        raise RequestRejected(message, field="ttl_seconds")
    return ttl_s


def checkpoint_name(name: str) -> str:
    """Check the name of a checkpoint.

    Raises:
        RequestRejected: It is not one of letters, digits, dots, hyphens and underscores.
    """
    if not _NAME.match(name):
        message = (
            f"{name!r} is not a checkpoint name: use up to 128 letters, digits, '.', '-' and '_', "
            "with a letter or digit first"
        )
        raise RequestRejected(message, field="path")
    return name
