"""Shares by weight and by holder."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.limits import Claim, Lease, PermitLedger, Want
from tinker_ray.limits.share import Level, exact_parts, level, levels, whole_parts


def _parts(limit: int, wants: dict[str, int], weights: dict[str, float]) -> dict[str, int]:
    return whole_parts(exact_parts(limit, wants, weights))


def _poured(part: int, wants: list[int]) -> list[int]:
    """Shares by pouring one unit after the other: slow and plain."""
    shares = [0] * len(wants)
    for _ in range(min(part, sum(wants))):
        least = min(
            (index for index in range(len(wants)) if shares[index] < wants[index]),
            key=shares.__getitem__,
        )
        shares[least] += 1
    return shares


def test_labels_that_both_want_more_divide_by_weight() -> None:
    parts = _parts(400, {"train": 900, "eval": 900}, {"train": 3, "eval": 1})
    assert parts == {"train": 300, "eval": 100}


def test_what_one_label_does_not_want_goes_to_the_other() -> None:
    parts = _parts(400, {"train": 900, "eval": 30}, {"train": 3, "eval": 1})
    assert parts == {"train": 370, "eval": 30}


def test_a_label_is_divided_among_its_holders() -> None:
    found = levels(400, {"train": [500, 500, 20], "eval": [500]}, {"train": 3.0, "eval": 1.0})
    assert found == {"train": Level(140, 0, 140.0), "eval": Level(100, 0, 100.0)}


def test_what_cannot_be_divided_is_odd() -> None:
    assert level(400, 400.0, [8] * 1000) == Level(0, 400, 0.4)
    assert level(400, 400.0, [1] * 100 + [8] * 100) == Level(3, 0, 3.0)
    assert level(10, 10.0, [8, 8, 8, 1]) == Level(3, 0, 3.0)


def test_a_level_without_rounding_keeps_the_weights() -> None:
    found = levels(10, {"train": [50], "eval": [50]}, {"train": 3.0, "eval": 1.0})
    assert (found["train"].exact, found["eval"].exact) == (7.5, 2.5)


@given(part=st.integers(0, 300), wants=st.lists(st.integers(1, 60), max_size=12))
def test_levels_agree_with_pouring(part: int, wants: list[int]) -> None:
    found = level(part, float(part), wants)
    shares = [found.share(want) for want in wants]
    unmet = [index for index, want in enumerate(wants) if want > found.height]
    for index in unmet[: found.odd]:
        shares[index] += 1
    assert sorted(_poured(part, wants)) == sorted(shares)
    assert found.odd < max(1, len(unmet))


@given(
    limit=st.integers(0, 500),
    labels=st.lists(st.tuples(st.integers(0, 300), st.floats(0.01, 100)), min_size=1, max_size=8),
)
def test_weighted_parts_waste_nothing_and_favour_nobody(
    limit: int, labels: list[tuple[int, float]]
) -> None:
    wants = {str(index): want for index, (want, _) in enumerate(labels)}
    weights = {str(index): weight for index, (_, weight) in enumerate(labels)}

    parts = _parts(limit, wants, weights)

    assert sum(parts.values()) == min(limit, sum(wants.values()))
    assert all(0 <= parts[name] <= wants[name] for name in wants)
    for name, want in wants.items():
        if parts[name] == want:
            continue
        height = (parts[name] + 1) / weights[name]  # an odd one may have gone elsewhere
        richer = [
            other
            for other, part in parts.items()
            if part and (part - 1) / weights[other] > height + 1e-6
        ]
        assert richer == [], parts


@given(
    limit=st.integers(1, 400),
    wants=st.dictionaries(
        st.sampled_from(["train", "eval", "probe"]),
        st.lists(st.integers(1, 200), min_size=1, max_size=10),
        min_size=1,
    ),
)
def test_levels_never_exceed_the_limit_and_waste_nothing(
    limit: int, wants: dict[str, list[int]]
) -> None:
    found = levels(limit, wants, dict.fromkeys(wants, 1.0))
    given_away = sum(
        one.odd + sum(one.share(want) for want in wants[label]) for label, one in found.items()
    )
    assert given_away == min(limit, sum(map(sum, wants.values())))
    for label, one in found.items():
        total = sum(min(want, one.exact) for want in wants[label])
        assert total <= limit + 1e-6
        assert math.isinf(one.exact) or one.height <= one.exact + 1


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
