"""How many samplers a pool has, and where: pure; the time comes with the events.

In use, a pool has a sampler on each node, and more when there is more to do than they carry well;
unused for a while it shrinks to its least. It grows at once for a node that joined, and for a load
that has lasted. Invariants: never fewer than the least are kept or started, never more than the
most take samples, and one that is ended before it was asked to drain was lost, or never came.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

SHUN_S = 60.0
"""How long a node on which a sampler did not come up is given no other."""
LONGEST_PAUSE_S = 30.0
"""Between two starts, when one after the other fails."""


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """What holds for the size of a pool.

    Attributes:
        least: Samplers that are always there.
        most: Samplers that take samples at once.
        carries: Samples, waiting or in flight, that one of them carries well.
        idle_s: How long fewer would have done before some are drained.
        grow_s: How long there is too much to do before more are started.
        start_s: How long one may take to come up before it is tried elsewhere.
    """

    least: int = 1
    most: int = 8
    carries: int = 5000
    idle_s: float = 60.0
    grow_s: float = 0.5
    start_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start a sampler of a number that was never used, on a node or, for None, on any."""

    number: int
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    """Give a sampler nothing more, and report it as empty when it has nothing left."""

    number: int


@dataclass(frozen=True, slots=True)
class End:
    """End a sampler's process, whatever it does."""

    number: int


Command: TypeAlias = Start | Drain | End


@dataclass(slots=True)
class _Sampler:
    node: str | None
    started_at: float
    is_ready: bool = False
    is_draining: bool = False
    load: int = 0


class PoolSize:
    """Decides when samplers are started, drained and ended.

    Args:
        bounds: What holds.
        now: The time of opening, in seconds.
        home: The node that is preferred.
    """

    def __init__(self, bounds: PoolBounds, now: float, home: str = "") -> None:
        self._bounds = bounds
        self._home = home
        self._nodes: dict[str, int] = {}
        self._samplers: dict[int, _Sampler] = {}
        self._waiting = 0
        self._next_number = 0
        self._shunned: dict[str, float] = {}
        self._failures = 0
        self._not_before = now
        self._used_at = now
        self._short_since: float | None = None
        self._spare_since: float | None = None
        self._peak = 0

    def __repr__(self) -> str:
        """Show how many there are."""
        ready = sum(sampler.is_ready for sampler in self._samplers.values())
        return f"PoolSize({len(self._samplers)} samplers, {ready} ready)"

    @property
    def num_starting(self) -> int:
        """Samplers that have not come up yet."""
        return sum(not s.is_ready and not s.is_draining for s in self._samplers.values())

    @property
    def has_failed_everywhere(self) -> bool:
        """Whether, since one came up last, as many did not as there are nodes."""
        return self._failures >= max(len(self._nodes), 1)

    @property
    def may_grow(self) -> bool:
        """Whether further samplers are on their way, or would be started for more to do."""
        return not self._failures and (self.num_starting > 0 or len(self._present()) < self._room())

    def on_nodes(self, nodes: Mapping[str, float], now: float) -> list[Command]:
        """Take in which nodes there are, and their logical CPUs; those without run no sampler.

        Returns:
            What becomes of samplers whose node is gone.
        """
        gone = set(self._nodes) - set(nodes)
        self._nodes = {name: max(int(cpus), 1) for name, cpus in nodes.items() if cpus > 0}
        lost = [number for number, s in self._samplers.items() if s.node in gone]
        for number in lost:
            del self._samplers[number]
        self._shunned = {node: until for node, until in self._shunned.items() if until > now}
        return [End(number) for number in lost]

    def on_ready(self, number: int, node: str) -> None:
        """Note that a sampler came up."""
        sampler = self._samplers.get(number)
        if sampler is not None:
            sampler.is_ready, sampler.node = True, node
            self._failures = 0

    def on_load(self, number: int, load: int) -> None:
        """Note how many samples a sampler has, waiting or in flight, whoever asked for them."""
        sampler = self._samplers.get(number)
        if sampler is not None:
            sampler.load = load

    def on_waiting(self, count: int) -> None:
        """Note how many samples have no sampler yet."""
        self._waiting = count

    def on_lost(self, number: int, now: float) -> None:
        """Note that a sampler is gone for good, or could not be started where it was to be."""
        sampler = self._samplers.pop(number, None)
        if sampler is None or sampler.is_ready:
            return
        self._failed(sampler, now)

    def on_empty(self, number: int) -> list[Command]:
        """Note that a sampler that drains has nothing left."""
        sampler = self._samplers.get(number)
        if sampler is None or not sampler.is_draining:
            return []
        del self._samplers[number]
        return [End(number)]

    def decide(self, now: float) -> list[Command]:
        """Say what is to be done now; to be asked again about every second."""
        commands: list[Command] = [*self._given_up(now)]
        present = self._present()
        if self._demand():
            self._used_at = now
        wanted = self._wanted(now)
        if wanted > len(present):
            self._spare_since = None
            commands += self._grow(wanted, now)
        else:
            self._short_since = None
            commands += self._shrink(wanted, now)
        return commands

    def _present(self) -> dict[int, _Sampler]:
        return {number: s for number, s in self._samplers.items() if not s.is_draining}

    def _demand(self) -> int:
        return self._waiting + sum(s.load for s in self._samplers.values())

    def _base(self, now: float) -> int:
        """How many there are to be, however little there is to do."""
        bounds = self._bounds
        in_use = now - self._used_at < bounds.idle_s
        return max(bounds.least, min(bounds.most, len(self._nodes)) if in_use else 0)

    def _wanted(self, now: float) -> int:
        bounds = self._bounds
        needed = math.ceil(self._demand() / bounds.carries)
        return max(self._base(now), min(self._room(), needed))

    def _room(self) -> int:
        """How many there are to be, however much there is to do."""
        return max(self._bounds.least, min(self._bounds.most, sum(self._nodes.values())))

    def _grow(self, wanted: int, now: float) -> list[Command]:
        base = self._base(now)
        if wanted <= base:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        if self._short_since is not None and now - self._short_since < self._bounds.grow_s:
            wanted = base
        if now < self._not_before:
            return []
        commands: list[Command] = []
        for _ in range(wanted - len(self._present())):
            node = self._place()
            self._samplers[self._next_number] = _Sampler(node, now)
            commands.append(Start(self._next_number, node))
            self._next_number += 1
        return commands

    def _place(self) -> str | None:
        """Choose a node: the one with the fewest samplers. None leaves it to Ray."""
        if len(self._nodes) < 2:  # noqa: PLR2004 - no choice
            return None
        taken = Counter(s.node for s in self._present().values())
        free = [
            (taken[node], node != self._home, node)
            for node, room in self._nodes.items()
            if taken[node] < room and node not in self._shunned
        ]
        return min(free)[2] if free else None

    def _shrink(self, wanted: int, now: float) -> list[Command]:
        present = self._present()
        if wanted == len(present):
            self._spare_since = None
            return []
        if self._spare_since is None:
            self._spare_since, self._peak = now, wanted
        self._peak = max(self._peak, wanted)
        if now - self._spare_since < self._bounds.idle_s:
            return []
        self._spare_since = None
        crowd = Counter(s.node for s in present.values())
        drained: list[Command] = []
        for _ in range(len(present) - self._peak):
            number = max(present, key=lambda n: (crowd[present[n].node], -present[n].load, n))
            sampler = present.pop(number)
            crowd[sampler.node] -= 1
            sampler.is_draining = True
            drained.append(Drain(number))
        return drained

    def _given_up(self, now: float) -> list[Command]:
        """Samplers that do not come up, where there is another node or enough others."""
        enough = sum(s.is_ready for s in self._present().values()) >= self._bounds.least
        late = [
            number
            for number, s in self._samplers.items()
            if (s.node is not None or enough)
            and not s.is_ready
            and not s.is_draining
            and now - s.started_at >= self._bounds.start_s
        ]
        for number in late:
            self._failed(self._samplers.pop(number), now)
        return [End(number) for number in late]

    def _failed(self, sampler: _Sampler, now: float) -> None:
        if sampler.node is not None:
            self._shunned[sampler.node] = now + SHUN_S
        self._not_before = now + min(0.5 * 2.0**self._failures, LONGEST_PAUSE_S)
        self._failures += 1
