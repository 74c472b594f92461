from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from tests.fakes.torch_tensor import FakeTorchTensor
from tinker_ray.types import (
    AdamParams,
    Datum,
    EncodedTextChunk,
    ImageChunk,
    LoraConfig,
    ModelInput,
    PromptProvenanceSpan,
    SampledProvenanceSpan,
    TensorData,
)


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


@pytest.mark.parametrize("key,sparse", [("target_tokens", True), ("weights", True), ("x", False)])
def test_matrices_of_targets_and_weights_become_sparse(key: str, sparse: bool) -> None:  # noqa: FBT001
    tensor = datum(**{key: FakeTorchTensor(np.zeros((4, 8)))}).loss_fn_inputs[key]
    assert sparse is tensor.is_sparse
    np.testing.assert_array_equal(np.zeros((4, 8)), tensor.to_numpy())


SEEN = PromptProvenanceSpan(sequence_id="q/0", length=2)
DRAWN = SampledProvenanceSpan(sequence_id="q/0", offset=1, length=1)
TRACED = Datum(ModelInput.from_ints([1, 2, 3]), {"target_tokens": [2, 3]})


def test_a_datum_says_where_its_tokens_come_from() -> None:
    traced = TRACED.with_provenance([SEEN, DRAWN], [SEEN])
    assert ([SEEN, DRAWN], [SEEN]) == (traced.model_input_spans, traced.loss_fn_input_spans)
    assert TRACED.loss_fn_inputs == traced.loss_fn_inputs
    assert TRACED.model_input_spans is None


@pytest.mark.parametrize(
    "model_input,loss_fn_inputs,complaint",
    [
        ([SEEN], [SEEN], "model_input_spans cover 2 positions of 3"),
        ([SEEN, SEEN], [SEEN], "model_input_spans cover 4 positions of 3"),
        ([SEEN, DRAWN], [], "loss_fn_input_spans cover 0 positions of 2"),
        ([SEEN, DRAWN], None, "set both or neither"),
        (None, [SEEN], "set both or neither"),
    ],
)
def test_spans_tile_what_they_describe(
    model_input: Any,  # noqa: ANN401 - wrong on purpose
    loss_fn_inputs: Any,  # noqa: ANN401
    complaint: str,
) -> None:
    with pytest.raises(ValueError, match=complaint):
        TRACED.with_provenance(model_input, loss_fn_inputs)


def test_targets_that_are_no_row_are_not_counted() -> None:
    inputs: dict[str, Any]
    for inputs in ({}, {"target_tokens": [[1, 2], [3, 4]]}):
        traced = Datum(TRACED.model_input, inputs).with_provenance([SEEN, DRAWN], [DRAWN])
        assert [DRAWN] == traced.loss_fn_input_spans


def test_what_is_no_span_is_refused() -> None:
    with pytest.raises(TypeError, match=r"model_input_spans\[0\] is a tuple"):
        TRACED.with_provenance([("q/0", 0, 3)], [SEEN])  # type: ignore[list-item]  # on purpose


def test_an_image_needs_its_expected_tokens_to_be_traced() -> None:
    image = ModelInput([ImageChunk(b"", "png"), EncodedTextChunk([1])])
    with pytest.raises(ValueError, match="expected_tokens"):
        Datum(image).with_provenance([SEEN], [])


@pytest.mark.parametrize("span", [PromptProvenanceSpan, SampledProvenanceSpan])
@pytest.mark.parametrize(
    "fields,complaint",
    [
        ({"sequence_id": "", "length": 1}, "sequence_id is empty"),
        ({"sequence_id": "q", "length": -1}, "length is -1"),
        ({"sequence_id": "q", "length": 1, "offset": -2}, "offset is -2"),
    ],
)
def test_a_span_names_a_run(span: Any, fields: dict[str, Any], complaint: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=f"{span.__name__}.{complaint}"):
        span(**fields)


def test_the_two_kinds_of_spans_differ() -> None:
    fields: dict[str, Any] = {"sequence_id": "q", "length": 1}
    spans: set[object] = {PromptProvenanceSpan(**fields), SampledProvenanceSpan(**fields)}
    assert 2 == len(spans)


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
