"""Questions that block, asked from an event loop: each in a thread of its own.

A question that is never answered, because a cluster's head is gone, say, holds up neither the loop
nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def ask(question: Callable[[], T], timeout_s: float) -> T:
    """Ask, and wait for the answer.

    Raises:
        TimeoutError: There was none in time.
        Exception: What the question raised.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(value: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(value)  # type: ignore[arg-type]  # an answer that is None is one

    def run() -> None:
        value, problem = None, None
        try:
            value = question()
        except Exception as error:  # noqa: BLE001 - handed to the one who asks
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, value, problem)

    threading.Thread(target=run, name="asking", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await answer
