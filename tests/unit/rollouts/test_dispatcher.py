from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinker_ray.rollouts import AttemptId, Dispatcher
from tinker_ray.rollouts.event import (
    AttemptFailed,
    AttemptFinished,
    CancelAttempt,
    Command,
    DeliverGroup,
    DropGroup,
    Event,
    GroupOffered,
    GroupTaken,
    RunCancelled,
    StartAttempt,
    WorkerJoined,
    WorkerLost,
)


def attempt(group: int, number: int = 0) -> AttemptId:
    return AttemptId(group, number)


def dispatcher_after(*events: Event, retries: int = 1, window: int | None = None) -> Dispatcher:
    dispatcher = Dispatcher(retries=retries, window=window)
    for event in events:
        dispatcher.handle(event, 0.0)
    return dispatcher


ONE_RUNNING = (WorkerJoined("w", 1), GroupOffered(0))


@pytest.mark.parametrize(
    "before,event,commands",
    [
        ((), GroupOffered(0), []),
        ((GroupOffered(0),), WorkerJoined("w", 2), [StartAttempt(attempt(0), "w")]),
        ((WorkerJoined("w", 1),), GroupOffered(0), [StartAttempt(attempt(0), "w")]),
        (ONE_RUNNING, GroupOffered(1), []),
        (ONE_RUNNING, AttemptFinished(attempt(0)), [DeliverGroup(attempt(0))]),
        (
            (*ONE_RUNNING, GroupOffered(1)),
            AttemptFinished(attempt(0)),
            [DeliverGroup(attempt(0)), StartAttempt(attempt(1), "w")],
        ),
        (
            ONE_RUNNING,
            AttemptFailed(attempt(0), "infrastructure"),
            [StartAttempt(attempt(0, 1), "w")],
        ),
        (
            ONE_RUNNING,
            AttemptFailed(attempt(0), "request", "bad prompt"),
            [DropGroup(0, "request", "bad prompt", attempts=1)],
        ),
        (
            (*ONE_RUNNING, AttemptFailed(attempt(0), "infrastructure")),
            AttemptFailed(attempt(0, 1), "infrastructure", "gone"),
            [DropGroup(0, "infrastructure", "gone", attempts=2)],
        ),
        (ONE_RUNNING, WorkerLost("w"), []),
        ((*ONE_RUNNING, WorkerLost("w")), WorkerJoined("v", 1), [StartAttempt(attempt(0, 1), "v")]),
        (
            (*ONE_RUNNING, WorkerJoined("v", 1)),
            WorkerLost("w"),
            [StartAttempt(attempt(0, 1), "v")],
        ),
        ((*ONE_RUNNING, WorkerLost("w")), AttemptFinished(attempt(0)), []),
        (ONE_RUNNING, WorkerLost("unknown"), []),
        (
            (*ONE_RUNNING, GroupOffered(1)),
            RunCancelled("bye"),
            [
                CancelAttempt(attempt(0), "w"),
                DropGroup(0, "cancelled", "bye", attempts=1),
                DropGroup(1, "cancelled", "bye"),
            ],
        ),
        ((*ONE_RUNNING, RunCancelled()), AttemptFinished(attempt(0)), []),
    ],
)
def test_an_event_is_answered_with_commands(
    before: tuple[Event, ...], event: Event, commands: list[Command]
) -> None:
    assert dispatcher_after(*before).handle(event, 0.0) == commands


def test_the_freest_worker_gets_the_next_group() -> None:
    dispatcher = dispatcher_after(WorkerJoined("a", 1), WorkerJoined("b", 3))
    started = [dispatcher.handle(GroupOffered(group), 0.0) for group in range(4)]
    assert [
        commands[0].worker for commands in started if isinstance(commands[0], StartAttempt)
    ] == [
        "b",
        "b",
        "a",
        "b",
    ]


def test_a_slow_consumer_stops_new_groups_until_it_takes_one() -> None:
    dispatcher = dispatcher_after(
        WorkerJoined("w", 2), *map(GroupOffered, range(4)), AttemptFinished(attempt(0)), window=2
    )
    assert dispatcher.handle(AttemptFinished(attempt(1)), 0.0) == [DeliverGroup(attempt(1), 1)]
    assert not dispatcher.is_hungry
    assert dispatcher.handle(GroupTaken(0), 0.0) == [StartAttempt(attempt(2), "w")]


def test_a_retry_needs_no_new_permit_and_goes_before_waiting_groups() -> None:
    dispatcher = dispatcher_after(*ONE_RUNNING, GroupOffered(1), window=1)
    failed = AttemptFailed(attempt(0), "infrastructure")
    assert dispatcher.handle(failed, 0.0) == [StartAttempt(attempt(0, 1), "w")]


def test_an_offer_is_wanted_only_if_it_would_start_at_once() -> None:
    dispatcher = Dispatcher()
    hungry = [dispatcher.is_hungry]
    for event in (WorkerJoined("w", 1), GroupOffered(0)):
        dispatcher.handle(event, 0.0)
        hungry.append(dispatcher.is_hungry)
    assert hungry == [False, True, False]


def test_a_group_is_offered_once() -> None:
    with pytest.raises(ValueError, match="group 0 was offered twice"):
        dispatcher_after(GroupOffered(0), GroupOffered(0))


def test_late_results_are_counted() -> None:
    dispatcher = dispatcher_after(
        *ONE_RUNNING,
        WorkerLost("w"),
        WorkerJoined("v", 1),
        AttemptFinished(attempt(0)),
        AttemptFinished(attempt(0, 1)),
        AttemptFinished(attempt(0, 1)),
    )
    assert (dispatcher.account.delivered, dispatcher.account.fenced) == (1, 2)
    assert (dispatcher.account.retried, dispatcher.account.open) == (1, 0)


class World:
    """Plays the pool: remembers every command, and draws the next event among those that can be."""

    def __init__(self, *, retries: int, window: int | None) -> None:
        self.dispatcher = Dispatcher(retries=retries, window=window)
        self.capacity: dict[str, int] = {}
        self.running: dict[AttemptId, str] = {}
        self.past: list[AttemptId] = []
        self.delivered: list[int] = []
        self.dropped: list[int] = []
        self.taken = 0
        self.num_offered = 0
        self.num_workers = 0

    def tell(self, event: Event) -> None:
        for command in self.dispatcher.handle(event, 0.0):
            self.obey(command)
        self.check()

    def obey(self, command: Command) -> None:
        match command:
            case StartAttempt(attempt_id, worker):
                assert attempt_id not in self.past
                assert worker in self.capacity
                self.past.append(attempt_id)
                self.running[attempt_id] = worker
            case CancelAttempt(attempt_id, worker):
                assert self.running.pop(attempt_id) == worker
            case DeliverGroup(attempt_id):
                self.delivered.append(attempt_id.group)
            case DropGroup(group):
                self.dropped.append(group)

    def check(self) -> None:
        ended = [*self.delivered, *self.dropped]
        assert len(ended) == len(set(ended)), "a group ended twice"
        account = self.dispatcher.account
        assert (account.delivered, account.dropped.total()) == (
            len(self.delivered),
            len(self.dropped),
        )
        assert account.dispatched == self.num_offered == len(ended) + account.open
        for worker, capacity in self.capacity.items():
            assert sum(1 for name in self.running.values() if name == worker) <= capacity
        groups = [attempt_id.group for attempt_id in self.running]
        assert len(groups) == len(set(groups)), "a group runs twice"

    def offer(self) -> None:
        self.num_offered += 1
        self.tell(GroupOffered(self.num_offered - 1))

    def join(self, capacity: int) -> None:
        self.num_workers += 1
        name = f"w{self.num_workers}"
        self.capacity[name] = capacity
        self.tell(WorkerJoined(name, capacity))

    def lose(self, index: int) -> None:
        if self.capacity:
            worker = sorted(self.capacity)[index % len(self.capacity)]
            del self.capacity[worker]
            self.running = {a: w for a, w in self.running.items() if w != worker}
            self.tell(WorkerLost(worker))

    def finish(self, index: int) -> None:
        if self.running:
            attempt_id = sorted(self.running)[index % len(self.running)]
            del self.running[attempt_id]
            self.tell(AttemptFinished(attempt_id))

    def fail(self, index: int, *, again: bool) -> None:
        if self.running:
            attempt_id = sorted(self.running)[index % len(self.running)]
            del self.running[attempt_id]
            self.tell(AttemptFailed(attempt_id, "infrastructure" if again else "request"))

    def late(self, index: int) -> None:
        old = [attempt_id for attempt_id in self.past if attempt_id not in self.running]
        if old:
            before = len(self.delivered)
            self.tell(AttemptFinished(old[index % len(old)]))
            assert len(self.delivered) == before

    def take(self) -> None:
        if self.taken < len(self.delivered):
            self.taken += 1
            self.tell(GroupTaken(self.delivered[self.taken - 1]))


MOVES = st.tuples(
    st.sampled_from(
        ["offer", "offer", "join", "lose", "finish", "finish", "fail", "break", "late", "take"]
    ),
    st.integers(0, 7),
)


@settings(max_examples=150, deadline=None)
@given(
    moves=st.lists(MOVES, max_size=60),
    retries=st.integers(0, 3),
    window=st.one_of(st.none(), st.integers(1, 4)),
    cancel=st.booleans(),
)
def test_every_dispatched_group_ends_exactly_once(
    moves: list[tuple[str, int]], retries: int, window: int | None, *, cancel: bool
) -> None:
    world = World(retries=retries, window=window)
    for move, number in moves:
        match move:
            case "offer" | "take":
                getattr(world, move)()
            case "join":
                world.join(1 + number % 3)
            case "fail" | "break":
                world.fail(number, again=move == "fail")
            case _:
                getattr(world, move)(number)
    if cancel:
        world.tell(RunCancelled())
    else:
        world.join(2)
    while world.dispatcher.account.open:
        world.finish(0)
        world.take()
    account = world.dispatcher.account
    assert account.dispatched == account.delivered + account.dropped.total()
    assert world.dispatcher.in_flight == 0
    for group in range(world.num_offered):
        assert sum(1 for past in world.past if past.group == group) <= retries + 1
