"""One order for the operations of a model that several copies of its client work on.

Each copy numbers its own operations; here they get the numbers of the service, in the order of
their arrival, every copy's own in the order of its calls. Knows nothing of Ray or of what the
operations are. Invariants:

- a number of the service is written down before anything is sent under it, so that an operation
  that comes again after a restart gets the same one, and is applied once;
- numbers are given to operations that are there, so that a copy that dies leaves no gap; one that
  was written down and whose copy does not come again after a restart is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tinker_ray.core.turnstile import Turnstile
from tinker_ray.errors import StaleHandleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.journal import Record
    from tinker_ray.transport.clock import Clock

logger = logging.getLogger(__name__)

HAND_OVER_S = 60.0
"""How long a copy's first operation waits for the owner to hand the order over."""
RETURN_S = 60.0
"""How long to wait for an operation that has a place: the rest of a batch, or, after a restart,
what was under way."""
ANSWERED_S = 5.0
"""After so long, the answer of a finished operation has arrived: a restart need not know it."""
KEEP_S = 600.0
"""How long the place of a finished operation is kept for a copy that does not acknowledge it."""

Key: TypeAlias = tuple[str, int]
"""A copy and its own number."""


@dataclass(slots=True)
class _Place:
    """An operation's place among all.

    Attributes:
        seq: The number of the service.
        done_at: When it ended; infinite before.
        absent_since: Since when it has been waited for; infinite if it is here.
    """

    seq: int
    done_at: float = math.inf
    absent_since: float = math.inf


class SharedOrder:
    """Gives numbers. Belongs to the event loop that uses it.

    Args:
        record: Where the state is written down.
        clock: Time.
        on_floor: Called when the floor may have risen without a call.
    """

    def __init__(self, record: Record, clock: Clock, on_floor: Callable[[], None]) -> None:
        self._record = record
        self._clock = clock
        self._on_floor = on_floor
        self._next = 0
        self._first = 0
        self._direct_floor = 0
        self._places: dict[Key, _Place] = {}
        self._turnstiles: dict[str, Turnstile] = {}
        self._shared = asyncio.Event()
        self._loading = asyncio.Lock()
        self._loaded = False
        self._giving_up: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show what comes next and what is open."""
        places = {f"{copy}/{own}": place.seq for (copy, own), place in self._places.items()}
        return f"SharedOrder(next={self._next}, places={places})"

    @property
    def is_shared(self) -> bool:
        """Whether the owner has handed the order over."""
        return self._shared.is_set()

    @property
    def floor(self) -> int:
        """No number of the service below it will come, or come again."""
        lowest = min((place.seq for place in self._places.values()), default=self._next)
        return min(lowest, self._direct_floor) if self._direct_floor < self._first else lowest

    async def share(self, first: int, direct_floor: int) -> None:
        """Take the order over from the owner; idempotent.

        Args:
            first: The first number that is given here; the owner gave those below it.
            direct_floor: No number below it will come from the owner.

        Raises:
            OSError: It could not be written down.
        """
        await self._load()
        if not self.is_shared:
            self._first = self._next = first
        self.owner_is_at(direct_floor)
        await self._record.store(self._encode)
        self._shared.set()

    def owner_is_at(self, direct_floor: int) -> None:
        """Note that none of the numbers below will come from the owner."""
        self._direct_floor = max(self._direct_floor, min(direct_floor, self._first))

    async def admit(self, copy: str, number: int, floor: int, unit: range) -> int:
        """Give an operation its place when its copy's turn is there, or the place that it has.

        One call at a time for each operation, and not cancelled: whoever has a place must use it.

        Args:
            copy: Whose operation it is.
            number: The copy's own.
            floor: The copy needs none of its operations below it any more.
            unit: The copy's own numbers whose places must follow each other without a gap, such as
                the parts of one batch; the others come at once.

        Raises:
            StaleHandleError: The owner did not hand the order over, or the operation came so late
                that its place was given up.
            OSError: The place could not be written down.
        """
        await self._wait_until_shared()
        self._forget(copy, floor)
        turnstile = self._turnstiles.setdefault(copy, Turnstile(floor))
        turnstile.advance_to(floor)
        place = self._places.get((copy, number))
        if number < turnstile.next_number:
            if place is None:
                raise StaleHandleError(f"operation {number} of {copy} came too late")
            return place.seq
        async with turnstile.turn(number):
            if (copy, number) not in self._places:
                self._reserve(copy, [own for own in unit if own >= number])
                await self._record.store(self._encode)
            place = self._places[copy, number]
            place.absent_since = math.inf
        return place.seq

    def done(self, copy: str, number: int) -> None:
        """Note that an operation ended and its answer was given."""
        place = self._places.get((copy, number))
        if place is not None:
            place.done_at = self._clock.now()
            if self._tidying is None or self._tidying.done():
                self._tidying = asyncio.create_task(self._tidy())

    async def aclose(self) -> None:
        """Stop waiting, and forget what was written down; idempotent."""
        tasks = [task for task in (self._giving_up, self._tidying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.is_shared:
            await self._record.drop()

    def _reserve(self, copy: str, numbers: list[int]) -> None:
        """Give places that follow each other; all are absent until they are claimed."""
        now = self._clock.now()
        for number in numbers:
            self._places[copy, number] = _Place(self._next, absent_since=now)
            self._next += 1
        if len(numbers) > 1:
            self._watch_absent()

    def _watch_absent(self) -> None:
        if self._giving_up is None or self._giving_up.done():
            self._giving_up = asyncio.create_task(self._give_up())

    async def _wait_until_shared(self) -> None:
        await self._load()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self._shared.wait()
        except TimeoutError:
            message = "the training client's owner did not hand its order over: it is probably gone"
            raise StaleHandleError(message) from None

    def _forget(self, copy: str, floor: int) -> None:
        """Drop the places that nobody asks for again."""
        now = self._clock.now()
        self._places = {
            (owner, number): place
            for (owner, number), place in self._places.items()
            if not (owner == copy and number < floor) and place.done_at + KEEP_S > now
        }

    async def _load(self) -> None:
        async with self._loading:
            if self._loaded:
                return
            kept = await self._record.load()
            if kept is not None:
                self._decode(json.loads(kept))
                self._shared.set()
                self._watch_absent()
            self._loaded = True

    async def _give_up(self) -> None:
        """Give up the places of operations that do not come."""
        while absent := [place for place in self._places.values() if place.absent_since < math.inf]:
            now = self._clock.now()
            until = min(place.absent_since for place in absent) + RETURN_S
            if now < until:
                await self._clock.sleep(until - now)
                continue
            for key, place in list(self._places.items()):
                if place.absent_since + RETURN_S <= now:
                    logger.warning("operation %d of %s did not come: given up", key[1], key[0])
                    del self._places[key]
            self._on_floor()

    async def _tidy(self) -> None:
        """Write down without the operations whose answers have long arrived."""
        await self._clock.sleep(ANSWERED_S)
        with contextlib.suppress(OSError):
            await self._record.store(self._encode)

    def _encode(self) -> bytes:
        since = self._clock.now() - ANSWERED_S
        state = {
            "next": self._next,
            "first": self._first,
            "direct_floor": self._direct_floor,
            "places": [
                [copy, own, place.seq]
                for (copy, own), place in self._places.items()
                if place.done_at > since
            ],
        }
        return json.dumps(state).encode()

    def _decode(self, state: dict[str, Any]) -> None:
        self._next, self._first = state["next"], state["first"]
        self._direct_floor = state["direct_floor"]
        now = self._clock.now()
        for copy, number, seq in state["places"]:
            self._places[copy, number] = _Place(seq, absent_since=now)
