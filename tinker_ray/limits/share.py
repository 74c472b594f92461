"""Dividing what is scarce: among labels by their weights, and among the holders of a label evenly.

Pure arithmetic. Invariants: nobody gets more than it wants, nothing is left over while somebody
wants more, and the sum is never above the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_LABEL = ""


@dataclass(frozen=True, slots=True)
class Want:
    """What a holder would like for one kind of traffic.

    Attributes:
        count: How many.
        label: The kind, such as ``train`` or ``eval``.
        weight: Of the label; a label of weight 3 gets three times what one of weight 1 gets while
            both want more.
    """

    count: int
    label: str = DEFAULT_LABEL
    weight: float = 1.0


def max_min_shares(limit: int, wants: Mapping[str, int]) -> dict[str, int]:
    """Divide the limit so that nobody gets more than it wants, and the least served most.

    Args:
        limit: What there is to divide.
        wants: What each would like, at least 1.

    Returns:
        The share of each. All wants are met if they fit. Otherwise whoever wants less than an equal
        share gets what it wants, and the others divide the rest equally; the odd ones go to the
        first of them, so that shares stay as they are while wants vary.
    """
    shares: dict[str, int] = {}
    left = limit
    for holder in sorted(wants, key=wants.__getitem__):
        if wants[holder] > left // (len(wants) - len(shares)):
            break
        shares[holder] = wants[holder]
        left -= wants[holder]
    unmet = [holder for holder in wants if holder not in shares]
    for index, holder in enumerate(unmet):
        shares[holder] = left // len(unmet) + (index < left % len(unmet))
    return shares


def weighted_shares(
    limit: int, wants: Mapping[str, int], weights: Mapping[str, float]
) -> dict[str, int]:
    """Divide the limit in proportion to weights, giving nobody more than it wants.

    Args:
        limit: What there is to divide.
        wants: What each would like.
        weights: Of each, above 0.

    Returns:
        The share of each: all wants if they fit, else whoever wants less than its part gets what it
        wants, and the others divide the rest by their weights; odd ones go where most is missing.
    """
    shares: dict[str, int] = {}
    left = limit
    unmet = sorted(wants, key=lambda name: wants[name] / weights[name])
    while unmet and wants[unmet[0]] * sum(weights[name] for name in unmet) <= (
        left * weights[unmet[0]]
    ):
        name = unmet.pop(0)
        shares[name] = wants[name]
        left -= wants[name]
    total = sum(weights[name] for name in unmet)
    exact = {name: left * weights[name] / total for name in unmet}
    shares |= {name: int(exact[name]) for name in unmet}
    odd = left - sum(shares[name] for name in unmet)
    for name in sorted(unmet, key=lambda name: shares[name] - exact[name])[:odd]:
        shares[name] += 1
    return shares


def fair_shares(limit: int, wants: Mapping[str, Sequence[Want]]) -> dict[str, int]:
    """Divide the limit among labels by weight, then each label's part among its holders evenly.

    Args:
        limit: What there is to divide.
        wants: What each holder would like, label by label. A label that comes with several weights
            has the largest.

    Returns:
        The sum of the shares of each holder; 0 for one that wants nothing.
    """
    shares = dict.fromkeys(wants, 0)
    weights: dict[str, float] = {}
    by_label: dict[str, dict[str, int]] = {}
    for holder, items in wants.items():
        for want in items:
            if want.count > 0:
                weights[want.label] = max(weights.get(want.label, 0.0), want.weight)
                holders = by_label.setdefault(want.label, {})
                holders[holder] = holders.get(holder, 0) + want.count
    totals = {label: sum(holders.values()) for label, holders in by_label.items()}
    for label, part in weighted_shares(limit, totals, weights).items():
        for holder, share in max_min_shares(part, by_label[label]).items():
            shares[holder] += share
    return shares
