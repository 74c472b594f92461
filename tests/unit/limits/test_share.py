"""Shares by weight and by holder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.limits import Claim, Lease, PermitLedger, Want
from tinker_ray.limits.share import fair_shares, weighted_shares


def test_labels_that_both_want_more_divide_by_weight() -> None:
    assert weighted_shares(400, {"train": 900, "eval": 900}, {"train": 3, "eval": 1}) == {
        "train": 300,
        "eval": 100,
    }


def test_what_one_label_does_not_want_goes_to_the_other() -> None:
    assert weighted_shares(400, {"train": 900, "eval": 30}, {"train": 3, "eval": 1}) == {
        "train": 370,
        "eval": 30,
    }


def test_a_label_is_divided_among_its_holders() -> None:
    wants = {
        "a": [Want(500, "train", 3.0)],
        "b": [Want(500, "train", 3.0), Want(500, "eval", 1.0)],
        "c": [],
    }
    assert fair_shares(400, wants) == {"a": 150, "b": 250, "c": 0}


@given(
    limit=st.integers(0, 500),
    labels=st.lists(st.tuples(st.integers(0, 300), st.floats(0.01, 100)), min_size=1, max_size=8),
)
def test_weighted_shares_waste_nothing_and_favour_nobody(
    limit: int, labels: list[tuple[int, float]]
) -> None:
    wants = {str(index): want for index, (want, _) in enumerate(labels)}
    weights = {str(index): weight for index, (_, weight) in enumerate(labels)}

    shares = weighted_shares(limit, wants, weights)

    assert sum(shares.values()) == min(limit, sum(wants.values()))
    assert all(0 <= shares[name] <= wants[name] for name in wants)
    for name, want in wants.items():
        if shares[name] == want:
            continue
        level = (shares[name] + 1) / weights[name]  # an odd one may have gone elsewhere
        richer = [
            other
            for other, share in shares.items()
            if share and (share - 1) / weights[other] > level + 1e-6
        ]
        assert richer == [], shares


@given(
    limit=st.integers(1, 400),
    holders=st.lists(
        st.lists(
            st.builds(Want, st.integers(0, 200), st.sampled_from(["train", "eval", "probe"])),
            max_size=4,
        ),
        min_size=1,
        max_size=10,
    ),
)
def test_fair_shares_never_exceed_the_limit_or_a_want(
    limit: int, holders: list[list[Want]]
) -> None:
    wants = {str(index): items for index, items in enumerate(holders)}

    shares = fair_shares(limit, wants)

    total = sum(want.count for items in holders for want in items)
    assert sum(shares.values()) == min(limit, total)
    for holder, items in wants.items():
        assert 0 <= shares[holder] <= sum(want.count for want in items)


def test_a_ledger_divides_scarce_permits_by_label() -> None:
    ledger = PermitLedger(400)
    train, evaluation = Lease("train"), Lease("eval")
    for _ in range(3):
        for lease, weight in ((train, 3.0), (evaluation, 1.0)):
            claim = lease.poll(0.0, 1000, [Want(1000, lease.holder, weight)])
            if claim is not None:
                lease.apply(ledger.claim(claim, 0.0), 0.0)
        for grant in ledger.notices(0.0):
            (train if grant.holder == "train" else evaluation).apply(grant, 0.0)
    assert ledger.holders == {"train": 300, "eval": 100}


def test_what_is_rounded_up_to_a_block_is_wanted_for_the_largest_label() -> None:
    claim = Lease("a", block=8).poll(0.0, 9, [Want(6, "train"), Want(3, "eval")])
    assert claim == Claim("a", 1, 0, 0, 0, 16, (Want(13, "train"), Want(3, "eval")))
