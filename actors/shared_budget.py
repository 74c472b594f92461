"""The budget of a run, as the session's actor divides it; a restart forgets nothing.

Knows nothing of Ray. Invariant: no answer is sent that is not written down, so what a successor
gives out fits beside it.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

from tinker_ray.limits.spend import Spend, limit_of
from tinker_ray.limits.spend_ledger import Account, SpendLedger

if TYPE_CHECKING:
    from actors.journal import Record
    from tinker_ray.budget import Budget
    from tinker_ray.limits import SpendClaim, SpendGrant


class SharedBudget:
    """Divides a budget over the processes that sample. Belongs to one event loop."""

    def __init__(self, budget: Budget, record: Record) -> None:
        self._ledger = SpendLedger(limit_of(budget))
        self._record = record
        self._loading = asyncio.Lock()
        self._loaded = False

    def __repr__(self) -> str:
        """Show what was spent."""
        return f"SharedBudget({self._ledger!r})"

    async def claim(self, claim: SpendClaim) -> SpendGrant:
        """Answer a claim.

        Raises:
            OSError: The answer could not be written down.
        """
        await self._load()
        grant = self._ledger.claim(claim)
        await self._record.store(self._encode)
        return grant

    async def raise_to(self, limit: Spend) -> None:
        """Allow more; a repetition changes nothing.

        Raises:
            OSError: It could not be written down.
        """
        await self._load()
        self._ledger.raise_to(limit)
        await self._record.store(self._encode)

    def describe(self) -> dict[str, float | None]:
        """Tell what was spent, given out and allowed; a limit of None is no limit."""
        spent, given, limit = self._ledger.spent, self._ledger.given, self._ledger.limit
        return {
            "tokens_spent": spent.tokens,
            "tokens_given": given.tokens,
            "tokens_limit": _finite(limit.tokens),
            "cost_spent": spent.cost,
            "cost_given": given.cost,
            "cost_limit": _finite(limit.cost),
        }

    async def close(self) -> None:
        """Forget what was written down."""
        await self._record.drop()

    async def _load(self) -> None:
        async with self._loading:
            if self._loaded:
                return
            kept = await self._record.load()
            if kept is not None:
                state: dict[str, Any] = json.loads(kept)
                self._ledger.raise_to(Spend(*state["limit"]))
                self._ledger.accounts.update(
                    (holder, Account(serial, Spend(*spent), Spend(*authority)))
                    for holder, (serial, spent, authority) in state["accounts"].items()
                )
            self._loaded = True

    def _encode(self) -> bytes:
        accounts = {
            holder: (account.serial, _pair(account.spent), _pair(account.authority))
            for holder, account in self._ledger.accounts.items()
        }
        state = {"limit": _pair(self._ledger.limit), "accounts": accounts}
        return json.dumps(state).encode()


def _finite(number: float) -> float | None:
    return None if math.isinf(number) else number


def _pair(amount: Spend) -> tuple[float, float]:
    return amount.tokens, amount.cost
