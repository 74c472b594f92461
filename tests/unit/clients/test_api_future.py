from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable

import pytest

from tinker_ray.clients.api_future import APIFuture
from tinker_ray.clients.bridge import Bridge
from tinker_ray.errors import ConfigurationError, RequestFailedError


class Work:
    """A coroutine that ends when the test says so, and tells how."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.outcome = "none"
        self._go = asyncio.Event()

    async def run(self) -> str:
        self.started.set()
        try:
            await self._go.wait()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        else:
            self.outcome = "done"
            return self.outcome
        finally:
            self.ended.set()

    def release(self) -> None:
        Bridge.get().loop.call_soon_threadsafe(self._go.set)


async def on_which_thread() -> str:
    return threading.current_thread().name


async def fail() -> None:
    message = "no"
    raise RequestFailedError(message, request_id="r", category="user")


def on_the_bridge(look: Callable[[], object]) -> object:
    async def run() -> object:
        return look()

    return Bridge.get().submit(run()).result(5)


def test_work_runs_on_the_one_bridge_of_the_process() -> None:
    assert Bridge.get() is Bridge.get()
    assert "tinker-ray" == APIFuture.start(on_which_thread()).result(5)
    assert not Bridge.get().is_current
    assert on_the_bridge(lambda: Bridge.get().is_current)


async def test_a_future_is_awaited_from_another_loop() -> None:
    future = APIFuture.start(on_which_thread())
    assert "tinker-ray" == await future
    assert "tinker-ray" == await future
    assert "tinker-ray" == await future.result_async()
    assert "tinker-ray" == await future.coroutine()
    assert "APIFuture(done)" == repr(future)


def test_an_error_reaches_whoever_asks_in_any_way() -> None:
    future = APIFuture.start(fail())
    with pytest.raises(RequestFailedError, match="no"):
        future.result(5)
    with pytest.raises(RequestFailedError, match="no"):
        asyncio.run(future.result_async())


def test_a_result_that_takes_too_long_leaves_the_operation_running() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    with pytest.raises(TimeoutError):
        future.result(timeout=0.001)
    assert "APIFuture(pending)" == repr(future)
    work.release()
    assert "done" == future.result(5)


async def test_an_awaited_result_that_takes_too_long_cancels_the_operation() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    with pytest.raises(TimeoutError):
        await future.result_async(timeout=0.001)
    assert work.ended.wait(5)
    assert "cancelled" == work.outcome


async def test_cancelling_the_task_that_awaits_cancels_the_operation() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    assert work.started.wait(5)

    async def wait() -> str:
        return await future

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended.wait(5)
    assert "cancelled" == work.outcome


def test_cancelling_the_underlying_future_cancels_the_operation() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    assert work.started.wait(5)
    assert future.future().cancel()
    assert work.ended.wait(5)
    assert "cancelled" == work.outcome


def test_dropping_a_future_leaves_the_operation_running() -> None:
    work = Work()
    APIFuture.start(work.run())
    work.release()
    assert work.ended.wait(5)
    assert "done" == work.outcome


def test_blocking_on_the_bridge_is_refused() -> None:
    work = Work()
    future = APIFuture.start(work.run())

    def block() -> str:
        with pytest.raises(ConfigurationError, match="await the future"):
            future.result()
        with pytest.raises(ConfigurationError, match="await the future"):
            future.exception()
        return "refused"

    assert "refused" == on_the_bridge(block)
    work.release()
    assert "done" == future.result(5)


def test_a_finished_result_may_be_asked_for_anywhere() -> None:
    future = APIFuture.start(on_which_thread())
    future.result(5)
    assert "tinker-ray" == on_the_bridge(future.result)


def test_detached_work_cannot_be_cancelled() -> None:
    work = Work()
    future = Bridge.get().submit_detached(work.run())
    assert not future.cancel()
    work.release()
    assert "done" == future.result(5)


def test_detached_work_hands_its_error_on() -> None:
    with pytest.raises(RequestFailedError):
        Bridge.get().submit_detached(fail()).result(5)


def test_detached_work_starts_in_the_order_in_which_it_was_handed_over() -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)

    futures = [Bridge.get().submit_detached(note(number)) for number in range(50)]
    for future in futures:
        future.result(5)
    assert list(range(50)) == order


async def test_many_loops_may_wait_for_one_future() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    results: list[str] = []

    def wait() -> None:
        results.append(asyncio.run(future.result_async()))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    work.release()
    for thread in threads:
        thread.join(5)
    assert ["done"] * 3 == results


# --- as a future of the standard library ----------------------------------------------------------


def test_the_standard_library_waits_for_several() -> None:
    works = [Work() for _ in range(3)]
    futures = [APIFuture.start(work.run()) for work in works]
    works[1].release()
    done, _ = concurrent.futures.wait(futures, 5, concurrent.futures.FIRST_COMPLETED)
    assert {futures[1]} == done
    works[0].release()
    works[2].release()
    assert set(futures) == set(concurrent.futures.as_completed(futures, 5))


def test_a_cancelled_one_counts_as_done_for_those_who_wait() -> None:
    work = Work()
    future = APIFuture.start(work.run())
    assert work.started.wait(5)
    assert future.cancel()
    assert (True, True) == (future.cancelled(), future.done())
    assert {future} == concurrent.futures.wait([future], 5).done
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_work_that_is_cancelled_before_it_starts_never_starts() -> None:
    bridge, work, held = Bridge.get(), Work(), threading.Event()
    bridge.loop.call_soon_threadsafe(held.wait, 5)
    future = APIFuture.start(work.run())
    assert future.cancel()
    held.set()
    assert {future} == concurrent.futures.wait([future], 5).done
    assert not work.started.is_set()


async def test_another_loop_wraps_it() -> None:
    work = Work()
    wrapped = asyncio.wrap_future(APIFuture.start(work.run()))
    work.release()
    assert "done" == await wrapped
    assert "tinker-ray" == (await asyncio.gather(APIFuture.start(on_which_thread())))[0]


def test_a_callback_sees_the_end() -> None:
    seen: queue.Queue[object] = queue.Queue()
    future = APIFuture.start(fail())
    future.add_done_callback(lambda ended: seen.put(ended.exception()))
    assert isinstance(seen.get(timeout=5), RequestFailedError)
    assert isinstance(future.exception(), RequestFailedError)
    assert isinstance(future, concurrent.futures.Future)


def test_a_loop_that_blocks_on_a_result_gets_it() -> None:
    async def block() -> str:
        return APIFuture.start(on_which_thread()).result(5)

    assert "tinker-ray" == asyncio.run(block())


# --- over another future --------------------------------------------------------------------------


def test_it_takes_over_the_end_of_another() -> None:
    given: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = APIFuture(given)
    assert not future.done()
    given.set_result(3)
    assert 3 == future.result(5)
    failed: concurrent.futures.Future[int] = concurrent.futures.Future()
    failed.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        APIFuture(failed).result(5)


def test_cancelling_it_cancels_the_other_and_the_other_way_round() -> None:
    given: concurrent.futures.Future[int] = concurrent.futures.Future()
    assert APIFuture(given).cancel()
    assert given.cancelled()
    other: concurrent.futures.Future[int] = concurrent.futures.Future()
    future = APIFuture(other)
    other.cancel()
    assert future.cancelled()


def test_another_that_runs_cannot_be_cancelled() -> None:
    given: concurrent.futures.Future[int] = concurrent.futures.Future()
    given.set_running_or_notify_cancel()
    future = APIFuture(given)
    assert (True, False) == (future.running(), future.cancel())


def test_a_future_of_the_past_is_done() -> None:
    assert 7 == APIFuture.of(7).result()
