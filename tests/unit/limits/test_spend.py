"""Budgets of tokens and money over many processes: reserved at most, settled for what it was."""

from __future__ import annotations

import math
from random import Random
from typing import Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.budget import Budget, Price
from tinker_ray.errors import ConfigurationError
from tinker_ray.limits import (
    Reservation,
    Spend,
    SpendClaim,
    SpendGrant,
    SpendLedger,
    SpendShare,
    Standing,
    limit_of,
)

T = TypeVar("T")

PRICES = {"m": Price(prompt=1.0, completion=3.0)}


def agree(share: SpendShare, ledger: SpendLedger, now: float) -> list[Reservation]:
    """Carry every message that is due, and return what was decided."""
    changed = share.advance()
    for _ in range(20):
        claim = share.poll(now)
        if claim is None:
            return changed
        share.apply(ledger.claim(claim), now)
        changed += share.advance()
    pytest.fail(f"{share!r} does not stop talking")


def pair(budget: Budget, holder: str = "a") -> tuple[SpendShare, SpendLedger]:
    return SpendShare(holder, budget), SpendLedger(limit_of(budget))


def test_a_sample_is_reserved_for_the_most_and_settled_for_what_it_was() -> None:
    share, ledger = pair(Budget(max_tokens=1000))
    reservation = share.join("m", 100, 400, 0.0)
    assert [reservation] == agree(share, ledger, 0.0)
    assert (Standing.ADMITTED, Spend(500)) == (reservation.standing, share.reserved)

    share.settle(reservation, 100, 20)

    assert (Spend(120), Spend()) == (share.spent, share.reserved)


def test_money_is_counted_by_the_price_of_the_model() -> None:
    share, ledger = pair(Budget(max_cost=2.0, prices=PRICES))
    reservation = share.join("m", 500, 100, 0.0)
    agree(share, ledger, 0.0)
    assert Spend(600, 0.8) == share.reserved

    share.settle(reservation, 500, 0)

    assert Spend(500, 0.5) == share.spent


def test_a_sample_that_may_fit_later_waits_for_those_under_way() -> None:
    share, ledger = pair(Budget(max_tokens=100))
    first = share.join("m", 10, 80, 0.0)
    agree(share, ledger, 0.0)
    second = share.join("m", 10, 10, 0.0)
    assert [] == agree(share, ledger, 0.0)

    share.settle(first, 10, 5)

    assert [second] == agree(share, ledger, 1.0)
    assert Standing.ADMITTED is second.standing


def test_a_sample_that_cannot_fit_is_refused_and_a_smaller_one_is_not() -> None:
    share, ledger = pair(Budget(max_tokens=100))
    large = [share.join("m", 1, most, 0.0) for most in (100, 200)]
    small = share.join("m", 1, 9, 0.0)
    assert [*large, small] == agree(share, ledger, 0.0)
    assert [Standing.REFUSED] * 2 == [one.standing for one in large]
    assert Standing.ADMITTED is small.standing


def test_a_budget_that_waits_goes_on_when_it_is_raised() -> None:
    share, ledger = pair(Budget(max_tokens=100, when_used_up="wait"))
    reservation = share.join("m", 1, 100, 0.0)
    assert [] == agree(share, ledger, 0.0)

    ledger.raise_to(Spend(101))

    assert [] == agree(share, ledger, 0.5)
    assert 1.0 == share.wake_at
    assert [reservation] == agree(share, ledger, 1.0)


def test_a_budget_is_never_lowered() -> None:
    ledger = SpendLedger(Spend(100, 5.0))
    ledger.raise_to(Spend(50, 7.0))
    assert Spend(100, 7.0) == ledger.limit


def test_cancelling_twice_frees_once() -> None:
    share, ledger = pair(Budget(max_tokens=100))
    admitted = share.join("m", 10, 20, 0.0)
    agree(share, ledger, 0.0)
    waiting = share.join("m", 10, 80, 0.0)
    for one in (admitted, admitted, waiting, waiting):
        share.cancel(one)
    assert (Spend(), 0) == (share.reserved, share.waiting)


def test_authority_that_is_not_used_goes_back_for_others() -> None:
    budget = Budget(max_tokens=1000)
    (first, ledger), second = pair(budget), SpendShare("b", budget)
    done = first.join("m", 0, 10, 0.0)
    agree(first, ledger, 0.0)
    first.settle(done, 0, 10)
    assert ledger.given.tokens > 200

    large = second.join("m", 0, 990, 0.0)
    assert [] == agree(second, ledger, 0.0)
    assert 2.0 == first.wake_at
    agree(first, ledger, 2.0)

    assert [large] == agree(second, ledger, 2.0)
    assert Spend(1000) == ledger.given


def test_many_samples_cost_few_messages() -> None:
    share, ledger = pair(Budget(max_tokens=10_000_000))
    num_messages = 0
    for number in range(1000):
        reservation = share.join("m", 100, 100, number / 100)
        share.advance()
        while claim := share.poll(number / 100):
            num_messages += 1
            share.apply(ledger.claim(claim), number / 100)
            share.advance()
        assert Standing.ADMITTED is reservation.standing
        share.settle(reservation, 100, 50)
    assert num_messages <= 40


def test_what_a_lost_process_had_stays_counted() -> None:
    budget = Budget(max_tokens=1000)
    lost, ledger = pair(budget)
    lost.join("m", 0, 600, 0.0)
    agree(lost, ledger, 0.0)

    ledger = SpendLedger(limit_of(budget), ledger.accounts)  # and the ledger restarts, too
    share = SpendShare("b", budget)
    waiting = share.join("m", 0, 600, 0.0)

    assert [] == agree(share, ledger, 0.0)
    assert Standing.WAITING is waiting.standing


def test_a_process_that_leaves_is_remembered_by_what_it_spent() -> None:
    budget = Budget(max_tokens=1000)
    share, ledger = pair(budget)
    reservation = share.join("m", 0, 600, 0.0)
    agree(share, ledger, 0.0)
    share.settle(reservation, 0, 200)

    ledger.claim(share.leave())

    assert (Spend(200), Spend(200), [""]) == (ledger.given, ledger.spent, list(ledger.accounts))


def test_wrong_budgets_are_named() -> None:
    with pytest.raises(ConfigurationError, match="max_tokens=-1"):
        Budget(max_tokens=-1)
    with pytest.raises(ConfigurationError, match="max_cost=nan"):
        Budget(max_cost=math.nan, prices=PRICES)
    with pytest.raises(ConfigurationError, match="needs prices"):
        Budget(max_cost=1.0)
    with pytest.raises(ConfigurationError, match="when_used_up='stop'"):
        Budget(when_used_up="stop")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"no price for 'x'.*there are: m"):
        Budget(max_cost=1.0, prices=PRICES).price("x")


class Run:
    """Processes with one budget; their messages are lost, repeated and late."""

    def __init__(self, seed: int, limit: int, num_shares: int) -> None:
        self.random = Random(seed)
        when_used_up: Literal["raise", "wait"] = self.random.choice(["raise", "wait"])
        budget = Budget(limit, limit / 500, prices=PRICES, when_used_up=when_used_up)
        self.ledger = SpendLedger(limit_of(budget))
        self.shares = [SpendShare(f"h{number}", budget) for number in range(num_shares)]
        self.claims: list[tuple[SpendShare, SpendClaim]] = []
        self.grants: list[tuple[SpendShare, SpendGrant]] = []
        self.samples: list[tuple[SpendShare, Reservation, int, int]] = []

    def step(self, now: float) -> None:
        chance, share = self.random.random, self.random.choice(self.shares)
        if chance() < 0.5:
            prompt, most = self.random.randrange(50), self.random.randrange(90)
            self.samples.append((share, share.join("m", prompt, most, now), prompt, most))
        if claim := share.poll(now):
            self.claims += [(share, claim)] * self.random.choice([0, 1, 1, 1, 2])
        if chance() < 0.4:
            share.reconnect(now)
        if chance() < 0.05:
            self.ledger = SpendLedger(self.ledger.limit, self.ledger.accounts)
        self.carry(now)
        for one in self.shares:
            one.advance()
        if self.samples and chance() < 0.5:
            self.end(*self.pick(self.samples))

    def carry(self, now: float) -> None:
        if self.claims and self.random.random() < 0.6:
            sender, claim = self.pick(self.claims)
            grant = self.ledger.claim(claim)
            self.grants += [(sender, grant)] * self.random.choice([0, 1, 1, 1, 2])
        if self.grants and self.random.random() < 0.6:
            receiver, grant = self.pick(self.grants)
            receiver.apply(grant, now)

    def end(self, share: SpendShare, reservation: Reservation, prompt: int, most: int) -> None:
        if reservation.standing is Standing.ADMITTED and self.random.random() < 0.8:
            share.settle(reservation, prompt, self.random.randrange(most + 1))
        else:
            share.cancel(reservation)

    def pick(self, items: list[T]) -> T:
        return items.pop(self.random.randrange(len(items)))


@given(seed=st.integers(0, 10**6), limit=st.integers(50, 500), num_shares=st.integers(2, 4))
def test_no_more_is_spent_than_allowed_whatever_becomes_of_messages(
    seed: int, limit: int, num_shares: int
) -> None:
    run = Run(seed, limit, num_shares)
    for number in range(300):
        run.step(number * 0.3)
        held = sum((one.spent + one.reserved for one in run.shares), Spend())
        assert held.fits(run.ledger.limit)
        assert run.ledger.given.fits(run.ledger.limit)
