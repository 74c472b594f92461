"""Both sides of all limits, joined without messages or by hand."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest

from tinker_ray.limits import (
    UNLIMITED,
    ClusterLimits,
    HolderLimits,
    LocalLimits,
    Open,
    Paused,
    Stage,
    Throttled,
    Ticket,
)


def _admit(limits: HolderLimits, now: float) -> list[Ticket]:
    tickets = []
    while (ticket := limits.admit(now)) is not None:
        tickets.append(ticket)
    return tickets


def _talk(cluster: ClusterLimits, now: float, *holders: HolderLimits) -> int:
    """Carry all messages; return how many there were."""
    by_name = {limits.holder: limits for limits in holders}
    count = 0
    for _ in range(20):
        before = count
        for limits in holders:
            if (statement := limits.poll(now)) is not None:
                count += 1
                limits.apply(cluster.state(statement, now), now)
        for ruling in cluster.notices(now):
            count += 1
            if ruling.holder in by_name:
                by_name[ruling.holder].apply(ruling, now)
        if count == before:
            return count
    raise AssertionError("they do not come to an end")


def _holder(name: str, waiting: int, label: str = "", weight: float = 1.0) -> HolderLimits:
    limits = HolderLimits(name, random=lambda: 0.0)
    for _ in range(waiting):
        limits.join(label, weight)
    return limits


def _local(waiting: int, **options: int) -> LocalLimits:
    limits = LocalLimits(random=lambda: 0.0, **options)
    for _ in range(waiting):
        limits.join()
    limits.settle(0.0)
    return limits


def test_a_process_begins_with_one_message_and_ten_dispatches() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 100)
    assert _talk(cluster, 0.0, limits) == 1
    assert len(_admit(limits, 0.0)) == 10
    assert (limits.dispatching, limits.at_work, limits.waiting) == (10, 0, 90)


def test_what_was_accepted_allows_more_at_once() -> None:
    limits = _local(4_000)
    widths = []
    for step in range(80):
        limits.settle(step / 10)
        tickets = _admit(limits, step / 10)
        assert len(tickets) == min(400, max(10, limits.num_accepted // 20))
        widths.append(len(tickets))
        for ticket in tickets:
            limits.accepted(ticket, step / 10)
    assert widths == sorted(widths)
    assert widths[-1] > 100


def test_a_process_of_its_own_meets_few_429s_and_knows_the_capacity_of_the_service() -> None:
    limits, capacity, rejected = _local(1000), 200, 0
    for step in range(100):
        now = step / 10
        for ticket in _admit(limits, now):
            if limits.at_work < capacity:
                limits.accepted(ticket, now)
            else:
                rejected += 1
                limits.rejected(ticket, now)
        limits.settle(now)
        if limits.window:
            break
    assert rejected <= 15
    assert (limits.window, limits.at_work) == (200, 200)


def test_after_a_429_everybody_pauses_then_ten_are_sent_at_once_then_all() -> None:
    cluster = ClusterLimits()
    holders = [_holder(name, 200) for name in "abcd"]
    _talk(cluster, 0.0, *holders)
    tickets = [(limits, ticket) for limits in holders for ticket in _admit(limits, 0.0)]
    assert len(tickets) == 40
    for limits, ticket in tickets[1:]:
        limits.accepted(ticket, 0.1)
    holders[0].rejected(tickets[0][1], 0.1)
    _talk(cluster, 0.1, *holders)

    for now in (0.1, 0.5, 1.0, 1.14):
        _talk(cluster, now, *holders)
        assert [_admit(limits, now) for limits in holders] == [[], [], [], []]
        assert isinstance(holders[3].state(now), Paused)
    _talk(cluster, 1.4, *holders)
    assert isinstance(holders[3].state(1.4), Throttled)
    assert sum(limits.permits.held(1.4) for limits in holders) == 10
    assert [_admit(limits, 1.4) for limits in holders] == [[], [], [], []]  # no slots are free
    for limits, ticket in tickets[1:]:
        limits.finished(ticket)
    _talk(cluster, 1.4, *holders)
    assert sum(limits.permits.held(1.4) for limits in holders) == 10
    for limits in holders:
        for ticket in _admit(limits, 1.4):
            limits.finished(ticket)
    _talk(cluster, 11.0, *holders)
    assert sum(limits.permits.available(11.0) for limits in holders) <= 10
    _talk(cluster, 11.5, *holders)
    assert isinstance(holders[0].state(11.5), Open)
    assert cluster.permits.limit == 400


def test_the_window_is_what_all_have_at_work_when_the_pause_ends() -> None:
    cluster = ClusterLimits()
    holders = [_holder(name, 200) for name in "ab"]
    for step in range(30):
        now = step / 10
        _talk(cluster, now, *holders)
        for limits in holders:
            for ticket in _admit(limits, now):
                limits.accepted(ticket, now)
    at_work = sum(limits.at_work for limits in holders)
    holders[0].join()
    _talk(cluster, 3.0, *holders)
    (ticket, *others) = _admit(holders[0], 3.0)
    for other in others:
        holders[0].accepted(other, 3.0)
    holders[0].rejected(ticket, 3.0)
    _talk(cluster, 3.0, *holders)
    assert cluster.slots.limit == UNLIMITED
    _talk(cluster, 3.1, *holders)
    _talk(cluster, 4.3, *holders)

    expected = at_work + len(others)
    assert cluster.slots.limit == expected
    assert cluster.inventory(4.3)["samples_at_work"] == expected
    assert [_admit(limits, 4.3) for limits in holders] == [[], []]


def test_what_was_not_sent_is_not_taken_for_what_the_service_has() -> None:
    limits = _local(400)
    for step in range(8):
        for ticket in _admit(limits, step / 10):
            limits.accepted(ticket, step / 10)
    sent = _admit(limits, 0.8)
    at_work, (rejected, withdrawn, *others) = limits.at_work, sent
    limits.rejected(rejected, 0.8)
    limits.withdrawn(withdrawn)
    for ticket in others:
        limits.accepted(ticket, 0.81)
    limits.settle(0.9)
    limits.settle(1.9)
    assert limits.window == at_work + len(others)


def test_answers_that_were_on_their_way_are_left_out_up_to_a_fiftieth() -> None:
    limits = _local(400)
    at_work = []
    for step in range(10):
        for ticket in _admit(limits, step / 10):
            limits.accepted(ticket, step / 10)
            at_work.append(ticket)
    rejected, *others = _admit(limits, 1.0)
    limits.rejected(rejected, 1.0)
    for ticket in others:
        limits.withdrawn(ticket)
    limits.finished(at_work[0])
    limits.settle(1.04)  # it is not said yet
    limits.settle(1.06)
    limits.finished(at_work[1])
    limits.settle(2.1)
    assert (limits.window, limits.at_work) == (len(at_work) - 1, len(at_work) - 2)


@pytest.mark.parametrize("holder,window", [("a", 9), ("late", 9 + 40)])
def test_only_the_first_word_of_each_process_after_the_first_429_makes_the_window(
    holder: str, window: int
) -> None:
    cluster, limits = ClusterLimits(), _holder("a", 100)
    _talk(cluster, 0.0, limits)
    rejected, *others = _admit(limits, 0.0)
    for ticket in others:
        limits.accepted(ticket, 0.1)
    limits.rejected(rejected, 0.1)
    for now in (0.1, 0.2, 1.2):
        _talk(cluster, now, limits)
    assert cluster.window.limit(1.2, full=True) == 9

    word = HolderLimits(holder)
    word.join()
    statement = word.poll(2.0)
    assert statement is not None
    claims = [replace(claim, serial=99) for claim in (statement.permits, statement.slots)]
    for at_work in (40, 60):
        later = replace(statement, permits=claims[0], slots=claims[1], at_work=at_work)
        cluster.state(later, 2.0)
        claims = [replace(claim, serial=100) for claim in claims]
    assert cluster.window.limit(2.0, full=True) == window


@pytest.mark.parametrize("later", [0.04, 0.08, 0.3])
def test_each_429_of_a_burst_is_followed_by_a_second_without_dispatches(later: float) -> None:
    cluster, one, other = ClusterLimits(), _holder("a", 20), _holder("b", 20)
    _talk(cluster, 0.0, one, other)
    first, second, *_ = _admit(one, 0.0)
    one.rejected(first, 0.0)
    _talk(cluster, 0.0, one, other)
    one.rejected(second, later)
    _talk(cluster, later, one, other)
    for limits in (one, other):
        state = limits.state(later)
        assert isinstance(state, Paused)
        assert state.until >= later + 1.0


def test_a_pause_for_another_reason_teaches_nothing() -> None:
    cluster, limits, other = ClusterLimits(), _holder("a", 100), _holder("b", 100)
    _talk(cluster, 0.0, limits, other)
    limits.suspend(0.0, 5.0)
    _talk(cluster, 0.0, limits, other)
    assert isinstance(other.state(5.0), Paused)
    assert _admit(other, 5.0) == []
    _talk(cluster, 5.3, limits, other)
    assert cluster.inventory(5.3) | {"permits_leased": 0} == {
        "permits_limit": 10,
        "permits_leased": 0,
        "permits_in_use": 0,
        "window": 0,
        "samples_at_work": 0,
        "pause_s": 0.0,
        "state": "throttled",
    }
    assert 0 < len(_admit(other, 5.3)) <= 10


def test_the_side_that_divides_may_begin_a_pause() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 100)
    _talk(cluster, 0.0, limits)
    cluster.suspend(1.0, 2.0)
    assert cluster.wake_at <= 1.0
    _talk(cluster, 1.0, limits)
    assert isinstance(limits.state(3.0), Paused)


def test_a_new_ledger_learns_the_window_from_the_first_that_talks() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 100)
    cluster.window.restore(50, 0.0)
    _talk(cluster, 0.0, limits)
    assert limits.window == 50
    tickets = _admit(limits, 0.0)
    assert len(tickets) == 50
    for ticket in tickets:
        limits.accepted(ticket, 0.1)

    cluster = ClusterLimits(restarted_at=1.0)
    limits.reconnect()
    _talk(cluster, 1.0, limits)

    assert (cluster.window.is_known, cluster.slots.limit) == (True, 50)
    assert (cluster.slots.leased, limits.slots.available(1.0)) == (50, 0)


def test_who_comes_to_a_new_ledger_is_told_when_its_quiet_time_is_over() -> None:
    cluster, limits = ClusterLimits(restarted_at=0.0), _holder("a", 5)
    _talk(cluster, 1.0, limits)
    assert _admit(limits, 1.0) == []
    now = cluster.wake_at
    assert now <= 10.0
    _talk(cluster, now, limits)
    assert len(_admit(limits, now)) == 5


def test_slots_and_permits_come_with_one_message() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 20)
    cluster.window.restore(8, 0.0)
    assert _talk(cluster, 0.0, limits) == 1
    assert len(_admit(limits, 0.0)) == 8
    assert (cluster.permits.leased, cluster.slots.leased) == (8, 8)


def test_permits_are_not_taken_without_slots_to_use_them_for() -> None:
    cluster, first, second = ClusterLimits(), _holder("a", 20), _holder("b", 20)
    cluster.window.restore(8, 0.0)
    _talk(cluster, 0.0, first, second)
    slots = [limits.slots.held(0.0) for limits in (first, second)]
    permits = [limits.permits.held(0.0) for limits in (first, second)]
    assert sum(slots) == 8
    assert all(one <= other or other == 0 for one, other in zip(permits, slots, strict=True))


def test_labels_of_weight_3_and_1_in_one_process_are_sent_3_to_1() -> None:
    limits = LocalLimits(random=lambda: 0.0, most_at_work=10)
    for _ in range(2000):
        limits.join("train", 3.0)
        limits.join("eval", 1.0)
    sent = {"train": 0, "eval": 0}
    for step in range(200):
        limits.settle(step / 10)
        for ticket in _admit(limits, step / 10):
            sent[ticket.label] += 1
            limits.finished(ticket)
    total = sum(sent.values())
    assert total >= 1500
    assert abs(sent["train"] / total - 0.75) <= 0.01


def test_a_sample_ends_once_wherever_it_is() -> None:
    limits = _local(0)
    waiting, sent, at_work = limits.join(), limits.join(), limits.join()
    limits.settle(0.0)
    limits.finished(waiting)
    assert _admit(limits, 0.0) == [sent, at_work]
    limits.accepted(at_work, 0.1)
    for _ in range(2):
        for ticket in (waiting, sent, at_work):
            limits.finished(ticket)
            assert ticket.stage is Stage.ENDED
    assert (limits.waiting, limits.dispatching, limits.at_work) == (0, 0, 0)


def test_a_sample_that_waits_cannot_be_accepted() -> None:
    limits = _local(0)
    ticket = limits.join()
    with pytest.raises(ValueError, match="waiting is not dispatched"):
        limits.accepted(ticket, 0.0)


def test_a_retry_of_a_dispatch_needs_a_lease_and_no_pause() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 10)
    _talk(cluster, 0.0, limits)
    _admit(limits, 0.0)
    assert limits.covers(1.0)
    assert not limits.covers(9.5)
    limits.suspend(1.0, 3.0)
    assert not limits.covers(2.0)


def test_a_process_that_closes_gives_everything_back() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 20)
    cluster.window.restore(12, 0.0)
    _talk(cluster, 0.0, limits)
    tickets = _admit(limits, 0.0)
    limits.close()
    _talk(cluster, 0.1, limits)
    assert _admit(limits, 0.1) == []
    for ticket in tickets:
        limits.finished(ticket)
    _talk(cluster, 0.2, limits)
    assert (cluster.permits.leased, cluster.slots.leased) == (0, 0)


def test_a_process_that_is_believed_dead_gets_nothing() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 20)
    _talk(cluster, 0.0, limits)
    cluster.forget("a")
    limits.reconnect()
    _talk(cluster, 1.0, limits)
    assert limits.fenced
    assert _admit(limits, 1.0) == []
    assert (limits.poll(100.0), limits.wake_at(1.0)) == (None, math.inf)


def test_a_local_process_with_nothing_to_do_never_wakes() -> None:
    limits = _local(3)
    for ticket in _admit(limits, 0.0):
        limits.finished(ticket)
    now = 0.0
    for _ in range(10):
        limits.settle(now)
        now = limits.wake_at(now)
        if math.isinf(now):
            break
    assert now == math.inf


def test_messages_are_small_and_travel() -> None:
    cluster, limits = ClusterLimits(), _holder("a", 20, "train", 3.0)
    statement = limits.poll(0.0)
    assert statement is not None
    ruling = cluster.state(statement, 0.0)
    for message in (statement, ruling):
        assert pickle.loads(pickle.dumps(message)) == message  # noqa: S301 - our own bytes
        assert len(pickle.dumps(message)) < 1000


def test_states_are_shown() -> None:
    limits = _local(2)
    assert "FairQueue(any: 2) wait" in repr(limits)
    assert "unlimited" in repr(limits)
    assert "Window(none yet" in repr(limits.cluster)
