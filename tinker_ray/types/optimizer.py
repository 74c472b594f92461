"""Families of optimizers: which one a model has, and the parameters of one step.

Knows no update rule: those are the service's. A family that is not known here passes through.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, SerializeAsAny

from tinker_ray.types.model import Strict


class AdamParams(Strict):
    """AdamW for one step; ``weight_decay`` is decoupled, ``grad_clip_norm`` 0 means no clipping.

    ``grad_clip_norm`` bounds the global L2 norm of the accumulated gradients.
    """

    learning_rate: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-12, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    grad_clip_norm: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class OptimizerConfigBase(Strict, extra="allow"):
    """The optimizer that a model is made with, named by ``type``; keeps what else it says."""

    type: str


class AdamOptimizerConfig(OptimizerConfigBase, extra="forbid"):
    """AdamW, the default."""

    type: Literal["adamw"] = "adamw"


class DimuonOptimizerConfig(OptimizerConfigBase, extra="forbid"):
    """Dimuon."""

    type: Literal["dimuon"] = "dimuon"
    version: Literal[1] = 1


class OptimParamsBase(Strict, extra="allow"):
    """Parameters of one step of another family than Adam, named by ``type``."""

    type: str


class DimuonParams(OptimParamsBase, extra="forbid", allow_inf_nan=False):
    """Dimuon for one step; ``beta1`` averages the momentum, ``grad_clip_norm`` <= 0 means none."""

    type: Literal["dimuon"] = "dimuon"
    learning_rate: float = Field(ge=0)
    grad_clip_norm: float = 0.0
    beta1: float = Field(default=0.9, ge=0, lt=1)


OptimizerConfig: TypeAlias = Annotated[
    AdamOptimizerConfig | DimuonOptimizerConfig | SerializeAsAny[OptimizerConfigBase],
    Field(union_mode="left_to_right"),
]
OptimParams: TypeAlias = Annotated[
    AdamParams | DimuonParams | SerializeAsAny[OptimParamsBase], Field(union_mode="left_to_right")
]
