"""Users' functions on the cluster: many at once in one process, in threads or on an event loop.

Knows nothing of Ray. Invariant: whatever a function returns or raises, its outcome can be told to
the process that waits for it; log records written meanwhile come along.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import pickle
import time
import traceback
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.env_loop import EnvLoop
from actors.env_threads import EnvThreads
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import Carrier
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HANGING = 32
"""Cancelled tasks that may go on all the same before the worker gives itself up."""
MAX_RECORDS = 10_000
"""Log records that are kept until they are fetched; beyond that the oldest are dropped."""
LISTEN_S = 60.0
GATHER_S = 0.2
"""How long records are gathered before they are sent by themselves."""

_task: ContextVar[str | None] = ContextVar("task", default=None)


@dataclass(frozen=True, slots=True)
class Task:
    """A call of a function.

    Attributes:
        call: The pickled function, positional and keyword arguments.
        name: Of the function, for people.
        is_coroutine: It is a coroutine function.
        carrier: The trace that it belongs to.
    """

    call: bytes = field(repr=False)
    name: str
    is_coroutine: bool = False
    carrier: Carrier = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended.

    Attributes:
        value: What was returned, or else raised, pickled.
        traceback: Of what was raised; None if the function returned.
        records: What was logged in the process since records were last fetched.
        seconds: How long it took.
        cpu_s: CPU time of its thread; 0 for coroutines, which share one.
    """

    value: bytes = field(repr=False)
    traceback: str | None = None
    records: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    seconds: float = 0.0
    cpu_s: float = 0.0


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
        plain = {
            name: value
            for name, value in vars(record).items()
            if isinstance(value, str | int | float | None)
        }
        text = record.exc_text
        if record.exc_info and not text:
            text = self._lines.formatException(record.exc_info)
        plain |= {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": text}
        self._kept.append(plain | {"worker": self._worker, "task": _task.get()})
        if len(self._kept) == 1:
            self._on_first()

    def fetch(self) -> tuple[dict[str, Any], ...]:
        """Give what has been kept since the last time."""
        fetched = []
        while self._kept:
            fetched.append(self._kept.popleft())
        return tuple(fetched)


class TaskActor:
    """Runs functions.

    Args:
        name: Of the worker.
        threads: How many plain functions may run at once.
        log_level: Records of this level and above are sent back.
        dumps: Pickles outcomes.
    """

    def __init__(
        self,
        name: str,
        *,
        threads: int,
        log_level: int = logging.WARNING,
        dumps: Callable[[Any], bytes] = pickle.dumps,
    ) -> None:
        self._name = name
        self._dumps = dumps
        self._threads = EnvThreads(threads, interrupts=True)
        self._loop = EnvLoop("tasks")
        self._some_records = asyncio.Event()
        self._relay = Relay(name, functools.partial(self._tell, asyncio.get_running_loop()))
        self._level_before = logging.getLogger().level
        logging.getLogger().addHandler(self._relay)
        logging.getLogger().setLevel(log_level)

    def __repr__(self) -> str:
        """Show what runs."""
        return f"TaskActor({self._name!r}, {self._threads!r})"

    async def run(self, task: Task) -> Outcome:
        """Call a function; cancelling this stops a coroutine, and interrupts a plain function.

        Raises:
            ActorLostError: So many cancelled functions go on that the worker has to be replaced.
        """
        hanging = self._threads.num_hanging
        if hanging > MAX_HANGING:
            raise ActorLostError(
                f"{self._name} is given up: {hanging} cancelled tasks hang", actor=self._name
            )
        if task.is_coroutine:
            outcome = await self._loop.run(self._await(task))
        else:
            outcome = await self._threads.call(functools.partial(self._call, task))
        return Outcome(
            outcome.value,
            outcome.traceback,
            self._relay.fetch(),
            outcome.seconds,
            outcome.cpu_s,
        )

    async def records(self) -> tuple[dict[str, Any], ...]:
        """Wait a while for log records and give them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S):
                await self._some_records.wait()
                await asyncio.sleep(GATHER_S)
        self._some_records.clear()
        return self._relay.fetch()

    async def aclose(self) -> None:
        """Cancel coroutines, let threads end; idempotent."""
        logging.getLogger().removeHandler(self._relay)
        logging.getLogger().setLevel(self._level_before)
        await self._loop.aclose()
        self._threads.close()

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(self._some_records.set)

    def _call(self, task: Task) -> Outcome:
        """Call a plain function in this thread."""
        _task.set(task.name)
        start, cpu = time.perf_counter(), time.thread_time()
        with span(names.EXECUTOR_TASK, attributes={names.METHOD: task.name}, carrier=task.carrier):
            try:
                function, arguments, keywords = pickle.loads(task.call)  # noqa: S301 - our driver's
                value, words = self._pickled(function(*arguments, **keywords)), None
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - the border to the user's code
                value, words = self._raised(error)
        seconds, cpu_s = time.perf_counter() - start, time.thread_time() - cpu
        return Outcome(value, words, seconds=seconds, cpu_s=cpu_s)

    async def _await(self, task: Task) -> Outcome:
        """Await a coroutine function on the event loop for tasks."""
        _task.set(task.name)
        start = time.perf_counter()
        with span(names.EXECUTOR_TASK, attributes={names.METHOD: task.name}, carrier=task.carrier):
            try:
                call = await self._threads.call(functools.partial(pickle.loads, task.call))
                function, arguments, keywords = call
                result = await function(*arguments, **keywords)
                value, words = await self._threads.call(lambda: (self._pickled(result), None))
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 - the border to the user's code
                value, words = self._raised(error)
        return Outcome(value, words, seconds=time.perf_counter() - start)

    def _pickled(self, value: Any) -> bytes:  # noqa: ANN401 - what functions return
        try:
            return self._dumps(value)
        except Exception as error:
            raise TinkerError(
                f"the result, of type {type(value).__name__}, cannot be sent back: {error}"
            ) from error

    def _raised(self, error: BaseException) -> tuple[bytes, str]:
        """Pickle an error, or one of ours that names it if it cannot be."""
        words = "".join(traceback.format_exception(error))
        try:
            pickled = self._dumps(error)
            if type(pickle.loads(pickled)) is type(error):  # noqa: S301 - our own bytes
                return pickled, words
        except Exception:  # noqa: BLE001 - whatever an exception's own methods raise
            pickled = b""
        return self._dumps(TinkerError(f"{type(error).__name__}: {error}")), words
