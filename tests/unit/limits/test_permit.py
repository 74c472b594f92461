"""Ledger and leases: what is granted to whom, event by event and in a simulated cluster."""

from __future__ import annotations

import math

import pytest

from tests.fakes.permit_cluster import PermitCluster
from tinker_ray.limits import Claim, Lease, PermitLedger


def _ask(ledger: PermitLedger, lease: Lease, now: float, waiting: int) -> bool:
    claim = lease.poll(now, waiting)
    return claim is not None and lease.apply(ledger.claim(claim, now), now)


def _deliver(ledger: PermitLedger, now: float, *leases: Lease) -> list[str]:
    """Hand out the notices; return who got one."""
    grants = ledger.notices(now)
    by_name = {lease.holder: lease for lease in leases}
    for grant in grants:
        assert by_name[grant.holder].apply(grant, now)
    return [grant.holder for grant in grants]


def test_a_block_is_granted_at_once_and_spent_without_messages() -> None:
    ledger, lease = PermitLedger(400), Lease("a", block=8)

    assert not lease.acquire(0.0)
    assert _ask(ledger, lease, 0.0, waiting=1)
    for _ in range(100):
        assert all(lease.acquire(0.1) for _ in range(8))
        for _ in range(8):
            lease.release()
        assert lease.poll(0.1, 0) is None
    assert ledger.leased == 8


def test_a_permit_is_not_released_twice() -> None:
    with pytest.raises(ValueError, match="nobody"):
        Lease("a").release()


def test_nobody_gets_more_than_there_is() -> None:
    ledger, first, second = PermitLedger(10), Lease("a"), Lease("b")

    _ask(ledger, first, 0.0, waiting=100)
    _ask(ledger, second, 0.0, waiting=100)

    assert (first.held(0.0), second.held(0.0)) == (10, 0)
    assert ledger.leased == 10


def test_a_holder_with_too_much_is_asked_back_and_the_waiting_one_is_told() -> None:
    ledger, first, second = PermitLedger(10), Lease("a"), Lease("b")
    _ask(ledger, first, 0.0, waiting=100)
    while first.acquire(0.0):
        pass
    _ask(ledger, second, 0.0, waiting=100)

    assert _deliver(ledger, 0.0, first, second) == ["a"]
    assert first.poll(0.0, 90) is None
    for _ in range(3):
        first.release()
    assert not first.acquire(0.1)
    assert _ask(ledger, first, 0.1, waiting=93)
    assert _deliver(ledger, 0.1, first, second) == ["b"]
    assert (first.held(0.1), second.held(0.1)) == (7, 3)
    assert _deliver(ledger, 0.1, first, second) == []


def test_idle_permits_go_back_by_themselves() -> None:
    ledger, lease = PermitLedger(400), Lease("a", idle_s=1.0)
    _ask(ledger, lease, 0.0, waiting=200)

    assert lease.poll(0.5, 0) is None
    assert lease.wake_at() == 1.0
    assert _ask(ledger, lease, 1.0, waiting=0)

    assert ledger.leased == 0
    assert lease.wake_at() == math.inf


def test_a_lease_stops_by_itself_before_the_ledger_takes_it_back() -> None:
    ledger, lease = PermitLedger(400, ttl_s=10.0), Lease("a", drift=0.1)
    _ask(ledger, lease, 0.0, waiting=8)
    assert lease.acquire(8.9)

    assert not lease.acquire(9.0)
    assert (lease.held(9.0), lease.overdue(9.0)) == (0, 1)
    ledger.notices(9.9)
    assert ledger.leased == 8
    assert ledger.wake_at == 10.0
    ledger.notices(10.0)
    assert ledger.leased == 0


def test_the_time_of_a_lease_counts_from_the_sending_of_the_claim() -> None:
    ledger, lease = PermitLedger(400, ttl_s=10.0), Lease("a", drift=0.0)
    claim = lease.poll(0.0, 8)
    assert claim is not None

    assert lease.apply(ledger.claim(claim, 1_000.0), 4.0)

    assert lease.held(9.9) == 8
    assert lease.held(10.0) == 0


def test_a_lease_is_renewed_each_half_of_its_time() -> None:
    ledger, lease = PermitLedger(400, ttl_s=9.0), Lease("a")
    _ask(ledger, lease, 0.0, waiting=8)
    claims = 0
    for step in range(900):
        claims += _ask(ledger, lease, step / 10, waiting=0)
        assert lease.acquire(step / 10)
        lease.release()

    assert claims == 19
    assert ledger.leased == 8


def test_an_unanswered_claim_is_repeated_and_the_late_answer_is_void() -> None:
    ledger, lease = PermitLedger(400), Lease("a", retry_s=1.0)
    first = lease.poll(0.0, 8)
    assert first is not None
    assert lease.poll(0.5, 8) is None
    second = lease.poll(1.0, 8)
    assert second is not None

    assert not lease.apply(ledger.claim(first, 1.0), 1.0)
    assert lease.apply(ledger.claim(second, 1.0), 1.0)
    assert not lease.apply(ledger.claim(first, 1.1), 1.1) or lease.held(1.1) == 8
    assert ledger.leased == 8


def test_a_doubled_or_overtaken_notice_changes_nothing() -> None:
    ledger, lease = PermitLedger(20), Lease("b")
    _ask(ledger, Lease("a"), 0.0, waiting=20)
    _ask(ledger, lease, 0.0, waiting=20)
    notices = []
    for serial, kept in ((2, 9), (3, 5)):
        ledger.claim(Claim("a", serial, 1, held=kept, in_use=kept, want=kept), 0.1)
        notices += ledger.notices(0.1)
    earlier, later = notices

    assert lease.apply(later, 0.2)
    assert not lease.apply(earlier, 0.2)
    assert not lease.apply(later, 0.2)
    assert (earlier.count, later.count) == (11, 15)
    assert lease.held(0.2) == 15


def test_an_answer_that_comes_after_the_lease_ran_out_is_void() -> None:
    first_ledger, late, other = PermitLedger(20, ttl_s=10.0), Lease("a"), Lease("b")
    _ask(first_ledger, late, 0.0, waiting=20)
    claim = late.poll(8.5, 20)
    assert claim is not None
    _ask(first_ledger, other, 10.0, waiting=20)
    second_ledger = PermitLedger(20, ttl_s=10.0, restarted_at=10.1)
    answer = second_ledger.claim(claim, 10.2)

    assert answer.count == 20
    assert not late.apply(answer, 10.3)
    assert (late.held(10.3), other.held(10.3)) == (0, 20)


def test_a_stale_epoch_keeps_nothing() -> None:
    ledger = PermitLedger(400, ttl_s=10.0)
    grant = ledger.claim(Claim("a", 1, 0, held=0, in_use=0, want=50), 0.0)
    assert grant.count == 50

    late = ledger.claim(Claim("a", 2, grant.epoch, held=50, in_use=50, want=0), 11.0)

    assert late.epoch != grant.epoch
    assert (late.count, ledger.leased) == (0, 0)


def test_a_forgotten_holder_keeps_its_permits_for_its_lease_and_gets_no_more() -> None:
    ledger, zombie, other = PermitLedger(10, ttl_s=9.0), Lease("a"), Lease("b")
    _ask(ledger, zombie, 0.0, waiting=10)
    assert zombie.acquire(0.0)
    ledger.forget("a")
    _ask(ledger, other, 1.0, waiting=10)

    assert other.held(1.0) == 0
    assert _ask(ledger, zombie, 4.5, waiting=10)
    assert zombie.fenced
    assert not zombie.acquire(4.5)
    assert zombie.poll(60.0, 10) is None
    assert _deliver(ledger, 9.0, other) == ["b"]
    assert other.held(9.0) == 10


def test_a_restarted_ledger_grants_nothing_for_one_ttl_and_then_to_those_who_waited() -> None:
    ledger, newcomer = PermitLedger(400, ttl_s=10.0, restarted_at=100.0), Lease("n")
    _ask(ledger, newcomer, 100.0, waiting=8)

    assert newcomer.held(100.0) == 0
    assert ledger.wake_at == 110.0
    assert _deliver(ledger, 109.9, newcomer) == []
    assert _deliver(ledger, 110.0, newcomer) == ["n"]
    assert (newcomer.held(110.0), newcomer.invited) == (0, 8)
    assert _ask(ledger, newcomer, 110.0, waiting=8)
    assert newcomer.held(110.0) == 8


def test_a_restarted_ledger_takes_over_leases_as_they_stand() -> None:
    before, lease = PermitLedger(400, ttl_s=9.0), Lease("a")
    _ask(before, lease, 0.0, waiting=40)
    ledger = PermitLedger(400, ttl_s=9.0, restarted_at=2.0)

    assert _ask(ledger, lease, 3.0, waiting=80)
    assert lease.held(3.0) == 40
    assert ledger.leased == 40
    assert _deliver(ledger, 11.0, lease) == ["a"]
    assert lease.held(11.0) == 80


def test_a_restarted_ledger_takes_over_no_more_than_the_limit() -> None:
    ledger = PermitLedger(50, ttl_s=9.0, restarted_at=0.0)

    first = ledger.claim(Claim("a", 5, 1, held=40, in_use=40, want=40), 1.0)
    second = ledger.claim(Claim("b", 5, 2, held=40, in_use=40, want=40), 1.0)

    assert (first.count, second.count) == (40, 0)


def test_a_smaller_limit_is_asked_back() -> None:
    ledger, first, second = PermitLedger(400), Lease("a"), Lease("b")
    _ask(ledger, first, 0.0, waiting=200)
    _ask(ledger, second, 0.0, waiting=200)

    ledger.resize(10)
    assert _deliver(ledger, 0.1, first, second) == ["a", "b"]
    assert (first.capacity(0.1), second.capacity(0.1)) == (5, 5)
    _ask(ledger, first, 0.1, waiting=200)
    _ask(ledger, second, 0.1, waiting=200)

    assert ledger.leased == 10


def test_a_closed_lease_gives_everything_back() -> None:
    ledger, lease = PermitLedger(400), Lease("a", idle_s=1.0)
    _ask(ledger, lease, 0.0, waiting=16)
    assert lease.acquire(0.0)

    lease.close()
    assert not lease.acquire(0.0)
    assert _ask(ledger, lease, 0.0, waiting=5)
    assert ledger.leased == 1
    lease.release()
    assert _ask(ledger, lease, 0.1, waiting=5)
    assert ledger.leased == 0
    assert lease.wake_at() == math.inf


def test_states_are_shown() -> None:
    ledger, lease = PermitLedger(400, restarted_at=5.0), Lease("a")
    _ask(ledger, lease, 6.0, waiting=3)

    assert "0 of 400 leased, quiet until 15.0; a: 0 (uses 0, wants 8" in repr(ledger)
    assert "a: uses 0 of 0" in repr(lease)
    assert ledger.holders == {"a": 0}
    assert ledger.in_use == 0


@pytest.mark.parametrize("num_holders", [1, 2, 7, 40])
def test_saturated_permits_are_in_use_and_fairly_divided(num_holders: int) -> None:
    cluster = PermitCluster(num_holders, limit=100)
    cluster.add_work(100_000 // num_holders)
    cluster.run(5.0)
    before = [holder.used_s for holder in cluster.holders]
    samples, messages = cluster.done, cluster.messages
    cluster.run(10.0)

    used = [holder.used_s - old for holder, old in zip(cluster.holders, before, strict=True)]
    assert cluster.most_in_use <= 100
    assert sum(used) >= 0.97 * 100 * 10
    assert max(used) - min(used) <= 0.15 * max(used) + 12
    assert (cluster.messages - messages) / (cluster.done - samples) <= 0.1


def test_more_holders_than_permits_take_turns() -> None:
    cluster = PermitCluster(30, limit=10, dispatch_s=0.2)
    cluster.add_work(1_000)
    cluster.run(1.0)
    before = [holder.done for holder in cluster.holders]
    cluster.run(30.0)

    done = [holder.done - old for holder, old in zip(cluster.holders, before, strict=True)]
    assert cluster.most_in_use <= 10
    assert max(done) - min(done) <= 2 / 0.2  # a turn
    assert sum(done) >= 0.9 * 10 * 30 / 0.2


def test_a_late_holder_gets_its_share_within_a_dispatch() -> None:
    cluster = PermitCluster(2, limit=100)
    cluster.add_work(50_000, 0)
    cluster.run(5.0)
    cluster.add_work(50_000, 1)
    cluster.run(1.0)

    assert [holder.lease.in_use for holder in cluster.holders] == [50, 50]
    assert cluster.most_in_use <= 100


def test_permits_of_a_killed_holder_are_back_within_one_ttl() -> None:
    cluster = PermitCluster(4, limit=100, ttl_s=10.0)
    cluster.add_work(50_000)
    cluster.run(5.0)
    cluster.kill(0)
    cluster.run(10.1)

    assert cluster.in_use >= 99
    assert cluster.most_in_use <= 100


def test_work_goes_on_through_a_restart_of_the_ledger() -> None:
    cluster = PermitCluster(4, limit=100, ttl_s=10.0)
    cluster.add_work(50_000)
    cluster.run(5.0)
    cluster.stop_ledger()
    cluster.run(2.0)
    cluster.restart_ledger()
    before = sum(holder.used_s for holder in cluster.holders)
    cluster.run(10.0)

    assert sum(holder.used_s for holder in cluster.holders) - before >= 0.95 * 100 * 10
    assert cluster.most_in_use <= 100


def test_a_holder_behind_a_cut_link_stops_and_comes_back() -> None:
    cluster = PermitCluster(2, limit=100, ttl_s=10.0)
    cluster.add_work(50_000)
    cluster.run(5.0)
    cluster.holders[0].connected = False
    cluster.run(12.0)

    assert cluster.holders[0].lease.in_use == 0
    assert cluster.holders[1].lease.in_use == 100
    cluster.holders[0].connected = True
    cluster.run(6.0)
    assert [holder.lease.in_use for holder in cluster.holders] == [50, 50]
    assert cluster.most_in_use <= 100


def test_a_cluster_with_nothing_to_do_is_silent() -> None:
    cluster = PermitCluster(5, limit=100)
    cluster.add_work(50)
    cluster.run(30.0)
    messages = cluster.messages
    cluster.run(1_000.0)

    assert cluster.done == 250
    assert cluster.messages == messages
    assert cluster.ledger is not None
    assert cluster.ledger.leased == 0
