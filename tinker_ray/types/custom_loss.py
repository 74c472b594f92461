"""A loss as plain data: the operations that it does, in their order.

Arguments are encoded: JSON scalars, texts and lists stand for themselves; everything else is an
object of one key: ``{"ref": node}``, ``{"tuple": […]}``, ``{"dict": {…}}``, ``{"slice": […]}``,
``{"ellipsis": true}``, ``{"float": "inf"}``, ``{"dtype": …}``, ``{"device": …}``,
``{"layout": …}``, ``{"memory_format": …}``. Nothing here can be executed.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field

from tinker_ray.types.model import Strict

CustomLossNodeOp: TypeAlias = Literal[
    "placeholder", "get_attr", "call_function", "call_method", "call_module", "output"
]
CustomLossInputRank: TypeAlias = Literal[0, 1, 2]


class CustomLossNode(Strict):
    """One operation; later ones refer to it by ``name``."""

    op: CustomLossNodeOp
    name: str
    target: str
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)


class CustomLossGraph(Strict):
    """The operations of a loss."""

    format: Literal[1] = 1
    nodes: list[CustomLossNode]


class CustomLossInput(Strict):
    """What the loss reads of a datum, and its number of axes."""

    name: str
    rank: CustomLossInputRank


class CreateCustomLossRequest(Strict):
    """Gives a loss to the service; its first input is ``logprobs``."""

    session_id: str
    custom_loss_seq_id: int
    name: str
    inputs: list[CustomLossInput]
    graph: CustomLossGraph
    type: Literal["create_custom_loss"] = "create_custom_loss"
