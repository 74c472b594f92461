from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from actors.task import Task, TaskActor
from tests.unit.actors.conftest import until
from tinker_ray.errors import TinkerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from actors.task import Outcome


@asynccontextmanager
async def worker(*, threads: int = 4, log_level: int = logging.INFO) -> AsyncIterator[TaskActor]:
    actor = TaskActor("worker 1", threads=threads, log_level=log_level)
    try:
        yield actor
    finally:
        await actor.aclose()


def task(function: Any, *arguments: object, is_coroutine: bool = False) -> Task:  # noqa: ANN401
    return Task(pickle.dumps((function, arguments, {})), function.__name__, is_coroutine)


def value(outcome: Outcome) -> Any:  # noqa: ANN401
    return pickle.loads(outcome.value)  # noqa: S301 - our own bytes


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
    said, wrong = [record for record in outcome.records if record["name"] == "users.environment"]
    assert ("says hello", "worker 1", "chat") == (said["msg"], said["worker"], said["task"])
    assert "KeyError: 'inside'" in wrong["exc_text"]
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 - our own bytes


async def test_log_records_of_a_long_task_come_by_themselves() -> None:
    async with worker() as actor:
        listening = asyncio.create_task(actor.records())
        await asyncio.sleep(0)
        logging.getLogger("users.environment").warning("still at it")
        assert ["still at it"] == [record["msg"] for record in await listening]


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
