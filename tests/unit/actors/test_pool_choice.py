"""Which sampler takes a sample."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.pool_choice import LEAN, LOCALITY, PoolChoice


def choice_of(*names: str, node: str = "", carries: int = 1000) -> PoolChoice:
    """Samplers that are ready, each on the node that its name begins with."""
    choice = PoolChoice(node, carries)
    for name in names:
        choice.join(name, name[0]).is_ready = True
    return choice


def picked(choice: PoolChoice, conversation: str = "") -> str:
    member = choice.pick(conversation)
    assert member is not None
    member.own += 1
    return member.name


def test_the_one_with_least_to_do_takes_it_whoever_gave_it_its_work() -> None:
    choice = choice_of("a1", "a2")
    choice.members["a1"].others = 3
    assert ["a2", "a2", "a2"] == [picked(choice) for _ in range(3)]
    assert ["a1", "a2"] == sorted(picked(choice) for _ in range(2))


def test_the_own_node_comes_first_until_it_has_much_more_to_do() -> None:
    choice = choice_of("a1", "b1", node="a")
    taken = Counter(picked(choice) for _ in range(LOCALITY + 20))
    assert {"a1": LOCALITY + 10, "b1": 10} == taken


def test_who_was_lost_last_comes_last() -> None:
    choice = choice_of("a1", "b1")
    choice.members["a1"].losses = 1
    assert ["b1"] * 5 == [picked(choice) for _ in range(5)]


def test_who_is_not_ready_or_ends_takes_nothing() -> None:
    choice = choice_of("a1", "b1")
    choice.members["a1"].is_ready = False
    choice.members["b1"].is_ending = True
    assert choice.pick() is None
    assert choice.pick("c") is None


def test_while_the_pool_may_grow_nobody_gets_more_than_is_carried_well() -> None:
    choice = choice_of("a1", carries=2)
    choice.may_grow = True
    assert ["a1", "a1"] == [picked(choice), picked(choice)]
    assert choice.pick() is None
    choice.may_grow = False
    assert "a1" == picked(choice)


def test_a_second_attempt_goes_to_another() -> None:
    choice = choice_of("a1", "b1")
    member = choice.pick(but=["a1"])
    assert member is not None
    assert "b1" == member.name
    assert choice.pick(but=["a1", "b1"]) is None


def test_a_conversation_keeps_its_sampler_when_others_join() -> None:
    choice = choice_of("a1", "a2")
    before = {f"c{n}": picked(choice, f"c{n}") for n in range(40)}
    for number in range(3, 9):
        choice.join(f"a{number}", "a").is_ready = True
    assert before == {name: picked(choice, name) for name in before}


def test_processes_that_know_the_same_samplers_choose_alike() -> None:
    one, other = choice_of("a1", "b1", "c1", node="a"), choice_of("c1", "b1", "a1", node="c")
    names = [f"conversation {n}" for n in range(60)]
    first = [picked(one, name) for name in names]
    assert first == [picked(other, name) for name in names]
    assert 3 == len(set(first))


def test_a_conversation_whose_sampler_is_gone_moves_and_the_others_stay() -> None:
    choice = choice_of("a1", "a2", "a3")
    before = {f"c{n}": picked(choice, f"c{n}") for n in range(30)}
    choice.leave("a2")
    after = {name: picked(choice, name) for name in before}
    assert "a2" not in after.values()
    kept = {name: at for name, at in before.items() if at != "a2"}
    assert kept == {name: after[name] for name in kept}


def test_a_conversation_leaves_a_sampler_with_much_more_to_do_for_good() -> None:
    choice = choice_of("a1", "a2")
    home = picked(choice, "c")
    choice.members[home].others = 500
    moved = picked(choice, "c")
    assert moved != home
    choice.members[home].others = 0
    assert moved == picked(choice, "c")


@settings(max_examples=30)
@given(st.lists(st.text("abcd", max_size=2), max_size=150), st.integers(1, 6))
def test_no_conversation_however_busy_overloads_its_sampler(names: list[str], num: int) -> None:
    choice = choice_of(*(f"a{number}" for number in range(num)))
    for name in names:
        picked(choice, name)
    loads = [member.load for member in choice.members.values()]
    assert max(loads) <= LEAN * sum(loads) / num + LOCALITY + 1
