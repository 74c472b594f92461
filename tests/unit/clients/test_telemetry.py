from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.fakes.ports import FakeReporter, FakeRuntime
from tinker_ray import errors
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.session import ClientSession
from tinker_ray.clients.telemetry import Telemetry, capture_exceptions
from tinker_ray.config import Settings
from tinker_ray.core.reporter import MAX_QUEUED


class Told:
    """Telemetry, and what it told."""

    def __init__(self) -> None:
        self.reporter = FakeReporter()
        self.telemetry = Telemetry(lambda: self.reporter)

    @property
    def names(self) -> list[str]:
        Bridge.get().submit(_nothing()).result(5)  # whatever was handed over before is there
        return [
            getattr(event, "event_name", getattr(event, "error_type", event.event))
            for event in self.reporter.told
        ]

    def get_telemetry(self) -> Telemetry | None:
        return self.telemetry

    @capture_exceptions
    def plain(self, value: int) -> int:
        """Say hello."""
        return 1 // value

    @capture_exceptions(fatal=True, severity="CRITICAL")
    def fatal(self) -> None:
        message = "fatal"
        raise LookupError(message)

    @capture_exceptions
    async def coroutine(self, value: int) -> int:
        return 1 // value


async def _nothing() -> None:
    pass


def test_events_are_handed_over_in_their_order() -> None:
    told = Told()
    assert all(told.telemetry.log(name, {"n": 1}, "DEBUG") for name in "abc")
    assert ["a", "b", "c"] == told.names
    assert [False] * 3 == told.reporter.flushes


def test_an_exception_is_sent_soon_and_nobody_waits_for_that() -> None:
    told = Told()
    told.reporter.gate = gate = asyncio.Event()
    assert told.telemetry.log_exception_sync(KeyError("x"))
    assert [] == told.names
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    assert (["KeyError"], [True]) == (told.names, told.reporter.flushes)


async def test_a_fatal_exception_ends_the_session_and_is_waited_for() -> None:
    told = Told()
    assert await told.telemetry.log_exception(KeyError("x"))
    assert await told.telemetry.log_fatal_exception(ValueError("y"))
    assert ["KeyError", "ValueError", "SESSION_END"] == told.names


def test_a_fatal_exception_is_waited_for_where_nothing_else_runs() -> None:
    told = Told()
    assert told.telemetry.log_fatal_exception_sync(ValueError("y"), "CRITICAL")
    assert 2 == len(told.reporter.told)
    assert "CRITICAL" == told.reporter.told[0].severity


async def test_a_fatal_exception_does_not_block_an_event_loop() -> None:
    told = Told()
    told.reporter.gate = gate = asyncio.Event()
    assert told.telemetry.log_fatal_exception_sync(ValueError("y"))
    assert [] == told.reporter.told
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    await told.telemetry.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nobody_waits_long_for_a_service_that_does_not_answer(
    asynchronous: bool,  # noqa: FBT001
) -> None:
    told = Told()
    told.telemetry = Telemetry(lambda: told.reporter, patience_s=0.01)
    told.reporter.gate = gate = asyncio.Event()
    error = ValueError("y")
    if asynchronous:
        assert asyncio.run(told.telemetry.log_fatal_exception(error))
    else:
        assert told.telemetry.log_fatal_exception_sync(error)
    assert [] == told.reporter.told
    Bridge.get().loop.call_soon_threadsafe(gate.set)
    assert ["ValueError", "SESSION_END"] == told.names


def test_a_lost_owner_of_the_session_is_no_error_of_the_scripts() -> None:
    told = Told()
    told.reporter.failure = errors.ActorLostError("gone")
    assert told.telemetry.log("a")
    assert told.telemetry.log_fatal_exception_sync(ValueError("y"))


def test_without_an_open_session_nothing_is_told() -> None:
    session = ClientSession(Settings(), None)
    assert session.telemetry is not None
    assert not session.telemetry.log("a")
    assert not session.telemetry.log_exception_sync(ValueError("y"))
    assert not session.telemetry.log_fatal_exception_sync(ValueError("y"))
    assert not asyncio.run(session.telemetry.log_fatal_exception(ValueError("y")))
    asyncio.run(session.telemetry.close())


def test_a_session_that_is_open_tells_through_its_runtime() -> None:
    runtime = FakeRuntime(reporter=FakeReporter())

    async def opener(*_: Any) -> FakeRuntime:  # noqa: ANN401
        return runtime

    session = ClientSession(Settings(), None, opener=opener)
    Bridge.get().submit(session.runtime()).result(5)
    assert session.telemetry is not None
    assert session.telemetry.log("a")
    session.close("success")
    assert not session.telemetry.log("b")
    assert runtime.reporter is not None
    assert ["GENERIC_EVENT"] == [event.event for event in runtime.reporter.told]


def test_telemetry_can_be_switched_off() -> None:
    assert ClientSession(Settings(report=False), None).telemetry is None


def test_what_was_stopped_takes_no_more() -> None:
    told = Told()
    told.telemetry.stop()
    assert (False, "Telemetry(stopped)") == (told.telemetry.log("a"), repr(told.telemetry))


async def test_closing_sends_what_is_queued() -> None:
    told = Told()
    told.telemetry.log("a")
    await told.telemetry.close()
    assert (["a"], [False, True]) == (told.names, told.reporter.flushes)
    assert not told.telemetry.log("b")


def test_more_than_the_queue_holds_is_not_taken() -> None:
    told = Told()
    blocked = threading.Event()
    Bridge.get().loop.call_soon_threadsafe(blocked.wait, 5)
    try:
        told.telemetry._num_pending = MAX_QUEUED - 1
        assert [True, False] == [told.telemetry.log("a"), told.telemetry.log("b")]
    finally:
        blocked.set()


# --- blocks and methods ---------------------------------------------------------------------------


async def test_the_exceptions_of_a_block_are_told_and_raised() -> None:
    told = Told()
    with pytest.raises(KeyError), told.telemetry.capture_exceptions():
        raise KeyError("x")
    with pytest.raises(ValueError, match="y"):
        async with told.telemetry.acapture_exceptions(fatal=True):
            raise ValueError("y")
    with told.telemetry.capture_exceptions():
        pass
    assert ["KeyError", "ValueError", "SESSION_END"] == told.names


async def test_methods_tell_of_their_exceptions() -> None:
    told = Told()
    assert (1, 1, "Say hello.") == (told.plain(1), await told.coroutine(1), told.plain.__doc__)
    with pytest.raises(ZeroDivisionError):
        told.plain(0)
    with pytest.raises(ZeroDivisionError):
        await told.coroutine(0)
    with pytest.raises(LookupError):
        told.fatal()
    await told.telemetry.close()
    assert ["ZeroDivisionError", "ZeroDivisionError", "LookupError", "SESSION_END"] == told.names


async def test_what_has_no_telemetry_just_runs() -> None:
    @capture_exceptions
    def divide(value: int) -> int:
        return 1 // value

    @capture_exceptions
    async def divide_later(value: int) -> int:
        return 1 // value

    assert (1, 1) == (divide(1), await divide_later(1))
    with pytest.raises(ZeroDivisionError):
        divide(0)
