"""The JSON layout of sampling requests and of what was sampled.

Requests hold what is set, so that an older service meets no field that it does not know. Results
are the older generation's; the newer one gets them as protobuf. Knows nothing of content types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from tinker_ray.errors import WireFormatError
from tinker_ray.types import SampledSequence, SampleResponse, SamplingParams, TopkLogprobs
from tinker_ray.types.sampled import EMPTY_TOPK_LOGPROB
from tinker_ray.wire.json_parts import (
    model_input_from_json,
    model_input_to_json,
    tensor_from_json,
    tensor_to_json,
)
from tinker_ray.wire.json_value import dumps, floats, ints, loads, optional, required, typed
from tinker_ray.wire.request import SampleRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def encode_sample(request: SampleRequest) -> bytes:
    """Encode a sampling request; what is None stays out."""
    targets = request.target_prompt_logprobs
    fields = {
        "sampling_session_id": request.sampling_session_id,
        "seq_id": request.seq_id,
        "base_model": request.base_model,
        "model_path": request.model_path,
        "num_samples": request.num_samples,
        "prompt": model_input_to_json(request.prompt),
        "sampling_params": request.sampling_params.model_dump(exclude_none=True),
        "prompt_logprobs": request.prompt_logprobs,
        "topk_prompt_logprobs": request.topk_prompt_logprobs,
        # The newer generation's, unknown to older services.
        "topk_sample_logprobs": request.topk_sample_logprobs or None,
        "target_prompt_logprobs": None if targets is None else tensor_to_json(targets),
        "prompt_alt_tokens_k": request.prompt_alt_tokens_k or None,
        "prompt_logprobs_last_n": request.prompt_logprobs_last_n,
        "record_stability_info": request.record_stability_info or None,
        "type": request.type,
    }
    return dumps({key: value for key, value in fields.items() if value is not None})


def decode_sample(content: bytes) -> SampleRequest:
    """Decode a sampling request."""
    body = loads(content)
    num_samples = optional(body, "num_samples", int)
    targets = body.get("target_prompt_logprobs")
    return SampleRequest(
        prompt=model_input_from_json(body.get("prompt"), "prompt"),
        sampling_params=_sampling_params(optional(body, "sampling_params", dict) or {}),
        num_samples=1 if num_samples is None else num_samples,
        sampling_session_id=optional(body, "sampling_session_id", str),
        seq_id=optional(body, "seq_id", int),
        base_model=optional(body, "base_model", str),
        model_path=optional(body, "model_path", str),
        prompt_logprobs=bool(optional(body, "prompt_logprobs", bool)),
        topk_prompt_logprobs=optional(body, "topk_prompt_logprobs", int) or 0,
        topk_sample_logprobs=optional(body, "topk_sample_logprobs", int) or 0,
        target_prompt_logprobs=None
        if targets is None
        else tensor_from_json(targets, "target_prompt_logprobs"),
        prompt_alt_tokens_k=optional(body, "prompt_alt_tokens_k", int) or 0,
        prompt_logprobs_last_n=optional(body, "prompt_logprobs_last_n", int),
        record_stability_info=bool(optional(body, "record_stability_info", bool)),
    )


def _sampling_params(fields: Mapping[str, Any]) -> SamplingParams:
    try:
        return SamplingParams(**{key: value for key, value in fields.items() if value is not None})
    except (ValidationError, TypeError) as error:
        if not isinstance(error, ValidationError):
            raise WireFormatError(str(error), field="sampling_params") from error
        first = error.errors(include_url=False)[0]
        path = ".".join(["sampling_params", *(str(part) for part in first["loc"][:1])])
        raise WireFormatError(f"{first['msg']}, not {first['input']!r}", field=path) from error


def encode_sample_response(response: SampleResponse) -> bytes:
    """Encode what was sampled; missing logprobs are null."""
    return dumps(
        {
            "type": "sample",
            "sequences": [
                {
                    "stop_reason": sequence.stop_reason,
                    "tokens": sequence.tokens,
                    "logprobs": sequence.logprobs,
                }
                for sequence in response.sequences
            ],
            "prompt_logprobs": response.prompt_logprobs,
            "topk_prompt_logprobs": response.topk_prompt_logprobs,
        },
        "sequences",
    )


def decode_sample_response(content: bytes, sequence_ids: Sequence[str]) -> SampleResponse:
    """Decode what was sampled."""
    body = loads(content)
    sequences = [
        _sequence(typed(item, dict, f"sequences[{i}]"), i, sequence_ids)
        for i, item in enumerate(required(body, "sequences", list))
    ]
    prompt_logprobs = optional(body, "prompt_logprobs", list)
    topk = optional(body, "topk_prompt_logprobs", list)
    return SampleResponse(
        sequences=sequences,
        prompt_logprobs_np=None
        if prompt_logprobs is None
        else floats([np.nan if v is None else v for v in prompt_logprobs], "prompt_logprobs"),
        topk_prompt_logprobs_np=None if topk is None else _topk(topk),
    )


def _sequence(fields: dict[str, Any], index: int, sequence_ids: Sequence[str]) -> SampledSequence:
    where = f"sequences[{index}]"
    reason = fields.get("stop_reason")
    if reason not in {"stop", "length"}:
        raise WireFormatError(f"unknown stop reason {reason!r}", field=f"{where}.stop_reason")
    logprobs = optional(fields, "logprobs", list, where)
    return SampledSequence(
        stop_reason=reason,
        tokens_np=ints(fields.get("tokens"), f"{where}.tokens"),
        logprobs_np=None if logprobs is None else floats(logprobs, f"{where}.logprobs"),
        sequence_id=sequence_ids[index] if index < len(sequence_ids) else "",
    )


def _topk(rows: list[Any]) -> TopkLogprobs:
    pairs = [_pairs(row, f"topk_prompt_logprobs[{index}]") for index, row in enumerate(rows)]
    k = max(map(len, pairs), default=0)
    token_ids = np.zeros((len(rows), k), dtype=np.int32)
    logprobs = np.full((len(rows), k), EMPTY_TOPK_LOGPROB, dtype=np.float32)
    for index, row in enumerate(pairs):
        where = f"topk_prompt_logprobs[{index}]"
        token_ids[index, : len(row)] = ints([token for token, _ in row], where)
        logprobs[index, : len(row)] = floats([logprob for _, logprob in row], where)
    return TopkLogprobs(token_ids, logprobs)


def _pairs(row: object, where: str) -> list[Any]:
    pairs: list[Any] = [] if row is None else typed(row, list, where)
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):  # noqa: PLR2004
        raise WireFormatError("expected [token_id, logprob] pairs", field=where)
    return pairs
