"""All limits of one process: its samples in line, its two leases, and the pauses of everybody.

The other side of :mod:`tinker_ray.limits.cluster`, and as pure. The owner tells what becomes of
each sample, asks :meth:`HolderLimits.poll` for the message to send and hands the answer, or what
comes unasked, to :meth:`HolderLimits.apply`. Invariants: nothing is sent during a pause; after it
nothing is sent under a lease that was granted before the ledger knew of it; a sample takes a permit
and a slot together or waits with neither.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from tinker_ray.limits.backoff import Backoff, BackoffNotice, Paused, Throttled
from tinker_ray.limits.lease import Lease
from tinker_ray.limits.queue import FairQueue, Stage, Ticket
from tinker_ray.limits.share import DEFAULT_LABEL, Want
from tinker_ray.limits.statement import Ruling, Statement

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinker_ray.limits.backoff import State

CAUTIOUS = 10
"""Dispatches at once that are always risked before the service has ever said no."""
CAUTIOUS_PART = 20
"""Beyond them, one for so many that it has accepted from this process, or from each on the average:
so few meet the first 429."""
GATHERING_S = 0.5
"""In a pause, so long a process waits for what is under way before it states what it has."""
ANSWERS_S = 0.05
"""It waits so long at least: answers of this time may be of samples that the service had done with
when it said no."""
UNSURE_PART = 50
"""They are left out of what it had, but not more than one in so many."""


class HolderLimits:
    """What one process may send.

    Example::

        ticket = limits.join("train", weight=3.0, est_bytes=4000)
        while ticket := limits.admit(now): ...   # send it; then one of
        limits.accepted(ticket, now)             # its promise is there
        limits.rejected(ticket, now, 2.0)        # 429, Retry-After: it waits again
        limits.finished(ticket)                  # its answer is there, or it failed

        if statement := limits.poll(now):        # after each change, and at limits.wake_at(now)
            limits.apply(await cluster.state(statement), now)
    """

    def __init__(self, holder: str, *, random: Callable[[], float] | None = None) -> None:
        """Start with nothing.

        Args:
            holder: A name that no other process has or had.
            random: Gives numbers in [0, 1), for the ends of pauses; by default unseeded ones.
        """
        self.holder = holder
        self.permits = Lease(holder)
        self.slots = Lease(holder)
        self.backoff = Backoff() if random is None else Backoff(random)
        self.window = 0
        self.num_rejected = 0
        self.num_accepted = 0
        self._borne = 0
        """The samples that the service has accepted from each process, as far as is known here."""
        self._queue = FairQueue()
        self._under_way: Counter[str] = Counter()
        self._dispatched: Counter[str] = Counter()
        self._has_to_tell = False
        self._tell_at = math.inf
        self._tell_from = -math.inf
        self._met_until = -math.inf
        """The end of the pauses that began here."""
        self._held_by_service = 0
        """Samples that the service had when the pause began."""
        self._num_answered = 0
        """Of them, those whose answers came while the process waited to state them."""

    def __repr__(self) -> str:
        """Show the state."""
        return (
            f"HolderLimits({self._queue!r} wait, {self.permits!r} to dispatch, "
            f"{self.slots!r} at work, {self.backoff!r})"
        )

    @property
    def waiting(self) -> int:
        """Samples that wait to be sent."""
        return len(self._queue)

    @property
    def dispatching(self) -> int:
        """Samples that were sent and not accepted yet."""
        return self.permits.in_use

    @property
    def at_work(self) -> int:
        """Samples that were accepted and not answered yet."""
        return self.slots.in_use - self.permits.in_use

    @property
    def fenced(self) -> bool:
        """Whether the ledger holds this process for dead."""
        return self.permits.fenced or self.slots.fenced

    def state(self, now: float) -> State:
        """Tell whether everybody pauses."""
        return self.backoff.state(now)

    def covers(self, now: float) -> bool:
        """Whether a sample that has a permit may be sent, or sent again, at this moment."""
        return not isinstance(self.state(now), Paused) and not self.permits.overdue(now)

    # --- samples --------------------------------------------------------------------------------

    def join(self, label: str = DEFAULT_LABEL, weight: float = 1.0, est_bytes: int = 0) -> Ticket:
        """Let a sample wait to be sent.

        Args:
            label: The kind of traffic.
            weight: Of the label: what it gets of what is scarce, beside other labels.
            est_bytes: The estimated size of the prompt.

        Raises:
            ValueError: The weight is not above 0.
        """
        ticket = Ticket(label, est_bytes)
        self._queue.push(ticket, weight)
        return ticket

    def admit(self, now: float) -> Ticket | None:
        """Take a permit and a slot for the sample whose turn it is; None if it has to wait."""
        if not self._queue or not self._room(now):
            return None
        ticket = self._queue.pop()
        if ticket is None or not self.permits.acquire(now) or not self.slots.acquire(now):
            raise AssertionError(f"room without permits: {self!r}")
        ticket.stage = Stage.DISPATCHED
        self._under_way[ticket.label] += 1
        self._dispatched[ticket.label] += 1
        return ticket

    def accepted(self, ticket: Ticket, now: float) -> None:
        """Take in that the service has accepted a sample.

        Raises:
            ValueError: It was not under way.
        """
        self._expect(ticket, Stage.DISPATCHED)
        ticket.stage = Stage.AT_WORK
        self.num_accepted += 1
        self.backoff.on_accepted(now)
        self._end_dispatch(ticket)

    def rejected(self, ticket: Ticket, now: float, retry_after_s: float | None = None) -> None:
        """Take in a 429: the sample is the first of its label again, and everybody pauses.

        Args:
            ticket: The sample.
            now: The time.
            retry_after_s: What the service asked for, if it did.

        Raises:
            ValueError: It was not under way.
        """
        self.withdrawn(ticket)
        self.num_rejected += 1
        if self.backoff.on_rejected(now, ticket.est_bytes, retry_after_s):
            self._met(now)

    def withdrawn(self, ticket: Ticket) -> None:
        """Take in that a sample was not sent after all: it is the first of its label again.

        Raises:
            ValueError: It was not under way.
        """
        self._expect(ticket, Stage.DISPATCHED)
        self._end_dispatch(ticket)
        self._end_work(ticket)
        self._queue.push_back(ticket)
        self._held_by_service -= 1

    def finished(self, ticket: Ticket) -> None:
        """Take in that a sample is over, wherever it was: answered, failed or not wanted any more.

        Twice is as good as once.
        """
        if ticket.stage is Stage.ENDED:
            return
        if ticket.stage is Stage.WAITING:
            self._queue.remove(ticket)
            return
        if ticket.stage is Stage.DISPATCHED:
            self._end_dispatch(ticket)
        self._end_work(ticket)
        self._num_answered += self._tell_at < math.inf
        ticket.stage = Stage.ENDED

    def suspend(self, now: float, seconds: float) -> None:
        """Pause everybody for another reason than a 429, such as a bill that is not paid.

        Nothing is learnt from it about how much the service can hold.
        """
        if self.backoff.pause(now, seconds):
            self._met(now)

    # --- messages -------------------------------------------------------------------------------

    def poll(self, now: float) -> Statement | None:
        """Return the message to send now, if one is due."""
        gathers = now < self._tell_at < math.inf and (self.dispatching > 0 or now < self._tell_from)
        if self.fenced or (gathers and not self._has_to_tell):
            return None
        waiting = len(self._queue)
        careful = waiting if self.window else self._cautious_width() - self.dispatching
        careful = max(0, min(waiting, careful))
        room = max(self.slots.available(now), self.slots.invited)
        if self.permits.is_ample:  # they will be used when slots come free
            room = max(room, self.slots.capacity(now) - self.permits.in_use)
        slot_wants = self._wants(self._under_way, waiting)
        permit_wants = self._wants(self._dispatched, careful) if self.slots.unlimited else ()
        permits_due = self.permits.is_due(now, min(careful, room), permit_wants)
        slots_due = self.slots.is_due(now, waiting, slot_wants)
        has_to_tell = self._has_to_tell or self._tell_at < math.inf
        if not (permits_due or slots_due or has_to_tell):
            return None
        self._has_to_tell = False
        if not gathers:
            self._tell_at = math.inf
        return Statement(
            self.permits.claim(now, careful, permit_wants),
            self.slots.claim(now, waiting, slot_wants),
            now,
            BackoffNotice(self._met_until - now),
            self._known_at_work(now),
            self.num_rejected,
            self.window,
            self.num_accepted,
        )

    def apply(self, ruling: Ruling, now: float) -> None:
        """Take in an answer, or news that was not asked for."""
        permits, slots = (
            grant is not None and lease.apply(grant, now)
            for lease, grant in ((self.permits, ruling.permits), (self.slots, ruling.slots))
        )
        self._borne = max(self._borne, ruling.num_accepted)
        if permits or slots:
            self.window = ruling.window
            bottleneck = self.permits if self.slots.unlimited else self.slots
            self._queue.divide_by(bottleneck.labels)
        elif not self.window:
            self.window = ruling.window
        if self.backoff.merge(ruling.pause, now):
            self._on_pause(now, permits=not permits, slots=not slots)

    def reconnect(self) -> None:
        """State everything with the next message: the ledger may be a new one."""
        self._has_to_tell = True

    def close(self) -> None:
        """Send nothing any more; what is under way may end, and its permits are given back."""
        self.permits.close()
        self.slots.close()
        self._has_to_tell = self.permits.is_known

    def wake_at(self, now: float) -> float:
        """When to call :meth:`poll` and :meth:`admit` if nothing happens; infinity for never."""
        if self.fenced:
            return math.inf
        if self._has_to_tell:
            return now
        if self._tell_at < math.inf:
            return self._tell_at if self.dispatching else max(now, self._tell_from)
        state = self.state(now)
        resumes_at = state.until if isinstance(state, Paused | Throttled) else math.inf
        if not self._queue:
            resumes_at = math.inf
        return min(self.permits.wake_at(), self.slots.wake_at(), resumes_at)

    # --- inside ---------------------------------------------------------------------------------

    def _room(self, now: float) -> bool:
        state = self.state(now)
        if isinstance(state, Paused):
            return False
        dispatching = self.permits.in_use
        if isinstance(state, Throttled) and dispatching >= state.width:
            return False
        if not self.window and dispatching >= self._cautious_width():
            return False
        return self.permits.available(now) > 0 and self.slots.available(now) > 0

    def _cautious_width(self) -> int:
        return max(CAUTIOUS, self.num_accepted // CAUTIOUS_PART, self._borne // CAUTIOUS_PART)

    def _wants(self, busy: Counter[str], waiting: int) -> list[Want]:
        """What could be used label by label, if so many more of those who wait may be sent."""
        total = len(self._queue)
        wants = []
        for label in self._queue.labels:
            more = self._queue.count(label)
            if waiting < total:
                more = -(-more * waiting // total)
            if count := busy[label] + more:
                wants.append(Want(count, label, self._queue.weight(label)))
        return wants

    def _met(self, now: float) -> None:
        """Pause for a reason that nobody else knows yet."""
        self._has_to_tell = True
        self._met_until = now + self.backoff.notice(now).pause_s
        self._on_pause(now)

    def _on_pause(self, now: float, *, permits: bool = True, slots: bool = True) -> None:
        """Stop, and state what is under way before the pause ends.

        Args:
            now: The time.
            permits: Whether the permits were granted by a ledger that may not know of the pause.
            slots: The same of the slots.
        """
        self._held_by_service, self._num_answered = self.slots.in_use, 0
        if permits:
            self.permits.freeze()
        if slots and self.slots.unlimited:
            self.slots.freeze()
        if self.slots.in_use or self.permits.held(now) or (permits and self._queue):
            self._tell_at, self._tell_from = now + GATHERING_S, now + ANSWERS_S

    def _known_at_work(self, now: float) -> int:
        if not isinstance(self.state(now), Paused):
            return self.at_work
        held = self._held_by_service
        return held - min(self._num_answered, held // UNSURE_PART)

    def _end_dispatch(self, ticket: Ticket) -> None:
        self.permits.release()
        self._dispatched[ticket.label] -= 1

    def _end_work(self, ticket: Ticket) -> None:
        self.slots.release()
        self._under_way[ticket.label] -= 1

    def _expect(self, ticket: Ticket, stage: Stage) -> None:
        if ticket.stage is not stage:
            raise ValueError(f"a sample that is {ticket.stage.value} is not {stage.value}")
