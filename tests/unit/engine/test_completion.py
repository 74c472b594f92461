"""Feeds of completions: what a client of a sampling session is told."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tinker_ray.engine.serving.completion import (
    CLONE_STRIDE,
    Completion,
    CompletionBoard,
    CompletionFeed,
    target_of,
)


def done(name: str) -> Completion:
    return Completion(name, 10)


async def told(feed: CompletionFeed) -> tuple[list[str], int]:
    completions, cursor = await feed.read(0)
    return [item.request_id for item in completions], cursor


async def test_a_completion_is_told_until_it_is_confirmed() -> None:
    feed = CompletionFeed(100)
    feed.post(done("a"))
    feed.post(done("b"))
    assert await told(feed) == (["a", "b"], 102)
    assert await told(feed) == (["a", "b"], 102)
    assert feed.confirm(101) == ["a"]
    assert await told(feed) == (["b"], 102)
    assert feed.confirm(102) == ["b"]
    assert await told(feed) == ([], 102)


async def test_a_reader_is_woken_by_news() -> None:
    feed = CompletionFeed(0)
    reader = asyncio.create_task(feed.read(60))
    await asyncio.sleep(0)
    feed.post(done("a"))
    completions, cursor = await reader
    assert ([item.request_id for item in completions], cursor) == (["a"], 1)


async def test_released_readers_get_nothing() -> None:
    board = CompletionBoard(0.0)
    feed = board.open(("s", 0), 0, [])
    reader = asyncio.create_task(feed.read(60))
    await asyncio.sleep(0)
    board.release()
    assert await reader == ([], 0)


@given(st.lists(st.one_of(st.just("post"), st.integers(0, 40)), max_size=40))
def test_every_completion_is_confirmed_once_and_the_cursor_never_falls(
    events: list[str | int],
) -> None:
    async def run() -> None:
        feed = CompletionFeed(0)
        confirmed: list[str] = []
        posted, last = 0, 0
        for event in events:
            if event == "post":
                feed.post(done(str(posted)))
                posted += 1
            else:
                confirmed += feed.confirm(int(event))
            names, cursor = await told(feed)
            assert cursor >= last
            last = cursor
            assert confirmed + names == [str(number) for number in range(posted)]

    asyncio.run(run())


async def test_only_polled_feeds_hold_completions() -> None:
    board = CompletionBoard(5.0)
    board.post(("s", 0), done("a"))
    assert board.find(("s", 0)) is None
    feed = board.open(("s", 0), 0, [done("b")])
    board.post(("s", 0), done("c"))
    board.post(("s", 1), done("d"))
    assert await told(feed) == (["b", "c"], 5_000_002)


async def test_a_later_engine_goes_on_above_the_cursors_of_the_one_before() -> None:
    before = CompletionBoard(1000.0).open(("s", 0), 0, [done("a")])
    _, cursor = await told(before)
    after = CompletionBoard(1001.0).open(("s", 0), cursor, [done("b")])
    assert after.confirm(cursor) == []
    assert (await told(after))[1] > cursor


async def test_the_feed_that_was_polled_longest_ago_makes_room() -> None:
    board = CompletionBoard(0.0, max_feeds=2)
    for clone in range(2):
        board.open(("s", clone), 0, [])
    assert board.find(("s", 0)) is not None
    board.open(("s", 2), 0, [])
    assert [board.find(("s", clone)) is not None for clone in range(3)] == [True, False, True]


def test_a_sample_belongs_to_the_clone_that_its_number_names() -> None:
    assert target_of("s", 7) == ("s", 0)
    assert target_of("s", 3 * CLONE_STRIDE + 7) == ("s", 3)
    assert target_of(None, 7) is None
    assert target_of("s", None) is None
