from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from tinker_ray.core.custom_loss import TracedLoss, encode, linearise, trace
from tinker_ray.core.loss_graph import check_data
from tinker_ray.types import Datum, ModelInput, TensorData


def datum(*tokens: int, **inputs: Any) -> Datum:  # noqa: ANN401 - whatever a loss reads
    return Datum(ModelInput.from_ints(list(tokens)), {"target_tokens": list(tokens), **inputs})


def output(values: Any) -> dict[str, TensorData]:  # noqa: ANN401
    return {"logprobs": TensorData.from_numpy(np.array(values, dtype=np.float32))}


OUTPUTS = [output([-1.0, -2.0]), output([-0.5])]
DATA = [datum(1, 2), datum(3)]


# --- linearising ----------------------------------------------------------------------------------


def test_the_weights_are_the_negative_gradient() -> None:
    def loss_fn(data: list[Datum], logprobs: list[torch.Tensor]) -> Any:  # noqa: ANN401
        return sum((item**2).sum() for item in logprobs), {"mine": 3.0}

    found = linearise(loss_fn, DATA, OUTPUTS)
    assert (5.25, {"mine": 3.0}) == (found.loss, found.metrics)
    assert [[2.0, 4.0], [1.0]] == [weights.tolist() for weights in found.weights]


def test_the_loss_gets_the_users_data_and_logprobs_of_the_shape_of_the_output() -> None:
    seen: list[Any] = []

    def loss_fn(data: list[Datum], logprobs: list[torch.Tensor]) -> Any:  # noqa: ANN401
        seen.extend((data, [(tuple(item.shape), item.dtype) for item in logprobs]))
        return sum(item.sum() for item in logprobs), {}

    data = [datum(1, mine=np.array([7.0])), datum(2)]
    found = linearise(loss_fn, data, [output([[-1.0, -2.0]]), output([-1.0])])
    assert [data, [((1, 2), torch.float32), ((1,), torch.float32)]] == seen
    assert [[-1.0, -1.0]] == found.weights[0].tolist()


def test_a_sparse_output_is_differentiated_densely() -> None:
    sparse = TensorData([-1.0, -2.0], "float32", [2, 3], [0, 1, 2], [2, 0])
    found = linearise(lambda _, items: (items[0].sum(), {}), [DATA[0]], [{"logprobs": sparse}])
    assert (2, 3) == tuple(found.weights[0].shape)


def test_metrics_that_are_tensors_become_numbers() -> None:
    def loss_fn(_: list[Datum], logprobs: list[torch.Tensor]) -> Any:  # noqa: ANN401
        total = torch.cat(logprobs).sum()
        return total, {"total": total, "count": 3}

    metrics = linearise(loss_fn, DATA, OUTPUTS).metrics
    assert {"total": -3.5, "count": 3} == metrics
    assert float is type(metrics["total"])


def test_gradients_are_computed_where_they_are_switched_off() -> None:
    with torch.no_grad():
        found = linearise(lambda _, items: (torch.cat(items).sum(), {}), DATA, OUTPUTS)
    assert [[-1.0, -1.0], [-1.0]] == [weights.tolist() for weights in found.weights]


@pytest.mark.parametrize(
    "loss_fn, message",
    [
        (lambda _, items: (items[0].sum(), {}), r"data\[1\].*every datum"),
        (lambda _, items: (torch.cat(items).detach().sum(), {}), "does not depend"),
        (lambda _, items: torch.cat(items).sum(), r"return \(loss, metrics\)"),
        (lambda _, items: (torch.cat(items), {}), "a scalar tensor"),
        (lambda _, items: (1.0, {}), "the loss 1.0: return a scalar"),  # noqa: ARG005
        (lambda _, items: (torch.cat(items).sum(), [1.0]), "a mapping"),
        (lambda _, items: ((torch.cat(items) + 1).sqrt().sum(), {}), r"data\[0\] is not finite"),
    ],
)
def test_a_loss_that_cannot_be_used_says_why(loss_fn: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=message):
        linearise(loss_fn, DATA, OUTPUTS)


# --- traced losses --------------------------------------------------------------------------------


def weighted(logprobs: torch.Tensor, weights: torch.Tensor) -> Any:  # noqa: ANN401
    loss = -(logprobs * weights).sum()
    return loss, {"custom/a:sum": loss, "custom/b:mean": loss * 2}


RANKS: Any = {"logprobs": 1, "weights": 1}
ONE: Any = {"logprobs": 1}


def test_a_traced_loss_is_summed_over_the_data_and_its_metrics_by_their_suffix() -> None:
    data = [datum(1, 2, weights=[1.0, 3.0]), datum(3, weights=[2.0])]
    loss = trace(weighted, RANKS)
    found = linearise(loss.over, data, OUTPUTS)
    assert (8.0, {"custom/a:sum": 8.0, "custom/b:mean": 8.0}) == (found.loss, found.metrics)
    assert [[1.0, 3.0], [2.0]] == [weights.tolist() for weights in found.weights]


def test_the_graph_runs_and_not_the_function() -> None:
    factor = [2.0]

    def loss_fn(logprobs: torch.Tensor) -> Any:  # noqa: ANN401
        return (logprobs * factor[0]).sum(), {}

    loss = trace(loss_fn, {"logprobs": 1})
    factor[0] = 100.0
    assert -7.0 == linearise(loss.over, DATA, OUTPUTS).loss


@pytest.mark.parametrize("kind", ["vector", "number"])
def test_a_traced_loss_must_be_a_scalar_tensor(kind: str) -> None:
    losses: dict[str, Any] = {
        "vector": lambda logprobs: (logprobs * 2, {}),
        "number": lambda logprobs: (logprobs.size(0), {}),
    }
    loss = trace(losses[kind], {"logprobs": 1})
    with pytest.raises(ValueError, match="return a scalar tensor"):
        linearise(loss.over, DATA, OUTPUTS)


def test_a_metric_may_be_a_number_that_only_the_data_tell() -> None:
    loss = trace(lambda logprobs: (logprobs.sum(), {"custom/n:mean": logprobs.size(0)}), ONE)
    assert {"custom/n:mean": 1.5} == linearise(loss.over, DATA, OUTPUTS).metrics


def test_equal_losses_have_equal_keys() -> None:
    def renamed(logprobs: torch.Tensor, weights: torch.Tensor) -> Any:  # noqa: ANN401
        return weighted(logprobs, weights)

    loss = trace(weighted, RANKS)
    assert (loss.key, "renamed") == (trace(renamed, RANKS).key, trace(renamed, RANKS).name)
    others: list[TracedLoss] = [
        trace(weighted, {"logprobs": 2, "weights": 2}),
        trace(lambda logprobs: (logprobs.sum(), {}), {"logprobs": 1}),
    ]
    assert loss.key not in {other.key for other in others}


def test_only_a_function_is_traced() -> None:
    class Entropy:
        def __call__(self, logprobs: torch.Tensor) -> Any:  # noqa: ANN401
            return (logprobs * logprobs.exp()).sum(), {}

    with pytest.raises(ValueError, match="create_custom_loss: Entropy cannot be traced"):
        trace(Entropy(), {"logprobs": 1})


def test_an_argument_without_a_form_is_refused_when_it_is_sent() -> None:
    loss = trace(lambda logprobs: (logprobs.sum(dim=1 + 2j), {}), {"logprobs": 1})
    with pytest.raises(ValueError, match="passes a complex as an argument"):
        encode(loss)


# --- data of a loss -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, message",
    [
        (datum(1), r"data\[1\].loss_fn_inputs\['weights'\] is missing"),
        (Datum(ModelInput.from_ints([1]), {"weights": [1.0]}), "'target_tokens'.*missing"),
        (datum(1, weights=[[1.0]]), "rank 2, but the loss 'weighted' was made for weights"),
        (datum(1, weights=np.array(1.0)), "rank 0"),
    ],
)
def test_data_that_does_not_fit_a_loss_is_named(data: Datum, message: str) -> None:
    fitting = datum(1, weights=[1.0])
    with pytest.raises(ValueError, match=message):
        check_data("weighted", trace(weighted, RANKS).inputs, [fitting, data])
    check_data("weighted", trace(weighted, RANKS).inputs, [fitting])


def test_infinite_numbers_have_a_form() -> None:
    loss = trace(lambda logprobs: (logprobs.clamp(max=math.inf).sum(), {}), {"logprobs": 1})
    assert {"max": {"float": "inf"}} == encode(loss)["nodes"][1]["kwargs"]
