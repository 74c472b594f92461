from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SteppedClock, settle
from tinker_ray.core.admission import Admission
from tinker_ray.errors import StaleHandleError
from tinker_ray.limits.backoff import Backoff, Paused, Throttled
from tinker_ray.limits.budget import ByteBudget

BUDGET_BYTES = 100


@dataclass
class Office:
    """Requests at an admission; each goes on when the test says so."""

    capacity: int = 2
    clock: SteppedClock = field(default_factory=SteppedClock)

    def __post_init__(self) -> None:
        self.budget = ByteBudget(BUDGET_BYTES)
        self.backoff = Backoff(lambda: 0.0, width=2)
        self.num_demands = 0
        self.num_reports = 0
        self.admission = Admission(
            self.clock,
            self.backoff,
            self.budget,
            capacity=self.capacity,
            on_demand=self._demand,
            on_rejection=self._report,
        )
        self.permitted: list[int] = []
        self.sent: list[int] = []
        self.sending: set[int] = set()
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.answers: dict[int, asyncio.Event] = {}

    def _demand(self) -> None:
        self.num_demands += 1

    def _report(self) -> None:
        self.num_reports += 1

    def start(self, number: int, num_bytes: int = 1) -> None:
        self.answers[number] = asyncio.Event()
        self.tasks[number] = asyncio.create_task(self._request(number, num_bytes))

    async def _request(self, number: int, num_bytes: int) -> None:
        async with self.admission.permit():
            self.permitted.append(number)
            async with self.admission.sending(num_bytes):
                assert not isinstance(self.backoff.state(self.clock.now()), Paused)
                self.sent.append(number)
                self.sending.add(number)
                try:
                    await self.answers[number].wait()
                finally:
                    self.sending.remove(number)

    async def answer(self, *numbers: int) -> None:
        for number in numbers:
            self.answers[number].set()
        await settle()

    async def follow(self, step: str, number: int) -> None:
        """Do one step of a random schedule."""
        if step == "start":
            self.start(len(self.tasks), num_bytes=number)
        elif step == "answer" and number in self.answers:
            self.answers[number].set()
        elif step == "cancel" and number in self.tasks:
            self.tasks[number].cancel()
        elif step == "resize":
            self.admission.resize(number)
        elif step == "reject":
            self.admission.rejected(1, float(number))
        elif step == "advance":
            await self.clock.advance(float(number))
        elif step == "settle":
            await settle()

    async def end(self) -> None:
        """Answer everything, let all time pass, and check that nothing was lost."""
        self.admission.resize(100)
        for event in self.answers.values():
            event.set()
        for _ in range(4):
            await self.clock.advance(1000.0)
        assert all(task.done() for task in self.tasks.values())
        assert (0, 0, BUDGET_BYTES) == (
            self.admission.in_use,
            self.admission.waiting,
            self.budget.left_bytes,
        )
        assert "sending=0" in repr(self.admission)
        await self.admission.aclose()


async def test_no_more_than_the_capacity_have_a_permit() -> None:
    office = Office(capacity=2)
    for number in range(5):
        office.start(number)
    await settle()
    assert ([0, 1], 2, 3) == (office.permitted, office.admission.in_use, office.admission.waiting)
    await office.end()


async def test_permits_are_given_first_come_first_served() -> None:
    office = Office(capacity=1)
    for number in range(5):
        office.start(number)
    await settle()
    for number in range(5):
        await office.answer(number)
    assert [0, 1, 2, 3, 4] == office.permitted
    await office.end()


async def test_whoever_has_to_wait_for_a_permit_says_so() -> None:
    office = Office(capacity=1)
    for number in range(3):
        office.start(number)
    await settle()
    assert 2 == office.num_demands
    await office.end()


async def test_more_permits_let_more_in_and_fewer_take_none_away() -> None:
    office = Office(capacity=0)
    for number in range(4):
        office.start(number)
    await settle()
    assert [] == office.permitted
    office.admission.resize(3)
    await settle()
    assert [0, 1, 2] == office.permitted
    office.admission.resize(1)
    await office.answer(0, 1)
    assert ([0, 1, 2], 1) == (office.permitted, office.admission.in_use)
    await office.answer(2)
    assert [0, 1, 2, 3] == office.permitted
    await office.end()


async def test_nobody_sends_while_the_service_pushes_back() -> None:
    office = Office(capacity=10)
    office.admission.rejected(1, None)
    office.start(0)
    await office.clock.advance(1.0)
    assert ([0], []) == (office.permitted, office.sent)
    await office.clock.advance(0.2)
    assert [0] == office.sent
    assert (1, 1) == (office.admission.rejections, office.num_reports)
    await office.end()


async def test_after_a_pause_few_send_at_a_time_and_then_all() -> None:
    office = Office(capacity=10)
    office.admission.rejected(1, None)
    for number in range(6):
        office.start(number)
    await office.clock.advance(2.0)
    assert isinstance(office.backoff.state(office.clock.now()), Throttled)
    assert {0, 1} == office.sending
    await office.answer(0)
    assert {1, 2} == office.sending
    await office.clock.advance(10.0)
    await office.answer(1)
    assert {2, 3, 4, 5} == office.sending
    await office.end()


async def test_a_pause_that_grows_keeps_everybody_out_until_its_new_end() -> None:
    office = Office()
    office.admission.rejected(1, None)
    office.start(0)
    await office.clock.advance(0.9)
    office.admission.rejected(1, 5.0)
    await office.clock.advance(4.0)
    assert [] == office.sent
    await office.clock.advance(2.0)
    assert [0] == office.sent
    await office.end()


async def test_a_pause_that_another_process_reports_holds_here_too() -> None:
    office, other = Office(), Backoff(lambda: 0.0)
    other.on_rejected(0.0, 1, 4.0)
    office.backoff.merge(other.notice(0.0), 0.0)
    office.admission.refresh()
    office.start(0)
    await office.clock.advance(4.0)
    assert [] == office.sent
    await office.clock.advance(0.2)
    assert [0] == office.sent
    await office.end()


async def test_the_byte_budget_holds_requests_back() -> None:
    office = Office(capacity=10)
    for number in range(3):
        office.start(number, num_bytes=60)
    await settle()
    assert [0, 1] == office.sent
    assert -20 == office.budget.left_bytes
    await office.answer(0)
    assert [0, 1, 2] == office.sent
    await office.end()


async def test_an_oversize_request_passes_alone() -> None:
    office = Office(capacity=10)
    office.start(0, num_bytes=10 * BUDGET_BYTES)
    office.start(1, num_bytes=1)
    await settle()
    assert [0] == office.sent
    await office.answer(0)
    assert [0, 1] == office.sent
    await office.end()


async def test_small_requests_do_not_overtake_a_large_one() -> None:
    office = Office(capacity=10)
    office.start(0, num_bytes=BUDGET_BYTES + 1)
    await settle()
    for number in range(1, 4):
        office.start(number, num_bytes=1)
    await office.answer(0)
    assert [0, 1, 2, 3] == office.sent
    await office.end()


async def test_a_waiter_that_is_being_cancelled_is_not_let_in() -> None:
    office = Office(capacity=1)
    for number in range(3):
        office.start(number)
    await settle()
    # Number 0 leaves when 1 has been told to go, and before it has gone.
    office.answers[0].set()
    office.tasks[1].cancel()
    await settle()
    assert [0, 2] == office.permitted
    assert office.tasks[0].exception() is None
    await office.end()


async def test_whoever_is_cancelled_right_after_being_let_in_gives_the_permit_back() -> None:
    office = Office(capacity=0)
    office.start(0)
    office.start(1)
    await settle()
    office.admission.resize(1)
    office.tasks[0].cancel()
    await settle()
    assert [1] == office.permitted
    await office.end()


async def test_closing_sends_everybody_away_and_admits_nobody() -> None:
    office = Office(capacity=1)
    office.admission.rejected(1, None)
    office.start(0)
    office.start(1)
    await settle()
    await office.admission.aclose()
    await office.admission.aclose()
    office.start(2)
    await settle()
    for number in range(3):
        with pytest.raises(StaleHandleError, match="closed"):
            await office.tasks[number]
    assert (0, 0) == (office.admission.in_use, office.admission.waiting)


STEPS = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 150)),
    st.tuples(st.just("answer"), st.integers(0, 8)),
    st.tuples(st.just("cancel"), st.integers(0, 8)),
    st.tuples(st.just("resize"), st.integers(0, 4)),
    st.tuples(st.just("reject"), st.integers(0, 3)),
    st.tuples(st.just("advance"), st.integers(0, 8)),
    st.tuples(st.just("settle"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=50))
def test_whatever_happens_the_limits_hold_and_nothing_leaks(steps: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        office = Office(capacity=2)
        for number in range(5):
            office.start(number)
        await settle()
        for step, number in steps:
            num_holders_before = office.admission.in_use
            await office.follow(step, number)
            assert office.admission.in_use <= max(office.admission.capacity, num_holders_before)
            assert len(office.sending) <= office.admission.in_use
        await office.end()
        for task in office.tasks.values():
            assert task.cancelled() or task.exception() is None

    asyncio.run(scenario())
