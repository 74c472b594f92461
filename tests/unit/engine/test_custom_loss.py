from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeAlias

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.training.custom_loss import CustomLoss, validate_graph
from tinker_ray.engine.training.custom_loss.allowed import KEYWORDS
from tinker_ray.engine.training.custom_loss.operations import FUNCTIONS, METHODS
from tinker_ray.errors import EngineError

Json: TypeAlias = Any

INPUTS = [{"name": "logprobs", "rank": 1}, {"name": "weights", "rank": 1}]
LOGPROBS = {"ref": "logprobs"}
WEIGHTS = {"ref": "weights"}


def call(
    target: str, *args: Json, name: str = "x", op: str = "call_function", **kwargs: Json
) -> Json:
    return {"op": op, "name": name, "target": target, "args": list(args), "kwargs": kwargs}


def graph(*steps: Json, loss: Json = None, metrics: Json = None) -> Json:
    """A loss that computes something and returns the sum of its logprobs."""
    placeholders = [
        {"op": "placeholder", "name": item["name"], "target": item["name"]} for item in INPUTS
    ]
    total = call("sum", LOGPROBS, name="total", op="call_method")
    returned = {"tuple": [loss or {"ref": "total"}, {"dict": metrics or {}}]}
    output = {"op": "output", "name": "output", "target": "output", "args": [returned]}
    return {"format": 1, "nodes": [*placeholders, *steps, total, output]}


def run(loss: CustomLoss, length: int = 4) -> float:
    result = loss.run(torch.full((length,), -1.0), {"weights": torch.ones(length)})
    return float(result.loss)


def rejection(made: Json, inputs: Json = INPUTS) -> str:
    with pytest.raises(EngineError) as raised:
        run(validate_graph(made, inputs))
    assert "user" == raised.value.category
    return raised.value.message


def test_a_loss_runs_with_its_inputs_and_metrics() -> None:
    made = graph(
        call("operator.mul", LOGPROBS, WEIGHTS),
        call("mean", {"ref": "x"}, name="m", op="call_method"),
        metrics={"custom/mean:mean": {"ref": "m"}},
    )
    result = validate_graph(made, INPUTS).run(
        torch.tensor([-1.0, -2.0]), {"weights": torch.tensor([1.0, 3.0])}
    )
    assert (-3.0, {"custom/mean:mean": -3.5}) == (float(result.loss), result.metrics)


def test_a_parameter_may_be_called_otherwise_by_its_node() -> None:
    made = graph()
    made["nodes"][1]["name"] = "weights_1"
    assert -4.0 == run(validate_graph(made, INPUTS))


BAD_CALLS = {
    "an unknown function": (call("os.system", "ls"), "calls function 'os.system'"),
    "a private function": (call("torch._C._nn.one_hot", LOGPROBS), "'torch._C._nn.one_hot'"),
    "a module's attribute": (call("getattr", LOGPROBS, "__class__"), "'__class__' is not allowed"),
    "an unknown keyword": (call("torch.sum", LOGPROBS, generator=None), "keyword 'generator'"),
    "an output argument": (call("torch.exp", LOGPROBS, out=LOGPROBS), "keyword out="),
    "a text": (call("to", LOGPROBS, "cuda:0", op="call_method"), "'cuda:0' is not allowed"),
    "a parameter": (call("x", op="get_attr"), "has op 'get_attr'"),
    "a module": (call("x", op="call_module"), "has op 'call_module'"),
    "a second output": (call("output", op="output"), "has op 'output'"),
    "a later placeholder": (call("more", op="placeholder"), "has op 'placeholder'"),
    "a name that is taken": (call("torch.exp", LOGPROBS, name="weights"), "is 'weights'"),
    "a name that is no name": (call("torch.exp", LOGPROBS, name="a b"), "is 'a b'"),
    "a later node": (call("torch.exp", {"ref": "total"}), "refers to 'total'"),
    "an unknown node": (call("torch.exp", {"ref": ["x"]}), "refers to ['x']"),
    "an unknown encoding": (call("torch.exp", {"set": [1]}), "is set [1]"),
    "two encodings": (call("torch.exp", {"ref": "logprobs", "float": "inf"}), "of one key"),
    "an unknown dtype": (call("torch.exp", {"dtype": "complex64"}), "is dtype 'complex64'"),
    "another device": (call("torch.exp", {"device": "cuda"}), "is device 'cuda'"),
    "half a slice": (call("operator.getitem", LOGPROBS, {"slice": [1]}), "must be a slice"),
    "a large integer": (call("operator.add", LOGPROBS, 2**70), "does not fit 64 bits"),
    "no target": ({"op": "call_function", "name": "x"}, "needs op, name and target"),
    "no object": ("torch.exp", "must be an object"),
    "arguments that are no list": (call("torch.exp") | {"args": "x"}, "must be a list"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_a_bad_call_is_rejected_by_its_place(name: str) -> None:
    step, problem = BAD_CALLS[name]
    told = rejection(graph(step))
    assert problem in told
    assert "graph.nodes[2]" in told


HUGE = {
    "a new tensor": call("torch.zeros", 10**12),
    "a new tensor of several sizes": call("torch.ones", {"tuple": [10**6, 10**6]}),
    "a filled tensor": call("torch.full", {"tuple": [10**10]}, 1.0),
    "a method's new tensor": call("new_zeros", LOGPROBS, 10**12, op="call_method"),
    "a range": call("torch.arange", 10**12),
    "a range of small steps": call("torch.arange", 0, 1, 1e-12),
    "an expansion": call("expand", LOGPROBS, 10**12, -1, op="call_method"),
    "a repetition": call("repeat", LOGPROBS, 10**12, op="call_method"),
    "an interleaving": call("torch.repeat_interleave", LOGPROBS, 10**12),
    "a tiling": call("torch.tile", LOGPROBS, {"tuple": [10**6, 10**6]}),
    "a padding": call("torch.nn.functional.pad", LOGPROBS, {"tuple": [0, 10**12]}),
    "an outer product": call("torch.outer", LOGPROBS, LOGPROBS),
    "quantiles": call("torch.quantile", {"ref": "column"}, LOGPROBS, 0),
    "picked cells": call("torch.take_along_dim", {"ref": "column"}, {"ref": "row"}, 0),
    "a broadcast": call("operator.add", {"ref": "column"}, LOGPROBS),
    "an einsum": call("torch.functional.einsum", "i,j->ij", LOGPROBS, LOGPROBS),
    "a matrix product": call("operator.matmul", {"ref": "column"}, {"ref": "row"}),
    "an index": call("operator.getitem", {"ref": "row"}, {"ref": "zeros"}),
    "many views": call("unbind", LOGPROBS, op="call_method"),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_would_become_too_large_is_rejected_before_it_is_made(name: str) -> None:
    length = 2_000_000
    steps = [
        call("unsqueeze", LOGPROBS, -1, name="column", op="call_method"),
        call("unsqueeze", LOGPROBS, 0, name="row", op="call_method"),
        call("to", LOGPROBS, {"dtype": "int64"}, name="whole", op="call_method"),
        call("torch.zeros_like", {"ref": "whole"}, name="zeros"),
        HUGE[name],
    ]
    loss = validate_graph(graph(*steps), INPUTS)
    with pytest.raises(EngineError, match=r"node 'x' .* makes too much"):
        run(loss, length)


def test_a_dimension_that_an_expansion_keeps_counts_once() -> None:
    steps = [
        call("view", LOGPROBS, 1000, 10, name="matrix", op="call_method"),
        call("expand", {"ref": "matrix"}, 3, -1, -1, op="call_method"),
    ]
    assert -10_000.0 == run(validate_graph(graph(*steps), INPUTS), 10_000)


def test_many_results_that_are_small_together_are_too_large() -> None:
    steps = [call("detach", LOGPROBS, name=f"x{i}", op="call_method") for i in range(100)]
    with pytest.raises(EngineError, match="makes too much"):
        run(validate_graph(graph(*steps), INPUTS), 1_000_000)


FAILURES = {
    "shapes that differ": (call("operator.add", LOGPROBS, [1, 2]), "failed"),
    "a size that is a tensor": (call("torch.zeros", {"ref": "whole"}), "must be a number"),
    "numbers without end": (call("operator.pow", 10, 10**9), "node 'x' (operator.pow) failed"),
    "a number times a list": (call("operator.mul", [0], 10**9), "tensors and numbers only"),
    "a large product": (call("operator.mul", 2**62, 2**62), "does not fit 64 bits"),
    "a division by zero": (call("operator.truediv", 1, 0), "failed"),
    "math of a tensor": (call("math.exp", LOGPROBS), "use the function of torch"),
    "math that overflows": (call("math.exp", 10**6), "failed"),
    "a part of a number": (call("operator.getitem", 1, 0), "parts of tensors and tuples"),
    "a missing part": (call("operator.getitem", LOGPROBS, 9), "failed"),
    "a method of a number": (call("exp", 1.0, op="call_method"), "is a method of tensors"),
    "an attribute of a number": (call("getattr", 1, "shape"), "not allowed here"),
    "an attribute of tuples": (call("getattr", LOGPROBS, "values"), "not allowed here"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_in_a_run_names_its_node(name: str) -> None:
    step, problem = FAILURES[name]
    whole = call("to", LOGPROBS, {"dtype": "int64"}, name="whole", op="call_method")
    told = rejection(graph(whole, step))
    assert "node 'x'" in told
    assert problem in told


def test_a_loss_that_is_no_scalar_is_rejected() -> None:
    assert "must be a scalar, got (4,)" in rejection(graph(loss=LOGPROBS))
    step = call("getattr", LOGPROBS, "ndim")
    assert "must be a scalar, got 1" in rejection(graph(step, loss={"ref": "x"}))


METRICS = {
    "another prefix": ({"loss:sum": {"ref": "total"}}, "has metric 'loss:sum'"),
    "another suffix": ({"custom/a:max": {"ref": "total"}}, "has metric 'custom/a:max'"),
    "a number": ({"custom/a:sum": 1.0}, "no node has computed"),
    "a vector": ({"custom/a:sum": LOGPROBS}, "must be a scalar, got shape (4,)"),
    "too many": ({f"custom/{i}:sum": {"ref": "total"} for i in range(99)}, "at most 64"),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_bad_metric_is_rejected(name: str) -> None:
    metrics, problem = METRICS[name]
    assert problem in rejection(graph(metrics=metrics))


def test_a_metric_that_is_not_finite_is_rejected() -> None:
    step = call("operator.truediv", {"ref": "total_1"}, 0.0)
    total = call("sum", LOGPROBS, name="total_1", op="call_method")
    made = graph(total, step, metrics={"custom/a:sum": {"ref": "x"}})
    assert "must be a finite number, got -inf" in rejection(made)


BAD_INPUTS = {
    "none": ([], "inputs are 0"),
    "too many": ([{"name": "logprobs", "rank": 1}] * 17, "inputs are 17"),
    "another first": (INPUTS[::-1], "inputs[0] must be logprobs"),
    "scalar logprobs": ([{"name": "logprobs", "rank": 0}, INPUTS[1]], "of rank 1 or 2"),
    "a name twice": ([*INPUTS, INPUTS[1]], "have a name twice"),
    "a name that is no name": ([INPUTS[0], {"name": "Weights", "rank": 1}], "is 'Weights'"),
    "a rank that is none": ([INPUTS[0], {"name": "weights", "rank": 3}], "is 3, expected 0, 1"),
    "a rank that is true": ([INPUTS[0], {"name": "weights", "rank": True}], "is True"),
    "fewer than placeholders": (INPUTS[:1], "has op 'placeholder'"),
    "others than placeholders": ([INPUTS[0], {"name": "a", "rank": 1}], "one placeholder for each"),
    "no list": ({"logprobs": 1}, "inputs must be a list"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_inputs_are_rejected(name: str) -> None:
    inputs, problem = BAD_INPUTS[name]
    assert problem in rejection(graph(), inputs)


def test_a_graph_that_is_none_is_rejected() -> None:
    placeholders = graph()["nodes"][:2]
    output = {"op": "output", "name": "o", "target": "output", "args": [LOGPROBS]}
    wrong: list[tuple[Any, str]] = [
        (None, "graph must be an object"),
        ({"nodes": {}}, "graph.nodes must be a list"),
        ({"format": 2, "nodes": []}, "graph.format is 2"),
        ({"nodes": []}, "one placeholder for each input: logprobs, weights"),
        ({"nodes": placeholders}, "must be the output"),
        ({"nodes": [*placeholders, output]}, "must return (loss, metrics)"),
    ]
    for made, problem in wrong:
        assert problem in rejection(made)


def test_a_graph_that_is_too_large_is_rejected() -> None:
    nested: Any = 1
    for _ in range(20):
        nested = [nested]
    many = [call("torch.exp", LOGPROBS, name=f"x{index}") for index in range(1100)]
    assert "at most 1024" in rejection(graph(*many))
    assert "is too large" in rejection(graph(call("torch.stack", nested)))
    assert "is too large" in rejection(graph(call("torch.stack", [0] * 30_000)))


def test_nothing_that_is_allowed_works_in_place_or_draws() -> None:
    names = [name.rpartition(".")[2] for name in (*FUNCTIONS, *METHODS)]
    assert [] == [name for name in names if name.endswith("_") and name not in {"and_", "or_"}]
    banned = ("rand", "drop", "bernoulli", "multinomial", "empty", "item", "numpy", "tolist")
    assert [] == [
        name for name in names if name != "getitem" and any(word in name for word in banned)
    ]
    assert set() == {"generator", "pin_memory", "names"} & set(KEYWORDS.split())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ref", "tuple", "dict", "slice", "float", "dtype", "ellipsis", "x"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=6,
)
FUNCTION_NAMES = st.sampled_from(sorted(FUNCTIONS))
METHOD_NAMES = st.sampled_from(sorted(METHODS))
ARGUMENTS = st.lists(JSON | st.just(LOGPROBS), max_size=3)


@pytest.mark.filterwarnings("ignore")  # torch warns of odd calls
@given(FUNCTION_NAMES, ARGUMENTS)
def test_no_argument_of_a_function_makes_an_error_of_another_kind(
    target: str, args: list[Any]
) -> None:
    with suppress(EngineError):
        run(validate_graph(graph(call(target, *args)), INPUTS))


@pytest.mark.filterwarnings("ignore")
@given(METHOD_NAMES, ARGUMENTS)
def test_no_argument_of_a_method_makes_an_error_of_another_kind(
    target: str, args: list[Any]
) -> None:
    with suppress(EngineError):
        run(validate_graph(graph(call(target, LOGPROBS, *args, op="call_method")), INPUTS))
