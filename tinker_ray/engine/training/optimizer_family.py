"""Which families of optimizers there are. AdamW is the only one whose formula is public.

A model's family is fixed when it is made; the parameters of its steps have to be of that family.
"""

from __future__ import annotations

from tinker_ray.errors import EngineError

FAMILIES = ("adamw",)
_NOT_PUBLIC = ("dimuon",)


def check_family(name: object) -> None:
    """Check that the engine has an optimizer.

    Raises:
        EngineError: It has not; the message says why.
    """
    if name in FAMILIES:
        return
    message = f"there is no optimizer {name!r}: use {', '.join(FAMILIES)}"
    if name in _NOT_PUBLIC:
        message = (
            f"the engine has no {name!r}, whose formula is not public (see docs/losses.md): use "
            "adamw, which is AdamOptimizerConfig and AdamParams"
        )
    raise EngineError(message, category="user")
