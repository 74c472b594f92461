"""The JSON layout of training batches and their results.

Tensors go out dense, which every generation reads; provenance and audio travel in protobuf only.
Knows nothing of content types or of what a loss means.
"""

from __future__ import annotations

from typing import Any

from tinker_ray.errors import WireFormatError
from tinker_ray.types import Datum, ForwardBackwardOutput
from tinker_ray.wire.json_parts import (
    dense_tensor_to_json,
    model_input_from_json,
    model_input_to_json,
    tensor_from_json,
)
from tinker_ray.wire.json_value import dumps, loads, optional, required, typed
from tinker_ray.wire.request import ForwardBackwardRequest

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
        "loss_fn_inputs": {key: dense_tensor_to_json(t) for key, t in datum.loss_fn_inputs.items()},
    }


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
        {key: tensor_from_json(t, f"{where}.loss_fn_inputs.{key}") for key, t in inputs.items()},
    )


# --- results of training ------------------------------------------------------------------------


def encode_output(output: ForwardBackwardOutput) -> bytes:
    """Encode a result."""
    return dumps(
        {
            "loss_fn_output_type": output.loss_fn_output_type,
            "loss_fn_outputs": [
                {key: dense_tensor_to_json(tensor) for key, tensor in item.items()}
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
            {key: tensor_from_json(t, f"loss_fn_outputs[{i}].{key}") for key, t in item.items()}
            for i, item in enumerate(outputs)
        ],
        metrics={
            key: typed(value, int | float, f"metrics.{key}")
            for key, value in required(body, "metrics", dict).items()
        },
    )
