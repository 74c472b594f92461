from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.fakes.torch_tensor import FakeTorchTensor
from tinker_ray.types import AdamParams, Datum, LoraConfig, ModelInput, TensorData


def datum(**inputs: Any) -> Datum:  # noqa: ANN401 - anything that a user may pass
    return Datum(ModelInput.from_ints([1, 2]), inputs)


@pytest.mark.parametrize(
    "key,dtype",
    [
        ("target_tokens", "int64"),
        ("weights", "float32"),
        ("advantages", "float32"),
        ("logprobs", "float32"),
        ("clip_low_threshold", "float32"),
        ("clip_high_threshold", "float32"),
        ("sequence_ratio_mask", "float32"),
    ],
)
def test_the_key_of_a_list_decides_its_dtype(key: str, dtype: str) -> None:
    tensor = datum(**{key: [1, 2]}).loss_fn_inputs[key]
    assert (dtype, [2], [1, 2]) == (tensor.dtype, tensor.shape, tensor.data)


def test_rectangular_nested_lists_keep_their_shape() -> None:
    assert [2, 2] == datum(target_tokens=[[1, 2], [3, 4]]).loss_fn_inputs["target_tokens"].shape


def test_a_list_under_an_unknown_key_is_refused() -> None:
    with pytest.raises(KeyError, match="mystery"):
        datum(mystery=[1])


@pytest.mark.parametrize(
    "value", [[[1], [2, 3]], ["a"], [1.5], [None]], ids=["ragged", "text", "fraction", "none"]
)
def test_a_list_that_is_no_tensor_is_refused_by_its_key(value: list[Any]) -> None:
    with pytest.raises(ValueError, match="target_tokens"):
        datum(target_tokens=value)


def test_arrays_tensors_and_tensor_data_are_taken() -> None:
    given = datum(
        weights=np.array([0.5, 1.0]),
        target_tokens=FakeTorchTensor(np.array([3, 4], dtype=np.int32)),
        mystery=TensorData([1], "int64"),
    )
    assert {
        "weights": TensorData([0.5, 1.0], "float32"),
        "target_tokens": TensorData([3, 4], "int64"),
        "mystery": TensorData([1], "int64"),
    } == given.loss_fn_inputs


def test_anything_else_is_refused() -> None:
    with pytest.raises(TypeError, match="weights"):
        datum(weights="0.5")


def test_adam_has_the_defaults_of_the_contract() -> None:
    assert {
        "learning_rate": 1e-4,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-12,
        "weight_decay": 0.0,
        "grad_clip_norm": 0.0,
    } == AdamParams().model_dump()


@pytest.mark.parametrize(
    "field,value",
    [
        ("learning_rate", -1e-4),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", float("inf")),
        ("weight_decay", -1),
        ("grad_clip_norm", float("nan")),
        ("momentum", 0.9),
    ],
)
def test_adam_refuses_what_cannot_work(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        AdamParams.model_validate({field: value})


def test_lora_trains_everything_by_default() -> None:
    assert LoraConfig(rank=8, train_unembed=True, train_mlp=True, train_attn=True) == LoraConfig(
        rank=8
    )


@pytest.mark.parametrize("rank", [0, -1, 1.5])
def test_lora_refuses_a_rank_that_is_no_positive_integer(rank: float) -> None:
    with pytest.raises(ValidationError, match="rank"):
        LoraConfig.model_validate({"rank": rank})
