from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tinker_ray.types import (
    AdamOptimizerConfig,
    AdamParams,
    CreateModelRequest,
    DimuonOptimizerConfig,
    DimuonParams,
    GetInfoResponse,
    OptimizerConfig,
    OptimizerConfigBase,
    OptimParams,
    OptimParamsBase,
    OptimStepRequest,
)

CONFIG: TypeAdapter[Any] = TypeAdapter(OptimizerConfig)
PARAMS: TypeAdapter[Any] = TypeAdapter(OptimParams)


@pytest.mark.parametrize(
    "fields,expected",
    [
        ({"type": "adamw"}, AdamOptimizerConfig()),
        ({"type": "dimuon", "version": 1}, DimuonOptimizerConfig()),
        (
            {"type": "dimuon", "version": 2},
            OptimizerConfigBase.model_validate({"type": "dimuon", "version": 2}),
        ),
        ({"type": "sgd", "m": 1}, OptimizerConfigBase.model_validate({"type": "sgd", "m": 1})),
    ],
)
def test_a_family_is_known_by_its_type(fields: dict[str, Any], expected: object) -> None:
    config = CONFIG.validate_python(fields)
    assert (type(expected), expected) == (type(config), config)
    assert fields == CONFIG.dump_python(config)


@pytest.mark.parametrize(
    "fields,expected",
    [
        ({"learning_rate": 0.5}, AdamParams(learning_rate=0.5)),
        ({}, AdamParams()),
        ({"type": "dimuon", "learning_rate": 0.5}, DimuonParams(learning_rate=0.5)),
        ({"type": "sgd", "lr": 1}, OptimParamsBase.model_validate({"type": "sgd", "lr": 1})),
    ],
)
def test_the_parameters_of_a_step_are_known_by_their_type(
    fields: dict[str, Any], expected: object
) -> None:
    params = PARAMS.validate_python(fields)
    assert (type(expected), expected) == (type(params), params)


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": -1},
        {"learning_rate": float("nan")},
        {"learning_rate": 1, "beta1": 1.0},
        {"learning_rate": 1, "grad_clip_norm": float("inf")},
        {"learning_rate": 1, "beta2": 0.9},
        {},
    ],
)
def test_dimuon_refuses_what_cannot_work(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DimuonParams(**fields)


def test_dimuon_does_not_clip_by_default() -> None:
    assert {
        "type": "dimuon",
        "learning_rate": 0.5,
        "grad_clip_norm": 0.0,
        "beta1": 0.9,
    } == DimuonParams(learning_rate=0.5).model_dump()


@pytest.mark.parametrize(
    "params,key",
    [(AdamParams(), "adam_params"), (DimuonParams(learning_rate=1), "optimizer_params")],
)
def test_the_parameters_of_a_step_travel_by_their_family(
    params: AdamParams | DimuonParams, key: str
) -> None:
    request = OptimStepRequest(optim_params=params, model_id="m", seq_id=1)
    sent = request.model_dump()
    expected = {"model_id": "m", "seq_id": 1, "type": "optim_step", key: params.model_dump()}
    assert expected == sent
    assert request == OptimStepRequest.model_validate(sent)


def test_models_have_adam_where_nothing_else_is_said() -> None:
    request = CreateModelRequest(session_id="s", model_seq_id=0, base_model="b")
    assert AdamOptimizerConfig() == request.optimizer_config
    info = {"model_id": "m", "model_data": {}}
    assert AdamOptimizerConfig() == GetInfoResponse.model_validate(info).optimizer_config
    info["optimizer_config"] = {"type": "dimuon", "version": 1}
    assert DimuonOptimizerConfig() == GetInfoResponse.model_validate(info).optimizer_config
