"""Dividing what is scarce: among labels by their weights, and among the holders of a label evenly.

Pure arithmetic. The result is not a list of shares but a :class:`Level` for each label, from which
the share of any holder follows at once, also that of one that asks a moment later. Invariants:
nobody gets more than it wants, nothing is left over while somebody wants more, and the sum is never
above the limit.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True, slots=True)
class Level:
    """How far the wants of one label's holders are met.

    Attributes:
        height: Each holder has what it wants up to this; infinity if all wants are met.
        odd: So many of the holders that want more may have one more.
        exact: The height without rounding, the odd ones spread evenly.
    """

    height: float = math.inf
    odd: int = 0
    exact: float = math.inf

    def share(self, want: int) -> int:
        """The share of a holder that wants so much, the odd ones apart."""
        return want if want <= self.height else int(self.height)


ALL_MET = Level()
NOTHING = Level(0, 0, 0.0)


def exact_parts(
    limit: int, wants: Mapping[str, int], weights: Mapping[str, float]
) -> dict[str, float]:
    """Divide the limit in proportion to weights, giving nobody more than it wants; not rounded.

    Args:
        limit: What there is to divide.
        wants: What each would like.
        weights: Of each, above 0.

    Returns:
        The part of each: all wants if they fit, else whoever wants less than its part gets what it
        wants, and the others divide the rest by their weights.
    """
    parts: dict[str, float] = {}
    left = limit
    unmet = sorted(wants, key=lambda name: wants[name] / weights[name])
    while unmet:
        name = unmet[0]
        if wants[name] * sum(weights[other] for other in unmet) > left * weights[name]:
            break
        parts[name] = wants[name]
        left -= wants[name]
        del unmet[0]
    total = sum(weights[name] for name in unmet)
    return parts | {name: left * weights[name] / total for name in unmet}


def whole_parts(exact: Mapping[str, float]) -> dict[str, int]:
    """Round parts so that their sum stays; odd ones go where most is missing."""
    parts = {name: int(part) for name, part in exact.items()}
    odd = round(sum(exact.values())) - sum(parts.values())
    for name in sorted(parts, key=lambda name: parts[name] - exact[name])[:odd]:
        parts[name] += 1
    return parts


def level(part: int, exact_part: float, wants: Sequence[int]) -> Level:
    """Divide a label's part so that the least served gets most.

    Args:
        part: What there is to divide.
        exact_part: The same, not rounded.
        wants: What each holder would like.
    """
    num_left, left = len(wants), part
    for want in sorted(wants):
        if want > left // num_left:
            exact = max(0.0, left + exact_part - part) / num_left
            return Level(left // num_left, left % num_left, exact)
        left -= want
        num_left -= 1
    return ALL_MET


def levels(
    limit: int, wants: Mapping[str, Sequence[int]], weights: Mapping[str, float]
) -> dict[str, Level]:
    """Divide the limit among labels by weight, then each label's part among its holders evenly.

    Args:
        limit: What there is to divide.
        wants: What the holders of each label would like.
        weights: Of each label, above 0.
    """
    exact = exact_parts(limit, {label: sum(items) for label, items in wants.items()}, weights)
    parts = whole_parts(exact)
    return {label: level(parts[label], exact[label], items) for label, items in wants.items()}
