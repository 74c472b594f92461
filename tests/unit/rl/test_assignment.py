from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinker_ray.rl.assignment import (
    LOSSES_IN_A_ROW,
    Assignment,
    Command,
    Fail,
    Run,
    StartWorker,
)


def submitted(assignment: Assignment, count: int) -> list[Command]:
    return [command for task in range(count) for command in assignment.submit(task)]


def test_there_is_one_worker_for_each_task_up_to_the_most() -> None:
    assignment = Assignment(max_workers=2, tasks_per_worker=4)
    assert [StartWorker(), StartWorker()] == submitted(assignment, 3)


def test_while_others_are_being_started_a_worker_gets_its_share() -> None:
    assignment = Assignment(max_workers=2, tasks_per_worker=4)
    submitted(assignment, 6)
    assert [Run(0, "a"), Run(1, "a"), Run(2, "a")] == assignment.join("a")
    assert [Run(3, "b"), Run(4, "b"), Run(5, "b")] == assignment.join("b")


def test_a_worker_runs_no_more_than_its_number_and_goes_on_as_tasks_end() -> None:
    assignment = Assignment(max_workers=1, tasks_per_worker=2)
    submitted(assignment, 3)
    assert [Run(0, "a"), Run(1, "a")] == assignment.join("a")
    assert [Run(2, "a")] == assignment.end(0)
    assert ([], []) == (assignment.end(1), assignment.end(2))
    assert (True, 3, 2) == (
        assignment.is_idle,
        assignment.account.ended,
        assignment.account.most_running,
    )


def test_a_cancelled_task_leaves_its_place_to_another() -> None:
    assignment = Assignment(max_workers=1, tasks_per_worker=1)
    submitted(assignment, 3)
    assignment.join("a")
    assert [] == assignment.cancel(1)
    assert [Run(2, "a")] == assignment.cancel(0)
    assert ([], []) == (assignment.cancel(0), assignment.end(0))
    assert 2 == assignment.account.cancelled


@pytest.mark.parametrize(
    "retries, expected",
    [
        (0, [Fail(1, "gone"), Fail(0, "gone"), StartWorker()]),
        (1, [StartWorker()]),
    ],
)
def test_tasks_of_a_lost_worker_fail_or_wait_again(retries: int, expected: list[Command]) -> None:
    assignment = Assignment(max_workers=1, tasks_per_worker=2, retries=retries)
    submitted(assignment, 3)
    assignment.join("a")
    assert expected == assignment.lose("a", "gone")
    first = 0 if retries else 2
    assert Run(first, "b") == assignment.join("b")[0]


def test_a_task_is_repeated_no_more_often_than_allowed() -> None:
    assignment = Assignment(max_workers=1, tasks_per_worker=1, retries=1)
    assignment.submit(0)
    assignment.join("a")
    assert [StartWorker()] == assignment.lose("a", "gone")
    assert [Run(0, "b")] == assignment.join("b")
    assert [Fail(0, "gone again")] == assignment.lose("b", "gone again")


def test_workers_that_cannot_be_started_fail_what_waits_and_the_next_task_tries_again() -> None:
    assignment = Assignment(max_workers=2, tasks_per_worker=1)
    submitted(assignment, 2)
    assert [] == assignment.cannot_start("no room")
    assert [Fail(0, "no room"), Fail(1, "no room")] == assignment.cannot_start("no room")
    assert [StartWorker()] == assignment.submit(2)


def test_one_worker_lost_after_the_other_ends_the_trying() -> None:
    assignment = Assignment(max_workers=1, tasks_per_worker=1, retries=100)
    assignment.submit(0)
    assignment.submit(1)
    for number in range(LOSSES_IN_A_ROW - 1):
        assignment.join(f"w{number}")
        assert [StartWorker()] == assignment.lose(f"w{number}", "killed")
    assignment.join("last")
    reason = "one worker after the other is lost: killed"
    assert [Fail(0, reason), Fail(1, reason)] == assignment.lose("last", "killed")


class Executing(RuleBasedStateMachine):
    """Random tasks, ends, cancellations and deaths; a model keeps what was handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Assignment(max_workers=3, tasks_per_worker=2, retries=1)
        self.num_tasks = 0
        self.num_workers = 0
        self.starting = 0
        self.running: dict[int, str] = {}
        self.workers: set[str] = set()
        self.given_back: Counter[int] = Counter()

    def obey(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Run(task, worker):
                    assert worker in self.workers
                    assert task not in self.running
                    self.running[task] = worker
                case StartWorker():
                    self.starting += 1
                case Fail(task, _):
                    self.given_back[task] += 1

    @rule()
    def submit(self) -> None:
        self.obey(self.machine.submit(self.num_tasks))
        self.num_tasks += 1

    @precondition(lambda self: self.starting)
    @rule(works=st.booleans())
    def start(self, *, works: bool) -> None:
        self.starting -= 1
        if not works:
            self.obey(self.machine.cannot_start("no"))
            return
        self.workers.add(f"w{self.num_workers}")
        self.num_workers += 1
        self.obey(self.machine.join(f"w{self.num_workers - 1}"))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[task]
        self.given_back[task] += 1
        self.obey(self.machine.end(task))

    @precondition(lambda self: self.num_tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.integers(0, self.num_tasks - 1))
        if not self.given_back[task]:
            self.running.pop(task, None)
            self.given_back[task] += 1
        self.obey(self.machine.cancel(task))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.workers)))
        self.workers.discard(worker)
        self.running = {task: at for task, at in self.running.items() if at != worker}
        self.obey(self.machine.lose(worker, "lost"))

    @invariant()
    def no_task_is_given_back_twice_and_the_account_adds_up(self) -> None:
        assert all(count <= 1 for count in self.given_back.values())
        assert self.num_tasks - sum(self.given_back.values()) == self.machine.account.open

    @invariant()
    def no_worker_has_more_than_it_may_and_no_more_are_started(self) -> None:
        assert all(count <= 2 for count in Counter(self.running.values()).values())
        assert len(self.workers) + self.starting <= 3

    @invariant()
    def what_waits_is_waited_for(self) -> None:
        open_tasks = self.machine.account.open
        assert open_tasks == len(self.running) or self.starting or self.workers


TestExecuting = Executing.TestCase
TestExecuting.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
