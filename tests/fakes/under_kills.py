"""Samples at saturation on a real cluster while actors are killed, and what the service saw."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.fakes.cluster_session import (
    OPTIONS,
    all_samplers_up,
    cluster_session,
    expected_tokens,
    kill,
    tokens,
)
from tests.fakes.toy_service import ToyService

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from tests.fakes.cluster_session import ClusterSession

LOOK_S = 0.05


@dataclass
class UnderKills:
    """What was seen.

    Attributes:
        permits: The limit.
        most_dispatches: The most sampling requests that the service had to accept at once.
        looks: Seconds since the start, and how many it had then.
        kills: Seconds since the start, and what was killed then.
        wrong: Samples whose answer was not what their seed gives.
    """

    permits: int
    most_dispatches: int = 0
    looks: list[tuple[float, int]] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)
    wrong: int = 0

    def use(self, start_s: float, end_s: float) -> float:
        """The part of the permits that was in use between two moments."""
        counts = [count for at, count in self.looks if start_s <= at < end_s]
        return sum(counts) / max(len(counts), 1) / self.permits


async def run_under_kills(
    *,
    permits: int,
    samplers: int,
    samples: int,
    kinds: Sequence[str],
    random: Random,
    dispatch_s: float = 0.1,
    at: Sequence[float] | None = None,
) -> UnderKills:
    """Ask for everything at once, and kill actors of the given kinds at moments of the work.

    The moments are random unless they are given, as parts of the work.
    """
    toy = ToyService(dispatch_s=dispatch_s)
    options = replace(OPTIONS, permits=permits, min_samplers=samplers, max_samplers=samplers)
    seen = UnderKills(permits)
    moments = sorted(random.sample(range(samples // 10, samples * 3 // 4), len(kinds)))
    if at is not None:
        moments = [int(part * samples) for part in at]
    print(f"kill {list(zip(moments, kinds, strict=True))} of {samples}")  # noqa: T201 - the story
    async with cluster_session(toy, options) as session:
        await all_samplers_up(session)
        start = time.monotonic()
        work = [
            asyncio.ensure_future(session.runtime.sampling.sample(session.request(number)))
            for number in range(samples)
        ]
        looking = asyncio.ensure_future(_look(toy, seen, start))
        for moment, kind in zip(moments, kinds, strict=True):
            while len(toy.sampled) < moment:  # noqa: ASYNC110 - the progress is other processes'
                await asyncio.sleep(LOOK_S)
            await _strike(session, kind, random)
            seen.kills.append((time.monotonic() - start, kind))
        answers = await asyncio.gather(*work)
        looking.cancel()
    seen.most_dispatches = toy.most_dispatches
    seen.wrong = sum(
        expected_tokens(number) != tokens(answer) for number, answer in enumerate(answers)
    )
    return seen


async def _strike(session: ClusterSession, kind: str, random: Random) -> None:
    if kind == "session":
        await kill(session.runtime.session.remote)
    else:
        await kill(random.choice(list(session.runtime.sampling.samplers.values())).remote)


async def _look(toy: ToyService, seen: UnderKills, start: float) -> None:
    while True:
        seen.looks.append((time.monotonic() - start, toy.dispatches))
        await asyncio.sleep(LOOK_S)
