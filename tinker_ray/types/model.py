"""The two kinds of records: what the service says, and what callers say.

Their schemas are built when they are first used, so that importing a hundred of them is cheap.
Bulk values (tokens, tensors, samples) are no pydantic models: see :mod:`tinker_ray.types.value`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """What the service says: unknown keys are ignored, so that a newer service can say more."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), defer_build=True
    )

    def __str__(self) -> str:
        return repr(self)


class Strict(BaseModel):
    """What callers say: an unknown key is refused, so that a misspelt one does not pass."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True
    )

    def __str__(self) -> str:
        return repr(self)
