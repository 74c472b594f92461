"""How large the result of an operation can become, from its arguments alone.

An operation is asked before it runs, so that no graph allocates what it may not. Bounds are upper
ones, in cells; knows nothing of what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch

Arguments: TypeAlias = Sequence[Any]
SizeRule: TypeAlias = Callable[[Arguments, Mapping[str, Any]], int]

_CELLS_PER_VIEW = 64


def tensors_in(values: object) -> Iterator[torch.Tensor]:
    """Go through the tensors in nested arguments."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)


def all_inputs(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound what reduces, rearranges or joins: as much as comes in."""
    return sum(tensor.numel() for tensor in tensors_in((args, kwargs)))


def nothing(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound what makes no tensor."""
    del args, kwargs
    return 0


def pieces(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound what gives many views, each of which takes as much as some cells."""
    return _CELLS_PER_VIEW * all_inputs(args, kwargs)


def broadcast(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound what works cell by cell: the common shape of all that comes in."""
    tensors = list(tensors_in((args, kwargs)))
    common = _broadcast_numel(tensor.shape for tensor in tensors)
    return max([common, *(tensor.numel() for tensor in tensors)])


def product(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound what gives something for each pair of cells, as an outer product does."""
    return math.prod(tensor.numel() for tensor in tensors_in((args, kwargs)))


def matrix_product(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a matrix product, and count its multiplications a little."""
    left, right = list(tensors_in((args, kwargs)))[:2]
    inner = max(1, left.shape[-1] if left.ndim else 1)
    outer = right.numel() // max(1, right.shape[-2] if right.ndim > 1 else right.numel())
    numel = math.ceil(left.numel() / inner) * max(1, outer)
    return max(numel, numel * inner >> 8)


def filled(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a new tensor of a given size."""
    size = kwargs.get("size", args)
    size = size[0] if len(size) and isinstance(size[0], list | tuple) else size
    return math.prod(_whole_numbers(size))


def new_filled(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a new tensor that a tensor's method makes."""
    return filled(args[1:], kwargs)


def ranged(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a range of numbers."""
    start, stop, step = 0, *args[:1], 1
    if len(args) > 1:
        start, stop, step = *args[:2], args[2] if len(args) > 2 else 1  # noqa: PLR2004 - a step
    _no_tensors((args, kwargs))
    start, stop, step = (
        kwargs.get("start", start),
        kwargs.get("end", stop),
        kwargs.get("step", step),
    )
    return math.ceil(abs((stop - start) / step)) + 1 if step else 0


def expanded(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a tensor that is repeated to a given size; -1 keeps a dimension."""
    shape = args[0].shape
    sizes = _whole_numbers(kwargs.get("size", args[1:]))
    kept = [1] * (len(sizes) - len(shape)) + list(shape)
    return math.prod(old if size == -1 else size for size, old in zip(sizes, kept, strict=True))


def repeated(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a tensor that is repeated a number of times."""
    given = [value for key, value in kwargs.items() if key not in {"dim", "output_size"}]
    times = _whole_numbers((args[1:], given))
    return int(args[0].numel()) * math.prod(max(1, number) for number in times)


def padded(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a tensor that is padded at its ends."""
    added = sum(abs(size) for size in _whole_numbers(kwargs.get("pad", args[1:2])))
    return math.prod(size + added for size in args[0].shape)


def indexed(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound a part of a tensor; indices that are tensors may name a part many times."""
    del kwargs
    source, index = args[0], args[1]
    if not isinstance(source, torch.Tensor):
        return 0
    numbers = [tensor for tensor in tensors_in(index) if tensor.dtype != torch.bool]
    if not numbers:
        return source.numel()
    times = _broadcast_numel(tensor.shape for tensor in numbers)
    shortest = max(1, source.shape[0] if index is numbers[0] else min(source.shape))
    return times * max(1, source.numel() // shortest)


def summed_over(args: Arguments, kwargs: Mapping[str, Any]) -> int:
    """Bound an einsum by the product of the sizes of all its labels."""
    equation, operands = args[0], list(tensors_in((args[1:], kwargs)))
    labels = equation.partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for names, tensor in zip(labels, operands, strict=False):
        sizes |= dict(zip(names.strip(), tensor.shape, strict=False))
    return math.prod(sizes.values())


def _broadcast_numel(shapes: Iterable[torch.Size]) -> int:
    by_axis: dict[int, int] = {}
    for shape in shapes:
        for axis, size in enumerate(reversed(shape)):
            by_axis[axis] = max(by_axis.get(axis, 0), size)
    return math.prod(by_axis.values())


def _whole_numbers(values: object) -> list[int]:
    """Return all integers in nested lists; a tensor there would hide a size."""
    _no_tensors(values)
    return list(_flat(values))


def _flat(values: object) -> Iterator[int]:
    if isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)
    elif isinstance(values, int) and not isinstance(values, bool):
        yield values


def _no_tensors(values: object) -> None:
    if any(True for _ in tensors_in(values)):
        message = "a size must be a number, not a tensor"
        raise ValueError(message)
