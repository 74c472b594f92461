"""Limits that hold for a whole cluster, as pure state machines.

Knows neither actors nor HTTP: nothing here does I/O or reads a clock, the time is always an
argument (seconds on any monotonic clock, one for each process). Actors carry the messages between a
:class:`PermitLedger` and the :class:`Lease` of each process, and drive the other machines.
"""

from tinker_ray.limits.backoff import Backoff, BackoffNotice, Open, Paused, Throttled
from tinker_ray.limits.budget import ByteBudget
from tinker_ray.limits.claim import UNLIMITED, Claim, Grant, Terms
from tinker_ray.limits.lease import Lease
from tinker_ray.limits.permit import PermitLedger
from tinker_ray.limits.share import Want
from tinker_ray.limits.window import Window

__all__ = [
    "UNLIMITED",
    "Backoff",
    "BackoffNotice",
    "ByteBudget",
    "Claim",
    "Grant",
    "Lease",
    "Open",
    "Paused",
    "PermitLedger",
    "Terms",
    "Throttled",
    "Want",
    "Window",
]
