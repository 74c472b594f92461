"""Array-based values do what people do with pydantic models."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from tinker_ray.types import (
    Datum,
    DmelChunk,
    EncodedTextChunk,
    ForwardBackwardOutput,
    ImageAssetPointerChunk,
    ImageChunk,
    ModelInput,
    PromptAltTokens,
    PromptProvenanceSpan,
    SampledSequence,
    SampleResponse,
    TensorData,
    TopkLogprobs,
)
from tinker_ray.types.value import Value

PROMPT = ModelInput(
    [
        EncodedTextChunk(np.array([1, 2], dtype=np.int32)),
        ImageChunk(b"\x89PNG", "png", 4),
        ImageAssetPointerChunk("s3://x", "jpeg"),
        DmelChunk(b"\x02\x01\x05"),
    ]
)
PROMPT_JSON: dict[str, Any] = {
    "chunks": [
        {"tokens": [1, 2], "type": "encoded_text"},
        {"data": "iVBORw==", "format": "png", "expected_tokens": 4, "type": "image"},
        {
            "location": "s3://x",
            "format": "jpeg",
            "expected_tokens": None,
            "type": "image_asset_pointer",
        },
        {"dmel": "AgEF", "type": "dmel"},
    ]
}
CSR = TensorData([5, 7], "int64", [2, 3], [0, 1, 2], [1, 0])
VALUES: list[Value] = [
    PROMPT,
    *PROMPT.chunks,
    CSR,
    Datum(ModelInput.from_ints([1]), {"target_tokens": [2], "weights": [0.5]}),
    ForwardBackwardOutput("x", [{"logprobs": TensorData([0.5], "float32")}], {"loss:sum": 1.0}),
]


def sampled() -> SampleResponse:
    topk = TopkLogprobs.from_lists([None, [(5, -0.5), (6, -2.0)]])
    return SampleResponse(
        [SampledSequence("stop", "q/0", tokens=[3], logprobs=[-1.5], topk_logprobs=[[(3, -1.5)]])],
        np.array([np.nan, -1.5], dtype=np.float32),
        topk,
        TensorData([-0.5], "float32", [1, 1]),
        7,
        PromptAltTokens(TensorData([9], "int64", [1, 1]), TensorData([-3.0], "float32", [1, 1])),
    )


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_its_json(value: Value) -> None:
    assert value == type(value).model_validate(json.loads(value.model_dump_json()))
    assert value == type(value).model_validate(value.model_dump())


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_its_pickle(value: Value) -> None:
    assert value == pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def test_a_prompt_dumps_as_it_travels() -> None:
    assert PROMPT_JSON == PROMPT.model_dump(mode="json")
    assert b"\x89PNG" == PROMPT.model_dump()["chunks"][1]["data"]
    assert "expected_tokens" not in PROMPT.model_dump(exclude_none=True)["chunks"][2]


def test_a_tensor_dumps_as_it_travels() -> None:
    assert {
        "data": [5, 7],
        "dtype": "int64",
        "shape": [2, 3],
        "sparse_crow_indices": [0, 1, 2],
        "sparse_col_indices": [1, 0],
    } == CSR.model_dump()


def test_a_sample_comes_back_from_its_json() -> None:
    dumped = sampled().model_dump(mode="json")
    again = SampleResponse.model_validate(dumped | {"type": "sample"})
    assert dumped == again.model_dump(mode="json")
    assert [None, [[5, -0.5], [6, -2.0]]] == dumped["topk_prompt_logprobs"]
    assert sampled().prompt_alt_tokens == again.prompt_alt_tokens


def test_provenance_dumps_by_its_fields() -> None:
    span = PromptProvenanceSpan(sequence_id="q/0", length=1)
    traced = Datum(ModelInput.from_ints([1]), {}).with_provenance([span], [])
    dumped = json.loads(traced.model_dump_json())
    assert [{"sequence_id": "q/0", "offset": 0, "length": 1}] == dumped["model_input_spans"]


def test_older_clients_send_no_kinds() -> None:
    assert ModelInput.from_ints([1]) == ModelInput.model_validate({"chunks": [{"tokens": [1]}]})


def test_a_copy_takes_new_fields_through_the_checks() -> None:
    image = ImageChunk(b"x", "png")
    assert ImageChunk(b"x", "png", 9) == image.model_copy(update={"expected_tokens": 9})
    assert CSR == CSR.model_copy()
    with pytest.raises(ValueError, match="base64"):
        image.model_copy(update={"data": "%%%"})


@pytest.mark.parametrize(
    "value,complaint",
    [
        (5, "mapping"),
        ({"chunks": [5]}, "a chunk has one of"),
        ({"chunks": [{"sound": 1}]}, "a chunk has one of"),
        ({"chunks": [{"tokens": "abc"}]}, "EncodedTextChunk"),
        ({"chunks": [{"location": "x"}]}, "format"),
        ({"pieces": []}, "pieces"),
    ],
)
def test_what_is_no_prompt_is_refused(value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ModelInput.model_validate(value)


class Record(BaseModel):
    """Somebody's model with values in it."""

    prompt: ModelInput
    tensor: TensorData | None = None


def test_values_are_fields_of_anyones_models() -> None:
    record = Record(prompt=PROMPT, tensor=CSR)
    assert PROMPT is record.prompt
    assert PROMPT_JSON == record.model_dump(mode="json")["prompt"]
    assert record == Record.model_validate_json(record.model_dump_json())
    with pytest.raises(ValidationError, match="mapping"):
        Record.model_validate({"prompt": 5})


def test_a_tensor_made_of_nested_values_dumps_its_shape() -> None:
    nested = TensorData(np.array([[1, 2]]), "int64")
    assert ([1, 2], [1, 2]) == (nested.model_dump()["data"], nested.model_dump()["shape"])
