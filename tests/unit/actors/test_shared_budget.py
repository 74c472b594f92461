"""The run's budget at the session's actor, across restarts."""

from __future__ import annotations

from actors.journal import MemoryJournal, Record
from actors.shared_budget import SharedBudget
from tinker_ray.budget import Budget
from tinker_ray.limits import Spend, SpendClaim
from tinker_ray.transport.clock import VirtualClock


async def test_a_restarted_actor_knows_what_was_given_out_and_allowed() -> None:
    record = Record(MemoryJournal(), "S1/budget", VirtualClock())
    budget = Budget(max_tokens=100)
    before = SharedBudget(budget, record)
    await before.claim(SpendClaim("a", 1, Spend(10), Spend(10), want=Spend(50)))
    await before.raise_to(Spend(120))

    after = SharedBudget(budget, record)
    grant = await after.claim(SpendClaim("b", 1, Spend(), Spend(), want=Spend(70)))

    assert (Spend(), 120, False) == (grant.authority, grant.limit.tokens, grant.is_final)
    assert 60 == after.describe()["tokens_given"]
    late = await after.claim(SpendClaim("a", 1, Spend(), Spend()))
    assert Spend(60) == late.authority
