"""The JSON layout of training batches, their results, and samples.

Reads both generations of clients: discriminators (``type``) may be absent, and a missing key, a
null and a default mean the same. Knows nothing of content types or of what a loss means.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from tinker_ray.errors import WireFormatError
from tinker_ray.types import (
    Datum,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    SampledSequence,
    SampleResponse,
    SamplingParams,
    TensorData,
    TopkLogprobs,
)
from tinker_ray.types.sampling import EMPTY_TOPK_LOGPROB
from tinker_ray.wire.json_value import (
    dumps,
    floats,
    indices,
    ints,
    loads,
    optional,
    required,
    typed,
)
from tinker_ray.wire.request import ForwardBackwardRequest, SampleRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.types import ModelInputChunk

# --- training batches ---------------------------------------------------------------------------


def encode_forward_backward(request: ForwardBackwardRequest) -> bytes:
    """Encode a batch, for ``/forward`` if it is forward-only."""
    batch = {
        "data": [_datum_to_json(datum) for datum in request.data],
        "loss_fn": request.loss_fn,
        "loss_fn_config": dict(request.loss_fn_config) or None,
    }
    key = "forward_input" if request.forward_only else "forward_backward_input"
    return dumps({key: batch, "model_id": request.model_id, "seq_id": request.seq_id}, key)


def _datum_to_json(datum: Datum) -> dict[str, Any]:
    return {
        "model_input": model_input_to_json(datum.model_input),
        "loss_fn_inputs": {key: _tensor_to_json(t) for key, t in datum.loss_fn_inputs.items()},
    }


def model_input_to_json(model_input: ModelInput) -> dict[str, Any]:
    """Give the JSON form of a prompt."""
    return {"chunks": [_chunk_to_json(chunk) for chunk in model_input.chunks]}


def _chunk_to_json(chunk: ModelInputChunk) -> dict[str, Any]:
    if isinstance(chunk, EncodedTextChunk):
        return {"tokens": np.asarray(chunk.tokens).tolist(), "type": chunk.type}
    fields: dict[str, Any] = {"format": chunk.format, "type": chunk.type}
    if chunk.expected_tokens is not None:
        fields["expected_tokens"] = chunk.expected_tokens
    if isinstance(chunk, ImageChunk):
        return {"data": base64.b64encode(chunk.data).decode(), **fields}
    return {"location": chunk.location, **fields}


def _tensor_to_json(tensor: TensorData) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "data": tensor.data,
        "dtype": tensor.dtype,
        "shape": list(tensor.values.shape) if tensor.shape is None else tensor.shape,
    }
    if tensor.is_sparse:
        fields["sparse_crow_indices"] = tensor.sparse_crow_indices
        fields["sparse_col_indices"] = tensor.sparse_col_indices
    return fields


def decode_forward_backward(content: bytes) -> ForwardBackwardRequest:
    """Decode a batch, of ``/forward`` too."""
    body = loads(content)
    forward_only = body.get("forward_input") is not None
    where = "forward_input" if forward_only else "forward_backward_input"
    batch = required(body, where, dict)
    data = required(batch, "data", list, where)
    config = optional(batch, "loss_fn_config", dict, where) or {}
    for key, value in config.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise WireFormatError(
                f"not a number or a text: {value!r}", field=f"{where}.loss_fn_config.{key}"
            )
    return ForwardBackwardRequest(
        model_id=required(body, "model_id", str),
        seq_id=optional(body, "seq_id", int),
        data=[_datum_from_json(datum, f"{where}.data[{i}]") for i, datum in enumerate(data)],
        loss_fn=required(batch, "loss_fn", str, where),
        loss_fn_config=config,
        forward_only=forward_only,
    )


def _datum_from_json(value: object, where: str) -> Datum:
    fields = typed(value, dict, where)
    inputs = required(fields, "loss_fn_inputs", dict, where)
    return Datum(
        model_input_from_json(fields.get("model_input"), f"{where}.model_input"),
        {key: _tensor_from_json(t, f"{where}.loss_fn_inputs.{key}") for key, t in inputs.items()},
    )


def model_input_from_json(value: object, where: str) -> ModelInput:
    """Read the JSON form of a prompt.

    Raises:
        WireFormatError: It is not one.
    """
    chunks = required(typed(value, dict, where), "chunks", list, where)
    return ModelInput([_chunk_from_json(c, f"{where}.chunks[{i}]") for i, c in enumerate(chunks)])


def _chunk_from_json(value: object, where: str) -> ModelInputChunk:
    fields = typed(value, dict, where)
    if "tokens" in fields:
        return EncodedTextChunk(ints(fields["tokens"], f"{where}.tokens"))
    if "data" not in fields and "location" not in fields:
        raise WireFormatError("a chunk has tokens, data or location", field=where)
    image_format = fields.get("format")
    if image_format not in {"png", "jpeg"}:
        raise WireFormatError(f"unknown image format {image_format!r}", field=f"{where}.format")
    expected = optional(fields, "expected_tokens", int, where)
    if "location" in fields:
        return ImageAssetPointerChunk(
            required(fields, "location", str, where), image_format, expected
        )
    try:
        data = base64.b64decode(required(fields, "data", str, where), validate=True)
    except binascii.Error as error:
        raise WireFormatError(f"not base64: {error}", field=f"{where}.data") from error
    return ImageChunk(data, image_format, expected)


def _tensor_from_json(value: object, where: str) -> TensorData:
    fields = typed(value, dict, where)
    dtype = fields.get("dtype")
    if dtype not in {"int64", "float32"}:
        raise WireFormatError(
            f"unknown dtype {dtype!r}: use int64 or float32", field=f"{where}.dtype"
        )
    data = required(fields, "data", list, where)
    shape = indices(fields, "shape", where)
    crow = indices(fields, "sparse_crow_indices", where)
    col = indices(fields, "sparse_col_indices", where)
    values = (
        ints(data, f"{where}.data", np.int64) if dtype == "int64" else floats(data, f"{where}.data")
    )
    try:
        return TensorData(values, dtype, shape, crow, col)
    except ValueError as error:
        raise WireFormatError(f"{len(data)} values, shape {shape}: {error}", field=where) from error


# --- results of training ------------------------------------------------------------------------


def encode_output(output: ForwardBackwardOutput) -> bytes:
    """Encode a result."""
    return dumps(
        {
            "loss_fn_output_type": output.loss_fn_output_type,
            "loss_fn_outputs": [
                {key: _tensor_to_json(tensor) for key, tensor in item.items()}
                for item in output.loss_fn_outputs
            ],
            "metrics": output.metrics,
        },
        "loss_fn_outputs",
    )


def decode_output(content: bytes) -> ForwardBackwardOutput:
    """Decode a result."""
    body = loads(content)
    outputs = [
        typed(item, dict, f"loss_fn_outputs[{index}]")
        for index, item in enumerate(required(body, "loss_fn_outputs", list))
    ]
    return ForwardBackwardOutput(
        loss_fn_output_type=required(body, "loss_fn_output_type", str),
        loss_fn_outputs=[
            {key: _tensor_from_json(t, f"loss_fn_outputs[{i}].{key}") for key, t in item.items()}
            for i, item in enumerate(outputs)
        ],
        metrics={
            key: typed(value, int | float, f"metrics.{key}")
            for key, value in required(body, "metrics", dict).items()
        },
    )


# --- samples ------------------------------------------------------------------------------------


def encode_sample(request: SampleRequest) -> bytes:
    """Encode a sampling request; what is None stays out."""
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
        "type": "sample",
    }
    return dumps({key: value for key, value in fields.items() if value is not None})


def decode_sample(content: bytes) -> SampleRequest:
    """Decode a sampling request."""
    body = loads(content)
    num_samples = optional(body, "num_samples", int)
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
