"""What a worker that runs users' functions ships to whoever has it do so: log records and metrics.

Knows nothing of Ray. Invariants: what is kept is bounded; what was fetched once is not fetched
again; while nothing is logged and nothing measured, nothing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.asking import ask
from tinker_ray.telemetry.tally import Series
from tinker_ray.telemetry.told_meters import ToldMeters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_RECORDS = 10_000
"""Log records that are kept until they are fetched; beyond that the oldest are dropped."""
LISTEN_S = 60.0
GATHER_S = 0.2
"""How long records are gathered before they are sent by themselves."""
MEASURE_S = 1.0
"""How long measurements are."""
OBSERVE_S = 10.0
"""How often instruments that have to be asked are asked."""
ANSWER_S = 5.0
"""How long they may take."""

TASK: ContextVar[str | None] = ContextVar("task", default=None)
"""The name of the user's function that runs."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What happened in a worker since the last one.

    Attributes:
        records: Log records, as plain values.
        measured: Measurements.
        is_last: Nothing will follow by itself.
    """

    records: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    measured: tuple[Series, ...] = field(default=(), repr=False)
    is_last: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything in it."""
        return bool(self.records or self.measured)


@dataclass(frozen=True, slots=True)
class Shipped:
    """An answer with what comes along."""

    answer: Any
    shipment: Shipment


class Relay(logging.Handler):
    """Keeps log records as plain values until they are fetched.

    Args:
        worker: Its name goes along as the record's ``worker``.
        on_first: Called, in whatever thread, with the first record after a fetch.
    """

    def __init__(self, worker: str, on_first: Callable[[], object]) -> None:
        super().__init__()
        self._worker = worker
        self._on_first = on_first
        self._kept: deque[dict[str, Any]] = deque(maxlen=MAX_RECORDS)
        self._lines = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, with its arguments and traceback turned to text."""
        try:
            self._kept.append(self._told(record))
        except Exception:  # noqa: BLE001 - a border: the arguments are the user's
            self.handleError(record)
            return
        if len(self._kept) == 1:
            self._on_first()

    def _told(self, record: logging.LogRecord) -> dict[str, Any]:
        plain = {
            name: value
            for name, value in vars(record).items()
            if isinstance(value, str | int | float | None)
        }
        text = record.exc_text
        if record.exc_info and not text:
            text = self._lines.formatException(record.exc_info)
        plain |= {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
        return plain | {"worker": self._worker, "task": TASK.get()}

    def fetch(self) -> tuple[dict[str, Any], ...]:
        """Give what has been kept since the last time."""
        fetched = []
        while self._kept:
            fetched.append(self._kept.popleft())
        return tuple(fetched)


class Shipper:
    """Gathers what is to be shipped. Belongs to the event loop that it is made on.

    Attributes:
        meters: The provider whose measurements are shipped.

    Args:
        worker: Its name.
    """

    def __init__(self, worker: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.meters = ToldMeters(self._measured)
        self._relay = Relay(worker, self._logged)
        self._ready = asyncio.Event()
        self._hushed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._observed_at = self._loop.time()
        self._level_before: int | None = None

    def __repr__(self) -> str:
        """Show what is measured."""
        return f"Shipper({self.meters.tally!r})"

    @contextlib.contextmanager
    def early_records(self, level: int) -> Iterator[None]:
        """Gather log records of a level and above while something is set up.

        Without a handler, since ``logging.basicConfig`` does nothing where there is one.
        """
        is_early = True
        make = logging.getLogRecordFactory()

        def make_and_keep(*arguments: Any, **named: Any) -> logging.LogRecord:  # noqa: ANN401
            record = make(*arguments, **named)
            if is_early and record.levelno >= level:
                self._relay.emit(record)
            return record

        self._set_level(level)
        logging.setLogRecordFactory(make_and_keep)
        try:
            yield
        finally:
            is_early = False
            if logging.getLogRecordFactory() is make_and_keep:
                logging.setLogRecordFactory(make)

    def gather_records(self, level: int) -> None:
        """Gather log records of a level and above until closed."""
        self._set_level(level)
        logging.getLogger().addHandler(self._relay)

    def fetch(self) -> Shipment:
        """Give what there is, without asking anybody."""
        return Shipment(self._relay.fetch(), self.meters.tally.take())

    async def fetch_all(self) -> Shipment:
        """Give what there is, after having asked the instruments whose turn it is."""
        await self._observe()
        return self.fetch()

    async def wait(self) -> Shipment:
        """Wait a while for something to ship."""
        patience_s = OBSERVE_S if self.meters.has_observed else LISTEN_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._ready.wait()
        self._ready.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._hushed.wait()
        await self._observe(at_once=self._hushed.is_set())
        shipment = self.fetch()
        return Shipment(shipment.records, shipment.measured, is_last=self._hushed.is_set())

    def hush(self) -> None:
        """Have :meth:`wait` give what is left at once, for the last time."""
        self._hushed.set()
        self._ready.set()

    def close(self) -> None:
        """Gather no more; idempotent."""
        self.hush()
        if self._timer is not None:
            self._timer.cancel()
        logging.getLogger().removeHandler(self._relay)
        if self._level_before is not None:
            logging.getLogger().setLevel(self._level_before)
            self._level_before = None

    def _set_level(self, level: int) -> None:
        root = logging.getLogger()
        if self._level_before is None:
            self._level_before = root.level
        root.setLevel(level)

    async def _observe(self, *, at_once: bool = False) -> None:
        now = self._loop.time()
        if self.meters.has_observed and (at_once or now - self._observed_at >= OBSERVE_S):
            self._observed_at = now
            with contextlib.suppress(TimeoutError):
                await ask(self.meters.observe, ANSWER_S)

    def _logged(self) -> None:
        self._on_loop(self._ready.set)

    def _measured(self) -> None:
        self._on_loop(self._ship_soon)

    def _ship_soon(self) -> None:
        if self._timer is None and not self._hushed.is_set():
            self._timer = self._loop.call_later(MEASURE_S, self._ship_now)

    def _ship_now(self) -> None:
        self._timer = None
        self._ready.set()

    def _on_loop(self, step: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(step)
