"""A run's budget at the one place where it is divided; pure.

Each process has an authority: what it may ever spend, in all. It asks for more before it sends, in
blocks, and gives back what it has no use for. Invariant: the authorities together never exceed the
budget, whatever messages are lost, repeated or late, so neither does what is spent. What a lost
process had not given back stays counted, because it may have spent it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.limits.spend import NO_SPEND, Spend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AHEAD_PART = 4
"""No more than such a part of what is left, divided by the processes, is given in advance."""


@dataclass(frozen=True, slots=True)
class SpendClaim:
    """What a process states and asks for.

    Attributes:
        holder: The process; a name never used twice.
        serial: Grows with every claim of the process.
        spent: What its samples did cost so far.
        keeps: The authority that it has use for: spent, and what samples under way may cost. It
            has no more until the answer comes.
        want: What the next sample may cost.
        ahead: What it would like for those after it.
        leaves: It sends no more samples, and no more claims.
    """

    holder: str
    serial: int
    spent: Spend
    keeps: Spend
    want: Spend = NO_SPEND
    ahead: Spend = NO_SPEND
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class SpendGrant:
    """The answer.

    Attributes:
        serial: Of the claim.
        authority: What the process may ever spend, in all.
        is_final: What it wants will never fit, however cheap others turn out.
        spent: By all processes, as far as they have stated.
        limit: The budget.
    """

    serial: int
    authority: Spend
    is_final: bool
    spent: Spend
    limit: Spend


@dataclass(frozen=True, slots=True)
class Account:
    """What the ledger knows of a process.

    Attributes:
        serial: Of its newest claim.
        spent: As it stated.
        authority: What it may ever spend, in all.
    """

    serial: int = -1
    spent: Spend = NO_SPEND
    authority: Spend = NO_SPEND


GONE = ""
"""The account of all processes that have left."""


class SpendLedger:
    """Divides a budget.

    Args:
        limit: The budget.
        accounts: Those of a predecessor.

    Attributes:
        limit: The budget.
        accounts: By process; what a successor has to know before any answer is sent.
    """

    def __init__(self, limit: Spend, accounts: Mapping[str, Account] | None = None) -> None:
        self.limit = limit
        self.accounts = dict(accounts or {})

    def __repr__(self) -> str:
        """Show what was spent and given out."""
        spent, given, limit = self.spent, self.given, self.limit
        return (
            f"SpendLedger(spent {spent.tokens:g}, given out {given.tokens:g} of {limit.tokens:g} "
            f"tokens; {spent.cost:.4g}, {given.cost:.4g} of {limit.cost:.4g})"
        )

    @property
    def spent(self) -> Spend:
        """What processes have stated that they spent."""
        return _total(account.spent for account in self.accounts.values())

    @property
    def given(self) -> Spend:
        """All authorities together."""
        return _total(account.authority for account in self.accounts.values())

    def claim(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim; one that is older than the last of its process changes nothing."""
        account = self.accounts.get(claim.holder, Account())
        is_final = False
        if claim.serial > account.serial:
            account = Account(claim.serial, claim.spent, claim.keeps)
            self.accounts[claim.holder] = account
            is_final = not (self.spent + claim.want).fits(self.limit)
            extra = self._extra(claim)
            account = Account(claim.serial, claim.spent, claim.keeps + extra)
            self.accounts[claim.holder] = account
            if claim.leaves:
                self._let_go(claim.holder, account)
        return SpendGrant(claim.serial, account.authority, is_final, self.spent, self.limit)

    def raise_to(self, limit: Spend) -> None:
        """Allow more; what is lower than before stays as it is."""
        self.limit = self.limit.at_least(limit)

    def _extra(self, claim: SpendClaim) -> Spend:
        """What the process gets beyond what it keeps: all that it wants, or nothing."""
        left = self.limit - self.given
        if not claim.want.fits(left):
            return NO_SPEND
        spare = (left - claim.want) * (1 / (AHEAD_PART * len(self.accounts)))
        return claim.want + claim.ahead.at_most(spare).at_least(NO_SPEND)

    def _let_go(self, holder: str, account: Account) -> None:
        gone = self.accounts.get(GONE, Account())
        self.accounts[GONE] = Account(
            spent=gone.spent + account.spent, authority=gone.authority + account.authority
        )
        del self.accounts[holder]


def _total(amounts: Iterable[Spend]) -> Spend:
    return sum(amounts, NO_SPEND)
