"""One process's part of a run's budget; pure.

The other side of :mod:`tinker_ray.limits.spend_ledger`. Samples are admitted in the order in which
they came, each when what it may cost at most fits beside what was spent and what others under way
may cost; when one ends, it is settled for what it did cost. Invariant: what was spent never exceeds
the authority that the ledger knows of, as long as nothing costs more than was set aside for it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from tinker_ray.limits.spend import NO_SPEND, Spend, limit_of
from tinker_ray.limits.spend_ledger import SpendClaim

if TYPE_CHECKING:
    from tinker_ray.budget import Budget, Price
    from tinker_ray.limits.spend_ledger import SpendGrant

AHEAD = 64
"""Samples like the last one that a process likes to have authority for in advance."""
LOW_PART = 4
"""Below such a part of that it asks for more, before samples have to wait."""
AGAIN_S = 1.0
"""How long to wait before a claim that was not met, or could not be sent, is made again."""
IDLE_S = 2.0
"""After so long without a new sample, authority that nothing is set aside for is given back."""


class Standing(Enum):
    """Where a sample is."""

    WAITING = "waiting"
    ADMITTED = "admitted"
    REFUSED = "refused"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Reservation:
    """What a sample may cost at most.

    Attributes:
        amount: That.
        price: Of its tokens.
        standing: Where it is.
    """

    amount: Spend
    price: Price
    standing: Standing = Standing.WAITING


class SpendShare:
    """Admits samples of one process.

    Example::

        reservation = share.join("Qwen/Qwen3-8B", 900, 4 * 256, now)
        for changed in share.advance(): ...          # admitted or refused; see its standing
        share.settle(reservation, 900, 611)          # or share.cancel(reservation)

        if claim := share.poll(now):                 # after each change, and at share.wake_at
            share.apply(ledger.claim(claim), now)    # or share.reconnect(now)
    """

    def __init__(self, holder: str, budget: Budget) -> None:
        """Start without authority.

        Args:
            holder: A name that no other process has or had.
            budget: The prices, and what is done when it is used up.
        """
        self.holder = holder
        self.budget = budget
        self.spent = NO_SPEND
        self.reserved = NO_SPEND
        self.known_spent = NO_SPEND
        """By the whole run, as far as is known here."""
        self.known_limit = limit_of(budget)
        self._authority = NO_SPEND
        self._waiting: deque[Reservation] = deque()
        self._refused: list[Reservation] = []
        self._last = NO_SPEND
        self._serial = 0
        self._is_asking = False
        self._may_ask_at = -math.inf
        self._may_top_up_at = -math.inf
        self._joined_at = -math.inf

    def __repr__(self) -> str:
        """Show what was spent, and what is under way."""
        return (
            f"SpendShare(spent {self.spent.tokens:g} + {self.reserved.tokens:g} of "
            f"{self._authority.tokens:g} tokens, {self.waiting} wait)"
        )

    @property
    def waiting(self) -> int:
        """Samples that wait for the budget."""
        return len(self._waiting)

    @property
    def free(self) -> Spend:
        """Authority that nothing is set aside for."""
        return self._authority - self.spent - self.reserved

    @property
    def wake_at(self) -> float:
        """When :meth:`poll` may have something to say if nothing happens before."""
        if self._is_asking:
            return math.inf
        if self._waiting:
            return self._may_ask_at
        return self._joined_at + IDLE_S if self._has_excess else math.inf

    def join(
        self, model: str, num_prompt_tokens: int, max_drawn_tokens: int, now: float
    ) -> Reservation:
        """Put a sample in line.

        Args:
            model: Its price counts.
            num_prompt_tokens: Of the prompt.
            max_drawn_tokens: Of all its sequences together.
            now: The time.

        Raises:
            ConfigurationError: Money is to be kept to, and the model has no price.
        """
        price = self.budget.price(model)
        amount = Spend(
            num_prompt_tokens + max_drawn_tokens, price.of(num_prompt_tokens, max_drawn_tokens)
        )
        reservation = Reservation(amount, price)
        self._waiting.append(reservation)
        self._last = amount
        self._joined_at = now
        return reservation

    def advance(self) -> list[Reservation]:
        """Admit what fits, and return what is no longer waiting since the last call."""
        changed, self._refused = self._refused, []
        while self._waiting and self._waiting[0].amount.fits(self.free):
            reservation = self._waiting.popleft()
            self.reserved += reservation.amount
            reservation.standing = Standing.ADMITTED
            changed.append(reservation)
        return changed

    def settle(
        self, reservation: Reservation, num_prompt_tokens: int, num_drawn_tokens: int
    ) -> None:
        """Count what an admitted sample did cost, and free the rest of what was set aside."""
        self.cancel(reservation)
        cost = reservation.price.of(num_prompt_tokens, num_drawn_tokens)
        self.spent += Spend(num_prompt_tokens + num_drawn_tokens, cost)

    def cancel(self, reservation: Reservation) -> None:
        """Let a sample go that cost nothing; idempotent."""
        if reservation.standing is Standing.WAITING:
            self._waiting.remove(reservation)
        elif reservation.standing is Standing.ADMITTED:
            self.reserved -= reservation.amount
        reservation.standing = Standing.ENDED

    def poll(self, now: float) -> SpendClaim | None:
        """Return the claim to send, if there is reason for one; answer it before the next."""
        if self._is_asking:
            return None
        used = self.spent + self.reserved
        if self._waiting:
            is_time = now >= self._may_ask_at
            return self._claim(used, self._waiting[0].amount, self._ahead) if is_time else None
        if now >= self._joined_at + IDLE_S:
            return self._claim(used) if self._has_excess else None
        is_low = self.free.fits(self._ahead * (1 / LOW_PART))
        if is_low and self._serial and now >= self._may_top_up_at:
            return self._claim(self._authority, ahead=self._ahead)
        return None

    def leave(self) -> SpendClaim:
        """Return the last claim, which gives everything back; nothing is admitted afterwards."""
        self._waiting.clear()
        return replace(self._claim(self.spent + self.reserved), leaves=True)

    def apply(self, grant: SpendGrant, now: float) -> None:
        """Take in an answer; one to an older claim changes nothing."""
        if grant.serial != self._serial or not self._is_asking:
            return
        self._is_asking = False
        self.known_spent, self.known_limit = grant.spent, grant.limit
        has_grown = self._last.fits(grant.authority - self._authority)
        self._may_top_up_at = now if has_grown else now + AGAIN_S
        self._authority = grant.authority
        head = self._waiting[0] if self._waiting else None
        is_met = head is None or head.amount.fits(self.free)
        self._may_ask_at = now if is_met else now + AGAIN_S
        if head is not None and not is_met and grant.is_final:
            self._refuse(head.amount)

    def reconnect(self, now: float) -> None:
        """Take in that the last claim was perhaps not heard."""
        self._is_asking = False
        self._may_ask_at = now + AGAIN_S

    @property
    def _has_excess(self) -> bool:
        return not self.free.fits(NO_SPEND)

    @property
    def _ahead(self) -> Spend:
        return self._last * AHEAD

    def _claim(self, keeps: Spend, want: Spend = NO_SPEND, ahead: Spend = NO_SPEND) -> SpendClaim:
        self._serial += 1
        self._is_asking = True
        self._authority = keeps
        return SpendClaim(self.holder, self._serial, self.spent, keeps, want, ahead)

    def _refuse(self, amount: Spend) -> None:
        """Refuse what wants as much as what cannot be met, unless samples wait for a raise."""
        if self.budget.when_used_up == "wait":
            return
        waiting, self._waiting = self._waiting, deque()
        for reservation in waiting:
            if amount.fits(reservation.amount):
                reservation.standing = Standing.REFUSED
                self._refused.append(reservation)
            else:
                self._waiting.append(reservation)
        self._may_ask_at = -math.inf
