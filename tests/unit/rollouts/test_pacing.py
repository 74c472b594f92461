from __future__ import annotations

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import AttemptId, Dispatcher, Pace, Pacing
from tinker_ray.rollouts.event import (
    AttemptFailed,
    AttemptFinished,
    CancelAttempt,
    Command,
    DeliverGroup,
    DropGroup,
    GroupOffered,
    GroupTaken,
    PolicyPublished,
    StartAttempt,
    WorkerJoined,
)


class Training:
    """A dispatcher with plenty of room, to which groups are offered for as long as it is hungry."""

    def __init__(
        self, pacing: Pacing, version: int = 0, *, capacity: int = 100, window: int | None = 100
    ) -> None:
        self.dispatcher = Dispatcher(window=window, pace=Pace(pacing, version))
        self.num_offered = 0
        self.version = version
        self.dispatcher.handle(WorkerJoined("w", capacity), 0.0)

    def fill(self) -> list[int]:
        """Offer groups until no more are wanted; returns those that started."""
        started = []
        while self.dispatcher.is_hungry:
            [command] = self.dispatcher.handle(GroupOffered(self.num_offered), 0.0)
            assert isinstance(command, StartAttempt)
            started.append(command.attempt.group)
            self.num_offered += 1
        return started

    def finish(self, *groups: int) -> list[Command]:
        commands: list[Command] = []
        for group in groups:
            commands += self.dispatcher.handle(AttemptFinished(AttemptId(group, 0)), 1.0)
        return commands

    def take(self, *groups: int) -> None:
        for group in groups:
            self.dispatcher.handle(GroupTaken(group), 1.0)

    def publish(self) -> list[Command]:
        self.version += 1
        return self.dispatcher.handle(PolicyPublished(self.version), 2.0)


def test_without_staleness_the_groups_of_a_step_start_when_its_version_is_published() -> None:
    training = Training(Pacing(3), version=7)
    assert training.fill() == [0, 1, 2]
    training.finish(2, 0, 1)
    assert training.fill() == []
    training.publish()
    assert training.fill() == [3, 4, 5]


def test_with_staleness_groups_start_as_many_steps_ahead() -> None:
    training = Training(Pacing(2, max_staleness=1))
    assert training.fill() == [0, 1, 2, 3]
    training.finish(0, 1)
    training.take(0, 1)
    assert training.fill() == []
    training.publish()
    assert training.fill() == [4, 5]
    training.finish(2, 3, 4, 5)
    training.take(2, 3)
    training.publish()
    training.take(4, 5)
    assert training.dispatcher.account.staleness == {0: 2, 1: 4}


def test_a_small_crew_goes_on_while_a_step_is_trained_until_the_pace_ends_it() -> None:
    training = Training(Pacing(8, max_staleness=1), capacity=2, window=None)
    started = training.fill()
    for group in range(16):
        training.finish(group)
        started += training.fill()
    assert list(range(16)) == started


def test_a_group_that_was_overtaken_goes_before_newer_ones_that_still_wait() -> None:
    training = Training(Pacing(1, max_staleness=1))
    assert training.fill() == [0, 1]
    training.finish(1)
    training.publish()
    assert training.fill() == [2]
    assert training.finish(2) == [DeliverGroup(AttemptId(2, 0), 1)]
    assert training.finish(0) == [DeliverGroup(AttemptId(0, 0), 1)]


def test_a_group_is_cut_as_soon_as_it_can_not_be_fresh_enough() -> None:
    training = Training(Pacing(1, max_staleness=1))
    assert training.fill() == [0, 1]
    training.finish(1)
    training.take(1)
    training.publish()
    assert training.fill() == [2]
    training.finish(2)
    training.take(2)
    assert training.publish() == [
        CancelAttempt(AttemptId(0, 0), "w"),
        DropGroup(0, "stale", "drawn with version 0, and now it is 2", attempts=1, seconds=2.0),
    ]
    assert training.fill() == [3, 4]


def test_a_dropped_group_is_replaced() -> None:
    training = Training(Pacing(2))
    assert training.fill() == [0, 1]
    training.dispatcher.handle(AttemptFailed(AttemptId(0, 0), "request"), 0.0)
    assert training.fill() == [2]


def test_when_a_step_has_its_groups_the_slowest_of_the_oversampled_are_cut() -> None:
    training = Training(Pacing(2, oversample=1))
    assert training.fill() == [0, 1, 2]
    training.finish(2)
    assert training.finish(1) == [
        DeliverGroup(AttemptId(1, 0), 1),
        CancelAttempt(AttemptId(0, 0), "w"),
        DropGroup(0, "oversampled", "its step has its groups without it", attempts=1, seconds=1.0),
    ]
    assert training.fill() == []
    training.publish()
    assert training.fill() == [3, 4, 5]


def test_a_retry_is_bound_to_the_newest_version() -> None:
    training = Training(Pacing(1, max_staleness=2))
    training.fill()
    training.publish()
    failed = AttemptFailed(AttemptId(0, 0), "environment")
    assert training.dispatcher.handle(failed, 3.0) == [StartAttempt(AttemptId(0, 1), "w", 1)]


@pytest.mark.parametrize(
    "arguments,words",
    [
        ((0,), "groups_per_step=0"),
        ((1, -1), "max_staleness=-1"),
        ((1, 0, -2), "oversample=-2"),
    ],
)
def test_a_pacing_that_cannot_be_is_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Pacing(*arguments)
