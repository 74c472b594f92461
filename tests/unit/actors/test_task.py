from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.metrics import Observation

from actors import shipping
from actors.task import Task, TaskActor
from tests.unit.actors.conftest import until
from tinker_ray.errors import ConfigurationError, TinkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from actors.shipping import Shipment
    from actors.task import Outcome
    from actors.worker_options import Setup


@asynccontextmanager
async def worker(*, threads: int = 4, setup: Setup | None = None) -> AsyncIterator[TaskActor]:
    actor = TaskActor("worker 1", threads=threads, log_level=logging.INFO, node="n", setup=setup)
    try:
        yield actor
    finally:
        await actor.aclose()


def task(function: Any, *arguments: object, is_coroutine: bool = False) -> Task:  # noqa: ANN401
    return Task(pickle.dumps((function, arguments, {})), function.__name__, is_coroutine)


def value(outcome: Outcome) -> Any:  # noqa: ANN401
    return pickle.loads(outcome.value)  # noqa: S301 - our own bytes


def records(shipment: Shipment | None) -> list[dict[str, Any]]:
    assert shipment is not None
    return [record for record in shipment.records if record["name"] == "users.environment"]


def measured(shipment: Shipment) -> list[tuple[str, float]]:
    return [(series.source.name, series.value) for series in shipment.measured]


def double(number: int) -> int:
    return 2 * number


async def double_later(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def fail(words: str) -> None:
    raise KeyError(words)


class Held(Exception):  # noqa: N818 - an exception that pickles not
    def __init__(self) -> None:
        super().__init__("held")
        self.lock = threading.Lock()


def fail_oddly() -> None:
    raise Held


def leave() -> None:
    raise SystemExit(7)


def unportable() -> Any:  # noqa: ANN401
    return threading.Lock()


def chat(words: str) -> None:
    logging.getLogger("users.environment").info("says %s", words)
    try:
        fail("inside")
    except KeyError:
        logging.getLogger("users.environment").exception("went wrong")


def log_badly() -> None:
    logging.getLogger("users.environment").warning("%d", "a word")


def set_up_in_vain() -> None:
    logging.getLogger("users.environment").info("looking for a tokenizer")
    raise KeyError("tokenizer")


class COUNT:
    """What a task measures with, since instruments do not pickle."""

    add: Callable[[float], None]

    @classmethod
    def set(cls, add: Callable[[float], None]) -> None:
        cls.add = staticmethod(add)


def count(number: float) -> None:
    COUNT.add(number)


ENTERED = threading.Event()


def spin() -> None:
    ENTERED.set()
    while True:
        pass


async def wait_for_ever() -> None:
    ENTERED.set()
    await asyncio.Event().wait()


async def test_plain_functions_and_coroutines_return_their_values() -> None:
    async with worker() as actor:
        outcomes = await asyncio.gather(
            actor.run(task(double, 2)), actor.run(task(double_later, 3, is_coroutine=True))
        )
    assert [(4, None), (6, None)] == [(value(item), item.traceback) for item in outcomes]


async def test_an_exception_comes_with_its_type_and_traceback() -> None:
    async with worker() as actor:
        outcome = await actor.run(task(fail, "gone"))
    assert (KeyError, ("gone",)) == (type(value(outcome)), value(outcome).args)
    assert "raise KeyError(words)" in (outcome.traceback or "")


@pytest.mark.parametrize(
    "function, kind, words",
    [
        (fail_oddly, TinkerError, "Held: held"),
        (unportable, TinkerError, "the result, of type lock, cannot be sent back"),
        (leave, SystemExit, "7"),
    ],
)
async def test_what_cannot_travel_is_told_in_words(
    function: Any,  # noqa: ANN401
    kind: type[BaseException],
    words: str,
) -> None:
    async with worker() as actor:
        error = value(await actor.run(task(function)))
    assert type(error) is kind
    assert words in str(error)


async def test_log_records_come_with_the_outcome_as_plain_values() -> None:
    async with worker() as actor:
        outcome = await actor.run(task(chat, "hello"))
    said, wrong = records(outcome.shipment)
    assert ("says hello", "worker 1", "chat") == (said["msg"], said["worker"], said["task"])
    assert "KeyError: 'inside'" in wrong["exc_text"]
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 - our own bytes


async def test_log_records_of_a_long_task_come_by_themselves() -> None:
    async with worker() as actor:
        listening = asyncio.create_task(actor.shipment())
        await asyncio.sleep(0)
        logging.getLogger("users.environment").warning("still at it")
        assert ["still at it"] == [record["msg"] for record in records(await listening)]


async def test_nothing_travels_with_the_outcome_of_a_task_that_tells_nothing() -> None:
    async with worker() as actor:
        await actor.run(task(chat, "hello"))
        assert (await actor.run(task(double, 1))).shipment is None


async def test_metrics_come_with_the_outcome_and_those_of_a_long_task_by_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shipping, "MEASURE_S", 0.001)
    monkeypatch.setattr(shipping, "GATHER_S", 0.001)
    async with worker() as actor:
        steps = actor.shipper.meters.get_meter("users").create_counter("steps")
        COUNT.set(steps.add)
        outcome = await actor.run(task(count, 3))
        assert outcome.shipment is not None
        assert [("steps", 3)] == measured(outcome.shipment)
        steps.add(4)  # of a task that runs
        assert [("steps", 4)] == measured(await actor.shipment())


async def test_the_last_shipment_holds_what_is_left_and_says_so() -> None:
    async with worker() as actor:
        meter = actor.shipper.meters.get_meter("users")
        meter.create_counter("steps").add(4)
        meter.create_observable_gauge("queue", [lambda _: [Observation(7)]])
        await actor.hush()
        shipment = await actor.shipment()
    assert shipment.is_last
    assert [("steps", 4), ("queue", 7)] == measured(shipment)


async def test_what_a_setup_hook_logs_is_told_even_if_it_fails() -> None:
    async with worker(setup=set_up_in_vain) as actor:
        shipment, failure = await actor.begin()
    [said] = records(shipment)
    assert ("looking for a tokenizer", "worker 1", None) == (
        said["msg"],
        said["worker"],
        said["task"],
    )
    assert isinstance(failure, ConfigurationError)
    assert "set_up_in_vain failed in worker 1 on node n: KeyError" in str(failure)


async def test_a_setup_hook_finds_logging_as_it_was() -> None:
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    before = (list(root.handlers), root.level)
    seen: list[tuple[list[logging.Handler], int]] = []
    async with worker(setup=lambda: seen.append((list(root.handlers), root.level))):
        assert factory is logging.getLogRecordFactory()
    assert [(before[0], logging.INFO)] == seen
    assert before == (root.handlers, root.level)


async def test_a_record_that_cannot_be_written_fails_no_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # it is told on standard error
    async with worker() as actor:
        outcome = await actor.run(task(log_badly))
    assert (None, None) == (value(outcome), outcome.traceback)


async def test_a_plain_function_that_computes_is_interrupted_when_cancelled() -> None:
    ENTERED.clear()
    async with worker(threads=1) as actor:
        running = asyncio.create_task(actor.run(task(spin)))
        await until(ENTERED.is_set)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert 4 == value(await actor.run(task(double, 2)))
        await until(lambda: "0 abandoned" in repr(actor))


async def test_a_coroutine_is_stopped_when_cancelled() -> None:
    ENTERED.clear()
    async with worker() as actor:
        running = asyncio.create_task(actor.run(task(wait_for_ever, is_coroutine=True)))
        await until(ENTERED.is_set)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()
