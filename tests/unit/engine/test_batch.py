from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.tiny_model import random_datum
from tinker_ray.engine.training.batch import TrainingBatch, pack, prepare_batch
from tinker_ray.engine.training.datum_check import Limits
from tinker_ray.errors import EngineError
from tinker_ray.types import Datum, ImageChunk, ModelInput, TensorData


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 200))
def test_each_row_is_packed_once_and_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = pack(lengths, budget)
    assert list(range(len(lengths))) == sorted(index for batch in batches for index in batch)
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= budget or len(batch) == 1


def check(*data: Datum, loss_fn: str = "cross_entropy", backward: bool = True) -> TrainingBatch:
    return prepare_batch(list(data), loss_fn, None, Limits(74, 16), backward=backward)


def datum(loss_fn: str = "cross_entropy", length: int = 4, **changes: object) -> Datum:
    good = random_datum(np.random.default_rng(0), length, loss_fn)
    inputs: dict[str, Any] = dict(good.loss_fn_inputs) | changes
    return Datum(
        good.model_input, {key: value for key, value in inputs.items() if value is not None}
    )


WEIGHTS = "data[1].loss_fn_inputs['weights']"


@pytest.mark.parametrize(
    "bad, loss_fn, message",
    [
        (datum(weights=None), "cross_entropy", "data[1].loss_fn_inputs lacks 'weights'"),
        (datum(target_tokens=None), "cross_entropy", "lacks 'target_tokens'"),
        (datum("ppo", advantages=None), "ppo", "lacks 'advantages', which 'ppo' requires"),
        (datum("gspo", sequence_ratio_mask=np.zeros(4)), "gspo", "marks no token"),
        (datum("gspo", target_tokens=np.ones((4, 2), int)), "gspo", "'gspo' reads only (T,)"),
        (datum(weights=[1.0, 2.0]), "cross_entropy", f"{WEIGHTS} has shape (2,), expected (4,)"),
        (datum(weights=np.ones((2, 2))), "cross_entropy", "has shape (2, 2), expected (4,)"),
        (datum(weights=np.ones((4, 1))), "cross_entropy", "has shape (4, 1), expected (4,)"),
        (datum(weights=np.ones(4, int)), "cross_entropy", "is int64, expected float32"),
        (datum(target_tokens=np.ones((4, 75), int)), "cross_entropy", "has 75 targets a position"),
        (datum(target_tokens=np.ones((4, 2, 2), int)), "cross_entropy", "has shape (4, 2, 2)"),
        (datum(target_tokens=[[1], [2], [74], [3]]), "cross_entropy", "has token 74 at (2, 0)"),
        (datum(weights=[1.0, 0.0, np.nan, 1.0]), "cross_entropy", "is not finite"),
        (datum(target_tokens=[1, 2, 3, 74]), "cross_entropy", "has token 74 at 3, ids go from 0"),
        (datum(target_tokens=np.ones(4)), "cross_entropy", "is float32, expected int64"),
        (datum(length=17), "cross_entropy", "has 17 tokens, the base model's context is 16"),
        (Datum(ModelInput.empty()), "cross_entropy", "data[1].model_input has no tokens"),
        (Datum(ModelInput.from_ints([1, -1])), "cross_entropy", "has token -1 at 1"),
        (
            Datum(ModelInput([ImageChunk(b"", "png", 1)])),
            "cross_entropy",
            "data[1].model_input.chunks[0] is image: the base model reads only text",
        ),
        (
            datum(target_tokens=TensorData([1], "int64", [2, 4], [0, 0, 1], [2])),
            "cross_entropy",
            "has shape (2, 4), expected (4,) or (4, K)",
        ),
    ],
)
def test_a_bad_datum_is_refused_by_name(bad: Datum, loss_fn: str, message: str) -> None:
    with pytest.raises(EngineError) as raised:
        check(datum(loss_fn), bad, loss_fn=loss_fn)
    assert message in raised.value.message
    assert "user" == raised.value.category


def test_no_data_is_refused() -> None:
    with pytest.raises(EngineError, match="data is empty"):
        check()


def test_inputs_that_the_loss_does_not_read_may_be_anything() -> None:
    extra = datum("ppo", mask=np.ones((2, 2)), weights=TensorData([np.nan], "float32", [1]))
    (row,) = check(extra, loss_fn="ppo").rows
    assert {"logprobs", "advantages"} == set(row.inputs)


def test_a_forward_pass_weighs_all_targets_alike_where_weights_are_missing() -> None:
    (row,) = check(datum(weights=None), backward=False).rows
    assert [1.0] * 4 == row.inputs["weights"].tolist()
