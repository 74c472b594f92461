from __future__ import annotations

import asyncio
import threading

import pytest

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.bridge import Bridge
from tinker_ray.clients.ready import Ready
from tinker_ray.errors import RequestFailedError


class Thing(Ready):
    """A client of nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self) -> str:
        return f"hello {self.name}"


class Maker:
    """Makes a thing when the test says so."""

    def __init__(self, error: Exception | None = None) -> None:
        self._go = asyncio.Event()
        self._error = error
        self.ended = threading.Event()

    async def make(self) -> Thing:
        try:
            await self._go.wait()
        finally:
            self.ended.set()
        if self._error is not None:
            raise self._error
        return Thing("me")

    def release(self) -> None:
        Bridge.get().loop.call_soon_threadsafe(self._go.set)


def refused() -> RequestFailedError:
    return RequestFailedError("no", request_id="r", category="user")


def test_without_an_event_loop_making_blocks_and_raises_at_the_call() -> None:
    maker = Maker()
    maker.release()
    thing = Thing.promised(maker.make())
    assert "hello me" == thing.greet()
    assert thing is thing.result()
    failing = Maker(refused())
    failing.release()
    with pytest.raises(RequestFailedError):
        Thing.promised(failing.make())


async def test_in_an_event_loop_it_is_there_at_once_and_made_in_the_background() -> None:
    maker = Maker()
    thing = Thing.promised(maker.make())
    assert isinstance(thing, Thing)
    assert "Thing(pending)" == repr(thing)
    maker.release()
    assert thing is await thing
    assert "hello me" == thing.greet()
    assert thing is await thing.coroutine()
    assert thing is await thing.result_async(1)
    assert thing is thing.future().result(5)


async def test_several_are_made_at_the_same_time() -> None:
    makers = [Maker(), Maker()]
    things = [Thing.promised(maker.make()) for maker in makers]
    for maker in reversed(makers):
        maker.release()
    assert things == await asyncio.gather(*things)


async def test_using_it_before_it_is_there_waits_for_it() -> None:
    maker = Maker()
    thing = Thing.promised(maker.make())
    maker.release()
    assert "hello me" == thing.greet()
    assert "me" == thing.name


async def test_what_fails_in_the_background_is_raised_by_every_use() -> None:
    maker = Maker(refused())
    thing = Thing.promised(maker.make())
    maker.release()
    with pytest.raises(RequestFailedError):
        thing.greet()
    with pytest.raises(RequestFailedError):
        await thing
    with pytest.raises(RequestFailedError):
        thing.result(5)


async def test_a_wait_that_is_cancelled_cancels_the_making() -> None:
    maker = Maker()
    thing = Thing.promised(maker.make())
    with pytest.raises(TimeoutError):
        await thing.result_async(0.001)
    assert maker.ended.wait(5)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(Thing("me"), "nonsense")


def test_it_is_no_future_of_the_standard_library_itself() -> None:
    assert not isinstance(Thing("me"), APIFuture)
