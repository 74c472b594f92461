"""What a traced loss may call: names of the wire to torch's own functions, each with a size rule.

The only way from a name to something that runs; what is not found here does not exist for a loss.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from tinker_ray.engine.training.custom_loss import allowed, sizes
from tinker_ray.engine.training.custom_loss.sizes import SizeRule

MAX_INT = 2**63
_MAX_EXPONENT = 64


@dataclass(frozen=True, slots=True)
class Operation:
    """Something to call, and a bound of what it gives, in cells."""

    call: Callable[..., Any]
    size: SizeRule


def find_operation(op: str, target: str) -> Operation:
    """Look up what a node calls.

    Raises:
        KeyError: It is not allowed.
    """
    return (FUNCTIONS if op == "call_function" else METHODS)[target]


def wrong_argument(target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Say which argument of a call is not allowed, if there is one."""
    for key, value in kwargs.items():
        if key not in _KEYWORDS:
            return f"keyword {key!r} is not allowed"
        if key in _HELD and value not in _HELD[key]:
            return f"keyword {key}={value!r} is not allowed"
    texts = [text for text in _texts_in((args, kwargs)) if text not in _TEXTS]
    if target == "getattr":
        texts = [text for text in texts if text not in {*_ATTRIBUTES, *_FIELDS}]
    if target == "torch.functional.einsum":
        texts = [text for text in texts if not set(text) <= set(allowed.EINSUM)]
    return f"{texts[0][:40]!r} is not allowed" if texts else None


def _texts_in(values: object) -> Iterable[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _texts_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts_in(value)


# --- functions that are not torch's own -----------------------------------------------------------


def _attribute(value: Any, name: str) -> Any:  # noqa: ANN401 - of a tensor or of a named tuple
    names = _ATTRIBUTES if isinstance(value, torch.Tensor) else _FIELDS
    if not isinstance(value, torch.Tensor | tuple) or name not in names:
        message = f"{name!r} is not allowed here"
        raise TypeError(message)
    return getattr(value, name)


def _part(value: Any, index: Any) -> Any:  # noqa: ANN401 - of a tensor or of a tuple
    if not isinstance(value, torch.Tensor | list | tuple):
        message = "takes parts of tensors and tuples only"
        raise TypeError(message)
    return value[index]


def _arithmetic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an operator work on tensors, or on numbers that stay small."""

    def call(*args: Any) -> Any:  # noqa: ANN401 - tensors and numbers
        if any(isinstance(arg, torch.Tensor) for arg in args):
            return function(*args)
        if not all(isinstance(arg, int | float | torch.dtype) for arg in args):
            message = "works on tensors and numbers only"
            raise TypeError(message)
        if function is operator.pow and abs(args[1]) > _MAX_EXPONENT:
            args = (float(args[0]), args[1])
        return _small(function(*args))

    return call


def _of_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:  # noqa: ANN401 - numbers
        if not all(isinstance(arg, int | float) for arg in args):
            message = "works on numbers only: use the function of torch on tensors"
            raise TypeError(message)
        return _small(function(*args))

    return call


def _small(number: Any) -> Any:  # noqa: ANN401 - any number
    if isinstance(number, int) and abs(number) >= MAX_INT:
        message = "gives an integer that does not fit 64 bits"
        raise OverflowError(message)
    return number


# --- tables ---------------------------------------------------------------------------------------


def _named(source: Any, names: str, prefix: str, rule: SizeRule) -> dict[str, Operation]:  # noqa: ANN401 - a module or a class
    return {
        prefix + name: Operation(getattr(source, name), rule)
        for name in names.split()
        if callable(getattr(source, name, None))  # torch.float and its like are dtypes
    }


def _functions() -> Mapping[str, Operation]:
    nn = torch.nn.functional
    operators = {name: _arithmetic(getattr(operator, name)) for name in allowed.OPERATORS.split()}
    numeric = {name: _of_numbers(getattr(math, name)) for name in allowed.MATH.split()}
    one_by_one: list[tuple[str, Callable[..., Any], SizeRule]] = [
        ("torch._C._nn.gelu", nn.gelu, sizes.broadcast),
        ("torch._C._nn.log_sigmoid", nn.logsigmoid, sizes.broadcast),
        ("torch._C._nn.softplus", nn.softplus, sizes.broadcast),
        ("torch._C._nn.softshrink", nn.softshrink, sizes.broadcast),
        ("torch._C._linalg.linalg_vector_norm", torch.linalg.vector_norm, sizes.all_inputs),
        ("torch.functional.broadcast_tensors", torch.broadcast_tensors, sizes.broadcast),
        ("torch.functional.einsum", torch.einsum, sizes.summed_over),
        ("torch.functional.norm", torch.norm, sizes.all_inputs),
        ("torch.functional.split", torch.split, sizes.pieces),
        ("torch.nn.functional.pad", nn.pad, sizes.padded),
        ("torch.arange", torch.arange, sizes.ranged),
        ("torch.broadcast_to", torch.broadcast_to, sizes.expanded),
        ("getattr", _attribute, sizes.nothing),
        ("operator.getitem", _part, sizes.indexed),
        ("operator.matmul", operator.matmul, sizes.matrix_product),
    ]
    return MappingProxyType(
        {
            **_named(torch, allowed.CELLWISE, "torch.", sizes.broadcast),
            **_named(torch, allowed.REARRANGING, "torch.", sizes.all_inputs),
            **_named(torch, allowed.SPLITTING, "torch.", sizes.pieces),
            **_named(torch, "matmul mm mv", "torch.", sizes.matrix_product),
            **_named(torch, allowed.MULTIPLYING, "torch.", sizes.product),
            **_named(torch, "zeros ones full", "torch.", sizes.filled),
            **_named(torch, "tile repeat_interleave", "torch.", sizes.repeated),
            **_named(nn, allowed.NEURAL, "torch.nn.functional.", sizes.broadcast),
            **_named(torch.special, allowed.SPECIAL, "torch._C._special.special_", sizes.broadcast),
            **{f"operator.{name}": Operation(f, sizes.broadcast) for name, f in operators.items()},
            **{f"math.{name}": Operation(f, sizes.nothing) for name, f in numeric.items()},
            **{name: Operation(function, rule) for name, function, rule in one_by_one},
        }
    )


def _methods() -> Mapping[str, Operation]:
    tensor = torch.Tensor
    return MappingProxyType(
        {
            **_named(tensor, allowed.CELLWISE, "", sizes.broadcast),
            **_named(tensor, allowed.REARRANGING, "", sizes.all_inputs),
            **_named(tensor, allowed.SPLITTING, "", sizes.pieces),
            **_named(tensor, "matmul mm mv", "", sizes.matrix_product),
            **_named(tensor, allowed.MULTIPLYING, "", sizes.product),
            **_named(tensor, "new_zeros new_ones new_full", "", sizes.new_filled),
            **_named(tensor, "expand broadcast_to", "", sizes.expanded),
            **_named(tensor, "repeat tile repeat_interleave", "", sizes.repeated),
            "cpu": Operation(tensor.clone, sizes.all_inputs),
        }
    )


FUNCTIONS = _functions()
METHODS = _methods()

_KEYWORDS = frozenset(allowed.KEYWORDS.split())
_TEXTS = frozenset(allowed.TEXTS.split())
_ATTRIBUTES = frozenset(allowed.ATTRIBUTES.split())
_FIELDS = frozenset(allowed.FIELDS.split())
_HELD: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "out": (None,),
        "inplace": (False,),
        "requires_grad": (False,),
        "size_average": (None,),
        "device": (None, torch.device("cpu")),
        "layout": (None, torch.strided),
    }
)
"""Keyword arguments that may have these values only."""
