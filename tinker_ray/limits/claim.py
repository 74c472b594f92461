"""What a holder of permits and the ledger say to each other, as values.

Both state what is, not what changes, so that a message may be lost, doubled or late; see
:mod:`tinker_ray.limits.permit`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinker_ray.limits.share import Want

UNLIMITED = 1 << 30
"""As a count: any number."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A holder's message: what it has and what it would like.

    Attributes:
        holder: A name that is never used twice: a process that replaces another takes a new one.
        serial: Counts the holder's claims from 1.
        epoch: The lease that ``held`` belongs to; 0 for none.
        held: The permits that the holder keeps.
        in_use: The permits that are being used.
        want: The permits that it would like to hold in all.
        labels: The same, label by label; empty if all are of one kind.
    """

    holder: str
    serial: int
    epoch: int
    held: int
    in_use: int
    want: int
    labels: tuple[Want, ...] = ()

    @property
    def wants(self) -> tuple[Want, ...]:
        """What it would like, label by label."""
        return self.labels or ((Want(self.want),) if self.want > 0 else ())


@dataclass(frozen=True, slots=True)
class Terms:
    """What the ledger asks of all holders alike, so that it is not told more than it can hear.

    Attributes:
        ttl_s: How long a lease lasts, from when the claim was sent.
        patience_s: How long one that holds nothing stays in line without a word.
        block: Permits are asked for in multiples of this. With 1, which means that permits are
            scarce or holders many, idle ones are given back one by one.
        idle_s: How long permits may lie idle.
        is_ample: There is a permit for each holder at least: one with samples in line may keep
            its share although it cannot use it at the moment.
    """

    ttl_s: float
    patience_s: float
    block: int = 8
    idle_s: float = 1.0
    is_ample: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """The ledger's message: what a holder has now.

    Attributes:
        holder: To whom.
        serial: Of the last claim heard from it.
        revision: Counts the grants after that claim, so that a late one is told from a newer one.
        epoch: The lease.
        count: The permits in it, all told.
        target: The holder's share at present. If it is below ``count``, others wait: the holder
            gives back the difference as it becomes idle.
        want: What the holder is taken to want, in all.
        terms: What holds for all.
        odd: So many of the share are held in turns: they are to be given back after ``turn_s``.
        turn_s: From when the claim was sent.
        labels: The share label by label, not rounded, if there is more than one.
        unlimited: No limit is known: any number may be used, and only has to be stated.
        fenced: The holder was declared dead and gets nothing any more.
    """

    holder: str
    serial: int
    revision: int
    epoch: int
    count: int
    target: int
    want: int
    terms: Terms
    odd: int = 0
    turn_s: float = 0.0
    labels: tuple[tuple[str, float], ...] = ()
    unlimited: bool = False
    fenced: bool = False
