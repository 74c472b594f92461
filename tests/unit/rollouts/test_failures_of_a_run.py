"""How a run meets failures: budgets, time limits, halts, drains."""

from __future__ import annotations

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import AttemptId, Dispatcher, RetryBudget
from tinker_ray.rollouts.dispatcher import GONE_IN_A_ROW
from tinker_ray.rollouts.event import (
    AttemptFailed,
    AttemptFinished,
    CancelAttempt,
    Command,
    DropGroup,
    GroupOffered,
    HaltRun,
    PolicyPublished,
    RunDrained,
    StartAttempt,
    TimePassed,
    WorkerDraining,
    WorkerJoined,
    WorkerLost,
)
from tinker_ray.rollouts.failure import FailureKind


def running(dispatcher: Dispatcher, groups: int = 1, room: int = 1) -> Dispatcher:
    dispatcher.handle(WorkerJoined("w", room), 0.0)
    for group in range(groups):
        dispatcher.handle(GroupOffered(group), 0.0)
    return dispatcher


@pytest.mark.parametrize("kind", ["infrastructure", "environment", "timeout", "stall"])
def test_each_class_of_failure_has_a_budget_of_its_own(kind: FailureKind) -> None:
    budget = RetryBudget(
        **{"infrastructure": 0, "environment": 0, "timeout": 0, "stall": 0, kind: 1}
    )
    dispatcher = running(Dispatcher(retries=budget))
    first = dispatcher.handle(AttemptFailed(AttemptId(0, 0), kind), 1.0)
    second = dispatcher.handle(AttemptFailed(AttemptId(0, 1), kind, "again"), 3.0)
    assert first == [StartAttempt(AttemptId(0, 1), "w")]
    assert second == [DropGroup(0, kind, "again", attempts=2, seconds=3.0)]
    assert dispatcher.account.retries == {kind: 1}


def test_failures_of_one_class_leave_the_budget_of_another_alone() -> None:
    dispatcher = running(Dispatcher(retries=RetryBudget(infrastructure=1, environment=1)))
    dispatcher.handle(AttemptFailed(AttemptId(0, 0), "environment"), 0.0)
    again = dispatcher.handle(AttemptFailed(AttemptId(0, 1), "infrastructure"), 0.0)
    assert again == [StartAttempt(AttemptId(0, 2), "w")]


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="stall=-1"):
        RetryBudget(stall=-1)


def test_a_group_that_takes_too_long_is_cancelled_and_run_again() -> None:
    dispatcher = running(Dispatcher(group_s=5.0))
    assert dispatcher.wake_at == 5.0
    assert dispatcher.handle(TimePassed(), 4.9) == []
    assert dispatcher.handle(TimePassed(), 5.0) == [
        CancelAttempt(AttemptId(0, 0), "w"),
        StartAttempt(AttemptId(0, 1), "w"),
    ]
    assert dispatcher.wake_at == 10.0


def test_failures_of_the_infrastructure_in_a_row_halt_the_run() -> None:
    dispatcher = running(Dispatcher(halt_after=2), groups=2, room=2)
    dispatcher.handle(AttemptFailed(AttemptId(0, 0), "infrastructure", "refused"), 0.0)
    commands = dispatcher.handle(AttemptFailed(AttemptId(1, 0), "infrastructure", "refused"), 0.0)
    assert commands[-1] == HaltRun(2, "refused")
    assert dispatcher.account.dropped == {"halted": 2}
    assert dispatcher.account.details == {"halted": "refused"}
    assert dispatcher.in_flight == 0


def test_a_group_that_ends_in_between_begins_a_new_row() -> None:
    dispatcher = running(Dispatcher(halt_after=2), groups=3, room=3)
    dispatcher.handle(AttemptFailed(AttemptId(0, 0), "infrastructure"), 0.0)
    dispatcher.handle(AttemptFinished(AttemptId(1, 0)), 0.0)
    again = dispatcher.handle(AttemptFailed(AttemptId(2, 0), "infrastructure"), 0.0)
    assert again == [StartAttempt(AttemptId(2, 1), "w")]


def test_a_lost_worker_is_one_failure_however_many_groups_it_ran() -> None:
    dispatcher = running(Dispatcher(halt_after=2), groups=4, room=4)
    dispatcher.handle(WorkerLost("w"), 0.0)
    assert dispatcher.account.open == 4


@pytest.mark.parametrize("budget", [1, 2, 3, 6])
def test_a_group_that_workers_die_of_is_dropped_and_those_beside_it_are_not(budget: int) -> None:
    dispatcher = running(Dispatcher(retries=budget), groups=8, room=4)
    deadly, names, commands = 2, (f"worker-{number}" for number in range(99)), list[Command]()
    commands += dispatcher.handle(WorkerJoined("v", 4), 0.0)
    places = {AttemptId(group, 0): "w" for group in range(4)}
    while dispatcher.account.open:
        for command in commands:
            if isinstance(command, StartAttempt):
                places[command.attempt] = command.worker
        killed = [worker for attempt, worker in places.items() if attempt.group == deadly]
        if killed:
            places = {one: worker for one, worker in places.items() if worker != killed[0]}
            commands = dispatcher.handle(WorkerLost(killed[0]), 0.0)
            commands += dispatcher.handle(WorkerJoined(next(names), 4), 0.0)
        else:  # the one that began last, so that others stay to be killed
            attempt = list(places)[-1]
            del places[attempt]
            commands = dispatcher.handle(AttemptFinished(attempt), 0.0)
    assert {"deadly": 1} == dispatcher.account.dropped
    assert 7 == dispatcher.account.delivered


def test_suspects_run_side_by_side_on_workers_of_their_own_and_new_groups_beside_them() -> None:
    dispatcher = running(Dispatcher(), groups=2, room=2)
    for worker in ("v", "u"):
        dispatcher.handle(WorkerJoined(worker, 2), 0.0)
        dispatcher.handle(WorkerLost("w" if worker == "v" else "v"), 0.0)
    assert [(0, "u")] == [(one.group, running.worker) for one, running in dispatcher._roster]
    assert dispatcher.is_hungry
    assert dispatcher.has_waiting
    assert dispatcher.handle(GroupOffered(2), 0.0) == [StartAttempt(AttemptId(2, 0), "u")]
    assert dispatcher.handle(WorkerJoined("t", 2), 0.0) == [StartAttempt(AttemptId(1, 2), "t")]


def test_a_suspect_that_waits_is_dropped_like_any_other() -> None:
    dispatcher = running(Dispatcher(retries=1, halt_after=1), groups=2, room=2)
    dispatcher.handle(WorkerLost("w"), 0.0)
    assert {"halted": 2} == dispatcher.account.dropped
    assert not dispatcher.has_waiting


def test_a_worker_that_drains_ends_what_it_runs_and_gets_no_more() -> None:
    dispatcher = running(Dispatcher(window=9), groups=1, room=2)
    dispatcher.handle(WorkerDraining("w"), 0.0)
    assert not dispatcher.is_hungry
    assert dispatcher.handle(GroupOffered(1), 0.0) == []
    dispatcher.handle(AttemptFinished(AttemptId(0, 0)), 0.0)
    assert dispatcher.handle(WorkerJoined("v", 1), 0.0) == [StartAttempt(AttemptId(1, 0), "v")]


def test_a_run_that_drains_lets_groups_end_and_begins_none() -> None:
    dispatcher = running(Dispatcher(), groups=2)
    assert dispatcher.handle(RunDrained(), 0.0) == [DropGroup(1, "drained", "the run was drained")]
    assert not dispatcher.is_hungry
    dispatcher.handle(AttemptFinished(AttemptId(0, 0)), 0.0)
    assert (dispatcher.account.delivered, dispatcher.account.open) == (1, 0)


def gone(group: int, number: int) -> AttemptFailed:
    return AttemptFailed(AttemptId(group, number), "gone", "no such sampler")


def test_a_few_attempts_in_a_row_whose_policy_is_gone_halt_the_run() -> None:
    dispatcher = running(Dispatcher(), groups=3, room=3)
    again = dispatcher.handle(gone(0, 0), 1.0)
    assert again == [StartAttempt(AttemptId(0, 1), "w")]
    dispatcher.handle(gone(1, 0), 1.0)
    dispatcher.handle(AttemptFinished(AttemptId(2, 0)), 1.0)  # drawn before it was gone
    for attempt in [(0, 1), (1, 1)]:
        dispatcher.handle(gone(*attempt), 2.0)
    commands = dispatcher.handle(gone(0, 2), 2.0)
    assert commands[-1] == HaltRun(3, "no such sampler", "gone")
    assert dispatcher.account.dropped == {"halted": 2}
    assert dispatcher.account.open == 0


def test_a_group_that_alone_finds_its_policy_gone_is_dropped_in_the_end() -> None:
    dispatcher = running(Dispatcher(retries=1), groups=2, room=2)
    dispatcher.handle(gone(0, 0), 1.0)
    dispatcher.handle(AttemptFinished(AttemptId(1, 0)), 1.0)
    [dropped] = dispatcher.handle(gone(0, 1), 3.0)
    assert dropped == DropGroup(0, "gone", "no such sampler", attempts=2, seconds=3.0)


def test_a_group_whose_older_policy_is_gone_is_drawn_with_the_newest() -> None:
    dispatcher = running(Dispatcher(), groups=GONE_IN_A_ROW, room=GONE_IN_A_ROW)
    dispatcher.handle(PolicyPublished(1), 1.0)
    for group in range(GONE_IN_A_ROW):
        again = dispatcher.handle(gone(group, 0), 2.0)
        assert again == [StartAttempt(AttemptId(group, 1), "w", version=1)]
