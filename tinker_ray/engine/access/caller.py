"""Who a request comes from."""

from __future__ import annotations

from dataclasses import dataclass

from tinker_ray.engine.store.row import LOCAL_OWNER


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Attributes:
        owner: Who owns what the request makes, and whose things it may see.
        key_id: The number of the API key; None on an engine that asks for none.
        project_id: Where the caller's sessions go that name no project.
    """

    owner: str = LOCAL_OWNER
    key_id: int | None = None
    project_id: str | None = None


LOCAL_CALLER = Caller()
"""Everybody, on an engine that asks for no key."""
