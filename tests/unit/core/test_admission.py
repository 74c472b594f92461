from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.clock import SteppedClock, settle
from tinker_ray.core.admission import Admission
from tinker_ray.core.traffic import Traffic
from tinker_ray.errors import StaleHandleError
from tinker_ray.limits import ByteBudget, HolderLimits, LocalLimits, Open, Paused

BUDGET_BYTES = 100


@dataclass
class Office:
    """Samples at an admission; each goes on when the test says so."""

    capacity: int = 2
    clock: SteppedClock = field(default_factory=SteppedClock)

    def __post_init__(self) -> None:
        self.budget = ByteBudget(BUDGET_BYTES)
        self.limits = LocalLimits(self.capacity, random=lambda: 0.0)
        self.admission = Admission(self.limits, self.clock, self.budget)
        self.sent: list[int] = []
        self.sending: set[int] = set()
        self.most_sending = 0
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.verdicts: dict[int, asyncio.Queue[str]] = {}

    def start(self, number: int, num_bytes: int = 1, label: str = "") -> None:
        self.verdicts[number] = asyncio.Queue()
        traffic = Traffic(label, 3.0 if label == "train" else 1.0)
        self.tasks[number] = asyncio.create_task(self._sample(number, num_bytes, traffic))

    async def _sample(self, number: int, num_bytes: int, traffic: Traffic) -> None:
        async with self.admission.sample(traffic, num_bytes) as passage:
            verdict = ""
            while verdict != "accepted":
                async with passage.sending():
                    assert not isinstance(self.limits.state(self.clock.now()), Paused)
                    self.sent.append(number)
                    self.sending.add(number)
                    self.most_sending = max(self.most_sending, len(self.sending))
                    try:
                        verdict = await self.verdicts[number].get()
                    finally:
                        self.sending.remove(number)
                    match verdict:
                        case "accepted":
                            passage.accepted()
                        case "rejected":
                            passage.rejected(None)
                        case "unpaid":
                            passage.suspended(5.0)
                        case "fails":
                            raise ValueError(number)
            await self.verdicts[number].get()

    async def tell(self, verdict: str, *numbers: int) -> None:
        for number in numbers:
            self.verdicts[number].put_nowait(verdict)
        await settle()

    async def follow(self, step: str, number: int) -> None:
        """Do one step of a random schedule."""
        if step == "start":
            self.start(len(self.tasks), num_bytes=number, label=["train", "eval"][number % 2])
        elif step == "cancel" and number in self.tasks:
            self.tasks[number].cancel()
        elif step == "advance":
            await self.clock.advance(float(number))
        elif step == "settle":
            await settle()
        elif number in self.verdicts:
            self.verdicts[number].put_nowait(step)

    async def end(self) -> None:
        """Accept and answer everything, let all time pass, and check that nothing was lost."""
        for _ in range(8):
            for verdicts in self.verdicts.values():
                verdicts.put_nowait("accepted")
            await self.clock.advance(1000.0)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        limits = self.limits
        assert (0, 0, 0) == (limits.dispatching, limits.at_work, limits.waiting)
        assert BUDGET_BYTES == self.budget.left_bytes
        await self.admission.aclose()


async def test_no_more_than_the_limit_are_sent_at_once_first_come_first_served() -> None:
    office = Office(capacity=2)
    for number in range(5):
        office.start(number)
    await settle()
    assert ([0, 1], 3) == (office.sent, office.admission.waiting)
    await office.tell("accepted", 0)
    assert [0, 1, 2] == office.sent
    await office.tell("accepted", 1, 2)
    assert [0, 1, 2, 3, 4] == office.sent
    await office.end()
    assert 2 == office.most_sending


async def test_what_the_service_has_accepted_needs_no_permit() -> None:
    office = Office(capacity=1)
    for number in range(4):
        office.start(number)
        await settle()
        await office.tell("accepted", number)
    assert (0, 4) == (office.limits.dispatching, office.limits.at_work)
    await office.end()


async def test_a_429_pauses_everybody_and_the_same_sample_goes_first_afterwards() -> None:
    office = Office(capacity=1)
    for number in range(3):
        office.start(number)
    await settle()
    await office.tell("rejected", 0)
    await office.clock.advance(1.0)
    assert [0] == office.sent
    await office.clock.advance(0.2)
    assert [0, 0] == office.sent
    await office.end()


async def test_after_a_pause_ten_are_sent_at_once_until_all_is_well_for_ten_seconds() -> None:
    office = Office(capacity=400)
    for number in range(8):
        office.start(number)
    await settle()
    await office.tell("accepted", *range(8))
    for number in range(8, 40):
        office.start(number)
    await settle()
    await office.tell("rejected", 8)
    await office.tell("accepted", *range(9, 16))
    office.most_sending = 0
    await office.clock.advance(1.2)
    for _ in range(3):
        await office.tell("accepted", *office.sending)
    assert office.most_sending <= 10
    await office.end()


async def test_an_unpaid_bill_pauses_but_teaches_nothing_about_the_window() -> None:
    office = Office()
    office.start(0)
    await settle()
    await office.tell("unpaid", 0)
    await office.clock.advance(5.0)
    assert [0] == office.sent
    await office.clock.advance(0.2)
    assert ([0, 0], 0) == (office.sent, office.limits.window)
    await office.end()


async def test_a_prompt_that_is_too_large_waits_for_the_bytes_of_others() -> None:
    office = Office(capacity=5)
    office.start(0, num_bytes=500)
    office.start(1)
    await settle()
    assert [0] == office.sent
    await office.tell("accepted", 0)
    assert [0, 1] == office.sent
    await office.end()


async def test_whoever_waits_for_bytes_when_a_pause_begins_waits_for_its_end() -> None:
    office = Office(capacity=5)
    office.start(0, num_bytes=500)
    office.start(1)
    await settle()
    await office.tell("rejected", 0)
    assert [0] == office.sent
    await office.clock.advance(1.2)
    assert [0, 1] == office.sent
    await office.end()
    assert [0, 1, 0] == office.sent


async def test_labels_get_what_their_weights_say() -> None:
    office = Office(capacity=4)
    for number in range(80):
        office.start(number, label=["train", "eval"][number % 2])
    await settle()
    while len(office.sent) < 40:
        await office.tell("accepted", *sorted(office.sending))
    num_train = sum(number % 2 == 0 for number in office.sent[:40])
    assert 28 <= num_train <= 32
    await office.end()


async def test_a_cancelled_sample_gives_back_what_it_has_wherever_it_is() -> None:
    office = Office(capacity=1)
    for number in range(3):
        office.start(number)
    await settle()
    office.tasks[1].cancel()
    await settle()
    office.tasks[0].cancel()
    await settle()
    assert [0, 2] == office.sent
    await office.tell("accepted", 2)
    office.tasks[2].cancel()
    await settle()
    assert (0, 0) == (office.limits.dispatching, office.limits.at_work)
    await office.end()


async def test_closing_sends_away_whoever_waits_and_whoever_comes() -> None:
    office = Office(capacity=1)
    office.start(0)
    office.start(1)
    await settle()
    office.limits.suspend(0.0, 50.0)
    covered = asyncio.create_task(office.admission.covered())
    await settle()
    await office.admission.aclose()
    office.start(2)
    await settle()
    for task in (office.tasks[1], office.tasks[2], covered):
        with pytest.raises(StaleHandleError, match="was closed"):
            await task
    office.tasks[0].cancel()


async def test_a_repetition_waits_for_the_end_of_a_pause() -> None:
    office = Office()
    office.limits.suspend(0.0, 3.0)
    covered = asyncio.create_task(office.admission.covered())
    await office.clock.advance(3.0)
    assert not covered.done()
    await office.clock.advance(0.2)
    await covered
    await office.admission.aclose()


def test_shared_limits_need_somebody_to_carry_their_messages() -> None:
    with pytest.raises(TypeError, match="carry"):
        Admission(HolderLimits("a"), SteppedClock(), ByteBudget())


VERDICTS = ["accepted", "accepted", "rejected", "unpaid", "fails"]
STEPS = st.tuples(
    st.sampled_from(["start", "start", *VERDICTS, "cancel", "advance", "settle"]),
    st.integers(0, 12),
)


@settings(max_examples=40)
@given(steps=st.lists(STEPS, max_size=50), capacity=st.integers(1, 5))
def test_nothing_is_lost_whatever_happens(steps: list[tuple[str, int]], capacity: int) -> None:
    async def run() -> None:
        office = Office(capacity)
        for step, number in steps:
            await office.follow(step, number)
            assert len(office.sending) <= capacity
        await office.end()
        assert isinstance(office.limits.state(office.clock.now()), Open)

    asyncio.run(run())
