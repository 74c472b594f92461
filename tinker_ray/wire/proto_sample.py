"""The protobuf layout of what was sampled (see tinker_public.proto).

Missing logprobs are NaN; an empty array of logprobs means that there are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinker_ray.errors import WireFormatError
from tinker_ray.types import PromptAltTokens, SampledSequence, SampleResponse, TopkLogprobs
from tinker_ray.wire import tinker_public_pb2 as pb
from tinker_ray.wire.proto_parts import parse, read_array, read_tensor, write_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinker_ray.types import StopReason

_STOP_REASONS: dict[StopReason, pb.StopReason] = {
    "stop": pb.STOP_REASON_STOP,
    "length": pb.STOP_REASON_LENGTH,
}


def encode_sample_response(response: SampleResponse) -> bytes:
    """Encode what was sampled."""
    message = pb.SampleResponse(prompt_cache_hit_tokens=response.prompt_cache_hit_tokens)
    for sequence in response.sequences:
        _write_sequence(message.sequences.add(), sequence)
    if response.prompt_logprobs_np is not None:
        message.prompt_logprobs = np.asarray(response.prompt_logprobs_np, dtype="<f4").tobytes()
    if response.topk_prompt_logprobs_np is not None:
        _write_topk(message.topk_prompt_logprobs, response.topk_prompt_logprobs_np)
    if response.target_prompt_logprobs is not None:
        write_tensor(message.target_prompt_logprobs, response.target_prompt_logprobs)
    if (alternatives := response.prompt_alt_tokens) is not None:
        tokens = message.prompt_alt_tokens.tokens
        tokens.dtype = pb.DTYPE_INT32
        tokens.shape.extend(alternatives.tokens.values.shape)
        tokens.dense = np.ascontiguousarray(alternatives.tokens.to_numpy(), dtype="<i4").tobytes()
        write_tensor(message.prompt_alt_tokens.logprobs, alternatives.logprobs)
    return message.SerializeToString()


def _write_sequence(message: pb.SampledSequence, sequence: SampledSequence) -> None:
    message.stop_reason = _STOP_REASONS[sequence.stop_reason]
    message.tokens = np.asarray(sequence.tokens_np, dtype="<i4").tobytes()
    if sequence.logprobs_np is not None:
        message.logprobs = np.asarray(sequence.logprobs_np, dtype="<f4").tobytes()
    if sequence.topk_logprobs_np is not None:
        _write_topk(message.topk_sampled_logprobs, sequence.topk_logprobs_np)


def _write_topk(message: pb.TopkLogprobs, topk: TopkLogprobs) -> None:
    message.length, message.k = topk.token_ids.shape
    message.token_ids = np.ascontiguousarray(topk.token_ids, dtype="<i4").tobytes()
    message.logprobs = np.ascontiguousarray(topk.logprobs, dtype="<f4").tobytes()


def decode_sample_response(content: bytes, sequence_ids: Sequence[str]) -> SampleResponse:
    """Decode what was sampled; ids that the promise gave are stamped on the sequences."""
    message = parse(pb.SampleResponse(), content)
    has = message.HasField
    logprobs = read_array(message.prompt_logprobs, "<f4", "prompt_logprobs")
    topk = message.topk_prompt_logprobs if has("topk_prompt_logprobs") else None
    targets = message.target_prompt_logprobs if has("target_prompt_logprobs") else None
    alternatives = message.prompt_alt_tokens if has("prompt_alt_tokens") else None
    return SampleResponse(
        sequences=[
            _read_sequence(item, f"sequences[{index}]", "".join(sequence_ids[index : index + 1]))
            for index, item in enumerate(message.sequences)
        ],
        prompt_logprobs_np=logprobs if message.prompt_logprobs else None,
        topk_prompt_logprobs_np=None if topk is None else _read_topk(topk, "topk_prompt_logprobs"),
        target_prompt_logprobs=None
        if targets is None
        else read_tensor(targets, "target_prompt_logprobs"),
        prompt_cache_hit_tokens=message.prompt_cache_hit_tokens,
        prompt_alt_tokens=None if alternatives is None else _read_alternatives(alternatives),
    )


def _read_sequence(message: pb.SampledSequence, where: str, sequence_id: str) -> SampledSequence:
    logprobs = read_array(message.logprobs, "<f4", f"{where}.logprobs")
    has_topk = message.HasField("topk_sampled_logprobs")
    topk_where = f"{where}.topk_sampled_logprobs"
    return SampledSequence(
        stop_reason=_stop_reason(message.stop_reason, f"{where}.stop_reason"),
        sequence_id=sequence_id,
        tokens_np=read_array(message.tokens, "<i4", f"{where}.tokens"),
        logprobs_np=logprobs if message.logprobs else None,
        topk_logprobs_np=_read_topk(message.topk_sampled_logprobs, topk_where)
        if has_topk
        else None,
    )


def _read_topk(message: pb.TopkLogprobs, where: str) -> TopkLogprobs:
    shape = (message.length, message.k)
    token_ids = read_array(message.token_ids, "<i4", where)
    logprobs = read_array(message.logprobs, "<f4", where)
    if not token_ids.size == logprobs.size == message.length * message.k:
        raise WireFormatError(f"{token_ids.size} cells do not fill {shape}", field=where)
    return TopkLogprobs(token_ids.reshape(shape), logprobs.reshape(shape))


def _read_alternatives(message: pb.PromptAltTokens) -> PromptAltTokens:
    where = "prompt_alt_tokens"
    return PromptAltTokens(
        tokens=read_tensor(message.tokens, f"{where}.tokens"),
        logprobs=read_tensor(message.logprobs, f"{where}.logprobs"),
    )


def _stop_reason(number: int, where: str) -> StopReason:
    for reason, known in _STOP_REASONS.items():
        if known == number:
            return reason
    raise WireFormatError(f"unknown stop reason {number}", field=where)
