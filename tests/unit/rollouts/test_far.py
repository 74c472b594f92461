from __future__ import annotations

import math
import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.far import FakeStore, episode, group_of
from tests.unit.rollouts.test_packing import trajectories
from tinker_ray.rl.measure import measure
from tinker_ray.rollouts import (
    RolloutFailedError,
    Selection,
    TokensWithLogprobs,
    Trajectory,
    TrajectoryGroup,
    Transition,
    center,
)
from tinker_ray.rollouts.datum import from_groups, from_trajectory
from tinker_ray.rollouts.far import FAR_BYTES, divided
from tinker_ray.rollouts.far_datum import FarDatum, assembled, far_data, split_far
from tinker_ray.rollouts.packed_datum import data_of, datum_lengths
from tinker_ray.rollouts.packing import PackedGroup, pack
from tinker_ray.rollouts.summary import GroupSummary
from tinker_ray.types import Datum, EncodedTextChunk, ImageChunk, ModelInput
from tinker_ray.wire.chunking import ChunkLimits, split

if TYPE_CHECKING:
    from collections.abc import Sequence

LESSON = group_of(episode(0.0, 1.0, 0.5), episode(0.0), episode(1.0, 0.0), bonus=0.25)


def plain(data: Sequence[Datum]) -> list[tuple[list[int], dict[str, tuple[str, list[float]]]]]:
    """The data as values that can be compared."""
    return [
        (
            datum.model_input.to_ints(),
            {
                name: (tensor.dtype, tensor.to_numpy().tolist())
                for name, tensor in datum.loss_fn_inputs.items()
            },
        )
        for datum in data
    ]


def data_or_error(make: object, *arguments: object) -> object:
    try:
        with np.errstate(over="ignore"):  # logprobs that no float32 holds
            return plain(make(*arguments))  # type: ignore[operator] # one of two functions
    except ValueError:
        return "cannot be trained on"


@given(st.lists(trajectories(), min_size=1, max_size=3), st.sampled_from([1.0, -0.3]))
@settings(max_examples=150, deadline=None)
def test_data_from_packed_arrays_are_those_from_trajectories(
    found: list[Trajectory], advantage: float
) -> None:
    group = TrajectoryGroup(found, [0.0] * len(found), [{}] * len(found))
    packed = pack(group, worth_tokens=0)
    if not isinstance(packed, PackedGroup):
        return
    for number, trajectory in enumerate(found):
        is_plain = all(len(turn.ob.chunks) == 1 for turn in trajectory.transitions)
        expected = data_or_error(from_trajectory, trajectory, advantage)
        actual = data_or_error(data_of, packed, number, advantage)
        if is_plain or expected == "cannot be trained on":
            assert repr(expected) == repr(actual)  # in which NaN is like NaN
        else:
            assert actual in (expected, "cannot be trained on")
        if actual != "cannot be trained on":
            lengths = [len(tokens) for tokens, _ in expected]  # type: ignore[attr-defined] # a list
            assert lengths == datum_lengths(packed, number)


def test_a_far_group_answers_for_its_numbers_without_being_fetched() -> None:
    store = FakeStore()
    far = store.far(LESSON)
    near, distant = Selection(), Selection()
    near.deliver(LESSON, 2.0)
    distant.deliver(far, 2.0)
    assert near.take() == distant.take()
    assert LESSON.get_total_rewards() == far.get_total_rewards()
    assert (LESSON.episodes(), LESSON.sizes()) == (far.episodes(), far.sizes())
    assert center([LESSON]) == center([far])
    assert measure([LESSON, LESSON]) == measure([far, LESSON])
    assert (far.is_far, LESSON.is_far, []) == (True, False, store.fetched)
    assert "bonus" not in repr(far)


def test_trajectories_are_fetched_once_when_they_are_asked_for() -> None:
    store = FakeStore()
    far = store.far(LESSON)
    assert far.trajectories_G[1] == LESSON.trajectories_G[1]
    assert far == LESSON
    assert ([0], False) == (store.fetched, far.is_far)


def test_what_its_consumer_changes_in_a_far_group_counts() -> None:
    far = FakeStore().far(LESSON)
    far.final_rewards_G = [0.0, 5.0, 0.0]
    assert [1.5, 5.0, 1.0] == far.get_total_rewards()
    far.trajectories_G = far.trajectories_G[:1]
    far.final_rewards_G = [1.0]
    assert ([2.5], 1) == (far.get_total_rewards(), len(far.sizes()))


def test_a_far_group_travels_by_pickle_without_its_trajectories() -> None:
    store = FakeStore()
    kept = store.far(LESSON)
    store.handed_out.clear()  # what is weak does not travel
    far = pickle.loads(pickle.dumps(kept))  # noqa: S301 - our own bytes
    assert far.is_far
    assert LESSON.get_total_rewards() == far.get_total_rewards()
    assert far.trajectories_G == LESSON.trajectories_G


def test_a_far_group_has_no_attributes_but_those_of_a_group() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trajectories'"):
        getattr(FakeStore().far(LESSON), "trajectories")  # noqa: B009 - mypy knows that it fails


def test_trajectories_that_are_lost_are_an_error_of_the_infrastructure() -> None:
    store = FakeStore()
    far = store.far(LESSON)
    store.kept.clear()
    with pytest.raises(RolloutFailedError, match="it is lost"):
        far.trajectories_G  # noqa: B018 - reading it fetches


def test_data_of_far_and_near_groups_are_those_that_all_would_give_by_value() -> None:
    store = FakeStore()
    other = group_of(episode(2.0, prompt=[5]), episode(0.0, prompt=[5]))
    constant = group_of(episode(1.0), episode(1.0))
    near = [LESSON, other, constant, LESSON]
    far = [store.far(LESSON), other, store.far(constant), store.far(LESSON)]
    items = far_data(far, center(far))
    assert {0, 3} == {item.group for item in items if isinstance(item, FarDatum)}
    assert [] == store.fetched
    expected = from_groups(near, center(near))
    fetched = {0: store.kept[0], 3: store.kept[2]}
    assert plain(expected) == plain(assembled(items, fetched))
    of_one = from_groups([other, LESSON], center([other, LESSON]))
    assert plain(of_one) == plain(assembled(items, {3: store.kept[2]}))


@pytest.mark.parametrize(
    "limits",
    [
        ChunkLimits(),
        ChunkLimits(max_datums=2),
        ChunkLimits(max_bytes=150),
        ChunkLimits(max_numbers=30),
    ],
)
def test_far_data_are_cut_where_the_same_data_would_be(limits: ChunkLimits) -> None:
    store = FakeStore()
    groups = [LESSON, group_of(episode(0.0, 3.0), episode(1.0)), LESSON]
    expected = split(from_groups(groups, center(groups)), limits)
    far = [store.far(groups[0]), groups[1], store.far(groups[2])]
    parts = split_far(far_data(far, center(far)), limits)
    assert [len(part) for part in expected] == [len(part) for part in parts]


def conversation(num_tokens: int, *, ob: ModelInput | None = None) -> TrajectoryGroup:
    drawn = TokensWithLogprobs(list(range(num_tokens)), [-0.5] * num_tokens)
    observation = ob or ModelInput.from_ints([1, 2])
    turn = Transition(observation, drawn, 1.0, True)  # noqa: FBT003 - upstream's order
    return group_of(Trajectory([turn], ModelInput.from_ints([])))


def test_only_large_groups_are_divided() -> None:
    large, small = conversation(FAR_BYTES // 8), conversation(FAR_BYTES // 8 - 10)
    summary, packed = divided(large)
    assert isinstance(summary, GroupSummary)
    assert isinstance(packed, PackedGroup)
    assert ([[FAR_BYTES // 8 + 1]], FAR_BYTES + 8) == (summary.datum_lengths, summary.num_bytes)
    assert len(pickle.dumps(summary)) < 1000
    by_value, nothing = divided(small)
    assert (True, None) == (isinstance(by_value, PackedGroup), nothing)
    assert divided(large, far_bytes=None)[1] is None
    tiny = conversation(3)
    assert (tiny, None) == divided(tiny)
    assert isinstance(divided(tiny, far_bytes=16)[0], GroupSummary)


def test_what_cannot_be_trained_on_is_not_divided() -> None:
    with_image = ModelInput([EncodedTextChunk([1]), ImageChunk(b"x", "png", 3)])
    assert divided(conversation(50_000, ob=with_image))[1] is None
    unknown = conversation(50_000)
    unknown.trajectories_G[0].transitions[0].ac.maybe_logprobs = None
    assert divided(unknown)[1] is None


def test_an_episode_is_summed_up_by_the_highest_value_of_each_metric() -> None:
    [summary, *_] = LESSON.episodes()
    assert (3, 9, 1.5, 9) == (summary.turns, summary.tokens, summary.reward, summary.num_logprobs)
    assert math.isclose(-4.5, summary.logprob)
    assert {"correct": True} == summary.metrics
