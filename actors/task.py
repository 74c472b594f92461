"""Users' functions on the cluster: many at once in one process, in threads or on an event loop.

Knows nothing of Ray. Invariant: whatever a function returns or raises, its outcome can be told to
the process that waits for it; what was logged and measured meanwhile comes along.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import pickle
import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.env_loop import EnvLoop
from actors.env_threads import EnvThreads
from actors.shipping import TASK, Shipment, Shipper
from actors.worker_options import Setup, run_setup
from tinker_ray.errors import ActorLostError, TinkerError
from tinker_ray.telemetry import names
from tinker_ray.telemetry.carrier import Carrier
from tinker_ray.telemetry.trace import span

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HANGING = 32
"""Cancelled tasks that may go on all the same before the worker gives itself up."""


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
        shipment: What was logged and measured in the process since the last one; None if nothing.
        seconds: How long it took.
        cpu_s: CPU time of its thread; 0 for coroutines, which share one.
    """

    value: bytes = field(repr=False)
    traceback: str | None = None
    shipment: Shipment | None = None
    seconds: float = 0.0
    cpu_s: float = 0.0


class TaskActor:
    """Runs functions.

    Attributes:
        shipper: Gathers what is logged and measured.

    Args:
        name: Of the worker.
        threads: How many plain functions may run at once.
        log_level: Records of this level and above are sent back.
        dumps: Pickles outcomes.
        node: Where it is.
        setup: Is called first; :meth:`begin` tells how that went.
    """

    def __init__(  # noqa: PLR0913 - the actor's identity
        self,
        name: str,
        *,
        threads: int,
        log_level: int = logging.WARNING,
        dumps: Callable[[Any], bytes] = pickle.dumps,
        node: str = "",
        setup: Setup | None = None,
    ) -> None:
        self._name = name
        self._dumps = dumps
        self._threads = EnvThreads(threads, interrupts=True)
        self._loop = EnvLoop("tasks")
        self.shipper = Shipper(name)
        self._failure: TinkerError | None = None
        with self.shipper.early_records(log_level):
            self._set_up(setup, f"{name} on node {node}")
        self.shipper.gather_records(log_level)

    def __repr__(self) -> str:
        """Show what runs."""
        return f"TaskActor({self._name!r}, {self._threads!r})"

    async def begin(self) -> tuple[Shipment, TinkerError | None]:
        """Give what the setup hook logged, and the error that it ended with."""
        return self.shipper.fetch(), self._failure

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
            self.shipper.fetch() or None,
            outcome.seconds,
            outcome.cpu_s,
        )

    async def shipment(self) -> Shipment:
        """Wait a while for something that was logged or measured, and give it."""
        return await self.shipper.wait()

    async def hush(self) -> None:
        """Have whoever waits for a shipment get the last one at once."""
        self.shipper.hush()

    async def aclose(self) -> None:
        """Cancel coroutines, let threads end; idempotent."""
        self.shipper.close()
        await self._loop.aclose()
        self._threads.close()

    def _set_up(self, setup: Setup | None, where: str) -> None:
        try:
            run_setup(setup, where)
        except TinkerError as error:
            self._failure = error

    def _call(self, task: Task) -> Outcome:
        """Call a plain function in this thread."""
        TASK.set(task.name)
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
        TASK.set(task.name)
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
