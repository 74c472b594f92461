"""What a traced loss may look like: its inputs, its metrics, and the data that fits it.

Knows nothing of torch: :mod:`tinker_ray.core.custom_loss` traces and runs.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from tinker_ray.types import CustomLossInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tinker_ray.types import CustomLossInputRank, Datum

LOGPROBS = "logprobs"
TARGETS = "target_tokens"
MAX_INPUTS = 16

_RANKS = (0, 1, 2)
_INPUT_NAME = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_METRIC_NAME = re.compile(r"custom/[a-z0-9_./-]{1,64}:(sum|mean)")


def loss_name(fn: Callable[..., Any]) -> str:
    """Name a loss by its function, or by the class of a callable object."""
    return getattr(fn, "__name__", type(fn).__name__)


def declared_inputs(
    fn: Callable[..., Any], input_ranks: Mapping[str, CustomLossInputRank]
) -> tuple[CustomLossInput, ...]:
    """Read a loss's inputs from its parameters: ``logprobs``, then keys of ``loss_fn_inputs``.

    Raises:
        ValueError: A parameter is no plain required one, there are too many, or ``input_ranks``
            does not give a rank to each.
    """
    where = f"create_custom_loss: {loss_name(fn)}"
    parameters = list(inspect.signature(fn).parameters.values())
    if not parameters or parameters[0].name != LOGPROBS:
        message = (
            f"{where} must take logprobs first, then the loss_fn_inputs that it reads, "
            "as in def loss(logprobs, advantages)"
        )
        raise ValueError(message)
    if len(parameters) > MAX_INPUTS:
        message = f"{where} takes {len(parameters)} parameters: use at most {MAX_INPUTS}"
        raise ValueError(message)
    for parameter in parameters:
        _check_parameter(where, parameter)
    names = [parameter.name for parameter in parameters]
    if set(input_ranks) != set(names):
        message = (
            f"{where} takes {', '.join(names)}: input_ranks must give a rank to each of them and "
            f"to nothing else, not to {', '.join(map(str, input_ranks)) or 'nothing'}"
        )
        raise ValueError(message)
    for name, rank in input_ranks.items():
        if rank not in _RANKS or (name == LOGPROBS and rank == 0):
            allowed = "1 ((T,)) or 2 ((T, K))" if name == LOGPROBS else "0, 1 ((T,)) or 2 ((T, K))"
            message = f"{where}: input_ranks[{name!r}] is {rank!r}: use {allowed}"
            raise ValueError(message)
    return tuple(CustomLossInput(name=name, rank=input_ranks[name]) for name in names)


def _check_parameter(where: str, parameter: inspect.Parameter) -> None:
    if not _INPUT_NAME.fullmatch(parameter.name):
        message = (
            f"{where}: parameter {parameter.name!r} must be of lower-case letters, digits and _"
        )
        raise ValueError(message)
    if parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
        message = f"{where}: parameter {parameter.name!r} must be a plain positional one"
        raise ValueError(message)
    if parameter.default is not parameter.empty:
        message = (
            f"{where}: parameter {parameter.name!r} has a default, but every parameter after "
            "logprobs names a loss_fn_inputs key that each datum must have"
        )
        raise ValueError(message)


def check_metric_name(where: str, name: object) -> None:
    """Check that a metric says how its values per datum are combined.

    Raises:
        ValueError: It is not ``custom/<name>:sum`` or ``custom/<name>:mean``.
    """
    if not isinstance(name, str) or not _METRIC_NAME.fullmatch(name):
        message = (
            f"{where}: metric {name!r} must be named custom/<name>:sum or custom/<name>:mean, in "
            "lower case; the suffix says how it is combined over the datums"
        )
        raise ValueError(message)


def check_data(name: str, inputs: Sequence[CustomLossInput], data: Sequence[Datum]) -> None:
    """Check that every datum has the inputs of a loss, each of its rank.

    ``logprobs`` has the shape of the datum's ``target_tokens``.

    Raises:
        ValueError: One is missing, or has another rank.
    """
    read = [(TARGETS if item.name == LOGPROBS else item.name, item) for item in inputs]
    for i, datum in enumerate(data):
        for key, item in read:
            where = f"data[{i}].loss_fn_inputs[{key!r}]"
            tensor = datum.loss_fn_inputs.get(key)
            if tensor is None:
                message = f"{where} is missing: the loss {name!r} reads it"
                raise ValueError(message)
            rank = 1 if tensor.shape is None else len(tensor.shape)
            if rank != item.rank:
                message = (
                    f"{where} has rank {rank}, but the loss {name!r} was made for {item.name} of "
                    f"rank {item.rank}"
                )
                raise ValueError(message)
