"""The two requests that carry bulk data, as values that both sides of the wire share.

Knows nothing of encodings: see :mod:`tinker_ray.wire.codec`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tinker_ray.types.sampling import SampleRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.types import Datum


@dataclass(frozen=True, slots=True)
class ForwardBackwardRequest:
    """One training batch for one model; ``forward_only`` asks for no gradients."""

    model_id: str
    data: Sequence[Datum]
    loss_fn: str
    seq_id: int | None = None
    loss_fn_config: Mapping[str, float | str] = field(default_factory=dict)
    forward_only: bool = False


__all__ = ["ForwardBackwardRequest", "SampleRequest"]
