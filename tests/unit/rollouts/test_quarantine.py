from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from tinker_ray.errors import ConfigurationError
from tinker_ray.rollouts import Dispatcher, Quarantine
from tinker_ray.rollouts.dispatcher import MAX_HELD_BACK
from tinker_ray.rollouts.event import DropGroup, GroupOffered, HaltRun
from tinker_ray.rollouts.failure import FailureKind
from tinker_ray.rollouts.quarantine import key_of


@dataclass
class Builder:
    problem: object


@dataclass
class Named(Builder):
    key: str = "sum-17"


def test_a_builder_that_failed_often_enough_in_a_row_is_held() -> None:
    quarantine = Quarantine(2)
    quarantine.note_failure("a", "environment")
    assert not quarantine.holds("a")
    quarantine.note_failure("a", "timeout")
    assert quarantine.holds("a")
    assert not quarantine.holds("b")


def test_a_success_in_between_is_no_row() -> None:
    quarantine = Quarantine(2)
    quarantine.note_failure("a", "environment")
    quarantine.note_success("a")
    quarantine.note_failure("a", "environment")
    assert not quarantine.holds("a")


@pytest.mark.parametrize("kind", ["infrastructure", "request"])
def test_what_is_not_the_builders_fault_does_not_count(kind: FailureKind) -> None:
    quarantine = Quarantine(1)
    quarantine.note_failure("a", kind)
    assert not quarantine.has_suspects


def test_only_so_many_builders_are_remembered() -> None:
    quarantine = Quarantine(1, max_keys=2)
    for key in "abc":
        quarantine.note_failure(key, "environment")
    assert [quarantine.holds(key) for key in "abc"] == [False, True, True]


def test_a_quarantine_after_no_failure_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="quarantine_after=0"):
        Quarantine(0)


def test_equal_builders_have_the_same_key_and_others_do_not() -> None:
    assert key_of(Builder([1, 2])) == key_of(Builder([1, 2]))
    assert key_of(Builder([1, 2])) != key_of(Builder([1, 3]))
    assert key_of(Named(threading.Lock())) == "key:sum-17"
    assert key_of(Builder(threading.Lock())) is None


def test_a_held_builder_is_dropped_at_once_and_nothing_but_such_builders_halts_the_run() -> None:
    quarantine = Quarantine(1)
    quarantine.note_failure("bad", "environment")
    dispatcher = Dispatcher(quarantine=quarantine)
    [command] = dispatcher.handle(GroupOffered(0, "bad"), 0.0)
    assert command == DropGroup(0, "quarantined", "its builder failed too often in a row")
    for group in range(1, MAX_HELD_BACK):
        commands = dispatcher.handle(GroupOffered(group, "bad"), 0.0)
    assert isinstance(commands[-1], HaltRun)
