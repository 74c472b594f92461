"""Any number of samplers, one place that divides the limits, and a service, in simulated time.

Drives the real :class:`ClusterLimits` and :class:`HolderLimits` event by event. Each sampler always
has samples waiting. The process that divides the limits serves one message at a time: ``serve_s``
each, as measured for an actor call, and what the ledgers themselves take.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tests.fakes.permit_service import Service
from tinker_ray.limits import ClusterLimits, HolderLimits, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinker_ray.limits import Ruling, Statement

LISTEN_S = 60.0
"""Each sampler's question for news comes back after so long without any, and costs a message."""


@dataclass(eq=False)
class Sampler:
    """One process."""

    limits: HolderLimits
    labels: Sequence[tuple[str, float]]
    done: Counter[str] = field(default_factory=Counter)
    alive: bool = True
    connected: bool = True
    wake_at: float = float("inf")


class Gauge:
    """A number over time, and its mean."""

    def __init__(self) -> None:
        self.value = 0
        self.most = 0
        self._area = 0.0
        self._since = self._changed_at = 0.0

    def add(self, change: int, now: float) -> None:
        """Change it."""
        self._area += self.value * (now - self._changed_at)
        self._changed_at = now
        self.value += change
        self.most = max(self.most, self.value)

    def mean(self, now: float) -> float:
        """The mean since the last reset."""
        self.add(0, now)
        return self._area / (now - self._since) if now > self._since else float(self.value)

    def reset(self, now: float) -> None:
        """Start anew."""
        self.add(0, now)
        self._area, self._since, self.most = 0.0, now, self.value


class Fleet:
    """The simulation; :meth:`run` it for a while, look, change something, run it on.

    Args:
        num_samplers: Processes.
        service: What they sample from.
        limit: Dispatches at once.
        backlog: Samples that each process keeps waiting or under way.
        labels: Of each process, with weights; in turns, if there are several for one process.
        serve_s: What a message costs the process that divides.
        ledger_s: What the ledgers take for a message; None to measure it.
        latency_s: Of a message, one way.
        seed: Of everything random.
    """

    def __init__(
        self,
        num_samplers: int,
        service: Service,
        *,
        limit: int = 400,
        backlog: int = 50,
        labels: Callable[[int], Sequence[tuple[str, float]]] = lambda _: [("", 1.0)],
        serve_s: float = 0.0009,
        ledger_s: float | None = None,
        latency_s: float = 0.002,
        seed: int = 0,
    ) -> None:
        self.now = 0.0
        self.service = service
        self.dispatching = Gauge()
        self.at_work = Gauge()
        self.messages = 0
        self.busy_s = 0.0
        self.ledger_cpu_s = 0.0
        self.longest_queue_s = 0.0
        self.sent: list[float] | None = None
        self.cluster: ClusterLimits | None = ClusterLimits(limit)
        self._limit = limit
        self._serve_s, self._ledger_s, self._latency_s = serve_s, ledger_s, latency_s
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._free_at = 0.0
        self._cluster_wakes_at = float("inf")
        self.samplers: dict[str, Sampler] = {}
        for index in range(num_samplers):
            limits = HolderLimits(f"holder-{index}", random=self._rng.random)
            sampler = self.samplers[limits.holder] = Sampler(limits, labels(index))
            for number in range(backlog):
                limits.join(*sampler.labels[number % len(sampler.labels)])
            self._at(self._rng.uniform(0.0, 1.0), partial(self._work, sampler))

    @property
    def done(self) -> Counter[str]:
        """Samples answered, by label."""
        return sum((sampler.done for sampler in self.samplers.values()), Counter())

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = end

    def reset(self) -> None:
        """Begin to measure."""
        for gauge in (self.dispatching, self.at_work):
            gauge.reset(self.now)
        self.messages, self.busy_s, self.ledger_cpu_s, self.longest_queue_s = 0, 0.0, 0.0, 0.0
        self.service.num_rejected = self.service.num_accepted = 0
        for sampler in self.samplers.values():
            sampler.done.clear()

    def kill(self, holder: str) -> None:
        """End a process at once; what it had at work goes on at the service."""
        sampler = self.samplers.pop(holder)
        sampler.alive = False
        self.dispatching.add(-sampler.limits.dispatching, self.now)

    def restart_cluster(self) -> None:
        """Replace what divides by one that knows nothing."""
        self.cluster = ClusterLimits(self._limit, restarted_at=self.now)
        for sampler in self.samplers.values():
            sampler.limits.reconnect()
            self._work(sampler)

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), event))

    # --- a sampler ------------------------------------------------------------------------------

    def _work(self, sampler: Sampler) -> None:
        """Send what may be sent, and the message that is due."""
        if not sampler.alive:
            return
        limits = sampler.limits
        while (ticket := limits.admit(self.now)) is not None:
            self.dispatching.add(1, self.now)
            if self.sent is not None:
                self.sent.append(self.now)
            arrives_at = self.now + self.service.draw_post_s()
            self._at(arrives_at, partial(self._arrived, sampler, ticket))
        statement = limits.poll(self.now)
        if statement is not None and sampler.connected:
            self._at(self.now + self._latency_s, partial(self._reached, statement))
        wake_at = limits.wake_at(self.now)
        if wake_at < sampler.wake_at:
            sampler.wake_at = wake_at
            self._at(wake_at, partial(self._wake, sampler, wake_at))

    def _wake(self, sampler: Sampler, planned: float) -> None:
        if sampler.wake_at == planned:
            sampler.wake_at = float("inf")
            self._work(sampler)

    def _arrived(self, sampler: Sampler, ticket: Ticket) -> None:
        is_accepted = self.service.arrive(self.now)
        if is_accepted:
            self.at_work.add(1, self.now)
            ends_at = self.now + self.service.draw_sample_s()
            self._at(ends_at, partial(self._answered, sampler, ticket))
        back_at = self.now + self.service.draw_post_s()
        self._at(back_at, partial(self._posted, sampler, ticket, is_accepted=is_accepted))

    def _posted(self, sampler: Sampler, ticket: Ticket, *, is_accepted: bool) -> None:
        if not sampler.alive or ticket.stage.value != "dispatched":
            return
        self.dispatching.add(-1, self.now)
        if is_accepted:
            sampler.limits.accepted(ticket, self.now)
        else:
            sampler.limits.rejected(ticket, self.now)
        self._work(sampler)

    def _answered(self, sampler: Sampler, ticket: Ticket) -> None:
        self.service.leave()
        self.at_work.add(-1, self.now)
        if not sampler.alive:
            return
        if ticket.stage.value == "dispatched":
            self.dispatching.add(-1, self.now)
        sampler.limits.finished(ticket)
        sampler.done[ticket.label] += 1
        weights = dict(sampler.labels)
        sampler.limits.join(ticket.label, weights[ticket.label])
        self._work(sampler)

    # --- the process that divides ---------------------------------------------------------------

    def _reached(self, statement: Statement) -> None:
        """Serve a message when those before it are served."""
        starts_at = max(self.now, self._free_at)
        self.longest_queue_s = max(self.longest_queue_s, starts_at - self.now)
        self._occupy(self._serve_s)
        self.messages += 1
        self._at(self._free_at, partial(self._serve, statement))

    def _serve(self, statement: Statement) -> None:
        if self.cluster is None:
            return
        started = time.process_time()
        ruling = self.cluster.state(statement, self.now)
        notices = self.cluster.notices(self.now)
        self._spent(started)
        self._send(ruling)
        self._tell(notices)

    def _tell(self, notices: list[Ruling]) -> None:
        for notice in notices:
            self.messages += 1
            self._occupy(self._serve_s)
            self._at(self._free_at, partial(self._send, notice))
        if self.cluster is not None and self.cluster.wake_at < self._cluster_wakes_at:
            self._cluster_wakes_at = max(self.cluster.wake_at, self.now + 0.001)
            self._at(self._cluster_wakes_at, partial(self._wake_cluster, self._cluster_wakes_at))

    def _wake_cluster(self, planned: float) -> None:
        if self._cluster_wakes_at != planned or self.cluster is None:
            return
        self._cluster_wakes_at = float("inf")
        started = time.process_time()
        notices = self.cluster.notices(self.now)
        self._spent(started)
        self._tell(notices)

    def _spent(self, started: float) -> None:
        spent_s = time.process_time() - started if self._ledger_s is None else self._ledger_s
        self.ledger_cpu_s += spent_s
        self._occupy(spent_s)

    def _occupy(self, seconds: float) -> None:
        self._free_at = max(self.now, self._free_at) + seconds
        self.busy_s += seconds

    def _send(self, ruling: Ruling) -> None:
        self._at(self.now + self._latency_s, partial(self._told, ruling))

    def _told(self, ruling: Ruling) -> None:
        sampler = self.samplers.get(ruling.holder)
        if sampler is not None and sampler.connected:
            sampler.limits.apply(ruling, self.now)
            self._work(sampler)
