"""Limits that hold for a whole cluster, as pure state machines.

Knows neither actors nor HTTP: nothing here does I/O or reads a clock, the time is always an
argument (seconds on any monotonic clock, one for each process). Actors carry the messages between
one :class:`ClusterLimits` and the :class:`HolderLimits` of each process; a single process uses
:class:`LocalLimits`, which is both. In the same way :class:`SpendLedger` and :class:`SpendShare`
keep to what a run may cost.
"""

from tinker_ray.limits.backoff import Backoff, BackoffNotice, Open, Paused, Throttled
from tinker_ray.limits.budget import ByteBudget
from tinker_ray.limits.claim import UNLIMITED, Claim, Grant, Terms
from tinker_ray.limits.cluster import ClusterLimits
from tinker_ray.limits.holder import HolderLimits
from tinker_ray.limits.lease import Lease
from tinker_ray.limits.local import LocalLimits
from tinker_ray.limits.permit import PermitLedger
from tinker_ray.limits.queue import FairQueue, Stage, Ticket
from tinker_ray.limits.share import Want
from tinker_ray.limits.spend import Spend, limit_of
from tinker_ray.limits.spend_ledger import SpendClaim, SpendGrant, SpendLedger
from tinker_ray.limits.spend_share import Reservation, SpendShare, Standing
from tinker_ray.limits.statement import Ruling, Statement
from tinker_ray.limits.window import Window

__all__ = [
    "UNLIMITED",
    "Backoff",
    "BackoffNotice",
    "ByteBudget",
    "Claim",
    "ClusterLimits",
    "FairQueue",
    "Grant",
    "HolderLimits",
    "Lease",
    "LocalLimits",
    "Open",
    "Paused",
    "PermitLedger",
    "Reservation",
    "Ruling",
    "Spend",
    "SpendClaim",
    "SpendGrant",
    "SpendLedger",
    "SpendShare",
    "Stage",
    "Standing",
    "Statement",
    "Terms",
    "Throttled",
    "Ticket",
    "Want",
    "Window",
    "limit_of",
]
