"""A cluster of samplers in simulated time: what users are promised, at a small size."""

from __future__ import annotations

import random

import pytest

from tests.fakes.permit_fleet import Fleet
from tests.fakes.permit_service import Service

LEDGER_S = 0.0001


def _fleet(num_samplers: int, service: Service, *, limit: int = 400, backlog: int = 50) -> Fleet:
    return Fleet(num_samplers, service, limit=limit, backlog=backlog, ledger_s=LEDGER_S)


def _service(capacity: int | None, post_s: float, sample_s: float) -> Service:
    return Service(capacity, post_s, sample_s, random.Random(7))


@pytest.mark.parametrize("num_samplers", [1, 6, 60])
def test_permits_are_in_use_at_saturation_with_few_messages(num_samplers: int) -> None:
    fleet = _fleet(
        num_samplers, _service(None, 0.5, 0.5), limit=50, backlog=200 // num_samplers + 4
    )
    fleet.run(40.0)
    fleet.reset()
    fleet.run(10.0)

    assert fleet.dispatching.most <= 50
    assert fleet.dispatching.mean(fleet.now) >= 0.95 * 50
    if num_samplers < 50:
        assert fleet.messages / fleet.done.total() <= 0.1


def test_after_a_429_nothing_leaves_for_a_second_then_ten_at_once_in_the_whole_cluster() -> None:
    service = _service(100, 0.1, 3.0)
    fleet = _fleet(6, service, backlog=40)
    while not service.rejected_at:
        fleet.run(0.05)
    first = service.rejected_at[0]
    fleet.run(0.15)  # it is heard of
    fleet.sent = []
    fleet.run(1.0)
    last = service.rejected_at[-1]

    assert [when for when in fleet.sent if when < last + 1.0] == []
    assert len(service.rejected_at) <= 6 * 10
    fleet.dispatching.reset(fleet.now)
    fleet.run(first + 10.0 - fleet.now)
    assert 0 < fleet.dispatching.most <= 10


def test_a_service_of_unknown_capacity_is_filled_with_few_rejections() -> None:
    service = _service(100, 0.1, 3.0)
    fleet = _fleet(6, service, backlog=40)
    fleet.run(40.0)
    fleet.reset()
    fleet.run(60.0)

    assert fleet.at_work.mean(fleet.now) >= 0.9 * 100
    assert service.num_rejected <= 10
    assert service.most_at_work == 100


def test_labels_of_weight_3_and_1_share_3_to_1() -> None:
    labels = [[("train", 3.0)], [("eval", 1.0)], [("train", 3.0), ("eval", 1.0)]]
    service = _service(None, 0.2, 0.2)
    fleet = Fleet(
        6,
        service,
        limit=40,
        backlog=100,
        labels=lambda index: labels[index % 3],
        ledger_s=LEDGER_S,
    )
    fleet.run(5.0)
    fleet.reset()
    fleet.run(10.0)

    done = fleet.done
    assert done.total() >= 1900
    assert done["train"] / done["eval"] == pytest.approx(3.0, rel=0.05)


def test_permits_of_lost_samplers_are_back_within_one_ttl() -> None:
    fleet = _fleet(10, _service(None, 0.5, 0.5), limit=50, backlog=40)
    fleet.run(15.0)
    fleet.kill("holder-0")
    fleet.kill("holder-1")
    assert fleet.dispatching.value <= 45
    fleet.run(10.1)
    assert fleet.dispatching.value == 50
    assert fleet.dispatching.most <= 50


def test_a_sampler_behind_a_cut_link_stops_and_comes_back() -> None:
    fleet = _fleet(2, _service(None, 0.2, 0.2), limit=20, backlog=60)
    fleet.run(10.0)
    cut = fleet.samplers["holder-0"]
    cut.connected = False
    fleet.run(12.0)
    assert cut.limits.dispatching == 0
    assert fleet.dispatching.value == 20
    cut.connected = True
    fleet.run(6.0)
    assert cut.limits.dispatching == 10
    assert fleet.dispatching.most <= 20


def test_work_goes_on_while_what_divides_is_replaced() -> None:
    service = _service(60, 0.1, 2.0)
    fleet = _fleet(4, service, backlog=40)
    fleet.run(30.0)
    assert fleet.cluster is not None
    window = fleet.cluster.slots.limit
    fleet.reset()
    fleet.restart_cluster()
    fleet.run(8.0)

    assert fleet.cluster.window.is_known
    assert abs(fleet.cluster.slots.limit - window) <= 3
    assert fleet.at_work.mean(fleet.now) >= 0.85 * 60
    assert service.num_rejected <= 8


def test_more_samplers_than_permits_take_turns_and_are_served_alike() -> None:
    fleet = _fleet(60, _service(None, 0.2, 0.2), limit=20, backlog=10)
    fleet.run(10.0)
    fleet.reset()
    fleet.run(30.0)

    done = [sampler.done.total() for sampler in fleet.samplers.values()]
    assert fleet.dispatching.most <= 20
    assert fleet.dispatching.mean(fleet.now) >= 0.95 * 20
    assert sum(done) ** 2 / (len(done) * sum(one * one for one in done)) >= 0.95
    assert fleet.messages / 30.0 <= 3 * 20 / 2.0 + 60 / 10.0
