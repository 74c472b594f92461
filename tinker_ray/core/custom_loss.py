"""Custom losses in this process: traced into graphs, run, and differentiated.

The only module outside the engine that imports torch, and only once a custom loss is used. Knows
nothing of requests: a loss C of the logprobs becomes the weights w = -dC/dl of a cross entropy
-sum(w * l), which has the same gradient, and that the service computes.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from tinker_ray.core.loss_graph import check_metric_name, declared_inputs, loss_name
from tinker_ray.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch.fx

    from tinker_ray.types import CustomLossInput, CustomLossInputRank, Datum, TensorData

Tensor: TypeAlias = "torch.Tensor"
Graph: TypeAlias = "torch.fx.GraphModule"
CustomLossFnV1: TypeAlias = (
    "Callable[[list[Datum], list[torch.Tensor]], "
    "tuple[torch.Tensor, Mapping[str, float | torch.Tensor]]]"
)
"""Takes a batch and its logprobs; returns the loss, a scalar tensor, and metrics."""
PerDatumLossFn: TypeAlias = "Callable[..., tuple[torch.Tensor, Mapping[str, torch.Tensor]]]"
"""Takes the logprobs of a datum, then the ``loss_fn_inputs`` that it reads, each a tensor; returns
a scalar loss and scalar metrics named ``custom/<name>:sum`` or ``custom/<name>:mean``."""

GRAPH_FORMAT = 1

_MODULES = frozenset({"torch", "math", "operator", "_operator"})
"""Where the functions that a traced loss calls may come from; ``_operator`` is CPython's own."""
_LEAVING_TORCH = frozenset({"item", "numpy", "tolist"})


@dataclass(frozen=True)
class TracedLoss:
    """A loss of one datum as a graph of torch calls; the graph is what runs."""

    name: str
    inputs: tuple[CustomLossInput, ...]
    graph: torch.fx.GraphModule = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """Tells traced losses apart: equal computations on equal inputs have equal keys."""
        shown = [(item.name, item.rank) for item in self.inputs]
        return hashlib.sha256(f"{self.graph.code}{shown}".encode()).hexdigest()

    def over(
        self, data: Sequence[Datum], logprobs: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Run the loss on each datum; losses are summed, metrics combined as their names say.

        Raises:
            ValueError: The loss of a datum is no scalar.
        """
        total: Any = 0.0
        sums: dict[str, float] = {}
        for datum, logprob in zip(data, logprobs, strict=True):
            inputs = [datum.loss_fn_inputs[item.name].to_torch() for item in self.inputs[1:]]
            loss, metrics = self.graph(logprob, *inputs)
            if getattr(loss, "ndim", None) != 0:
                message = f"the loss {self.name!r} gave {loss!r:.200}: return a scalar tensor"
                raise ValueError(message)
            total = total + loss
            for key, value in metrics.items():
                sums[key] = sums.get(key, 0.0) + float(_plain(value))
        means = {key: value / len(data) for key, value in sums.items() if key.endswith(":mean")}
        return total, sums | means


@dataclass(frozen=True)
class Linearised:
    """A loss around the current weights: its value, and weights that have its gradient.

    Attributes:
        loss: The loss itself.
        metrics: Those of its function.
        weights: Per datum, of the shape of its logprobs, torch float32.
    """

    loss: float
    metrics: dict[str, float]
    weights: list[torch.Tensor]


def require_torch() -> Any:  # noqa: ANN401 - the module
    """Import torch.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        message = "custom losses need torch: pip install torch, or 'tinker-ray[engine]'"
        raise ConfigurationError(message) from error


# --- running --------------------------------------------------------------------------------------


def linearise(
    loss_fn: CustomLossFnV1,
    data: Sequence[Datum],
    outputs: Sequence[Mapping[str, TensorData]],
) -> Linearised:
    """Compute a loss of the logprobs of a batch, and its gradient by them.

    Args:
        loss_fn: Takes the data and their logprobs, one tensor per datum of the shape of its
            targets; returns the loss, a scalar tensor, and a mapping of metrics.
        data: The batch.
        outputs: What a forward pass gave for it.

    Raises:
        ValueError: The loss does not depend on the logprobs of every datum, its gradient is not
            finite, or ``loss_fn`` returns something else.
        ConfigurationError: torch is not installed.
    """
    torch = require_torch()
    logprobs = [item["logprobs"].to_torch().requires_grad_(True) for item in outputs]  # noqa: FBT003
    with torch.enable_grad():
        result = loss_fn(list(data), list(logprobs))
        loss, metrics = _checked(result, torch.Tensor)
        torch.autograd.backward(loss)
    return Linearised(
        loss=float(loss.detach().sum()),
        metrics={key: _plain(value) for key, value in metrics.items()},
        weights=[_weights(i, logprob.grad) for i, logprob in enumerate(logprobs)],
    )


def _checked(result: Any, tensor: type[torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, Any]]:  # noqa: ANN401
    if not isinstance(result, tuple | list) or len(result) != 2:  # noqa: PLR2004 - a pair
        message = f"the loss function returned {result!r:.200}: return (loss, metrics)"
        raise ValueError(message)
    loss, metrics = result
    if not isinstance(loss, tensor) or loss.numel() != 1:
        message = f"the loss function returned the loss {loss!r:.200}: return a scalar tensor"
        raise ValueError(message)
    if not loss.requires_grad:
        message = "no gradient: the loss does not depend on the logprobs that it was given"
        raise ValueError(message)
    if not hasattr(metrics, "items"):
        message = f"the loss function returned the metrics {metrics!r:.200}: return a mapping"
        raise ValueError(message)
    return loss, metrics


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Take a scalar tensor out of the graph; other values are the user's business."""
    return float(value.detach()) if hasattr(value, "detach") else value


def _weights(i: int, gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        message = (
            f"no gradient for the logprobs of data[{i}]: the loss must depend on every datum's "
            "logprobs; leave the datum out, or add 0 * logprobs.sum()"
        )
        raise ValueError(message)
    if not bool(gradient.isfinite().all()):
        message = f"the gradient by the logprobs of data[{i}] is not finite"
        raise ValueError(message)
    return -gradient


# --- tracing --------------------------------------------------------------------------------------


def trace(fn: PerDatumLossFn, input_ranks: Mapping[str, CustomLossInputRank]) -> TracedLoss:
    """Trace a loss of one datum.

    Args:
        fn: The loss.
        input_ranks: The rank of each parameter.

    Raises:
        ValueError: It cannot be traced, or calls something other than torch and math.
        ConfigurationError: torch is not installed.
    """
    require_torch()
    fx = importlib.import_module("torch.fx")
    inputs = declared_inputs(fn, input_ranks)
    try:
        graph = fx.symbolic_trace(fn)
    except Exception as error:
        message = (
            f"create_custom_loss: {loss_name(fn)} cannot be traced by torch.fx: {error}. It cannot "
            "branch on the values of tensors or call other libraries than torch and math"
        )
        raise ValueError(message) from error
    for node in graph.graph.nodes:
        _CHECKS.get(node.op, _allow)(f"create_custom_loss: {loss_name(fn)}", node)
    return TracedLoss(loss_name(fn), inputs, graph)


def _allow(where: str, node: torch.fx.Node) -> None:
    """Accept a node."""


def _check_function(where: str, node: torch.fx.Node) -> None:
    target = node.target
    module = getattr(target, "__module__", None) or ""
    if target is not builtins.getattr and module.partition(".")[0] not in _MODULES:
        called = getattr(target, "__qualname__", target)
        message = (
            f"{where} calls {called!r} of {module or 'an unknown module'}: call only torch and math"
        )
        raise ValueError(message)


def _check_method(where: str, node: torch.fx.Node) -> None:
    method = str(node.target)
    if not hasattr(require_torch().Tensor, method):
        message = f"{where} calls the method {method!r}, which tensors do not have"
        raise ValueError(message)
    if method == "backward":
        message = f"{where} calls backward(): return the loss, forward_backward_custom does it"
        raise ValueError(message)
    if method in _LEAVING_TORCH:
        message = f"{where} calls {method}(): every value, metrics included, must stay a tensor"
        raise ValueError(message)


def _refuse_module(where: str, node: torch.fx.Node) -> NoReturn:
    message = f"{where} calls the module {node.target!r}: call functions of torch.nn.functional"
    raise ValueError(message)


def _refuse_capture(where: str, node: torch.fx.Node) -> NoReturn:
    message = (
        f"{where} holds a tensor of its own ({node.target!r}): a loss reads logprobs and the "
        "loss_fn_inputs that it names, nothing else"
    )
    raise ValueError(message)


def _check_output(where: str, node: torch.fx.Node) -> None:
    traced = type(node)
    output: Any = node.args[0]
    if not isinstance(output, tuple | list) or len(output) != 2:  # noqa: PLR2004 - a pair
        message = f"{where} must return (loss, metrics)"
        raise ValueError(message)
    loss, metrics = output
    problem = None
    if not isinstance(loss, traced):
        problem = f"returns the loss {loss!r}: return a tensor made of its inputs"
    elif not isinstance(metrics, dict):
        problem = f"returns the metrics {metrics!r}: return a dict"
    else:
        for name, value in metrics.items():
            check_metric_name(where, name)
            if not isinstance(value, traced):
                problem = f"returns {value!r} as metric {name!r}: make it a tensor"
    if problem is not None:
        message = f"{where} {problem}"
        raise ValueError(message)


_CHECKS: dict[str, Callable[[str, torch.fx.Node], None]] = {
    "call_function": _check_function,
    "call_method": _check_method,
    "call_module": _refuse_module,
    "get_attr": _refuse_capture,
    "output": _check_output,
}


# --- encoding -------------------------------------------------------------------------------------


def encode(loss: TracedLoss) -> dict[str, Any]:
    """Put a traced loss into the JSON form in which services take it, node by node.

    Raises:
        ValueError: An argument in it has no such form.
    """
    return {
        "format": GRAPH_FORMAT,
        "nodes": [_encode_node(loss.name, node) for node in loss.graph.graph.nodes],
    }


def _encode_node(loss: str, node: torch.fx.Node) -> dict[str, Any]:
    target = str(node.target)
    if node.op == "call_function":
        qualified = importlib.import_module("torch.fx.node")._get_qualified_name(node.target)  # noqa: SLF001 - torch.fx offers no other
        private = qualified.startswith("_operator.")
        target = qualified.removeprefix("_") if private else qualified
    return {
        "op": node.op,
        "name": node.name,
        "target": target,
        "args": [_encode_argument(loss, argument) for argument in node.args],
        "kwargs": {key: _encode_argument(loss, value) for key, value in node.kwargs.items()},
    }


def _encode_argument(loss: str, value: Any) -> Any:  # noqa: ANN401, PLR0911 - one return per form
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_encode_argument(loss, item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode_argument(loss, item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _encode_argument(loss, item) for key, item in value.items()}}
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return {"slice": [_encode_argument(loss, part) for part in parts]}
    if value is Ellipsis:
        return {"ellipsis": True}
    return _encode_torch(loss, value)


def _encode_torch(loss: str, value: Any) -> dict[str, str]:  # noqa: ANN401
    torch = require_torch()
    if isinstance(value, importlib.import_module("torch.fx").Node):
        return {"ref": value.name}
    for kind in ("dtype", "device", "layout", "memory_format"):
        if isinstance(value, getattr(torch, kind)):
            return {kind: str(value).removeprefix("torch.")}
    message = (
        f"create_custom_loss: {loss} passes a {type(value).__name__} as an argument, which cannot "
        "be sent to the service"
    )
    raise ValueError(message)
