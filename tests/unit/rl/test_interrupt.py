from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tinker_ray.rl.interrupt import Interrupted, InterruptGuard


def interrupt_me() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_cancels_the_coroutine_which_cleans_up(capfd: pytest.CaptureFixture[str]) -> None:
    story: list[str] = []

    async def work() -> None:
        try:
            interrupt_me()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            story.append("cleaned up")

    with InterruptGuard() as guard, pytest.raises(Interrupted) as caught:
        guard.run(work())
    assert (story, caught.value.exit_code) == (["cleaned up"], 130)
    assert "stopping" in capfd.readouterr().err


def test_blocking_work_is_finished_first() -> None:
    story: list[str] = []

    def start() -> None:
        interrupt_me()
        story.append("started")

    with InterruptGuard() as guard, pytest.raises(Interrupted):
        guard.blocking(start)
    assert story == ["started"]


def test_nothing_begins_after_a_signal() -> None:
    with InterruptGuard() as guard:
        interrupt_me()
        with pytest.raises(Interrupted):
            guard.blocking(pytest.fail)
        with pytest.raises(Interrupted):
            guard.run(asyncio.sleep(60))


def test_handlers_that_the_work_installed_are_replaced_and_the_old_ones_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with InterruptGuard() as guard:
        guard.blocking(lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught:
            guard.check()
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_without_a_signal_results_come_through() -> None:
    async def work() -> int:
        return 3

    with InterruptGuard() as guard:
        assert (guard.blocking(lambda: 2), guard.run(work())) == (2, 3)


def test_a_cancellation_of_its_own_is_no_interruption() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with InterruptGuard() as guard, pytest.raises(asyncio.CancelledError):
        guard.run(work())
