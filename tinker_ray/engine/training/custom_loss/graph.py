"""The graph of a traced loss as it comes over the wire, read into nodes that only name things.

Nothing is looked up or run here. Arguments become plain values: numbers, strings, lists, tuples,
slices, torch's constants, and :class:`Ref` for the result of an earlier node.

Invariant: every reference is to an earlier node, and the last node is the only output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn

import torch

from tinker_ray.errors import EngineError

MAX_NODES = 1024
MAX_INPUTS = 16
MAX_METRICS = 64
MAX_VALUES = 20_000
MAX_DEPTH = 16
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_INPUT = re.compile(r"[a-z_][a-z0-9_]{0,63}\Z")
_METRIC = re.compile(r"custom/[a-z0-9_./-]{1,64}:(sum|mean)\Z")
_FORMAT = 1
_RANKS = (0, 1, 2)

DTYPES = MappingProxyType(
    {
        name: getattr(torch, name)
        for name in ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
    }
)
_CONSTANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "dtype": DTYPES,
        "device": {"cpu": torch.device("cpu")},
        "layout": {"strided": torch.strided},
        "memory_format": {
            "contiguous_format": torch.contiguous_format,
            "preserve_format": torch.preserve_format,
        },
        "float": {"inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")},
    }
)


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an earlier node."""

    name: str


@dataclass(frozen=True, slots=True)
class Node:
    """One step: ``op`` says what kind, ``target`` what to call."""

    op: str
    name: str
    target: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LossInput:
    """An input of the loss: 0 is a scalar, 1 is ``[T]`` and 2 is ``[T, K]``."""

    name: str
    rank: int


@dataclass(frozen=True, slots=True)
class LossGraph:
    """A graph that is well-formed.

    Attributes:
        inputs: ``logprobs``, then what the loss reads of the datum, in order.
        placeholders: What nodes call each input.
        steps: The calls, in order.
        loss: Where the loss comes from.
        metrics: Where each metric comes from.
    """

    inputs: tuple[LossInput, ...]
    placeholders: tuple[str, ...]
    steps: tuple[Node, ...]
    loss: Ref
    metrics: Mapping[str, Ref]


def read_graph(graph: object, inputs: object) -> LossGraph:
    """Read a graph and the inputs that it declares.

    Raises:
        EngineError: They are not of this form; the message names the place.
    """
    declared = _read_inputs(inputs)
    fields = _mapping(graph, "graph")
    if fields.get("format", _FORMAT) != _FORMAT:
        reject("graph.format", f"is {fields['format']!r}, expected {_FORMAT}")
    items = _sequence(fields.get("nodes"), "graph.nodes")
    if len(items) > MAX_NODES:
        reject("graph.nodes", f"are {len(items)}, at most {MAX_NODES} are allowed")
    reader = _Reader()
    nodes = [reader.read(item, f"graph.nodes[{index}]") for index, item in enumerate(items)]
    first = [node for node in nodes[: len(declared)] if node.op == "placeholder"]
    if [node.target for node in first] != [item.name for item in declared]:
        expected = ", ".join(item.name for item in declared)
        reject("graph.nodes", f"must begin with one placeholder for each input: {expected}")
    steps = nodes[len(declared) : -1]
    for index, node in enumerate(steps, start=len(declared)):
        if node.op not in {"call_function", "call_method"}:
            why = "a loss may only call functions and tensor methods"
            reject(f"graph.nodes[{index}]", f"has op {node.op!r}: {why}")
    loss, metrics = _read_output(nodes[-1] if len(nodes) > len(declared) else None)
    placeholders = tuple(node.name for node in first)
    return LossGraph(declared, placeholders, tuple(steps), loss, metrics)


def _read_inputs(inputs: object) -> tuple[LossInput, ...]:
    items = _sequence(inputs, "inputs")
    if not 1 <= len(items) <= MAX_INPUTS:
        reject("inputs", f"are {len(items)}, from 1 to {MAX_INPUTS} are allowed")
    read: list[LossInput] = []
    for index, item in enumerate(items):
        fields = _mapping(item, f"inputs[{index}]")
        name, rank = fields.get("name"), fields.get("rank")
        if not isinstance(name, str) or not _INPUT.match(name):
            reject(f"inputs[{index}].name", f"is {name!r}: use lowercase letters, digits and _")
        if type(rank) is not int or rank not in _RANKS:
            reject(f"inputs[{index}].rank", f"is {rank!r}, expected 0, 1 or 2")
        read.append(LossInput(name, rank))
    if read[0].name != "logprobs" or read[0].rank == 0:
        reject("inputs[0]", "must be logprobs, of rank 1 or 2")
    if len({item.name for item in read}) != len(read):
        reject("inputs", "have a name twice")
    return tuple(read)


def _read_output(node: Node | None) -> tuple[Ref, Mapping[str, Ref]]:
    where = "graph.nodes[-1]"
    if node is None or node.op != "output" or len(node.args) != 1:
        reject(where, "must be the output")
    returned = node.args[0]
    if not isinstance(returned, tuple | list) or len(returned) != 2:  # noqa: PLR2004 - a pair
        reject(where, "must return (loss, metrics)")
    loss, metrics = returned
    if not isinstance(loss, Ref):
        reject(where, "must return a loss that a node has computed")
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRICS:
        reject(where, f"must return its metrics as at most {MAX_METRICS} names")
    for name, value in metrics.items():
        if not _METRIC.match(name):
            reject(where, f"has metric {name!r}: use custom/<name>:sum or custom/<name>:mean")
        if not isinstance(value, Ref):
            reject(where, f"has metric {name!r} that no node has computed")
    return loss, metrics


class _Reader:
    """Reads nodes one after the other, and counts what they hold."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._num_values = 0

    def read(self, item: object, where: str) -> Node:
        fields = _mapping(item, where)
        op, name, target = (fields.get(key) for key in ("op", "name", "target"))
        if not (isinstance(op, str) and isinstance(name, str) and isinstance(target, str)):
            reject(where, "needs op, name and target, all text")
        if not _NAME.match(name) or name in self._known:
            reject(f"{where}.name", f"is {name[:80]!r}: use a name that no other node has")
        args = _sequence(fields.get("args") or [], f"{where}.args")
        kwargs = _mapping(fields.get("kwargs") or {}, f"{where}.kwargs")
        node = Node(
            op,
            name,
            target,
            tuple(self._value(arg, f"{where}.args[{i}]") for i, arg in enumerate(args)),
            {key: self._value(value, f"{where}.kwargs.{key}") for key, value in kwargs.items()},
        )
        self._known.add(name)
        return node

    def _value(self, value: object, where: str, depth: int = 0) -> Any:  # noqa: ANN401 - any of them
        self._num_values += 1
        if self._num_values > MAX_VALUES or depth > MAX_DEPTH:
            reject("graph", f"is too large: at most {MAX_VALUES} values, {MAX_DEPTH} deep")
        if isinstance(value, list):
            return [self._value(item, where, depth + 1) for item in value]
        if isinstance(value, dict):
            return self._encoded(value, where, depth + 1)
        if isinstance(value, int) and abs(value) >= 2**63:
            reject(where, "is an integer that does not fit 64 bits")
        if value is not None and not isinstance(value, bool | int | float | str):
            reject(where, f"is a {type(value).__name__}")
        return value

    def _encoded(self, value: dict[Any, Any], where: str, depth: int) -> Any:  # noqa: ANN401
        if len(value) != 1:
            reject(where, "must be an object of one key, which says what it is")
        ((kind, content),) = value.items()
        if kind == "ref":
            if not isinstance(content, str) or content not in self._known:
                reject(where, f"refers to {content!r}, which no earlier node is called")
            return Ref(content)
        if kind == "tuple":
            return tuple(self._value(item, where, depth) for item in _sequence(content, where))
        if kind == "dict":
            items = _mapping(content, where).items()
            return {key: self._value(item, where, depth) for key, item in items}
        if kind == "slice":
            bounds = [self._value(item, where, depth) for item in _sequence(content, where)]
            if len(bounds) != 3:  # noqa: PLR2004 - start, stop, step
                reject(where, "must be a slice of start, stop and step")
            return slice(*bounds)
        if kind == "ellipsis":
            return ...
        constants = _CONSTANTS.get(kind, {})
        if not isinstance(content, str) or content not in constants:
            reject(where, f"is {kind} {content!r}, which is not allowed")
        return constants[content]


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        reject(where, "must be an object")
    return value


def _sequence(value: object, where: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        reject(where, "must be a list")
    return value


def reject(where: str, problem: str) -> NoReturn:
    """Reject a loss for what is wrong at a place.

    Raises:
        EngineError: Always.
    """
    message = f"custom loss: {where} {problem}"
    raise EngineError(message, category="user")
