"""How an engine behaves; cheap to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tinker_ray.engine.client_flags import ClientFlags

Wire: TypeAlias = Literal["json", "protobuf", "both"]


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How an engine behaves.

    Attributes:
        max_queued_sequences: Sequences that may wait in one base model's batch before 429.
        gap_timeout_s: How long a training operation waits for a missing one before it.
        long_poll_s: How long a request for a result waits for it.
        large_result_bytes: Of larger results clients that allow it are told the size first, so that
            they can make room.
        strict_losses: Whether to refuse losses whose formula is our own, because the service's is
            not public.
        wire: Which generation of clients to be like: ``json`` is a service of the time before
            protobuf, ``protobuf`` one that dropped JSON batches, ``both`` answers everybody.
        flags: What clients are told to do.
    """

    max_queued_sequences: int = 4096
    gap_timeout_s: float = 120.0
    long_poll_s: float = 25.0
    large_result_bytes: int = 1 << 20
    strict_losses: bool = False
    wire: Wire = "both"
    flags: ClientFlags = field(default_factory=ClientFlags)
