"""Makes the training data of far groups where they are sent from.

Knows nothing of Ray. Invariant: each group of a part is fetched once, and what is lost is left out
and told.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinker_ray.core.operation import packed_data
from tinker_ray.rollouts import RolloutFailedError
from tinker_ray.rollouts.far_datum import AnyDatum, FarDatum, assembled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinker_ray.rollouts.packing import PackedGroup
    from tinker_ray.types import Datum

SMALL_BYTES = 16384
"""Tokens of groups that are made on the event loop, in less time than a thread would take."""


@dataclass(frozen=True, slots=True)
class MadeData:
    """What was made of a part of a batch.

    Attributes:
        data: In order.
        packed: The same, encoded if that is possible.
        lost: The places of the groups whose trajectories are lost; their data are left out.
    """

    data: list[Datum]
    packed: Sequence[Datum]
    lost: frozenset[int] = frozenset()


async def make(items: Sequence[AnyDatum]) -> MadeData:
    """Fetch what is far, and make the data; in a thread if that takes a while."""
    groups = {item.group: item.reference for item in items if isinstance(item, FarDatum)}
    outcomes = await asyncio.gather(
        *(reference.fetch_async() for reference in groups.values()), return_exceptions=True
    )
    fetched: dict[int, PackedGroup] = {}
    for group, outcome in zip(groups, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            fetched[group] = outcome
        elif not isinstance(outcome, RolloutFailedError):
            raise outcome
    lost = frozenset(groups.keys() - fetched.keys())
    if sum(group.tokens.nbytes for group in fetched.values()) <= SMALL_BYTES:
        return _made(items, fetched, lost)
    return await asyncio.to_thread(_made, items, fetched, lost)


def _made(
    items: Sequence[AnyDatum], fetched: Mapping[int, PackedGroup], lost: frozenset[int]
) -> MadeData:
    data = assembled(items, fetched)
    return MadeData(data, packed_data(data), lost)
