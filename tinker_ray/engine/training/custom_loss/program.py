"""A traced loss that is allowed, and its run on one row.

Torch's own errors, which come from what the loss does to its inputs, are the user's. Knows nothing
of models.

Invariant: a run computes at most :data:`MAX_CELLS` cells; nothing outside of
:mod:`operations` is called.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tinker_ray.engine.training.custom_loss.graph import LossGraph, Node, Ref, read_graph, reject
from tinker_ray.engine.training.custom_loss.operations import find_operation, wrong_argument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.engine.training.custom_loss.graph import LossInput

MAX_CELLS = 1 << 26
"""Most cells of all results of one run together."""


@dataclass(frozen=True, eq=False)
class RowLoss:
    """What a loss gives for one row.

    Attributes:
        loss: A scalar tensor.
        metrics: By their names, which end in ``:sum`` or ``:mean``.
    """

    loss: torch.Tensor
    metrics: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class CustomLoss:
    """A loss that may be run.

    Attributes:
        graph: What it does; every node has been checked.
    """

    graph: LossGraph

    @property
    def inputs(self) -> Sequence[LossInput]:
        """``logprobs``, then what the loss reads of the datum, in order."""
        return self.graph.inputs

    def run(self, logprobs: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> RowLoss:
        """Compute the loss of one row.

        Args:
            logprobs: Of its targets, of the rank that the loss has declared.
            inputs: What the loss reads of the datum, by name.

        Raises:
            EngineError: The loss cannot be computed of these; the message names the node.
        """
        given = [logprobs, *(inputs[item.name] for item in self.inputs[1:])]
        values: dict[str, Any] = dict(zip(self.graph.placeholders, given, strict=True))
        room = MAX_CELLS
        on_cpu = logprobs.device.type == "cpu"
        with nullcontext() if on_cpu else torch.device(logprobs.device):
            for node in self.graph.steps:
                values[node.name], claimed = _call(node, values, room)
                room -= claimed
        loss = values[self.graph.loss.name]
        if not isinstance(loss, torch.Tensor) or loss.ndim or not loss.is_floating_point():
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else repr(loss)
            reject("the loss", f"must be a scalar, got {shape}")
        metrics = {
            name: _number(name, values[ref.name]) for name, ref in self.graph.metrics.items()
        }
        return RowLoss(loss, metrics)


def validate_graph(graph: object, inputs: object) -> CustomLoss:
    """Check a traced loss and make it ready to run.

    Args:
        graph: ``{"format": 1, "nodes": […]}`` as plain JSON values.
        inputs: ``[{"name", "rank"}, …]``, the first of which is ``logprobs``.

    Raises:
        EngineError: It is malformed, too large, or calls what is not allowed; the message names it.
    """
    checked = read_graph(graph, inputs)
    for index, node in enumerate(checked.steps, start=len(checked.inputs)):
        where = f"graph.nodes[{index}]"
        try:
            find_operation(node.op, node.target)
        except KeyError:
            kind = "function" if node.op == "call_function" else "method"
            reject(where, f"calls {kind} {node.target[:80]!r}, which is not allowed")
        if problem := wrong_argument(node.target, node.args, node.kwargs):
            reject(where, f"({node.target}): {problem}")
    return CustomLoss(checked)


def _call(node: Node, values: Mapping[str, Any], room: int) -> tuple[Any, int]:
    """Return the result of a node, and the cells that it may have taken."""
    operation = find_operation(node.op, node.target)
    args, kwargs = _filled(node.args, values), _filled(node.kwargs, values)
    where = f"node {node.name!r} ({node.target})"
    if node.op == "call_method" and not (args and isinstance(args[0], torch.Tensor)):
        reject(where, "is a method of tensors")
    try:
        claimed = operation.size(args, kwargs)
        if claimed > room:
            reject(where, f"makes too much: one row may take {MAX_CELLS} cells in all")
        return operation.call(*args, **kwargs), claimed
    except (
        RuntimeError,
        ValueError,
        TypeError,
        IndexError,
        ArithmeticError,
        NotImplementedError,
        AttributeError,
    ) as error:
        reject(where, f"failed: {error}")


def _filled(value: Any, values: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any argument
    """Put results in the place of references."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, tuple):
        return tuple(_filled(item, values) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_filled(item, values) for item in (value.start, value.stop, value.step)))
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, torch.Tensor):
        if value.numel() != 1:
            reject(f"metric {name!r}", f"must be a scalar, got shape {tuple(value.shape)}")
        value = value.detach().item()
    if not isinstance(value, int | float) or not math.isfinite(value):
        reject(f"metric {name!r}", f"must be a finite number, got {value!r}")
    return float(value)
