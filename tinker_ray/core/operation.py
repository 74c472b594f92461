"""Training operations as values, each with its place in the order of its model.

They cross process borders, so that the order is data: whoever executes them sorts by ``seq``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tinker_ray.core.link import validate
from tinker_ray.core.polling import ResultKind
from tinker_ray.errors import WireFormatError
from tinker_ray.telemetry import names
from tinker_ray.types import (
    AdamParams,
    CreateCustomLossResponse,
    CreateModelResponse,
    LoadWeightsResponse,
    OptimStepResponse,
    SaveWeightsExternalResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsForSamplerResponseInternal,
    SaveWeightsResponse,
)
from tinker_ray.wire import codec, endpoint, json_value
from tinker_ray.wire.packed import PackedData
from tinker_ray.wire.request import ForwardBackwardRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from tinker_ray.config import Secret
    from tinker_ray.core.link import Promise
    from tinker_ray.transport.message import Response
    from tinker_ray.types import Datum, ForwardBackwardOutput, OptimizerConfig, OptimParams
    from tinker_ray.wire.endpoint import Endpoint


SamplerKind: TypeAlias = Literal["snapshot", "inflight"]


@dataclass(frozen=True, slots=True)
class ForwardBackward:
    """One request's worth of datums; ``forward_only`` computes no gradients.

    Attributes:
        part: Its place among the parts of one call, whose numbers follow each other.
        num_parts: How many parts that call has.
    """

    seq: int
    data: Sequence[Datum]
    loss_fn: str
    loss_fn_config: Mapping[str, float | str] = field(default_factory=dict)
    forward_only: bool = False
    part: int = 0
    num_parts: int = 1


@dataclass(frozen=True, slots=True)
class OptimStep:
    """Apply the accumulated gradients."""

    seq: int
    params: OptimParams


@dataclass(frozen=True, slots=True)
class SaveState:
    """Save weights and optimizer state under a name."""

    seq: int
    name: str
    ttl_seconds: int | None = None
    overwrite: bool = False
    user_metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LoadState:
    """Load weights, and the optimizer's state if asked for.

    Attributes:
        weights_access_token: Lets us read a checkpoint of another account. It does not pickle: the
            process that was given it has to execute the operation.
    """

    seq: int
    path: str
    optimizer: bool
    weights_access_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class SaveForSampler:
    """Publish the weights for sampling: under a name, or as a sampling session of that number.

    Attributes:
        kind: ``inflight`` lets the samplers of the model share one target of weights, which later
            saves replace under them; None and ``snapshot`` bind the sampler to these weights.
    """

    seq: int
    name: str | None = None
    sampling_session_seq_id: int | None = None
    ttl_seconds: int | None = None
    user_metadata: Mapping[str, str] | None = None
    kind: SamplerKind | None = None


@dataclass(frozen=True, slots=True)
class SaveExternal:
    """Export the weights under a name, to be taken away; for some recipients only, if given.

    Attributes:
        age_encryption_recipients: Public keys, age's or SSH's.
    """

    seq: int
    name: str
    ttl_seconds: int | None = None
    age_encryption_recipients: tuple[str, ...] | None = None


Operation: TypeAlias = (
    ForwardBackward | OptimStep | SaveState | LoadState | SaveForSampler | SaveExternal
)
OperationResult: TypeAlias = (
    "ForwardBackwardOutput | OptimStepResponse | SaveWeightsResponse | LoadWeightsResponse "
    "| SaveWeightsForSamplerResponse | SaveWeightsForSamplerResponseInternal "
    "| SaveWeightsExternalResponse"
)


def _json_result(name: str, answer: type[BaseModel]) -> ResultKind[Any]:
    def decode(response: Response, _promise: Promise) -> BaseModel:
        return validate(response, answer)

    return ResultKind(name, decode)


def _output(response: Response, _promise: Promise) -> ForwardBackwardOutput:
    return codec.decode_forward_backward_output(response.content, response.content_type)


CREATE_MODEL_RESULT: ResultKind[CreateModelResponse] = _json_result(
    "CreateModel", CreateModelResponse
)
LOAD_RESULT: ResultKind[LoadWeightsResponse] = _json_result("LoadWeights", LoadWeightsResponse)
CREATE_CUSTOM_LOSS_RESULT: ResultKind[CreateCustomLossResponse] = _json_result(
    "CreateCustomLoss", CreateCustomLossResponse
)
_OPTIM_STEP_RESULT = _json_result("OptimStep", OptimStepResponse)
_SAVE_RESULT = _json_result("SaveWeights", SaveWeightsResponse)
_SAVE_EXTERNAL_RESULT = _json_result("SaveWeightsExternal", SaveWeightsExternalResponse)
_SAVE_FOR_SAMPLER_RESULT = _json_result("SaveWeightsForSampler", SaveWeightsForSamplerResponse)
_SNAPSHOT_RESULT = _json_result("SaveWeightsForSampler", SaveWeightsForSamplerResponseInternal)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An operation ready to be sent: where, what, and what comes back."""

    endpoint: Endpoint
    body: codec.Body
    result: ResultKind[Any]


def dumped_config(config: OptimizerConfig | None) -> dict[str, Any] | None:
    """Return what a new model's optimizer is on the wire."""
    return None if config is None else config.model_dump(exclude_none=True)


def span_name(operation: Operation) -> str:
    """Name the span of an operation."""
    if isinstance(operation, ForwardBackward):
        return names.FORWARD if operation.forward_only else names.FORWARD_BACKWARD
    return _SPAN_NAMES[type(operation)]


def encode(
    operation: Operation, model_id: str, *, protobuf: bool, compress: bool = False
) -> Encoded:
    """Put an operation on the wire.

    Raises:
        WireFormatError: A value cannot travel.
    """
    if isinstance(operation, ForwardBackward):
        return _encode_forward_backward(operation, model_id, protobuf=protobuf, compress=compress)
    route, result, fields = _JSON_OPERATIONS[type(operation)](operation)
    body = {"model_id": model_id, "seq_id": operation.seq, **fields}
    body = {key: value for key, value in body.items() if value is not None}
    body["type"] = route.type_name
    return Encoded(route, codec.Body(json_value.dumps(body, route.path), codec.JSON), result)


def packed(operation: Operation) -> Operation:
    """Encode the datums of a batch, for the way to the process that sends it.

    What cannot be packed stays as it is: whoever sends it says what is wrong with it, or speaks
    another encoding in which nothing is.
    """
    if type(operation) is not ForwardBackward:  # what is still to be made cannot be encoded
        return operation
    data = packed_data(operation.data)
    return operation if data is operation.data else replace(operation, data=data)


def packed_data(data: Sequence[Datum]) -> Sequence[Datum]:
    """Encode datums, if that is possible."""
    try:
        return PackedData.of(data)
    except WireFormatError:
        return data


def _encode_forward_backward(
    operation: ForwardBackward, model_id: str, *, protobuf: bool, compress: bool
) -> Encoded:
    request = ForwardBackwardRequest(
        model_id=model_id,
        seq_id=operation.seq,
        data=operation.data,
        loss_fn=operation.loss_fn,
        loss_fn_config=operation.loss_fn_config,
        forward_only=operation.forward_only,
    )
    body = codec.encode_forward_backward(request, proto=protobuf)
    plain_forward = operation.forward_only and not protobuf
    return Encoded(
        endpoint.FORWARD if plain_forward else endpoint.FORWARD_BACKWARD,
        codec.compressed(body) if compress and protobuf else body,
        ResultKind("Forward" if operation.forward_only else "ForwardBackward", _output, protobuf),
    )


_Fields: TypeAlias = "tuple[Endpoint, ResultKind[Any], dict[str, Any]]"


def _optim_step(operation: OptimStep) -> _Fields:
    family = "adam_params" if isinstance(operation.params, AdamParams) else "optimizer_params"
    fields = {family: operation.params.model_dump()}
    return endpoint.OPTIM_STEP, _OPTIM_STEP_RESULT, fields


def _save_state(operation: SaveState) -> _Fields:
    fields = {
        "path": operation.name,
        "ttl_seconds": operation.ttl_seconds,
        "overwrite": operation.overwrite or None,
        "user_metadata": operation.user_metadata,
    }
    return endpoint.SAVE_WEIGHTS, _SAVE_RESULT, fields


def _load_state(operation: LoadState) -> _Fields:
    token = operation.weights_access_token
    fields = {
        "path": operation.path,
        "optimizer": operation.optimizer,
        "weights_access_token": None if token is None else token.reveal(),
    }
    return endpoint.LOAD_WEIGHTS, LOAD_RESULT, fields


def _save_for_sampler(operation: SaveForSampler) -> _Fields:
    fields = {
        "path": operation.name,
        "sampling_session_seq_id": operation.sampling_session_seq_id,
        "ttl_seconds": operation.ttl_seconds,
        "user_metadata": operation.user_metadata,
        "kind": operation.kind,
    }
    result = _SNAPSHOT_RESULT if operation.name is None else _SAVE_FOR_SAMPLER_RESULT
    return endpoint.SAVE_WEIGHTS_FOR_SAMPLER, result, fields


def _save_external(operation: SaveExternal) -> _Fields:
    recipients = operation.age_encryption_recipients
    fields = {
        "path": operation.name,
        "ttl_seconds": operation.ttl_seconds,
        "age_encryption_recipients": None if recipients is None else list(recipients),
    }
    return endpoint.SAVE_WEIGHTS_EXTERNAL, _SAVE_EXTERNAL_RESULT, fields


_JSON_OPERATIONS: dict[type, Callable[[Any], _Fields]] = {
    OptimStep: _optim_step,
    SaveState: _save_state,
    LoadState: _load_state,
    SaveForSampler: _save_for_sampler,
    SaveExternal: _save_external,
}

_SPAN_NAMES: dict[type, str] = {
    OptimStep: names.OPTIM_STEP,
    SaveState: names.SAVE_STATE,
    LoadState: names.LOAD_STATE,
    SaveForSampler: names.SAVE_WEIGHTS_FOR_SAMPLER,
    SaveExternal: names.SAVE_WEIGHTS_EXTERNAL,
}
